//! What the old system did.

use crate::old::freebsd::{Callout, Kernel, Locked, Locking, Pcb, executor};
use crate::old::memory::Ptr;
use crate::old::waits::Who;
use crate::watch::{Step, Violation};

const THREAD: Who = "thread";
const OTHER: Who = "other thread";

/// A connection with three callouts on CPU 1, all due at 10; and the time is 10.
fn connection(locking: Locking) -> (Kernel, Ptr<Pcb>, [Callout; 3]) {
    let mut kernel = Kernel::new(2, locking);
    let pcb = kernel.memory.alloc(Pcb::default());
    let callouts = [0, 1, 2].map(|n| Callout(pcb, n));
    for c in callouts {
        kernel.reset_on(c, 1, 10).unwrap();
    }
    kernel.now = 10;
    (kernel, pcb, callouts)
}

/// The teardown that everybody wrote: stop, stop, stop, unlock, free.
fn teardown(kernel: &mut Kernel, pcb: Ptr<Pcb>, callouts: [Callout; 3]) -> Step {
    for c in callouts {
        // Whatever it answers.
        kernel.stop(c)?;
    }
    kernel.unlock(pcb)?;
    kernel.free(pcb)
}

/// The executor on CPU 1 takes the first callout and waits for the lock, which the thread holds; the thread tears everything down.
fn torn_down(locking: Locking) -> Step {
    let (mut kernel, pcb, callouts) = connection(locking);
    assert!(kernel.lock(THREAD, pcb)?);
    assert_eq!(kernel.take_due(1)?, Some(callouts[0]));
    assert_eq!(kernel.enter(1, callouts[0])?, Locked::NotYet);
    teardown(&mut kernel, pcb, callouts)?;
    // The lock that the executor waits for lies in memory that is no more.
    kernel.enter(1, callouts[0]).map(drop)
}

#[test]
fn t_01_teardown_of_three_callouts_control() {
    for locking in [Locking::ByExecutor, Locking::ByHandler] {
        assert_eq!(torn_down(locking), Err(Violation::UseAfterFree { reused: false }), "{locking:?}");
    }
}

/// The model is not broken as such: with no run in flight the same teardown does no harm.
#[test]
fn t_01_teardown_of_three_idle_callouts_is_harmless_in_the_old_system_too() {
    let (mut kernel, pcb, callouts) = connection(Locking::ByExecutor);
    assert!(kernel.lock(THREAD, pcb).unwrap());
    teardown(&mut kernel, pcb, callouts).unwrap();
    assert_eq!(kernel.take_due(1), Ok(None));
    kernel.wheels_are_sound().unwrap();
}

/// Counts down, and frees at zero.
fn counted_down(kernel: &mut Kernel, who: Who, pcb: Ptr<Pcb>) -> Step {
    assert!(kernel.lock(who, pcb)?);
    let pcb_now = kernel.memory.at(pcb)?;
    pcb_now.refcount -= 1;
    let last = pcb_now.refcount == 0;
    kernel.unlock(pcb)?;
    if last { kernel.free(pcb) } else { Ok(()) }
}

/// How a client counts the drains that it has begun.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Counting {
    /// One for each and one for the teardown itself, before the first; down again for each that will not call: as the proposal did.
    Ahead,
    /// Up for each that will call.
    AsTheyCome,
    /// As `Ahead`, without looking at the answer.
    Unasked,
}

/// A teardown by `callout_drain_async` while the handlers of `in_flight` run; the first handler of these ends in the middle of it.
fn drained(counting: Counting, in_flight: usize) -> Result<usize, Violation> {
    let mut kernel = Kernel::new(3, Locking::ByHandler);
    let pcb = kernel.memory.alloc(Pcb::default());
    let callouts = [0, 1, 2].map(|n| Callout(pcb, n));
    for (cpu, c) in callouts.into_iter().enumerate() {
        // Each on its own CPU, so that several can be in flight.
        kernel.reset_on(c, cpu, if in_flight & 1 << cpu != 0 { 10 } else { 1000 })?;
    }
    kernel.now = 10;
    let taken = [0, 1, 2].map(|cpu| kernel.take_due(cpu).unwrap());
    if counting != Counting::AsTheyCome {
        kernel.memory.at(pcb)?.refcount = 4;
    }
    for (n, c) in callouts.into_iter().enumerate() {
        let later = kernel.drain_async(c, counted_down)?;
        let count = &mut kernel.memory.at(pcb)?.refcount;
        match counting {
            Counting::Ahead if !later => *count -= 1,
            Counting::AsTheyCome if later => *count += 1,
            _ => {}
        }
        if n == 0 && taken[0].is_some() {
            kernel.finish(0)?;
        }
    }
    if counting != Counting::AsTheyCome {
        counted_down(&mut kernel, THREAD, pcb)?;
    }
    for cpu in [1, 2] {
        if taken[cpu].is_some() {
            kernel.finish(cpu)?;
        }
    }
    Ok(kernel.memory.live())
}

