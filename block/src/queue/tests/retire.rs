//! A device that is to go: the queue is told before the device is.

use super::model::*;
use crate::*;

/// What is at the device ends as the device says, what waits does not start, and nothing new is taken.
#[test]
fn what_waits_ends_and_what_is_out_is_waited_for() {
    with_rig(2, |rig| {
        rig.queue.watch(rig.sink.clone());
        rig.script(&[Act::Stall, Act::Stall]);
        for cookie in 0..4 {
            rig.send(cookie, Op::Write, cookie, 1);
        }
        rig.queue.retire();
        rig.queue.retire();
        let refused = rig.queue.submit(rig.request(9, Op::Read, 0, 1)).unwrap_err();
        assert_eq!(refused.why, Refusal::Gone(Error::Removed));
        rig.settle();
        assert_eq!(
            [0, 1, 2, 3].map(|cookie| rig.result(cookie)),
            [None, None, Some(Err(Error::Removed)), Some(Err(Error::Removed))]
        );
        assert_eq!(*rig.sink.events.lock().unwrap(), [Event::Removed]);
        rig.model.end_stalled(Ok(()));
        rig.settle();
        assert_eq!([0, 1].map(|cookie| rig.result(cookie)), [Some(Ok(())); 2]);
        assert_eq!(rig.model.lock().seen.len(), 2, "the device saw no more than it had");
    });
}
