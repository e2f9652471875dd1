//! What the old system did, its repairs of that month included.

use crate::old::linux::{Delete, Kernel, T, executor};
use crate::watch::{Step, Violation};

const DRIVER: &str = "driver";

/// A timer whose handler runs on CPU 0.
fn running(delete: Delete) -> (Kernel, T) {
    let mut kernel = Kernel::new(delete);
    let timer = kernel.init();
    kernel.add(timer, 10).unwrap();
    kernel.jiffies = 10;
    assert_eq!(kernel.take(0), Ok(Some(timer)));
    kernel.enter(timer).unwrap();
    (kernel, timer)
}

#[test]
fn t_33_delete_returns_while_the_handler_runs_control() {
    let (mut kernel, timer) = running(Delete::Plain);
    assert_eq!(kernel.del(DRIVER, timer), Err(Violation::OverWhileRunning));
}

/// The worst of them: deleted, added by the handler, freed. The list now leads through freed memory.
#[test]
fn t_34_handler_adds_its_timer_again_control() {
    let (mut kernel, timer) = running(Delete::Plain);
    assert_eq!(kernel.del(DRIVER, timer), Err(Violation::OverWhileRunning));
    assert_eq!(kernel.add(timer, 20), Err(Violation::ArmedWhenOver));
    kernel.leave(timer).unwrap();
    kernel.finish(0);
    // Even a driver that waits until its handler has returned.
    kernel.free(timer).unwrap();
    kernel.jiffies = 20;
    assert_eq!(kernel.take(0), Err(Violation::UseAfterFree { reused: false }));
}

/// Removed something, so it does not ask whether the handler runs.
#[test]
fn t_35_running_and_armed_again_control() {
    let (mut kernel, timer) = running(Delete::ArrayUnlessRemoved);
    kernel.add(timer, 20).unwrap();
    assert_eq!(kernel.del(DRIVER, timer), Err(Violation::OverWhileRunning));
}

/// The handler says that it is done, and has instructions left.
#[test]
fn t_36_timer_exit_inside_the_handler_control() {
    let (mut kernel, timer) = running(Delete::Mark);
    kernel.timer_exit(timer).unwrap();
    assert_eq!(kernel.del(DRIVER, timer), Err(Violation::OverWhileRunning));
}

/// The handler frees its timer; a delete that waits looks at the mark in it.
#[test]
fn t_37_handler_frees_its_timer_control() {
    let (mut kernel, timer) = running(Delete::Mark);
    let mut deleting = kernel.deleting(timer);
    assert_eq!(kernel.step(DRIVER, &mut deleting), Ok(false));
    assert_eq!(kernel.step(DRIVER, &mut deleting), Ok(false), "waits");
    kernel.free(timer).unwrap();
    assert_eq!(kernel.step(DRIVER, &mut deleting), Err(Violation::UseAfterFree { reused: false }));
}

/// The handler of the first deletes and frees the second, on which the executor has its finger.
#[test]
fn t_38_handler_deletes_the_next_of_the_list_control() {
    let mut kernel = Kernel::new(Delete::Plain);
    let [first, second] = [0, 1].map(|_| kernel.init());
    kernel.add(first, 10).unwrap();
    kernel.add(second, 10).unwrap();
    kernel.jiffies = 10;
    assert_eq!(kernel.take_with_finger(0), Ok(Some(first)));
    assert_eq!(kernel.del("handler", second), Ok(true));
    kernel.free(second).unwrap();
    assert_eq!(kernel.take_with_finger(0), Err(Violation::UseAfterFree { reused: false }));
}

#[test]
fn t_39_handler_adds_its_timer_for_now_control() {
    let mut kernel = Kernel::new(Delete::Plain);
    let timer = kernel.init();
    kernel.add(timer, 10).unwrap();
    kernel.jiffies = 10;
    // A tick ends when nothing is due any more.
    let mut runs = 0;
    while let Some(timer) = kernel.take(0).unwrap() {
        kernel.enter(timer).unwrap();
        kernel.add(timer, kernel.jiffies).unwrap();
        kernel.leave(timer).unwrap();
        kernel.finish(0);
        runs += 1;
        if runs == 1000 {
            return;
        }
    }
    panic!("the tick ended after {runs} runs");
}

