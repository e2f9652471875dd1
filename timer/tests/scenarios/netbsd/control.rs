//! What the old system did, and what its proposed cures would have done.

use crate::old::memory::Ptr;
use crate::old::netbsd::{Cure, Handler, Interrupt, Ipl, Kernel, Tcb};
use crate::watch::{Step, Violation};

/// More than the points at which an interrupt can strike while one handler is run.
const POINTS: usize = 8;

/// A reset segment arrives: the connection ends, and its memory goes to the next one.
fn closed_and_reused(kernel: &mut Kernel, tcb: Ptr<Tcb>) -> Step {
    kernel.close_unasked(tcb)?;
    kernel.memory.alloc(Tcb::default());
    Ok(())
}

/// The same, asking as cure 2 wants it.
fn closed(kernel: &mut Kernel, tcb: Ptr<Tcb>) -> Step {
    kernel.close(tcb)
}

/// Acknowledged data first, which arms the timer anew; then the reset segment.
fn armed_then_closed(kernel: &mut Kernel, tcb: Ptr<Tcb>) -> Step {
    let later = kernel.now + 500;
    kernel.reset(tcb, later)?;
    kernel.close(tcb)
}

fn armed_later(kernel: &mut Kernel, tcb: Ptr<Tcb>) -> Step {
    let later = kernel.now + 500;
    kernel.reset(tcb, later)
}

/// A connection whose timer is due, and an interrupt that strikes at point `at` of the executor's way.
fn struck(cure: Cure, handler: Handler, interrupt: Interrupt, at: usize) -> (Step, Kernel) {
    let mut kernel = Kernel::new(cure);
    kernel.handler = handler;
    let tcb = kernel.memory.alloc(Tcb::default());
    kernel.reset(tcb, 10).unwrap();
    kernel.now = 10;
    kernel.interrupt = Some((at, interrupt, tcb));
    let outcome = kernel.softclock();
    // The next tick, and one after the longest time that anything is armed for.
    let outcome = outcome.and_then(|()| {
        kernel.now += 1000;
        kernel.softclock()
    });
    (outcome, kernel)
}

/// What happens at each point.
fn at_every_point(cure: Cure, handler: Handler, interrupt: Interrupt) -> Vec<Step> {
    (0..POINTS).map(|at| struck(cure, handler, interrupt, at).0).collect()
}

const REUSED: Step = Err(Violation::UseAfterFree { reused: true });
const FREED: Step = Err(Violation::UseAfterFree { reused: false });

#[test]
fn t_15_the_window_on_one_cpu_control() {
    let outcomes = at_every_point(Cure::None, Handler::Right, closed_and_reused);
    let windows: Vec<_> = (0..POINTS).filter(|&at| outcomes[at].is_err()).collect();
    // Between the executor's unlock and the handler's first line, in the first run and in the second, and nowhere else.
    assert_eq!((windows, outcomes[0]), (vec![0, 3], REUSED), "{outcomes:?}");
}

/// What the report's title speaks of: nobody notices that the memory is another's. The handler arms the timer in it, its owner sets it up.
#[test]
fn t_16_the_wheel_is_corrupted_by_a_new_owner_control() {
    let mut kernel = Kernel::new(Cure::None);
    kernel.memory.blind = true;
    let neighbours = [1000, 2000].map(|time| {
        let tcb = kernel.memory.alloc(Tcb::default());
        (tcb, time)
    });
    let tcb = kernel.memory.alloc(Tcb::default());
    kernel.reset(neighbours[0].0, neighbours[0].1).unwrap();
    kernel.reset(tcb, 10).unwrap();
    kernel.now = 10;
    kernel.interrupt = Some((0, closed_and_reused, tcb));
    kernel.softclock().unwrap();
    kernel.reset(neighbours[1].0, neighbours[1].1).unwrap();
    kernel.wheel_is_sound().unwrap();
    kernel.init(tcb).unwrap();
    assert_eq!(kernel.wheel_is_sound(), Err(Violation::ListCorruption));
}

/// Cure 1 holds at every point if the level is the one that the handler would raise to, and not at a lower one.
#[test]
fn t_17_execution_level_control() {
    let right = at_every_point(Cure::Level(Ipl::SoftNet), Handler::Right, closed_and_reused);
    assert!(right.iter().all(Result::is_ok), "{right:?}");
    let low = at_every_point(Cure::Level(Ipl::SoftClock), Handler::Right, closed_and_reused);
    assert_eq!(low[0], REUSED);
}

/// Cure 2 holds against the interrupt that only closes. One that arms the timer first takes the mark away.
#[test]
fn t_18_the_mark_is_erased_by_a_reset_control() {
    let right = at_every_point(Cure::Ack, Handler::Right, closed);
    assert!(right.iter().all(Result::is_ok), "{right:?}");
    let erased = at_every_point(Cure::Ack, Handler::Right, armed_then_closed);
    assert_eq!(erased[0], FREED);
}

/// Cure 2 needs every handler's help, and an acknowledgement is not the end of a handler.
#[test]
fn t_19_forgotten_and_early_acknowledgement_control() {
    let early = at_every_point(Cure::Ack, Handler::LowersLater, closed);
    assert_eq!(early[1], FREED, "acknowledged, and still at work");
    let (outcome, kernel) = struck(Cure::Ack, Handler::Forgets, closed, 0);
    assert_eq!((outcome, kernel.memory.live()), (Ok(()), 1), "a connection that nobody ever frees");
}

/// Armed anew for 500 later, the handler runs now.
#[test]
fn t_20_early_run_of_a_replaced_expiry_control() {
    for cure in [Cure::None, Cure::Ack] {
        let outcomes = at_every_point(cure, Handler::Right, armed_later);
        assert_eq!(outcomes[0], Err(Violation::EarlyFire { deadline: 510, at: 10 }), "{cure:?}");
    }
}

/// Stop tells, and the caller does not listen: it compiles.
#[test]
fn t_21_an_answer_that_nobody_hears_control() {
    assert_eq!(at_every_point(Cure::Ack, Handler::Right, closed_and_reused)[0], REUSED);
}
