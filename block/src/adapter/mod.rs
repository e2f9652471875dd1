//! A device as `async` functions, and as blocking ones for task context.
//!
//! The state of everything under way lives in slots made once: an operation allocates nothing. Futures may be polled, and their wakers
//! used, in any context. A future that is dropped while its request is in flight leaves the buffers with the request: they are freed when
//! the device has given them back, never before. Blocking forms are for tasks.

mod io;
mod slots;

#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use core::fmt;

use undercroft_hal::{Task, cpu};

pub use self::io::Stream;
use self::slots::{Finished, Reserved, Slots, Waiter};
use crate::{BlockDevice, Complete, Completion, Data, Error, Op, Refusal, Rejected, Request, Watcher};

/// An operation that failed, with its buffers.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: Error,
    /// The buffers; what is in them after a failed read is not defined.
    pub data: Data,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl core::error::Error for Failed {}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// A device with `async` and blocking operations. Becomes the device's watcher.
pub struct Disk {
    device: Arc<dyn BlockDevice>,
    slots: Arc<Slots>,
}

impl Disk {
    /// Wraps a device; at most `slots` operations are under way at once, further ones wait. Task context.
    pub fn new(device: Arc<dyn BlockDevice>, slots: u16) -> Self {
        let slots = Arc::new(Slots::new(slots.max(1)));
        device.watch(Arc::clone(&slots) as Arc<dyn Watcher>);
        Self { device, slots }
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// Sets who is told of the device's events.
    pub fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.slots.set_next(watcher);
    }

    /// Reads blocks from `lba` on into `data`, which says how many.
    ///
    /// # Errors
    /// [`Failed`] with the buffers.
    pub async fn read(&self, lba: u64, data: impl Into<Data>) -> Result<Data, Failed> {
        self.run(self.transfer(Op::Read, lba, data.into())).await
    }

    /// Writes `data` from block `lba` on.
    ///
    /// # Errors
    /// [`Failed`] with the buffers.
    pub async fn write(&self, lba: u64, data: impl Into<Data>) -> Result<Data, Failed> {
        self.run(self.transfer(Op::Write, lba, data.into())).await
    }

    /// Makes all finished writes durable.
    ///
    /// # Errors
    /// The device's error: then nothing is known to be durable.
    pub async fn flush(&self) -> Result<(), Error> {
        Ok(self.run(Plan { op: Op::Flush, lba: 0, blocks: 0, data: Data::None }).await.map(drop)?)
    }

    /// Gives up the content of `blocks` blocks from `lba` on.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the device cannot.
    pub async fn discard(&self, lba: u64, blocks: u32) -> Result<(), Error> {
        Ok(self.run(Plan { op: Op::Discard, lba, blocks, data: Data::None }).await.map(drop)?)
    }

    /// Makes `blocks` blocks from `lba` on read as zeroes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the device cannot.
    pub async fn write_zeroes(&self, lba: u64, blocks: u32) -> Result<(), Error> {
        Ok(self.run(Plan { op: Op::WriteZeroes, lba, blocks, data: Data::None }).await.map(drop)?)
    }

    /// As [`Disk::read`], and waits.
    ///
    /// # Errors
    /// As [`Disk::read`].
    pub fn read_blocking(&self, cx: &Task, lba: u64, data: impl Into<Data>) -> Result<Data, Failed> {
        self.run_blocking(cx, self.transfer(Op::Read, lba, data.into()))
    }

    /// As [`Disk::write`], and waits.
    ///
    /// # Errors
    /// As [`Disk::write`].
    pub fn write_blocking(&self, cx: &Task, lba: u64, data: impl Into<Data>) -> Result<Data, Failed> {
        self.run_blocking(cx, self.transfer(Op::Write, lba, data.into()))
    }

    /// As [`Disk::flush`], and waits.
    ///
    /// # Errors
    /// As [`Disk::flush`].
    pub fn flush_blocking(&self, cx: &Task) -> Result<(), Error> {
        Ok(self.run_blocking(cx, Plan { op: Op::Flush, lba: 0, blocks: 0, data: Data::None }).map(drop)?)
    }

    fn transfer(&self, op: Op, lba: u64, data: Data) -> Plan {
        let bytes = data.len();
        let size = self.device.info().block_size.max(1) as usize;
        // A length that is no whole number of blocks, or more than can be counted, is for the device to refuse.
        let blocks = u32::try_from(bytes.div_ceil(size)).unwrap_or(u32::MAX);
        Plan { op, lba, blocks, data }
    }

    async fn run(&self, plan: Plan) -> Result<Data, Failed> {
        let mut reserved = loop {
            let epoch = self.slots.epoch();
            match self.slots.reserve() {
                Some(reserved) => break reserved,
                None => self.slots.change(epoch).await,
            }
        };
        let mut request = self.request(plan, &mut reserved);
        loop {
            let epoch = self.slots.epoch();
            match self.device.submit(request) {
                Ok(_) => break,
                Err(Rejected { request: back, why: Refusal::Full }) => {
                    request = back;
                    self.slots.change(epoch).await;
                }
                Err(rejected) => return Err(self.refused(rejected)),
            }
        }
        let operation = reserved.submitted();
        self.device.commit();
        outcome(operation.await)
    }

    fn run_blocking(&self, cx: &Task, plan: Plan) -> Result<Data, Failed> {
        let here = || Waiter::Cpu(cpu::current());
        let mut reserved = loop {
            let epoch = self.slots.epoch();
            match self.slots.reserve() {
                Some(reserved) => break reserved,
                None => cx.wait_until(|| self.slots.changed(epoch, here())),
            }
        };
        let mut request = self.request(plan, &mut reserved);
        loop {
            let epoch = self.slots.epoch();
            match self.device.submit(request) {
                Ok(_) => break,
                Err(Rejected { request: back, why: Refusal::Full }) => {
                    request = back;
                    cx.wait_until(|| self.slots.changed(epoch, here()));
                }
                Err(rejected) => return Err(self.refused(rejected)),
            }
        }
        let mut operation = reserved.submitted();
        self.device.commit();
        let mut finished = None;
        cx.wait_until(|| {
            finished = finished.take().or_else(|| operation.poll_with(here()));
            finished.is_some()
        });
        // `wait_until` returns once there is an answer.
        finished.map_or(Err(Failed { error: Error::Broken, data: Data::None }), outcome)
    }

    fn request(&self, plan: Plan, reserved: &mut Reserved) -> Request {
        let completion = Completion::new(Arc::clone(&self.slots) as Arc<dyn Complete>, reserved.cookie());
        reserved.blank().fill(plan.op, plan.lba, plan.blocks, plan.data, completion)
    }

    fn refused(&self, rejected: Rejected) -> Failed {
        Failed { error: rejected.error().unwrap_or(Error::Busy), data: self.slots.recycle(rejected.request) }
    }
}

/// What to ask the device for.
struct Plan {
    op: Op,
    lba: u64,
    blocks: u32,
    data: Data,
}

fn outcome((data, result): Finished) -> Result<Data, Failed> {
    match result {
        Ok(()) => Ok(data),
        Err(error) => Err(Failed { error, data }),
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disk({})", self.device.identity().controller)
    }
}
