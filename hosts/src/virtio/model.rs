//! What a kind of device adds to the common machinery.

use super::{Breach, Fault, Request};

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done: this many bytes were written to it.
    Done(u32),
    /// The device keeps the buffers, to write to them when something happens (an event queue).
    Keep,
    /// Done as with [`Outcome::Done`], but what matches is answered first (an abort).
    DoneAfter(Cancel, u32),
}

/// Which requests in flight an abort means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancel {
    /// Those of this target.
    pub target: u8,
    /// Those of this logical unit.
    pub lun: Option<u16>,
    /// Those with this tag.
    pub tag: Option<u64>,
    /// What they are answered.
    pub response: u8,
}

/// A kind of device.
pub trait Model {
    /// The virtio device id (section 5).
    fn device_id(&self) -> u16;
    /// PCI class, subclass and programming interface.
    fn class(&self) -> (u8, u8, u8);
    /// The device's own features and those of its rings that it offers.
    fn features(&self) -> u64;
    /// The maximum size of each queue.
    fn queues(&self) -> Vec<u16>;
    /// The device's configuration structure.
    fn config(&self) -> Vec<u8>;
    /// The driver writes to the configuration structure.
    ///
    /// # Errors
    /// [`Breach`] when the field is read-only.
    fn write_config(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Breach>;
    /// The driver resets the device.
    fn reset(&mut self);
    /// The driver accepted these features.
    fn negotiated(&mut self, features: u64);
    /// Whether requests on this queue count in the fault script.
    fn scripted(&self, queue: u16) -> bool {
        let _ = queue;
        true
    }
    /// Performs a request, with what of its faults is the device's own matter ([`Fault::Error`] and the like).
    ///
    /// # Errors
    /// [`Breach`] for what breaks the device.
    fn execute(&mut self, queue: u16, request: &mut Request<'_>, faults: &[Fault]) -> Result<Outcome, Breach>;
    /// If `what` means this request: answers it, and returns how many bytes were written.
    ///
    /// # Errors
    /// As [`Model::execute`].
    fn cancel(&mut self, queue: u16, request: &mut Request<'_>, what: &Cancel) -> Result<Option<u32>, Breach> {
        let _ = (queue, request, what);
        Ok(None)
    }
    /// Takes the next event, if there is one: the queue whose kept buffers it goes to, and its bytes. `room` says whether that queue has a
    /// buffer: without one nothing is taken.
    fn event(&mut self, room: &dyn Fn(u16) -> bool) -> Option<(u16, Vec<u8>)> {
        let _ = room;
        None
    }
}
