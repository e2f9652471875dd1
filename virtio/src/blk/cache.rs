//! Switching the device's write cache between write-back and write-through (virtio 1.2, 5.2.6.2). Task context; the part that talks to
//! the device runs in the bottom half of its configuration, which alone has the transport.
//!
//! A device that goes to write-through need not have written out what it had cached, so a flush follows, and until it has succeeded the
//! cache counts as volatile: whoever is careful goes on flushing. The choice is made again after a reset.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, Ordering};

use undercroft_block::{Complete, Completion, Error, Refusal, Rejected, Request};
use undercroft_hal::{BottomHalf, Duration, Instant, Task, cpu};

use super::VirtioBlk;
use super::wire::{BlkFeatures, config};
use crate::defect::Defect;
use crate::transport::Transport;

/// How long the device may take for each step.
const TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 30_000 });

/// How far a switch is.
mod step {
    pub(super) const NONE: u8 = 0;
    /// The bottom half has to write it.
    pub(super) const ASKED: u8 = 1;
    /// The device took it.
    pub(super) const TAKEN: u8 = 2;
    /// The device kept what it had.
    pub(super) const REFUSED: u8 = 3;
}

/// What was chosen.
mod choice {
    pub(super) const WRITE_THROUGH: u8 = 1;
    pub(super) const WRITE_BACK: u8 = 2;
}

/// A switch of the cache.
#[derive(Debug, Default)]
pub(super) struct Switch {
    step: AtomicU8,
    choice: AtomicU8,
    /// Not zero while writes from before the switch may be volatile.
    unflushed: AtomicU8,
}

impl Switch {
    /// Whether the cache counts as volatile whatever the device says of it.
    pub(super) fn keeps_volatile(&self) -> bool {
        self.unflushed.load(Ordering::Acquire) != 0
    }

    /// Writes the choice, if there is one that the device does not have. Bottom half.
    pub(super) fn apply(&self, transport: &mut dyn Transport) {
        let on = match self.choice.load(Ordering::Acquire) {
            choice::WRITE_THROUGH => 0,
            choice::WRITE_BACK => 1,
            _ => return,
        };
        if transport.config_u8(config::WRITEBACK) != on {
            transport.set_config_u8(config::WRITEBACK, on);
        }
        let taken = transport.config_u8(config::WRITEBACK) == on;
        let now = if taken { step::TAKEN } else { step::REFUSED };
        let _ = self.step.compare_exchange(step::ASKED, now, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Hears of the flush.
#[derive(Debug, Default)]
struct Flushed(AtomicU8);

impl Flushed {
    const DONE: u8 = 1;
    const FAILED: u8 = 2;
}

impl Complete for Flushed {
    fn complete(&self, _cx: &BottomHalf, _cookie: u64, _request: Request, result: Result<(), Error>) {
        self.0.store(if result.is_ok() { Self::DONE } else { Self::FAILED }, Ordering::Release);
    }
}

/// Waits until `ready` gives something.
fn wait<T>(cx: &Task, mut ready: impl FnMut() -> Option<T>) -> Result<T, Error> {
    let start = Instant::now();
    loop {
        cx.run_pending();
        if let Some(value) = ready() {
            return Ok(value);
        }
        if start.elapsed() > TIMEOUT {
            return Err(Error::TimedOut);
        }
        cpu::relax();
    }
}

impl VirtioBlk {
    /// Switches the device's write cache on or off, for all who use it. With it off, completed writes are durable: those from before, too,
    /// when this returns.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the device has no such switch or keeps its mode, [`Error::Busy`] while another switch is under way, and
    /// what went wrong with the flush; the cache then still counts as volatile.
    pub fn set_write_cache(&self, cx: &Task, on: bool) -> Result<(), Error> {
        let device = &self.running.device;
        let switch = &device.protocol.switch;
        if !device.protocol.has(BlkFeatures::CONFIG_WCE | BlkFeatures::FLUSH) {
            return Err(Error::Unsupported);
        }
        if switch.step.compare_exchange(step::NONE, step::ASKED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Err(Error::Busy);
        }
        let before = switch.choice.swap(if on { choice::WRITE_BACK } else { choice::WRITE_THROUGH }, Ordering::AcqRel);
        switch.unflushed.store(u8::from(!on), Ordering::Release);
        device.look_again();
        let taken = wait(cx, || match switch.step.load(Ordering::Acquire) {
            step::ASKED => None,
            step => Some(step == step::TAKEN),
        });
        switch.step.store(step::NONE, Ordering::Release);
        match taken {
            Ok(true) => {}
            Ok(false) => {
                switch.choice.store(before, Ordering::Release);
                switch.unflushed.store(0, Ordering::Release);
                return Err(Error::Unsupported);
            }
            Err(error) => return Err(error),
        }
        if !on && !device.defects.has(Defect::SwitchesWithoutFlush) {
            self.flush(cx)?;
        }
        switch.unflushed.store(0, Ordering::Release);
        device.look_again();
        cx.run_pending();
        Ok(())
    }

    fn flush(&self, cx: &Task) -> Result<(), Error> {
        use undercroft_block::BlockDevice;
        let flushed = Arc::new(Flushed::default());
        wait(cx, || {
            match self.submit(Request::flush(Completion::new(Arc::clone(&flushed) as Arc<dyn Complete>, 0))) {
                Ok(_) => Some(Ok(())),
                Err(Rejected { why: Refusal::Full, .. }) => None,
                Err(Rejected { why: Refusal::Invalid(error) | Refusal::Gone(error), .. }) => Some(Err(error)),
            }
        })??;
        self.commit();
        match wait(cx, || Some(flushed.0.load(Ordering::Acquire)).filter(|state| *state != 0))? {
            Flushed::DONE => Ok(()),
            _ => Err(Error::Medium),
        }
    }
}
