//! What the old system did, and what half of the repair would have done.

use crate::old::migration::{C, Design, Kernel, Op, Outcome};
use crate::old::waits::Who;
use crate::watch::{Step, Violation};

const HANDLER: Who = "handler";
const DRAINER: Who = "drainer";
const OTHER: Who = "other thread";

/// Two CPUs, and a callout whose handler runs on CPU 0.
fn running(design: Design) -> (Kernel, C) {
    let mut kernel = Kernel::new(2, design);
    let c = kernel.callout(0);
    kernel.run(OTHER, Op::reset(c, 0, 10)).unwrap();
    kernel.now = 10;
    assert_eq!(kernel.take_due(0), Ok(Some(c)));
    kernel.enter(0, c).unwrap();
    (kernel, c)
}

fn ended(kernel: &mut Kernel, c: C) -> Step {
    kernel.leave(c)?;
    kernel.finish(0)
}

/// Problem 1: the handler moves its callout; between the two locks the drain looks where the callout is not yet.
#[test]
fn t_22_drain_between_two_locks_control() {
    let (mut kernel, c) = running(Design::Retry);
    let mut reset = Op::reset(c, 1, 500);
    assert_eq!(kernel.step(HANDLER, &mut reset), Ok(Outcome::Again));
    assert_eq!(kernel.run(DRAINER, Op::drain(c)), Err(Violation::OverWhileRunning));
    // Whoever believed it has a callout armed after the end.
    assert_eq!(kernel.step(HANDLER, &mut reset), Err(Violation::ArmedWhenOver));
    // The repair waits for the run, and drops the request.
    let (mut kernel, c) = running(Design::Parked);
    let mut drain = Op::drain(c);
    assert_eq!(kernel.run(HANDLER, Op::reset(c, 1, 500)), Ok(Outcome::Done));
    while kernel.step(DRAINER, &mut drain) == Ok(Outcome::Again) {}
    ended(&mut kernel, c).unwrap();
    assert_eq!((kernel.step(DRAINER, &mut drain), kernel.linked(1)), (Ok(Outcome::Done), Ok(0)));
}

#[test]
fn t_23_two_wheel_locks_control() {
    let mut kernel = Kernel::new(2, Design::BothLocks);
    let (there, back) = (kernel.callout(0), kernel.callout(1));
    let (mut there, mut back) = (Op::reset(there, 1, 10), Op::reset(back, 0, 10));
    assert_eq!(kernel.step("thread 0", &mut there), Ok(Outcome::Again));
    assert_eq!(kernel.step("thread 1", &mut back), Ok(Outcome::Again));
    assert_eq!(kernel.step("thread 0", &mut there), Ok(Outcome::Blocked));
    assert_eq!(kernel.step("thread 1", &mut back), Err(Violation::Deadlock));
}

/// T-11 and T-24: an interrupt strikes its CPU in the middle of a move, and spins on the mark that only the interrupted code can take away.
#[test]
fn t_11_t_24_spinning_on_the_mark_control() {
    let mut kernel = Kernel::new(2, Design::Marker);
    let c = kernel.callout(0);
    let mut reset = Op::reset(c, 1, 10);
    assert_eq!(kernel.step(OTHER, &mut reset), Ok(Outcome::Again));
    assert_eq!(kernel.stop(c), Ok(None), "spins");
    // On another CPU it spins until the move is over; over it, for ever.
    kernel.waits.wait("interrupt", OTHER).unwrap();
    assert_eq!(kernel.waits.wait(OTHER, "interrupt"), Err(Violation::Deadlock));
}

/// Problem 2: armed for another CPU while it runs, the callout becomes due there.
#[test]
fn t_25_running_here_and_pending_there_control() {
    let (mut kernel, c) = running(Design::Retry);
    assert_eq!(kernel.run(OTHER, Op::reset(c, 1, 11)), Ok(Outcome::Done));
    kernel.now = 11;
    assert_eq!(kernel.take_due(1), Ok(Some(c)));
    assert_eq!(kernel.enter(1, c), Err(Violation::TwoAtOnce));
}

/// A request is parked, then somebody drains: an executor that does not ask carries it out.
#[test]
fn t_26_parked_request_against_drain_control() {
    let (mut kernel, c) = running(Design::ParkedUnasked);
    kernel.run(HANDLER, Op::reset(c, 1, 500)).unwrap();
    let mut drain = Op::drain(c);
    while kernel.step(DRAINER, &mut drain) == Ok(Outcome::Again) {}
    ended(&mut kernel, c).unwrap();
    assert_eq!(kernel.step(DRAINER, &mut drain), Err(Violation::ArmedWhenOver));
}

