//! A device with several queues, used by several CPUs: each has a shard, and they share the device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use undercroft_hal::work::{BottomHalfWork, TaskWork, Turn};

use super::model::*;
use super::{Hazard, with};
use crate::queue::Config;
use crate::scsi::Managed;
use crate::*;

const MS: Duration = Duration::from_millis(1);

/// Has the second CPU do something, after what it has to do already.
fn there(rig: &Rig<'_>, f: impl Fn() + Send + Sync + 'static) {
    let done = Arc::new(AtomicBool::new(false));
    let says = done.clone();
    // The task waits on the first CPU.
    let wake = TaskWork::new(0, |_| Turn::Done);
    let work = BottomHalfWork::new(1, move |_| {
        f();
        says.store(true, Ordering::Release);
        wake.schedule();
        Turn::Done
    });
    work.schedule();
    rig.cx.wait_until(|| done.load(Ordering::Acquire));
    work.remove(rig.cx);
}

fn send_there(rig: &Rig<'_>, cookie: u64, op: Op) {
    let queue = rig.queue.handle().expect("a handle");
    let request = Mutex::new(Some(rig.request(cookie, op, cookie, 1)));
    there(rig, move || {
        let request = request.lock().unwrap().take().unwrap();
        queue.submit(request).unwrap();
        queue.commit();
    });
    rig.settle();
}

fn settle(rig: &Rig<'_>) {
    for _ in 0..3 {
        rig.settle();
        there(rig, || ());
    }
    rig.settle();
}

/// The device has room for one, and does not say when: the end of the first CPU's request is all that the second one's can wait for.
fn starving() -> Result<(), String> {
    try_on(2, 1, Features::VOLATILE_CACHE, TIMES, |rig| {
        rig.model.lock().mute = true;
        rig.script(&[Act::Stall]);
        rig.send(1, Op::Read, 1, 1);
        send_there(rig, 2, Op::Read);
        assert_eq!((rig.result(2), rig.queue.stats().waiting), (None, 1));
        rig.model.end_stalled(Ok(()));
        settle(rig);
        assert_eq!(rig.result(1), Some(Ok(())));
        assert_eq!(rig.result(2), Some(Ok(())), "the second CPU's request starves");
    })
}

#[test]
fn room_that_one_cpu_makes_is_all_cpus() {
    starving().unwrap();
}

#[test]
fn room_that_one_cpu_makes_is_all_cpus_control() {
    let error = with(Hazard::Starves, starving).unwrap_err();
    assert!(error.contains("the second CPU's request starves"), "{error}");
}

/// One CPU's request is overdue, and the disk reset for it: the other CPU sends nothing until that is over.
fn resetting() -> Result<(), String> {
    try_on(2, 4, Features::VOLATILE_CACHE, TIMES, |rig| {
        rig.model.lock().rungs[1] = (Managed::Asked, false);
        rig.script(&[Act::Stall]);
        rig.send(1, Op::Read, 1, 1);
        rig.pass(MS * 101);
        assert_eq!(rig.model.lock().asked.last().map(|asked| asked.1), Some(Recovery::ResetUnit));
        send_there(rig, 2, Op::Write);
        assert_eq!(rig.model.lock().seen.len(), 1, "the second CPU sent into the reset");
        rig.model.end_stalled(Err(Error::Reset));
        settle(rig);
        assert_eq!((rig.result(1), rig.result(2)), (Some(Err(Error::TimedOut)), Some(Ok(()))));
    })
}

#[test]
fn no_cpu_sends_into_a_reset() {
    resetting().unwrap();
}

#[test]
fn no_cpu_sends_into_a_reset_control() {
    let error = with(Hazard::SendsIntoReset, resetting).unwrap_err();
    assert!(error.contains("the second CPU sent into the reset"), "{error}");
}

#[test]
fn a_device_that_is_given_up_is_so_for_all_cpus() {
    try_on(2, 4, Features::VOLATILE_CACHE, TIMES, |rig| {
        rig.queue.watch(rig.sink.clone());
        rig.script(&[Act::Stall, Act::Stall]);
        rig.send(1, Op::Read, 1, 1);
        rig.pass(MS * 50);
        send_there(rig, 2, Op::Write);
        rig.pass(MS * 51);
        assert_eq!((rig.result(1), rig.result(2)), (Some(Err(Error::TimedOut)), Some(Err(Error::Broken))));
        assert_eq!(*rig.sink.events.lock().unwrap(), [Event::Removed]);
        assert_eq!(rig.queue.stats().orphans, 2);
        rig.model.end_stalled(Ok(()));
        settle(rig);
        assert_eq!(rig.queue.stats().orphans_returned, 2);
    })
    .unwrap();
}

/// The device is busy, and each CPU sends writes meanwhile: runs of four with a gap between them, those of the second CPU where the first one's
/// end. What one CPU's shard has is merged there, and never with another's.
fn merging() -> Result<(), String> {
    try_on(2, 1, Features::VOLATILE_CACHE, Config { waiting: 32, ..TIMES }, |rig| {
        {
            let mut state = rig.model.lock();
            state.info.limits.max_segments = 64;
            state.info.limits.max_transfer_bytes = 1 << 20;
        }
        rig.script(&[Act::Stall]);
        rig.send(1000, Op::Read, 200, 1);
        let writes = |from: u64| [0, 1, 2, 3, 5, 6, 7, 8].map(|at| from + at);
        for lba in writes(10) {
            rig.send(lba, Op::Write, lba, 1);
        }
        let requests: Vec<_> = writes(19).iter().map(|lba| rig.request(*lba, Op::Write, *lba, 1)).collect();
        let (queue, requests) = (rig.queue.handle().expect("a handle"), Mutex::new(requests));
        there(rig, move || {
            for request in std::mem::take(&mut *requests.lock().unwrap()) {
                queue.submit(request).unwrap();
            }
            queue.commit();
        });
        assert_eq!(rig.queue.stats().waiting, 16);
        rig.model.end_stalled(Ok(()));
        for _ in 0..10 {
            settle(rig);
        }
        let mut state = rig.model.lock();
        for lba in writes(10).into_iter().chain(writes(19)) {
            let at = lba as usize * BLOCK;
            assert_eq!(state.store[at..at + BLOCK], [lba as u8; BLOCK], "block {lba}: other data than was written");
        }
        let mut seen: Vec<_> = state.seen.drain(1..).map(|seen| (seen.lba, seen.blocks)).collect();
        drop(state);
        seen.sort_unstable();
        assert_eq!(seen, [(10, 4), (15, 4), (19, 4), (24, 4)]);
        for lba in writes(10).into_iter().chain(writes(19)) {
            assert_eq!(rig.result(lba), Some(Ok(())));
        }
        let stats = rig.queue.stats();
        assert_eq!((stats.merged, stats.accepted, stats.completed, stats.waiting), (12, 17, 17, 0));
    })
}

#[test]
fn each_cpu_s_requests_are_merged_among_themselves() {
    merging().unwrap();
}

#[test]
fn each_cpu_s_requests_are_merged_among_themselves_control() {
    let error = with(Hazard::MergesGaps, merging).unwrap_err();
    assert!(error.contains("other data than was written"), "{error}");
}
