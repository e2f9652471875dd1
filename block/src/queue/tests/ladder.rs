//! The recovery ladder, rung by rung.

use std::time::Duration;

use undercroft_hal::Instant;

use super::model::*;
use super::{Hazard, with};
use crate::scsi::Managed;
use crate::*;

const MS: Duration = Duration::from_millis(1);
const ASKED: (Managed, bool) = (Managed::Asked, false);
const WORKS: (Managed, bool) = (Managed::Asked, true);
const NO: (Managed, bool) = (Managed::Unsupported, false);

/// What the device was asked, and how many milliseconds after the deadline.
fn asked(rig: &Rig<'_>, start: Instant) -> Vec<(u128, u8)> {
    let number = |what: &Recovery| match what {
        Recovery::Abort(_) => 0,
        Recovery::ResetUnit => 1,
        Recovery::ResetBus(_) => 2,
        Recovery::ResetController => 3,
    };
    let asked = &rig.model.lock().asked;
    asked.iter().map(|(at, what)| (at.since(start + MS * 100).as_micros() / 1000, number(what))).collect()
}

fn step(rig: &Rig<'_>, ms: u32) {
    for _ in 0..ms * 16 {
        rig.machine.advance(62_500);
        (0..4).for_each(|_| rig.cx.run_pending());
    }
}

