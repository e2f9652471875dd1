//! The rings against a host on another CPU, in every order that the memory model allows.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test --release -p undercroft-storvsc --lib loom`. The guest's side is the true rings; the host's is
//! played by the rules: look, act, publish, fence, look again.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;

use super::*;
use crate::defect::{Defect, Defects};

/// Two packets of 16 bytes and their trailers fit, three do not.
const SIZE: u32 = 64;
const WHOLE: u32 = 24;

struct Shared {
    words: [AtomicU64; SIZE as usize / 8],
    input: AtomicU32,
    output: AtomicU32,
    mask: AtomicU32,
    pending: AtomicU32,
    /// What the memory leaves out, for the controls.
    relaxed: bool,
}

#[derive(Clone)]
struct Memory(Arc<Shared>);

impl Memory {
    fn new(relaxed: bool) -> Self {
        let number = || AtomicU32::new(0);
        let words = [const { () }; SIZE as usize / 8].map(|()| AtomicU64::new(0));
        let (input, output, mask, pending) = (number(), number(), number(), number());
        Self(Arc::new(Shared { words, input, output, mask, pending, relaxed }))
    }

    fn release(&self) -> Ordering {
        if self.0.relaxed { Ordering::Relaxed } else { Ordering::Release }
    }
}

impl SenderMemory for Memory {
    fn set_word(&self, at: u32, word: u64) {
        self.0.words[at as usize / 8].store(word, Ordering::Relaxed);
    }
    fn publish(&self, at: u32) {
        self.0.input.store(at, self.release());
    }
    fn out(&self) -> u32 {
        self.0.output.load(Ordering::Acquire)
    }
    fn mask(&self) -> u32 {
        self.0.mask.load(Ordering::Relaxed)
    }
    fn set_pending(&self, bytes: u32) {
        self.0.pending.store(bytes, Ordering::Relaxed);
    }
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

impl ReceiverMemory for Memory {
    fn word(&self, at: u32) -> u64 {
        self.0.words[at as usize / 8].load(Ordering::Relaxed)
    }
    fn written(&self) -> u32 {
        self.0.input.load(Ordering::Acquire)
    }
    fn set_out(&self, at: u32) {
        self.0.output.store(at, self.release());
    }
    fn set_mask(&self, mask: u32) {
        self.0.mask.store(mask, Ordering::Relaxed);
    }
    fn pending(&self) -> u32 {
        self.0.pending.load(Ordering::Relaxed)
    }
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

fn packet(sender: &mut Sender<Memory>, transaction: u64) -> Result<(), NoRoom> {
    sender.write(16, |words| {
        words.put(2 << 32 | 2 << 16 | 6);
        words.put(transaction);
    })
}

/// The host takes what there is from `from` on, and rests: signals on, fence, one more look. Returns where it is.
fn host_takes(memory: &Memory, from: u32, transaction: &mut u64) -> u32 {
    let mut at = from;
    loop {
        let written = memory.written();
        if written == at {
            return at;
        }
        while at != written {
            let there = memory.word(moved(at, 8, SIZE));
            *transaction += 1;
            assert_eq!(there, *transaction, "a packet was published before it was written");
            at = moved(at, WHOLE, SIZE);
        }
        memory.set_out(at);
        fence(Ordering::SeqCst);
    }
}

/// A-SVSC-09: the host takes a packet and goes to rest while another is sent: it sees that one, or is signalled.
fn the_host_is_woken(defects: Defects, relaxed: bool) {
    loom::model(move || {
        let memory = Memory::new(relaxed);
        let mut sender = Sender::new(memory.clone(), SIZE).with_defects(defects);
        packet(&mut sender, 1).unwrap();
        let _ = sender.publish();
        memory.set_mask(1);
        let host = {
            let memory = memory.clone();
            thread::spawn(move || {
                let mut transaction = 0;
                let at = host_takes(&memory, 0, &mut transaction);
                memory.set_mask(0);
                fence(Ordering::SeqCst);
                host_takes(&memory, at, &mut transaction)
            })
        };
        packet(&mut sender, 2).unwrap();
        let signalled = sender.publish();
        let at = host.join().unwrap();
        assert!(at == 2 * WHOLE || signalled, "a packet that nobody looks for");
    });
}

#[test]
fn a_svsc_09_loom_the_host_is_woken() {
    the_host_is_woken(Defects::none(), false);
}

#[test]
#[should_panic(expected = "nobody looks for")]
fn a_svsc_09_loom_the_host_is_woken_control_fence() {
    the_host_is_woken(Defects::one(Defect::PublishUnfenced), false);
}

#[test]
#[should_panic(expected = "before it was written")]
fn a_svsc_09_loom_the_host_is_woken_control_release() {
    the_host_is_woken(Defects::none(), true);
}

/// The guest rests while the host sends: it sees the packet, or asked for the signal before the host looked.
fn the_guest_is_woken(defects: Defects) {
    loom::model(move || {
        let memory = Memory::new(false);
        memory.set_mask(1);
        let mut receiver = Receiver::new(memory.clone(), SIZE).with_defects(defects);
        let host = {
            let memory = memory.clone();
            thread::spawn(move || {
                memory.set_word(0, 2 << 32 | 2 << 16 | 6);
                memory.set_word(8, 1);
                memory.publish(WHOLE);
                fence(Ordering::SeqCst);
                // The ring was empty: a signal, unless the guest masks.
                memory.mask() == 0
            })
        };
        let rests = receiver.rest().unwrap();
        let signalled = host.join().unwrap();
        assert!(!rests || signalled, "a packet that nobody looks for");
        if !rests {
            assert_eq!(receiver.peek().unwrap().expect("the packet that was seen").transaction, 1);
        }
    });
}

#[test]
fn loom_the_guest_is_woken() {
    the_guest_is_woken(Defects::none());
}

#[test]
#[should_panic(expected = "nobody looks for")]
fn loom_the_guest_is_woken_control_fence() {
    the_guest_is_woken(Defects::one(Defect::RestUnfenced));
}

#[test]
#[should_panic(expected = "nobody looks for")]
fn loom_the_guest_is_woken_control_look() {
    the_guest_is_woken(Defects::one(Defect::RestsBlindly));
}

/// X06: a full ring: the guest finds the room that the host makes, or the host sees that it is waited for and signals.
fn room_comes(defects: Defects) {
    loom::model(move || {
        let memory = Memory::new(false);
        let mut sender = Sender::new(memory.clone(), SIZE).with_defects(defects);
        packet(&mut sender, 1).unwrap();
        packet(&mut sender, 2).unwrap();
        let _ = sender.publish();
        let host = {
            let memory = memory.clone();
            thread::spawn(move || {
                // It takes both, and then looks whether somebody waits for room.
                memory.set_out(2 * WHOLE);
                fence(Ordering::SeqCst);
                let (free_before, free_after) = (SIZE - 8 - 2 * WHOLE, SIZE - 8);
                let wanted = memory.pending() & !7;
                wanted != 0 && free_before < wanted && free_after >= wanted
            })
        };
        let sent = packet(&mut sender, 3);
        let signalled = host.join().unwrap();
        match sent {
            Ok(()) => {}
            Err(NoRoom::Full) => {
                assert!(signalled, "a sender that nobody wakes");
                assert_eq!(sender.has_room(), Ok(true), "signalled, and there is room");
            }
            Err(other) => panic!("{other:?}"),
        }
    });
}

#[test]
fn x06_a_svsc_08_loom_room_comes() {
    room_comes(Defects::none());
}

#[test]
#[should_panic(expected = "nobody wakes")]
fn x06_a_svsc_08_loom_room_comes_control_fence() {
    room_comes(Defects::one(Defect::PendingUnfenced));
}

#[test]
#[should_panic(expected = "nobody wakes")]
fn x06_a_svsc_08_loom_room_comes_control_look() {
    room_comes(Defects::one(Defect::PendingUnseen));
}

/// The other way round: the host waits for room while the guest reads.
fn the_host_gets_room(defects: Defects) {
    loom::model(move || {
        let memory = Memory::new(false);
        for at in [0, WHOLE] {
            memory.set_word(at, 2 << 32 | 2 << 16 | 6);
        }
        memory.publish(2 * WHOLE);
        let mut receiver = Receiver::new(memory.clone(), SIZE).with_defects(defects);
        let host = {
            let memory = memory.clone();
            thread::spawn(move || {
                memory.set_pending(WHOLE);
                fence(Ordering::SeqCst);
                // Room for one more, if both were read, or one.
                memory.out() != 0
            })
        };
        for _ in 0..2 {
            let packet = receiver.peek().unwrap().expect("a packet");
            receiver.advance(&packet);
        }
        let signals = receiver.settle().unwrap();
        let found = host.join().unwrap();
        assert!(found || signals, "a host that nobody wakes");
    });
}

#[test]
fn loom_the_host_gets_room() {
    the_host_gets_room(Defects::none());
}

#[test]
#[should_panic(expected = "nobody wakes")]
fn loom_the_host_gets_room_control() {
    the_host_gets_room(Defects::one(Defect::SettleUnfenced));
}
