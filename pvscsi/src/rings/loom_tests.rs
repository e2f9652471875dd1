//! The rings against a device on another CPU, in every order that the memory model allows.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test --release -p undercroft-pvscsi --lib loom`. The driver's side is the true rings.

use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;
use zerocopy::FromZeros;

use super::*;

const SIZE: u32 = 2;

/// What the shared memory leaves out, for the controls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Nothing,
    /// The release of the requests' index.
    Release,
    /// The acquire of the completions' index.
    Acquire,
    /// The driver's full fence before it looks whether a kick is wanted.
    Fence,
}

struct Shared {
    leaves: Leaves,
    requests: [AtomicU32; SIZE as usize],
    produced: AtomicU32,
    consumed: AtomicU32,
    /// The device wants a kick: it rests.
    threshold: AtomicU32,
    completions: [AtomicU32; SIZE as usize],
    completed: AtomicU32,
    taken: AtomicU32,
}

#[derive(Clone)]
struct Memory(Arc<Shared>);

impl RingMemory for Memory {
    fn set_request(&self, entry: u32, request: Request) {
        self.0.requests[entry as usize].store(request.context.get() as u32, Ordering::Relaxed);
    }
    fn publish_requests(&self, index: u32) {
        let order = if self.0.leaves == Leaves::Release { Ordering::Relaxed } else { Ordering::Release };
        self.0.produced.store(index, order);
    }
    fn progress(&self) -> (u32, u32) {
        (self.0.consumed.load(Ordering::Relaxed), self.0.threshold.load(Ordering::Relaxed))
    }
    fn completions(&self) -> u32 {
        let order = if self.0.leaves == Leaves::Acquire { Ordering::Relaxed } else { Ordering::Acquire };
        self.0.completed.load(order)
    }
    fn completion(&self, entry: u32) -> Completion {
        let mut completion = Completion::new_zeroed();
        completion.context.set(self.0.completions[entry as usize].load(Ordering::Relaxed).into());
        completion
    }
    fn take_completions(&self, index: u32) {
        self.0.taken.store(index, Ordering::Release);
    }
    fn messages(&self) -> u32 {
        0
    }
    fn message(&self, _: u32) -> Message {
        Message::new_zeroed()
    }
    fn take_messages(&self, _: u32) {}
    fn full_fence(&self) {
        if self.0.leaves != Leaves::Fence {
            fence(Ordering::SeqCst);
        }
    }
}

impl Memory {
    fn new(leaves: Leaves, threshold: u32) -> Self {
        let cells = || [const { () }; SIZE as usize].map(|()| AtomicU32::new(0));
        Self(Arc::new(Shared {
            leaves,
            requests: cells(),
            produced: AtomicU32::new(0),
            consumed: AtomicU32::new(0),
            threshold: AtomicU32::new(threshold),
            completions: cells(),
            completed: AtomicU32::new(0),
            taken: AtomicU32::new(0),
        }))
    }

    /// The device takes and completes what there is.
    fn serve(&self) -> u32 {
        let shared = &self.0;
        let produced = shared.produced.load(Ordering::Acquire);
        let mut consumed = shared.consumed.load(Ordering::Relaxed);
        let first = consumed;
        while consumed != produced {
            let context = shared.requests[(consumed % SIZE) as usize].load(Ordering::Relaxed);
            assert_ne!(context, 0, "a request was published before it was written");
            consumed += 1;
            shared.consumed.store(consumed, Ordering::Relaxed);
            let completed = shared.completed.load(Ordering::Relaxed);
            assert!(completed - shared.taken.load(Ordering::Acquire) < SIZE, "no room for a completion");
            shared.completions[(completed % SIZE) as usize].store(context, Ordering::Relaxed);
            shared.completed.store(completed + 1, Ordering::Release);
        }
        consumed - first
    }
}

fn request(context: u32) -> Request {
    let mut request = Request::new_zeroed();
    request.context.set(context.into());
    request
}

/// Two submitters, the ring's lock around them, the device on another CPU: what comes back is what went out, each once.
fn two_submitters(leaves: Leaves) {
    loom::model(move || {
        let memory = Memory::new(leaves, 0);
        let rings = Arc::new(Mutex::new(Rings::new(memory.clone(), [SIZE; 3])));
        let device = {
            let memory = memory.clone();
            thread::spawn(move || memory.serve())
        };
        let submitter = {
            let rings = rings.clone();
            thread::spawn(move || {
                let mut rings = rings.lock().unwrap();
                rings.write(request(1), true);
                let _ = rings.publish();
            })
        };
        {
            let mut rings = rings.lock().unwrap();
            rings.write(request(2), true);
            let _ = rings.publish();
        }
        let mut seen = Vec::new();
        let early = rings.lock().unwrap().completion(SIZE).unwrap();
        seen.extend(early.map(|completion| completion.context.get()));
        submitter.join().unwrap();
        device.join().unwrap();
        // The kick.
        memory.serve();
        while let Some(completion) = rings.lock().unwrap().completion(SIZE - seen.len() as u32).unwrap() {
            seen.push(completion.context.get());
        }
        assert!(!seen.contains(&0), "a completion was read before it was written");
        seen.sort_unstable();
        assert_eq!(seen, [1, 2], "each once");
    });
}

/// A device that polls goes to rest by asking for kicks, and looks once more: either it sees the request, or the driver kicks.
fn nobody_sleeps(leaves: Leaves) {
    loom::model(move || {
        let memory = Memory::new(leaves, SIZE);
        let mut rings = Rings::new(memory.clone(), [SIZE; 3]);
        rings.set_threshold(true);
        let device = {
            let memory = memory.clone();
            thread::spawn(move || {
                memory.0.threshold.store(0, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                memory.serve()
            })
        };
        rings.write(request(1), true);
        let kick = rings.publish();
        let served = device.join().unwrap();
        assert!(kick == Kick::ReadWrite || served == 1, "a request that nobody looks for");
    });
}

#[test]
fn a_pvs_03_x08_loom_two_submitters() {
    two_submitters(Leaves::Nothing);
}

#[test]
#[should_panic(expected = "before it was written")]
fn a_pvs_03_x08_loom_two_submitters_control_release() {
    two_submitters(Leaves::Release);
}

#[test]
#[should_panic(expected = "before it was written")]
fn a_pvs_03_x08_loom_two_submitters_control_acquire() {
    two_submitters(Leaves::Acquire);
}

#[test]
fn loom_nobody_sleeps_below_the_threshold() {
    nobody_sleeps(Leaves::Nothing);
}

#[test]
#[should_panic(expected = "nobody looks for")]
fn loom_nobody_sleeps_below_the_threshold_control() {
    nobody_sleeps(Leaves::Fence);
}
