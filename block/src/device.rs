//! The device contract.

use alloc::sync::Arc;
use core::fmt;

use undercroft_hal::BottomHalf;

use crate::scsi::Managed;
use crate::{Error, Identity, Info, Request, Tag};

/// Why a device did not take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No room now: try again after a completion, or after [`Event::Room`].
    Full,
    /// Never, as it stands.
    Invalid(Error),
    /// The device is gone or broken.
    Gone(Error),
}

/// A request that was not taken, whole.
#[derive(Debug)]
pub struct Rejected {
    /// The request, with its buffers.
    pub request: Request,
    /// Why.
    pub why: Refusal,
}

impl Rejected {
    /// The error to report if there is no point in trying again; `None` for [`Refusal::Full`].
    pub const fn error(&self) -> Option<Error> {
        match self.why {
            Refusal::Full => None,
            Refusal::Invalid(error) | Refusal::Gone(error) => Some(error),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("no room now"),
            Self::Invalid(error) | Self::Gone(error) => error.fmt(f),
        }
    }
}

/// What happens to a device while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A queue that had refused a request has room again.
    Room,
    /// The capacity changed; ask for [`Info`] again.
    Resized,
    /// The medium was changed.
    MediaChanged,
    /// The device is gone: everything in flight completes with [`Error::Removed`].
    Removed,
}

/// Who is told of events. Runs in bottom-half context with no lock held.
pub trait Watcher: Send + Sync {
    /// Something happened.
    fn event(&self, cx: &BottomHalf, event: Event);
}

/// How much of a device to reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The queue that has this request, where queues can be reset one by one.
    Queue(Tag),
    /// All of it.
    Device,
}

/// What recovery asks of a device, from the mildest to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// End one request.
    Abort(Tag),
    /// End all requests of this disk, and reset it.
    ResetUnit,
    /// End all requests of all disks that share its bus, and reset those; or all of the queue that has this request, if it is one.
    ResetBus(Option<Tag>),
    /// End all requests of all disks of the controller, and set that up anew.
    ResetController,
}

/// A block device.
pub trait BlockDevice: Send + Sync {
    /// Who it is.
    fn identity(&self) -> &Identity;

    /// Its present shape. Any context.
    fn info(&self) -> Info;

    /// Takes a request, on the queue of the calling CPU, or gives it back. Never completes it inside the call. The device may wait for
    /// [`BlockDevice::commit`] before it starts. Any context.
    ///
    /// # Errors
    /// [`Rejected`] with the request.
    fn submit(&self, request: Request) -> Result<Tag, Rejected>;

    /// Starts what was submitted by this CPU: one doorbell for the batch. Any context.
    fn commit(&self);

    /// Asks that a request end soon. `true` if the device knows it and will try; in either case its completion runs once. Any context.
    fn cancel(&self, tag: Tag) -> bool {
        let _ = tag;
        false
    }

    /// Asks that everything in flight in a part of the device end, by resetting it. `true` if the device will: each request there is finished
    /// once, with its answer if it had come, else with [`Error::NotStarted`] or [`Error::Reset`]; until then new ones are refused with
    /// [`Refusal::Full`]. Task or bottom-half context, no lock held.
    fn reset(&self, what: Reset) -> bool {
        let _ = what;
        false
    }

    /// Asks the device to end requests that do not end by themselves. It says no more than that it was told: the requests that it ends come
    /// back through their completions, each once, with [`Error::Cancelled`], [`Error::Reset`] or [`Error::NotStarted`]; whoever asks watches for that. Task or
    /// bottom-half context, no lock held.
    ///
    /// Without an implementation of its own a device is cancelled on and [reset](BlockDevice::reset).
    fn recover(&self, what: Recovery) -> Managed {
        let asked = match what {
            Recovery::Abort(tag) => self.cancel(tag),
            Recovery::ResetUnit | Recovery::ResetBus(None) => false,
            Recovery::ResetBus(Some(tag)) => self.reset(Reset::Queue(tag)),
            Recovery::ResetController => self.reset(Reset::Device),
        };
        if asked { Managed::Asked } else { Managed::Unsupported }
    }

    /// Sets who is told of events, replacing the one before. Task or bottom-half context.
    fn watch(&self, watcher: Arc<dyn Watcher>);
}
