//! The running system's callout service: made at its first use, bound to the hal's clock, alarms, kicks and deferred work.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

use undercroft_hal::context::Kind;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, TaskWork, Turn};
use undercroft_hal::{BottomHalf, Duration, HardIrq, Instant, Task, cpu, irq, system};

use crate::executor::Chore;
use crate::level::Token;
use crate::port::Port;
use crate::stats::Stats;
use crate::wheels::Wheels;

/// Who is told of jumps.
type Told = fn(&BottomHalf, Jump);

/// The hal, as a port.
pub(crate) struct Hal {
    ready: AtomicBool,
    works: Box<[(BottomHalfWork, TaskWork)]>,
    on_jump: IrqSpinLock<Option<Told>>,
}

impl Port for Hal {
    #[inline]
    fn now(&self) -> u64 {
        Instant::now().as_nanos()
    }
    #[inline]
    fn current(&self) -> usize {
        cpu::current()
    }
    #[inline]
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
    fn set_alarm(&self, at: u64) {
        irq::set_alarm(Some(Instant::from_nanos(at)));
    }
    fn kick(&self, cpu: usize) {
        cpu::kick(cpu);
    }
    fn schedule(&self, cpu: usize, level: Kind) {
        let Some((bottom_half, task)) = self.works.get(cpu).filter(|_| self.is_ready()) else { return };
        match level {
            Kind::BottomHalf => bottom_half.schedule(),
            Kind::Task => task.schedule(),
            Kind::HardIrq => {}
        }
    }
}

struct Service {
    wheels: Wheels<Hal>,
}

impl Service {
    fn new() -> Self {
        let works = |cpu| {
            let bottom_half = BottomHalfWork::new(cpu, move |cx| turn(|wheels| bottom_half(wheels, cpu, cx)));
            let task = TaskWork::new(cpu, move |cx| turn(|wheels| wheels.turn(cpu, Token::Task(cx.unwaiting()))));
            (bottom_half, task)
        };
        let cpus = cpu::count().max(1);
        let hal = Hal {
            ready: AtomicBool::new(false),
            works: (0..cpus).map(works).collect(),
            on_jump: IrqSpinLock::new(Rank::WHEEL, None),
        };
        Self { wheels: Wheels::new(cpus, hal) }
    }
}

fn turn(more: impl FnOnce(&Wheels<Hal>) -> bool) -> Turn {
    if with(more) == Some(true) { Turn::Again } else { Turn::Done }
}

fn bottom_half(wheels: &Wheels<Hal>, cpu: usize, cx: &BottomHalf) -> bool {
    let again = wheels.again(cpu, Kind::BottomHalf);
    for _ in 0..CHORES {
        match wheels.chore(cpu) {
            None => break,
            Some(Chore::Free(dead)) => dead.free(),
            Some(Chore::Complete(waiter)) => waiter.run(cx),
            Some(Chore::Jumped(by)) => {
                let told = *wheels.port.on_jump.lock();
                if let Some(told) = told {
                    told(cx, Jump { cpu, by: Duration::from_nanos(by) });
                }
            }
        }
    }
    core::mem::forget(again);
    // Its answer speaks of chores too.
    wheels.turn(cpu, Token::BottomHalf(cx))
}

/// Chores of one turn.
const CHORES: usize = 32;

/// Calls `f` with the running system's wheels, if it has any yet.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&Wheels<Hal>) -> R) -> Option<R> {
    system::attached(|service: Option<&Service>| service.map(|service| f(&service.wheels)))
}

/// Makes the service if it is not there. Bottom half or task: it allocates.
pub(crate) fn make() {
    system::attach(Service::new);
}

fn on_alarm(cx: &HardIrq) {
    with(|wheels| wheels.interrupt(cpu::current(), Token::HardIrq(cx), true));
}

fn on_kick(cx: &HardIrq) {
    with(|wheels| wheels.interrupt(cpu::current(), Token::HardIrq(cx), false));
}

/// Takes over every CPU's alarm and kicks. Callouts may be made and started before: they run from here on. To be called once all CPUs
/// are up; the service serves those that there were when its first callout was made.
pub fn start_service(cx: &Task) {
    make();
    irq::set_alarm_handler(cx, on_alarm);
    irq::set_kick_handler(cx, on_kick);
    with(|wheels| {
        wheels.port.ready.store(true, Ordering::SeqCst);
        for cpu in 0..wheels.cpus() {
            // Who started something before saw that nobody was there to be told.
            wheels.port.schedule(cpu, Kind::BottomHalf);
            wheels.port.kick(cpu);
        }
    });
}

/// When CPU `cpu` has to look at its wheel next; none if nothing is armed there that sets the alarm, or there is no such CPU. A time that
/// is past means at once. Any context.
pub fn next_event(cpu: usize) -> Option<Instant> {
    with(|wheels| wheels.next_event(cpu)).flatten().map(Instant::from_nanos)
}

/// What CPU `cpu`'s callouts have seen; nothing for a CPU that there is not. Any context.
pub fn stats(cpu: usize) -> Stats {
    with(|wheels| wheels.stats(cpu)).unwrap_or_default()
}

/// The clock jumped: an alarm came more than [`JUMP`](crate::timers::JUMP) nanoseconds late. The machine was stopped, or the host did not run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// Whose alarm it was.
    pub cpu: usize,
    /// How late.
    pub by: Duration,
}

/// Sets what is called, as a bottom half, when the clock jumped. What is due after a jump runs in batches that leave others time, and a
/// periodic callout runs once, with the rest counted as missed; a client that must know is told here.
pub fn on_jump(_cx: &Task, told: fn(&BottomHalf, Jump)) {
    make();
    with(|wheels| *wheels.port.on_jump.lock() = Some(told));
}
