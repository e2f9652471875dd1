//! Posting messages to a host that may be behind. Task context.

use core::sync::atomic::Ordering;
use core::time::Duration;

use undercroft_hal::hyperv::{CallError, Status};
use undercroft_hal::{Instant, Task, cpu};

use super::Core;
use crate::BusError;
use crate::defect::Defect;
use crate::wire::message::VMBUS_MESSAGE;

/// How long a host may be behind.
const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };
/// The first message's connection may not exist: how long that is taken for being behind.
const CONTACT_PATIENCE: Duration = if cfg!(test) { Duration::from_millis(5) } else { Duration::from_millis(100) };
/// The pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = if cfg!(test) { Duration::from_micros(200) } else { Duration::from_millis(10) };

impl Core {
    /// Posts a message where messages go.
    pub(super) fn post(&self, cx: &Task, message: &[u8]) -> Result<(), BusError> {
        let connection = self.link.lock().connection;
        self.post_to(cx, connection, message, PATIENCE)
    }

    /// Posts the first message. `false`: the host has no such connection, so it does not speak this version.
    pub(super) fn post_contact(&self, cx: &Task, connection: u32, message: &[u8]) -> Result<bool, BusError> {
        match self.post_to(cx, connection, message, CONTACT_PATIENCE) {
            Ok(()) => Ok(true),
            Err(BusError::Call(CallError::Refused(Status::INVALID_CONNECTION))) => Ok(false),
            // Behind, and not without the connection: the same again, with the patience that others get.
            Err(BusError::Throttled) => self.post_to(cx, connection, message, PATIENCE).map(|()| true),
            Err(error) => Err(error),
        }
    }

    fn post_to(&self, cx: &Task, connection: u32, message: &[u8], patience: Duration) -> Result<(), BusError> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.partition.post(connection, VMBUS_MESSAGE, message) {
                Ok(()) => return Ok(()),
                Err(error) if !error.is_busy() || self.defects.has(Defect::PostsOnce) => {
                    return Err(BusError::Call(error));
                }
                Err(error) if started.elapsed() > patience => {
                    return Err(match error {
                        CallError::Refused(Status::INVALID_CONNECTION) => BusError::Call(error),
                        _ => BusError::Throttled,
                    });
                }
                Err(_) => {}
            }
            self.counters.throttled.fetch_add(1, Ordering::Relaxed);
            let until = Instant::now() + pause;
            while Instant::now() < until {
                // The host may be behind because nobody takes its own messages.
                cx.run_pending();
                cpu::relax();
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
