//! Commands that are sent again: at once after a unit attention, a little later when the device is not ready. One that is busy is the
//! queue's to ask again, on its callout.
//!
//! Bottom-half context. What waits is a bounded queue, allocated with the disk: a waiting command still counts as in flight, so there is
//! always room for it. The waiting queue is looked at again after the other bottom halves, by the clock, until it is empty.

use alloc::sync::{Arc, Weak};
use core::time::Duration;

use undercroft_hal::work::Turn;
use undercroft_hal::{BottomHalf, Instant, cpu};

use super::super::{Command, Initiator, Refused};
use super::unit::Unit;
use crate::{Error, Refusal};

/// How often a command is sent again at once.
const AT_ONCE: u8 = 8;
/// How often it is sent again after a pause: about half a second in all.
const AFTER_PAUSE: u8 = 60;
/// The longest pause; short in tests, where each look at the clock costs more than time passes.
const LONGEST: Duration = Duration::from_micros(if cfg!(test) { 200 } else { 10_000 });

/// A command that waits for its next try.
pub(super) struct Parked {
    command: Command,
    not_before: Instant,
    /// What to report when it cannot be sent any more.
    error: Error,
}

/// The pause before the next try: it doubles.
fn pause(attempts: u8) -> Duration {
    LONGEST.min(Duration::from_micros(100 << attempts.min(10)))
}

impl Unit {
    /// Sends a command again at once, but not for ever.
    pub(super) fn again(self: Arc<Self>, cx: &BottomHalf, mut command: Command, error: Error) {
        if command.frame().attempts >= AT_ONCE {
            return self.fail(cx, command, error);
        }
        command.frame_mut().attempts += 1;
        self.send_again(cx, command, error);
    }

    /// Sends a command again after a pause, but not for ever.
    pub(super) fn later(self: Arc<Self>, cx: &BottomHalf, mut command: Command, error: Error) {
        // How long a busy device gets is the queue's before the disk: it has deadlines and a clock that wakes it.
        if error == Error::Busy || command.frame().attempts >= AFTER_PAUSE {
            return self.fail(cx, command, error);
        }
        command.frame_mut().attempts += 1;
        self.park(command, error);
    }

    /// Sends a command that came back. `error` is reported if the host is gone meanwhile.
    pub(super) fn send_again(self: Arc<Self>, cx: &BottomHalf, mut command: Command, error: Error) {
        command.frame_mut().initiator = Some(Arc::clone(&self) as Arc<dyn Initiator>);
        let Some(host) = self.host.upgrade() else { return self.fail(cx, command, Error::Removed) };
        match host.submit(command) {
            Ok(_) => host.commit(),
            Err(Refused { command, why: Refusal::Full }) => self.park(command, error),
            Err(Refused { command, why: Refusal::Invalid(error) | Refusal::Gone(error) }) => {
                self.fail(cx, command, error);
            }
        }
    }

    fn park(self: Arc<Self>, mut command: Command, error: Error) {
        let not_before = Instant::now() + pause(command.frame().attempts);
        // The waiting command keeps its disk alive, so that it cannot be lost with it; the circle ends when the pump takes it out.
        command.frame_mut().initiator = Some(Arc::clone(&self) as Arc<dyn Initiator>);
        self.parked.lock().push_back(Parked { command, not_before, error });
        self.pump.schedule();
    }

    pub(super) fn pump_weak(weak: &Weak<Self>, cx: &BottomHalf) -> Turn {
        weak.upgrade().map_or(Turn::Done, |unit| unit.pump_parked(cx))
    }

    /// Sends what is due, each at most once per turn.
    fn pump_parked(self: Arc<Self>, cx: &BottomHalf) -> Turn {
        self.tell_vanished(cx);
        let mut left = self.parked.lock().len();
        while left > 0 {
            left -= 1;
            let now = Instant::now();
            let due = {
                let mut parked = self.parked.lock();
                let at = parked.iter().position(|waiting| waiting.not_before <= now);
                at.and_then(|at| parked.remove(at))
            };
            let Some(Parked { command, error, .. }) = due else {
                cpu::relax();
                break;
            };
            match self.gone() {
                Some(gone) => self.fail(cx, command, gone),
                None => Arc::clone(&self).send_again(cx, command, error),
            }
        }
        if self.parked.lock().is_empty() { Turn::Done } else { Turn::Again }
    }
}