#[test]
fn t_02_drain_async_counting_control() {
    for in_flight in 0..8 {
        assert_eq!(drained(Counting::Ahead, in_flight), Ok(0), "the proposal's own counting, pattern {in_flight}");
    }
    // The first completion comes before the second drain, and takes the count to zero.
    assert_eq!(drained(Counting::AsTheyCome, 0b001), Err(Violation::UseAfterFree { reused: false }));
    // With nothing in flight there is nobody to call.
    assert_eq!(drained(Counting::AsTheyCome, 0b000), Ok(1), "leaked");
    assert_eq!(drained(Counting::Unasked, 0b000), Ok(1), "leaked");
}

/// An unlock is two things: the lock is free, and then whoever waits is looked for, in the lock. The proposal counts under the lock.
#[test]
fn t_03_the_last_unlock_control() {
    let (mut kernel, pcb, _) = connection(Locking::ByHandler);
    kernel.memory.at(pcb).unwrap().refcount = 2;
    let mut last_unlock = || -> Step {
        assert!(kernel.lock(THREAD, pcb)?);
        kernel.memory.at(pcb)?.refcount -= 1;
        // First half of the unlock: the lock is free.
        kernel.memory.at(pcb)?.lock.release();
        counted_down(&mut kernel, OTHER, pcb)?;
        // Second half: who waits for it?
        assert_eq!(kernel.memory.at(pcb)?.lock.holder(), None);
        Ok(())
    };
    assert_eq!(last_unlock(), Err(Violation::UseAfterFree { reused: false }));
}

/// The handler has armed its callout again: a drain finds it pending, removes it, and does not ask whether it runs.
#[test]
fn t_04_drain_of_running_and_armed_again_control() {
    let (mut kernel, _, callouts) = connection(Locking::ByHandler);
    let c = kernel.take_due(1).unwrap().unwrap();
    assert_eq!((c, kernel.enter(1, c)), (callouts[0], Ok(Locked::Mine)));
    kernel.reset_on(c, 1, 20).unwrap();
    assert_eq!(kernel.drain(OTHER, c), Err(Violation::OverWhileRunning));
}

/// There is one place for a completion: the second drain takes it, and the first one's never comes.
#[test]
fn t_05_second_drain_control() {
    fn theirs(kernel: &mut Kernel, _: Who, pcb: Ptr<Pcb>) -> Step {
        kernel.memory.at(pcb)?.refcount += 1;
        Ok(())
    }
    let (mut kernel, pcb, _) = connection(Locking::ByHandler);
    let c = kernel.take_due(1).unwrap().unwrap();
    kernel.enter(1, c).unwrap();
    let accepted = [0, 1].map(|_| kernel.drain_async(c, theirs).unwrap());
    kernel.leave(c).unwrap();
    kernel.finish(1).unwrap();
    assert_eq!(accepted, [true, true]);
    assert_eq!(kernel.memory.at(pcb).unwrap().refcount, 1, "one of two completions came");
}

/// Moved while its executor waits for the lock, the callout is parked, and says that it is neither pending nor, if stopped before, active.
fn moved_while_committed(stopped_first: bool, cpu: usize) -> (Kernel, Callout) {
    let (mut kernel, pcb, callouts) = connection(Locking::ByHandler);
    assert!(kernel.lock(THREAD, pcb).unwrap());
    let c = kernel.take_due(1).unwrap().unwrap();
    assert_eq!((c, kernel.enter(1, c)), (callouts[0], Ok(Locked::NotYet)));
    if stopped_first {
        assert_eq!(kernel.stop(c), Ok(false));
        kernel.watch.cancelled(c.id());
    }
    kernel.reset_on(c, cpu, 500).unwrap();
    (kernel, c)
}

