//! Commands that are sent again: at once after a unit attention, a little later when the device is not ready. One that is busy is the
//! queue's to ask again, on its callout.
//!
//! Bottom-half context. What waits is a bounded queue, allocated with the disk: a waiting command still counts as in flight, so there is
//! always room for it. What waits for the time is looked at again after the other bottom halves, by the clock, for half a second at most. What
//! the host had no room for waits until it says that it has: it may be a task that makes room (one that resets the host, say), and bottom halves
//! that ask over and over would keep that task from running.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;
use core::time::Duration;

use undercroft_hal::work::Turn;
use undercroft_hal::{BottomHalf, Instant, cpu};

use super::super::{Command, Initiator, Refused};
use super::unit::Unit;
use crate::broken::{self, Hazard};
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
    until: Until,
    /// What to report when it cannot be sent any more.
    error: Error,
}

/// What it waits for.
#[derive(Clone, Copy)]
enum Until {
    Time(Instant),
    /// The host has told of room more often than this.
    Room(u32),
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
        // SeqCst, as in `room`: room that is told of while the host refuses is seen when the command waits.
        let rooms = self.rooms.load(Ordering::SeqCst);
        match host.submit(command) {
            Ok(_) => host.commit(),
            Err(Refused { command, why: Refusal::Full }) if broken::is(Hazard::AsksForRoom) => {
                self.park(command, error)
            }
            Err(Refused { command, why: Refusal::Full }) => self.put_aside(command, Until::Room(rooms), error),
            Err(Refused { command, why: Refusal::Invalid(error) | Refusal::Gone(error) }) => {
                self.fail(cx, command, error);
            }
        }
    }

    fn park(self: Arc<Self>, command: Command, error: Error) {
        let until = Until::Time(Instant::now() + pause(command.frame().attempts));
        self.put_aside(command, until, error);
    }

    fn put_aside(self: Arc<Self>, mut command: Command, until: Until, error: Error) {
        // The waiting command keeps its disk alive, so that it cannot be lost with it; the circle ends when the pump takes it out.
        command.frame_mut().initiator = Some(Arc::clone(&self) as Arc<dyn Initiator>);
        self.parked.lock().push_back(Parked { command, until, error });
        if matches!(until, Until::Time(_)) || self.is_over(until) {
            self.pump.schedule();
        }
    }

    /// Whether what is waited for has come, or never will.
    fn is_over(&self, until: Until) -> bool {
        self.gone().is_some()
            || match until {
                Until::Time(at) => at <= Instant::now(),
                Until::Room(rooms) => self.rooms.load(Ordering::SeqCst) != rooms,
            }
    }

    /// The host has room, or is gone: what waits for it is looked at.
    pub(super) fn room(&self) {
        self.rooms.fetch_add(1, Ordering::SeqCst);
        if !self.parked.lock().is_empty() {
            self.pump.schedule();
        }
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
            let due = {
                let mut parked = self.parked.lock();
                let at = parked.iter().position(|waiting| self.is_over(waiting.until));
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
        let again = self.parked.lock().iter().any(|waiting| matches!(waiting.until, Until::Time(_)));
        if again { Turn::Again } else { Turn::Done }
    }
}