/// CPU 0 ends the handler, CPU 1 deletes and is about to look at the array, CPU 2 adds the timer.
#[test]
fn t_40_three_cpus_control() {
    let (mut kernel, timer) = running(Delete::Array);
    let mut deleting = kernel.deleting(timer);
    assert_eq!(kernel.step(DRIVER, &mut deleting), Ok(false), "detached");
    assert_eq!(kernel.step(DRIVER, &mut deleting), Ok(false), "waits");
    kernel.leave(timer).unwrap();
    kernel.finish(0);
    kernel.add(timer, 20).unwrap();
    assert_eq!(kernel.step(DRIVER, &mut deleting), Err(Violation::ArmedWhenOver));
}

/// The timer's memory has become another timer, which runs; the array knows addresses.
#[test]
fn t_41_address_of_a_stranger_control() {
    let (mut kernel, timer) = running(Delete::Array);
    let mut deleting = kernel.deleting(timer);
    assert_eq!(kernel.step(DRIVER, &mut deleting), Ok(false));
    // As handlers may.
    kernel.free(timer).unwrap();
    kernel.leave(timer).unwrap();
    kernel.finish(0);
    let stranger = kernel.init();
    for _ in 0..100 {
        kernel.add(stranger, kernel.jiffies).unwrap();
        assert_eq!(kernel.take(0), Ok(Some(stranger)));
        kernel.enter(stranger).unwrap();
        assert_eq!(kernel.step(DRIVER, &mut deleting), Ok(false), "waits for a handler that is not its timer's");
        kernel.leave(stranger).unwrap();
        kernel.finish(0);
    }
}

/// T-42 and T-43: every delete waits now, and is called as it was called before: with a lock held that the handler takes, by the
/// handler itself, in an interrupt over the handler, and in an interrupt over it that waits for a lock whose holder deletes.
#[test]
fn t_42_t_43_deletes_that_wait_for_ever_control() {
    let under_a_lock = |kernel: &mut Kernel, timer: T| -> Step {
        let (lock, waits) = (&mut kernel.lock, &mut kernel.waits);
        assert!(lock.take(DRIVER, waits)?);
        assert!(!lock.take(executor(0), waits)?);
        kernel.del(DRIVER, timer).map(drop)
    };
    let by_the_handler = |kernel: &mut Kernel, timer: T| kernel.del(executor(0), timer).map(drop);
    let in_an_interrupt = |kernel: &mut Kernel, timer: T| -> Step {
        kernel.waits.wait(executor(0), "interrupt")?;
        kernel.del("interrupt", timer).map(drop)
    };
    let of_three = |kernel: &mut Kernel, timer: T| -> Step {
        let (lock, waits) = (&mut kernel.lock, &mut kernel.waits);
        assert!(lock.take(DRIVER, waits)?);
        waits.wait(executor(0), "interrupt")?;
        assert!(!lock.take("interrupt", waits)?);
        kernel.del(DRIVER, timer).map(drop)
    };
    let ways: [fn(&mut Kernel, T) -> Step; 4] = [under_a_lock, by_the_handler, in_an_interrupt, of_three];
    for way in ways {
        let (mut kernel, timer) = running(Delete::Array);
        assert_eq!(way(&mut kernel, timer), Err(Violation::Deadlock));
    }
    // Nobody waits where nothing runs.
    let mut kernel = Kernel::new(Delete::Array);
    let timer = kernel.init();
    kernel.add(timer, 10).unwrap();
    assert_eq!(kernel.del(DRIVER, timer), Ok(true));
}

/// Memory that the client manages: added twice, set up again while it is linked, freed while it is linked.
#[test]
fn t_44_storage_in_the_clients_hands_control() {
    let two = || {
        let mut kernel = Kernel::new(Delete::Plain);
        let timers = [0, 1].map(|_| kernel.init());
        timers.iter().for_each(|&timer| kernel.add(timer, 10).unwrap());
        (kernel, timers[0])
    };
    let (mut kernel, first) = two();
    kernel.add(first, 20).unwrap();
    assert_eq!(kernel.list_is_sound(), Err(Violation::ListCorruption));
    let (mut kernel, first) = two();
    *kernel.memory.at(first).unwrap() = Default::default();
    assert_eq!(kernel.list_is_sound(), Err(Violation::ListCorruption));
    let (mut kernel, first) = two();
    kernel.free(first).unwrap();
    assert_eq!(kernel.list_is_sound(), Err(Violation::UseAfterFree { reused: false }));
}