#[test]
fn t_09_flags_during_a_deferred_move_control() {
    // Nothing pending, and active: the handler takes it for its own expiry, 490 too early.
    let (mut kernel, c) = moved_while_committed(false, 0);
    kernel.unlock(c.0).unwrap();
    assert_eq!(kernel.enter(1, c), Err(Violation::EarlyFire { deadline: 500, at: 10 }));
    // On its own CPU it is pending, and the handler knows that it is to keep quiet: the lie is the move's.
    let (mut kernel, c) = moved_while_committed(false, 1);
    kernel.unlock(c.0).unwrap();
    assert_eq!(kernel.enter(1, c), Ok(Locked::Cancelled));
}

/// A client that asks before it frees learns that nothing is active.
#[test]
fn t_09_status_during_a_deferred_move_control() {
    let (mut kernel, c) = moved_while_committed(true, 0);
    let mut freed_after_asking = || -> Step {
        assert_eq!((kernel.pending(c)?, kernel.active(c)?), (false, false), "and yet it is armed for 500");
        kernel.unlock(c.0)?;
        assert_eq!(kernel.enter(1, c)?, Locked::Cancelled);
        kernel.free(c.0)?;
        kernel.finish(1)
    };
    assert_eq!(freed_after_asking(), Err(Violation::UseAfterFree { reused: false }));
}

/// Parked for CPU 0, the callout is armed again on its own CPU: the executor then links what is linked.
#[test]
fn t_10_reset_while_a_reset_is_parked_control() {
    let (mut kernel, c) = moved_while_committed(false, 0);
    kernel.reset_on(c, 1, 600).unwrap();
    kernel.unlock(c.0).unwrap();
    assert_eq!(kernel.enter(1, c), Ok(Locked::Cancelled));
    kernel.wheels_are_sound().unwrap();
    kernel.finish(1).unwrap();
    assert_eq!(kernel.wheels_are_sound(), Err(Violation::ListCorruption));
}

/// A callback in a hard interrupt takes a lock that the thread below it holds.
#[test]
fn t_12_direct_callback_with_an_ordinary_lock_control() {
    let (mut kernel, pcb, _) = connection(Locking::ByHandler);
    assert!(kernel.lock(THREAD, pcb).unwrap());
    kernel.waits.wait(THREAD, executor(1)).unwrap();
    let c = kernel.take_due(1).unwrap().unwrap();
    assert_eq!(kernel.enter(1, c), Err(Violation::Deadlock));
}

/// An interrupt over a callback without a lock waits for its end.
#[test]
fn t_12_drain_over_a_direct_callback_control() {
    let (mut kernel, _, _) = connection(Locking::ByHandler);
    let c = kernel.take_due(1).unwrap().unwrap();
    assert_eq!(kernel.enter(1, c), Ok(Locked::Mine));
    kernel.waits.wait(executor(1), "interrupt").unwrap();
    assert_eq!(kernel.drain("interrupt", c), Err(Violation::Deadlock));
}

/// The handler drains its own callout.
#[test]
fn t_08_drain_inside_the_handler_control() {
    let (mut kernel, _, _) = connection(Locking::ByHandler);
    let c = kernel.take_due(1).unwrap().unwrap();
    assert_eq!(kernel.enter(1, c), Ok(Locked::Mine));
    assert_eq!(kernel.drain(executor(1), c), Err(Violation::Deadlock));
}

/// The executor of a CPU waits for a lock that a thread holds for long; what is due behind it waits too, though nobody holds its lock.
#[test]
fn t_13_one_big_lock_control() {
    let (mut kernel, giant, _) = connection(Locking::ByExecutor);
    let other = Callout(kernel.memory.alloc(Pcb::default()), 0);
    kernel.reset_on(other, 1, 10).unwrap();
    assert!(kernel.lock(THREAD, giant).unwrap());
    let c = kernel.take_due(1).unwrap().unwrap();
    for _ in 0..100 {
        assert_eq!(kernel.enter(1, c), Ok(Locked::NotYet));
        kernel.now += 1;
    }
    kernel.unlock(giant).unwrap();
    assert_eq!(kernel.enter(1, c), Ok(Locked::Mine));
    kernel.leave(c).unwrap();
    kernel.finish(1).unwrap();
    assert_eq!(kernel.watch.runs(other.id()), 0, "due at 10, and it is {}", kernel.now);
}
