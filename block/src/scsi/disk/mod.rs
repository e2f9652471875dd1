//! A disk behind a SCSI host: block requests in, commands out.
//!
//! Contexts: [`BlockDevice::submit`] and [`BlockDevice::commit`] anywhere; commands come back in bottom-half context. No lock is held while the
//! host or a completion is called.
//!
//! # What a flush means here
//! SYNCHRONIZE CACHE is always sent, whatever the caching page said at probe, unless the device has answered that it knows neither the
//! 10-byte nor the 16-byte command *and* does not claim a write cache: then there is nothing to flush, that is remembered, and a flush
//! travels as TEST UNIT READY. A device that claims a cache and refuses to flush it fails every flush. If the device lost its power, or was
//! reset in a way that may have emptied its cache, with writes in it, or reports a deferred error, the next flush fails: the writes before it are
//! not durable, and a flush that was not performed is never reported as done.

mod again;
mod cdbs;
mod unit;

#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use core::fmt;

use undercroft_hal::BottomHalf;

pub(super) use unit::{DiscardBy, Shape, Unit};

use super::{Address, Command, Direction, Host, Initiator, Managed, Management, Refused};
use crate::{BlockDevice, Event, Identity, Info, Op, Recovery, Refusal, Rejected, Request, Tag, Watcher};

/// A disk. It has its host: when the last of a host's disks goes, and whoever else has it, what is in flight ends with
/// [`Error::Removed`](crate::Error::Removed).
pub struct ScsiDisk {
    unit: Arc<Unit>,
    host: Arc<dyn Host>,
}

impl ScsiDisk {
    pub(super) fn new(unit: Arc<Unit>, host: &Arc<dyn Host>) -> Self {
        Self { unit, host: Arc::clone(host) }
    }

    /// Where it is on its host.
    pub fn address(&self) -> Address {
        self.unit.address
    }

    /// The host that carries its commands.
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    pub(super) fn unit(&self) -> &Arc<Unit> {
        &self.unit
    }

    fn refuse(request: Request, why: Refusal) -> Rejected {
        Rejected { request, why }
    }
}

impl BlockDevice for ScsiDisk {
    fn identity(&self) -> &Identity {
        &self.unit.identity
    }

    fn info(&self) -> Info {
        self.unit.info()
    }

    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        let unit = &self.unit;
        if let Some(error) = unit.gone() {
            return Err(Self::refuse(request, Refusal::Gone(error)));
        }
        if let Err(error) = unit.check(&request) {
            return Err(Self::refuse(request, Refusal::Invalid(error)));
        }
        if !unit.enter() {
            return Err(Self::refuse(request, Refusal::Full));
        }
        let mut parameters = None;
        if matches!(request.op, Op::Discard | Op::WriteZeroes) {
            parameters = unit.parameters(&request);
            if parameters.is_none() {
                unit.leave();
                return Err(Self::refuse(request, Refusal::Full));
            }
        }
        let (cdb, direction) = unit.cdb(&request);
        let mut command =
            Command::new(unit.address, cdb, direction, request.accept(), Arc::clone(unit) as Arc<dyn Initiator>);
        if parameters.is_some() {
            command.frame_mut().parameters = parameters;
        }
        if direction == Direction::None {
            unit.begin_flush(&mut command);
        }
        let refused = match self.host.submit(command) {
            Ok(tag) => return Ok(tag),
            Err(Refused { command, why: Refusal::Full }) => {
                // From here on room is announced; it may have come in between, so the host is asked once more.
                unit.want_room();
                match self.host.submit(command) {
                    Ok(tag) => return Ok(tag),
                    Err(refused) => refused,
                }
            }
            Err(refused) => refused,
        };
        let Refused { mut command, why } = refused;
        unit.give_parameters(command.frame_mut().parameters.take());
        unit.leave();
        Err(Self::refuse(command.request.give_back(), why))
    }

    fn commit(&self) {
        self.host.commit();
    }

    fn cancel(&self, tag: Tag) -> bool {
        self.host.cancel(tag)
    }

    fn recover(&self, what: Recovery) -> Managed {
        let unit = &self.unit;
        self.host.manage(match what {
            Recovery::Abort(tag) => Management::Abort(tag),
            Recovery::ResetUnit => Management::ResetUnit(unit.address),
            Recovery::ResetBus(_) => Management::ResetBus,
            Recovery::ResetController => Management::ResetHost,
        })
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.unit.watch(watcher);
    }
}

impl fmt::Debug for ScsiDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScsiDisk({} {})", self.unit.identity.controller, self.unit.identity.serial)
    }
}

impl Unit {
    /// Tells the watcher, with no lock held.
    pub(super) fn tell(&self, cx: &BottomHalf, event: Event) {
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }
}
