//! Room, turns, BUSY.

use std::rc::Rc;
use std::time::Duration;

use undercroft_hal::{BottomHalf, Instant};
use undercroft_timer::Callout;

use super::model::*;
use super::{Hazard, with};
use crate::*;

const MS: Duration = Duration::from_millis(1);

/// Pattern 11: a device that says BUSY is asked again, later and less.
fn busy() -> Result<(), String> {
    try_with(8, Features::VOLATILE_CACHE, TIMES, |rig| {
        rig.script(&[Act::Fail(Error::Busy); 8]);
        rig.model.lock().held = true;
        for cookie in 0..8 {
            rig.send(cookie, Op::Write, cookie, 1);
        }
        rig.model.release();
        rig.settle();
        assert!(rig.sink.order.lock().unwrap().is_empty(), "BUSY was reported as an error");
        assert_eq!(rig.model.lock().seen.len(), 8, "sent again without a pause");
        assert_eq!(rig.queue.stats().depth, 4);
        // Twice more; each pause is longer.
        rig.script(&[Act::Fail(Error::Busy), Act::Fail(Error::Busy)]);
        for _ in 0..40 {
            rig.pass(Duration::from_micros(50));
        }
        let stats = rig.queue.stats();
        assert_eq!((rig.sink.order.lock().unwrap().len(), stats.busy), (8, 10));
        for cookie in 0..8 {
            assert_eq!(rig.result(cookie), Some(Ok(())));
        }
        // As it does well, it is given more again.
        let before = stats.depth;
        for cookie in 8..80 {
            rig.send(cookie, Op::Read, 0, 1);
            rig.settle();
        }
        assert!(before < 8 && rig.queue.stats().depth == 8, "{before}, {}", rig.queue.stats().depth);
    })
}

#[test]
fn p_11_a_busy_device_gets_a_pause_and_less() {
    busy().unwrap();
}

#[test]
fn p_11_a_busy_device_gets_a_pause_and_less_control() {
    let error = with(Hazard::BusyFails, busy).unwrap_err();
    assert!(error.contains("BUSY was reported as an error"), "{error}");
}

#[test]
fn a_device_that_stays_busy_fails_what_waits_at_its_deadline() {
    with_rig(2, |rig| {
        rig.script(&[Act::Fail(Error::Busy); 4000]);
        rig.send(1, Op::Read, 0, 1);
        for _ in 0..1010 {
            rig.pass(MS / 10);
        }
        assert_eq!(rig.result(1), Some(Err(Error::Busy)));
        assert!(rig.model.lock().seen.len() < 20, "the pauses grow");
        rig.model.lock().script.clear();
    });
}

/// Three submitters, one of which sends all the time.
fn turns() -> Result<(), String> {
    try_with(1, Features::VOLATILE_CACHE, TIMES, |rig| {
        let (second, third) = (rig.queue.handle().unwrap(), rig.queue.handle().unwrap());
        assert!(rig.queue.handle().is_none());
        second.watch(rig.sink.clone());
        rig.model.lock().held = true;
        let mut taken = 0;
        while rig.queue.submit(rig.request(taken, Op::Read, 0, 1)).is_ok() {
            taken += 1;
        }
        second.submit(rig.request(100, Op::Read, 0, 1)).expect("the first submitter has taken all there is");
        third.submit(rig.request(200, Op::Read, 0, 1)).unwrap();
        second.submit(rig.request(101, Op::Read, 0, 1)).unwrap();
        rig.queue.commit();
        rig.model.release();
        for _ in 0..10 {
            rig.settle();
        }
        let order = rig.sink.order.lock().unwrap().clone();
        let at = |cookie| order.iter().position(|done| *done == cookie).unwrap();
        assert_eq!(order.len() as u64, taken + 3);
        assert!(at(100) <= 3 && at(200) <= 4 && at(101) <= 6, "no turns: {order:?}");
    })
}

#[test]
fn submitters_take_turns() {
    turns().unwrap();
}

#[test]
fn submitters_take_turns_control() {
    let error = with(Hazard::NoTurns, turns).unwrap_err();
    assert!(error.contains("the first submitter has taken all there is"), "{error}");
}

/// The device's only request ends, and its room is announced, while the device refuses another: an interrupt comes then.
fn room() -> Result<(), String> {
    try_with(2, Features::VOLATILE_CACHE, TIMES, |rig| {
        let alarm: Callout = Callout::new(0, |_: &BottomHalf, _: &_| ());
        let _ = alarm.start(MS);
        {
            let mut state = rig.model.lock();
            (state.depth, state.held) = (1, true);
        }
        let (model, machine) = (rig.model.clone(), Rc::clone(rig.machine));
        ON_REFUSAL.set(Some(Box::new(move || {
            model.release();
            machine.advance(2_000_000);
            let _ = Instant::now();
            let _ = Instant::now();
            assert!(model.lock().seen.len() == 1, "the device is empty, and said so");
        })));
        rig.send(1, Op::Read, 0, 1);
        rig.queue.submit(rig.request(2, Op::Read, 1, 1)).unwrap();
        assert_eq!(rig.result(1), Some(Ok(())), "it ended within the submission");
        rig.queue.commit();
        rig.settle();
        assert_eq!(rig.result(2), Some(Ok(())), "room was made and nobody saw it");
    })
}

#[test]
fn room_that_comes_during_a_refusal_is_seen() {
    room().unwrap();
}

#[test]
fn room_that_comes_during_a_refusal_is_seen_control() {
    let error = with(Hazard::RoomMissed, room).unwrap_err();
    assert!(error.contains("room was made and nobody saw it"), "{error}");
}

#[test]
fn requests_wait_for_room_and_events_tell_of_it() {
    with_rig(1, |rig| {
        rig.queue.watch(rig.sink.clone());
        rig.model.lock().held = true;
        let mut taken = 0;
        let refused = loop {
            match rig.queue.submit(rig.request(taken, Op::Write, taken, 1)) {
                Ok(_) => taken += 1,
                Err(rejected) => break rejected,
            }
        };
        assert_eq!((taken, refused.why), (17, Refusal::Full));
        assert_eq!(refused.request.lba, 17);
        rig.queue.commit();
        rig.model.release();
        for _ in 0..10 {
            rig.settle();
        }
        assert_eq!(rig.sink.order.lock().unwrap().len(), 17);
        assert_eq!(*rig.sink.events.lock().unwrap(), [Event::Room]);
        assert_eq!(rig.model.lock().most, 1);
        assert_eq!(rig.queue.stats().most_waiting, 16);
    });
}