#[test]
fn each_rung_has_its_time_and_the_first_that_helps_is_the_last() {
    /// What each rung answers and whether it helps; when which rung was tried.
    type Case = ([(Managed, bool); 4], &'static [(u128, u8)]);
    let cases: [Case; 5] = [
        ([WORKS, NO, NO, NO], &[(0, 0)]),
        ([ASKED, WORKS, NO, NO], &[(0, 0), (10, 1)]),
        ([ASKED, ASKED, WORKS, NO], &[(0, 0), (10, 1), (30, 2)]),
        ([ASKED, ASKED, ASKED, WORKS], &[(0, 0), (10, 1), (30, 2), (60, 3)]),
        // What the device has not is skipped at once.
        ([NO, (Managed::Refused, false), NO, WORKS], &[(0, 0), (0, 1), (0, 2), (0, 3)]),
    ];
    for (rungs, expected) in cases {
        with_rig(4, |rig| {
            rig.model.lock().rungs = rungs;
            rig.script(&[Act::Stall]);
            let start = Instant::now();
            rig.send(1, Op::Read, 0, 1);
            step(rig, 250);
            assert_eq!(rig.result(1), Some(Err(Error::TimedOut)));
            assert_eq!(asked(rig, start), expected);
            let stats = rig.queue.stats();
            let last = expected.last().unwrap().1 as usize;
            assert_eq!(stats.rungs.map(|rung| rung.helped).iter().sum::<u64>(), 1);
            assert_eq!(stats.rungs[last].helped, 1);
            assert!(stats.rungs[last].longest.as_millis() as u64 <= expected.last().unwrap().0 as u64 + 1);
            // The queue goes on.
            rig.send(2, Op::Read, 1, 1);
            rig.settle();
            assert_eq!(rig.result(2), Some(Ok(())));
        });
    }
}

#[test]
fn a_device_that_comes_back_on_the_ladder_ends_it() {
    with_rig(4, |rig| {
        rig.model.lock().rungs = [ASKED; 4];
        rig.script(&[Act::Stall, Act::Stall]);
        let start = Instant::now();
        rig.send(1, Op::Write, 0, 1);
        rig.send(2, Op::Write, 1, 1);
        step(rig, 115);
        // Its answer counts, late as it is: what it says it did was done.
        rig.model.end_stalled(Ok(()));
        step(rig, 200);
        assert_eq!((rig.result(1), rig.result(2)), (Some(Ok(())), Some(Ok(()))));
        assert_eq!(asked(rig, start), [(0, 0), (0, 0), (10, 1)]);
        assert_eq!(rig.queue.stats().late, 2);
    });
}

/// A reset for one request ends others: those are sent again, except flushes.
fn reset_with_others() -> Result<(), String> {
    try_with(8, Features::VOLATILE_CACHE, TIMES, |rig| {
        rig.model.lock().rungs = [NO, WORKS, NO, NO];
        rig.script(&[Act::Stall; 4]);
        rig.send(1, Op::Read, 0, 1);
        rig.pass(MS * 50);
        rig.send(2, Op::Write, 1, 2);
        rig.send(3, Op::Flush, 0, 0);
        rig.send(4, Op::Discard, 8, 2);
        rig.pass(MS * 51);
        assert_eq!(rig.result(1), Some(Err(Error::TimedOut)));
        assert_eq!(rig.result(3), Some(Err(Error::Reset)), "a flush that a reset ended was reported done");
        assert_eq!((rig.result(2), rig.result(4)), (Some(Ok(())), Some(Ok(()))));
        assert_eq!(rig.model.lock().store[BLOCK..3 * BLOCK], [2; 2 * BLOCK]);
        assert_eq!(rig.queue.stats().resent, 2);
    })
}

#[test]
fn what_a_reset_ended_is_sent_again_but_no_flush() {
    reset_with_others().unwrap();
}

#[test]
fn what_a_reset_ended_is_sent_again_but_no_flush_control() {
    let error = with(Hazard::FlushSentAgain, reset_with_others).unwrap_err();
    assert!(error.contains("a flush that a reset ended was reported done"), "{error}");
}

#[test]
fn nothing_is_sent_into_a_reset() {
    with_rig(4, |rig| {
        rig.model.lock().rungs = [NO, ASKED, NO, NO];
        rig.script(&[Act::Stall]);
        rig.send(1, Op::Read, 0, 1);
        step(rig, 105);
        rig.send(2, Op::Read, 1, 1);
        rig.settle();
        assert_eq!((rig.model.lock().seen.len(), rig.result(2)), (1, None));
        rig.model.end_stalled(Err(Error::Reset));
        rig.settle();
        assert_eq!((rig.result(1), rig.result(2)), (Some(Err(Error::TimedOut)), Some(Ok(()))));
    });
}

/// No rung helps: everybody is told, and an answer after that completes nothing.
fn given_up() -> Result<(), String> {
    try_with(4, Features::VOLATILE_CACHE, TIMES, |rig| {
        rig.model.lock().rungs = [ASKED; 4];
        rig.script(&[Act::Stall; 4]);
        rig.queue.watch(rig.sink.clone());
        rig.send(1, Op::Read, 0, 1);
        rig.pass(MS * 50);
        rig.send(2, Op::Write, 1, 1);
        rig.send(3, Op::Write, 2, 30);
        rig.send(4, Op::Flush, 0, 0);
        let mut request = rig.request(5, Op::Read, 9, 1);
        request.deadline = Some(Instant::now() + MS * 10_000);
        rig.queue.submit(request).unwrap();
        step(rig, 170);
        let results: Vec<_> = (1..=5).map(|cookie| rig.result(cookie)).collect();
        let (late, broken) = (Some(Err(Error::TimedOut)), Some(Err(Error::Broken)));
        assert_eq!(results, [late, late, late, late, broken], "everybody is told");
        assert_eq!(*rig.sink.events.lock().unwrap(), [Event::Removed]);
        assert_eq!(rig.machine.live_dma_blocks(), 4, "the device has three buffers still, the sink one");
        let refused = rig.queue.submit(rig.request(6, Op::Read, 0, 1)).unwrap_err();
        assert_eq!(refused.why, Refusal::Gone(Error::Broken));
        rig.model.end_stalled(Ok(()));
        rig.settle();
        assert_eq!((rig.sink.order.lock().unwrap().len(), rig.queue.stats().orphans_returned), (5, 4));
        assert_eq!(rig.queue.stats().at_device, 0);
    })
}

#[test]
fn a_device_that_is_given_up_keeps_its_buffers_and_completes_nothing_again() {
    given_up().unwrap();
}

#[test]
fn a_device_that_is_given_up_keeps_its_buffers_and_completes_nothing_again_control() {
    let error = with(Hazard::LateAnswerCounts, given_up).unwrap_err();
    assert!(error.contains("a request came back twice"), "{error}");
}

#[test]
fn other_disks_do_not_notice() {
    with_rig(4, |rig| {
        let other = Model::new(4, Features::VOLATILE_CACHE);
        let queue = crate::queue::BlockQueue::new(other.clone(), TIMES);
        rig.model.lock().rungs = [ASKED; 4];
        rig.script(&[Act::Stall]);
        rig.send(1, Op::Read, 0, 1);
        for cookie in 2..202 {
            step(rig, 1);
            let before = Instant::now();
            queue.submit(rig.request(cookie, Op::Read, 3, 20)).unwrap();
            queue.commit();
            rig.settle();
            assert_eq!(rig.result(cookie), Some(Ok(())));
            assert!(rig.at(cookie).since(before) < MS);
        }
        rig.pass(MS * 100);
        assert_eq!(rig.result(1), Some(Err(Error::TimedOut)));
        rig.model.end_stalled(Err(Error::Reset));
    });
}
