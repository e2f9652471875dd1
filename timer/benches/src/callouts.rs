//! Callouts, as a driver uses them: handles with handlers, the service with its locks, states and counts.
//!
//! UNSAFETY: calls the dispatcher as a platform does, on a thread that is in no context.

use std::cell::RefCell;

use undercroft_hal::{BottomHalf, Duration, Instant, cpu, dispatch};
use undercroft_hal_benches::platform;
use undercroft_timer::{Callout, Expiry, Started, Stopped, timers};

use crate::subject::Subject;

thread_local! {
    /// The numbers of those whose handlers ran.
    static RAN: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Nanoseconds of a tick.
const TICK: u64 = 1024;

/// The callouts of one CPU.
pub struct Callouts {
    callouts: Vec<Callout<BottomHalf>>,
    /// Time does not begin anew with each instance.
    begin: u64,
}

impl Subject for Callouts {
    const NAME: &'static str = "undercroft Callout";

    fn make(room: u32) -> Self {
        // SAFETY: this thread is a CPU that is in no context, and has its interrupts on.
        unsafe { dispatch::enter_task(timers::start_service) };
        let make = |id| {
            Callout::new(cpu::current(), move |_: &BottomHalf, _: &Expiry| RAN.with_borrow_mut(|ran| ran.push(id)))
        };
        Self { callouts: (0..room).map(make).collect(), begin: Instant::now().as_nanos() }
    }

    #[inline]
    fn start(&mut self, id: u32, at: u64) {
        let at = Instant::from_nanos(self.begin) + Duration::from_nanos(at * TICK);
        let started = self.callouts[id as usize].start_at(at);
        debug_assert_eq!(started, Ok(Started::Armed));
    }

    #[inline]
    fn stop(&mut self, id: u32) {
        let stopped = self.callouts[id as usize].stop();
        debug_assert_eq!(stopped, Stopped::Cancelled);
    }

    fn expire(&mut self, to: u64, due: &mut Vec<u32>) {
        platform::set_time(self.begin + to * TICK);
        loop {
            let before = due.len();
            // SAFETY: this thread is a CPU that is in no context, and has its interrupts on.
            unsafe { platform::ring() };
            RAN.with_borrow_mut(|ran| due.append(ran));
            if due.len() == before {
                return;
            }
        }
    }

    #[inline]
    fn next(&mut self) -> Option<u64> {
        timers::next_event(cpu::current()).map(Instant::as_nanos)
    }
}