/// Stop takes a parked request back and answers as if it had stopped the callout.
#[test]
fn t_27_parked_request_against_stop_control() {
    let (mut kernel, c) = running(Design::Parked);
    kernel.run(HANDLER, Op::reset(c, 1, 500)).unwrap();
    assert_eq!(kernel.stop(c), Ok(Some(true)));
    assert_eq!(kernel.watch.over(c.id()), Err(Violation::OverWhileRunning));
}

/// The executor looks for a parked request in the callout, which its handler has freed.
#[test]
fn t_28_executor_touches_what_its_handler_freed_control() {
    let (mut kernel, c) = running(Design::Parked);
    kernel.run(HANDLER, Op::reset(c, 1, 500)).unwrap();
    kernel.watch.ends(c.id()).unwrap();
    kernel.free(c).unwrap();
    assert_eq!(kernel.finish(0), Err(Violation::UseAfterFree { reused: false }));
}

/// Problem 3: between the two looks of a drain the callout moves, and with it the queue that the drain is to sleep on.
#[test]
fn t_29_wait_queue_of_another_cpu_control() {
    let (mut kernel, c) = running(Design::Retry);
    let mut drain = Op::drain(c);
    assert_eq!(kernel.step(DRAINER, &mut drain), Ok(Outcome::Again), "holds the lock of CPU 0's queue");
    kernel.run(OTHER, Op::reset(c, 1, 11)).unwrap();
    kernel.now = 11;
    assert_eq!(kernel.take_due(1), Ok(Some(c)));
    assert_eq!(kernel.step(DRAINER, &mut drain), Err(Violation::LockLeak), "and sleeps on CPU 1's");
}

/// A drain that does not look again sleeps for a wake-up that has been.
#[test]
fn t_30_lost_wake_up_control() {
    let (mut kernel, c) = running(Design::Parked);
    kernel.looks_again = false;
    let mut drain = Op::drain(c);
    assert_eq!(kernel.step(DRAINER, &mut drain), Ok(Outcome::Again));
    ended(&mut kernel, c).unwrap();
    for _ in 0..100 {
        assert_eq!(kernel.step(DRAINER, &mut drain), Ok(Outcome::Blocked), "the run is over and it sleeps");
        kernel.now += 1;
        assert_eq!((kernel.take_due(0), kernel.take_due(1)), (Ok(None), Ok(None)), "nobody is left to wake it");
    }
}

/// The run that the drain waits for ends, and before the drainer gets to look, the next begins.
#[test]
fn t_31_drain_waits_for_one_run_after_another_control() {
    let (mut kernel, c) = running(Design::Parked);
    let mut drain = Op::drain(c);
    let mut outcome = Ok(Outcome::Again);
    for _ in 0..5 {
        while outcome == Ok(Outcome::Again) {
            outcome = kernel.step(DRAINER, &mut drain);
        }
        if outcome.is_err() {
            break;
        }
        ended(&mut kernel, c).unwrap();
        kernel.run(OTHER, Op::reset(c, 0, kernel.now)).unwrap();
        assert_eq!(kernel.take_due(0), Ok(Some(c)));
        kernel.enter(0, c).unwrap();
        outcome = Ok(Outcome::Again);
    }
    assert_eq!(outcome, Err(Violation::WaitsForAnother));
}

/// The same call is dropped without a word while somebody drains, and arms a moment later.
#[test]
fn t_32_refused_only_while_somebody_waits_control() {
    let (mut kernel, c) = running(Design::Parked);
    let mut drain = Op::drain(c);
    while kernel.step(DRAINER, &mut drain) == Ok(Outcome::Again) {}
    assert_eq!(kernel.run(OTHER, Op::reset(c, 0, 20)), Ok(Outcome::Done), "dropped");
    ended(&mut kernel, c).unwrap();
    assert_eq!((kernel.step(DRAINER, &mut drain), kernel.linked(0)), (Ok(Outcome::Done), Ok(0)));
    assert_eq!(kernel.run(OTHER, Op::reset(c, 0, 20)), Err(Violation::ArmedWhenOver));
}
