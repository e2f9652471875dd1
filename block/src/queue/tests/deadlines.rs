//! Deadlines, to the tick.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use undercroft_hal::{BottomHalf, Instant};

use super::model::*;
use super::{Hazard, with};
use crate::queue::BlockQueue;
use crate::scsi::Managed;
use crate::*;

const TICK: Duration = Duration::from_nanos(1024);
const MS: Duration = Duration::from_millis(1);

/// A request that waits, one at a stalled device: each is over at its deadline.
fn deadlines() -> Result<(), String> {
    try_with(1, Features::VOLATILE_CACHE, TIMES, |rig| {
        rig.model.lock().rungs[0] = (Managed::Asked, true);
        rig.script(&[Act::Stall]);
        let start = Instant::now();
        let mut first = rig.request(1, Op::Read, 0, 1);
        first.deadline = Some(start + MS * 7);
        rig.queue.submit(first).unwrap();
        let mut second = rig.request(2, Op::Read, 1, 1);
        second.deadline = Some(start + MS * 3);
        rig.queue.submit(second).unwrap();
        rig.send(3, Op::Write, 2, 1);
        rig.pass(MS * 3 - Duration::from_micros(20));
        assert_eq!(rig.result(2), None, "early");
        rig.pass(Duration::from_micros(20) + TICK);
        assert_eq!(rig.result(2), Some(Err(Error::TimedOut)), "a waiting request outlived its deadline");
        assert!(rig.model.lock().asked.is_empty(), "it was not at the device");
        assert_eq!(rig.result(1), None);
        rig.pass(MS * 4);
        assert_eq!(rig.result(1), Some(Err(Error::TimedOut)), "a stalled request outlived its deadline");
        assert!(rig.at(1).since(start + MS * 7) < MS, "aborted at once");
        assert_eq!(rig.result(3), Some(Ok(())), "the device goes on with the next");
        let stats = rig.queue.stats();
        assert_eq!((stats.overdue, stats.rungs[0].asked, stats.rungs[0].helped), (2, 1, 1));
    })
}

#[test]
fn each_request_ends_at_its_deadline() {
    deadlines().unwrap();
}

#[test]
fn each_request_ends_at_its_deadline_control() {
    let error = with(Hazard::NoDeadlines, deadlines).unwrap_err();
    assert!(error.contains("a waiting request outlived its deadline"), "{error}");
}

#[test]
fn the_default_timeout_is_for_requests_without_a_deadline() {
    with_rig(4, |rig| {
        rig.model.lock().rungs[0] = (Managed::Asked, true);
        rig.script(&[Act::Stall, Act::Do, Act::Stall]);
        let start = Instant::now();
        rig.send(1, Op::Read, 0, 1);
        rig.send(2, Op::Read, 1, 1);
        rig.pass(MS * 50);
        rig.send(3, Op::Read, 2, 1);
        rig.pass(MS * 49);
        assert_eq!((rig.result(1), rig.result(2), rig.result(3)), (None, Some(Ok(())), None));
        rig.pass(MS + TICK);
        assert_eq!((rig.result(1), rig.result(3)), (Some(Err(Error::TimedOut)), None));
        rig.pass(MS * 49 + TICK);
        let asked: Vec<_> = rig.model.lock().asked.iter().map(|(at, _)| at.since(start).as_millis()).collect();
        assert_eq!(rig.result(3), None, "50 ms later");
        rig.pass(MS);
        assert_eq!((rig.result(3), asked.as_slice()), (Some(Err(Error::TimedOut)), &[100][..]));
    });
}

#[test]
fn a_device_that_comes_back_in_time_is_left_alone() {
    with_rig(4, |rig| {
        rig.script(&[Act::Stall, Act::Stall]);
        rig.send(1, Op::Read, 0, 1);
        rig.send(2, Op::Write, 1, 1);
        rig.pass(MS * 90);
        rig.model.end_stalled(Ok(()));
        rig.pass(MS * 400);
        assert_eq!((rig.result(1), rig.result(2)), (Some(Ok(())), Some(Ok(()))));
        assert!(rig.model.lock().asked.is_empty() && rig.queue.stats().overdue == 0);
    });
}

/// X20: the last handle goes in the completion that the callout's own handler runs: the timer frees itself.
fn ends_in_its_callout() -> Result<(), String> {
    struct Last(Mutex<Option<BlockQueue>>, AtomicBool);
    impl Complete for Last {
        fn complete(&self, _: &BottomHalf, _: u64, _: Request, result: Result<(), Error>) {
            assert_eq!(result, Err(Error::TimedOut));
            let queue = self.0.lock().unwrap().take();
            drop(queue);
            self.1.store(true, Ordering::SeqCst);
        }
    }
    try_with(1, Features::VOLATILE_CACHE, TIMES, |rig| {
        let model = Model::new(1, Features::VOLATILE_CACHE);
        let queue = BlockQueue::new(model.clone(), TIMES);
        let shard = Arc::downgrade(&queue.shards[0]);
        model.lock().depth = 0;
        let last = Arc::new(Last(Mutex::default(), AtomicBool::default()));
        queue.submit(Request::new(Op::Read, 0, 1, buffer(1, 0), Completion::new(last.clone(), 0))).unwrap();
        *last.0.lock().unwrap() = Some(queue);
        rig.pass(MS * 101);
        assert!(last.1.load(Ordering::SeqCst), "the request ended");
        rig.settle();
        assert_eq!(Arc::strong_count(&model), 1, "the device is nobody's any more");
        assert!(shard.upgrade().is_none(), "the queue outlived its last handle, and its callout with it");
    })
}

#[test]
fn x20_a_queue_may_end_in_its_own_callout() {
    ends_in_its_callout().unwrap();
}

#[test]
fn x20_a_queue_may_end_in_its_own_callout_control() {
    let error = with(Hazard::CalloutKeepsQueue, ends_in_its_callout).unwrap_err();
    assert!(error.contains("the queue outlived its last handle"), "{error}");
}
