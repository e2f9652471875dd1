//! A partition as a device. Contexts as [`BlockDevice`]'s.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use undercroft_hal::BottomHalf;
use undercroft_hal::sync::{IrqSpinLock, Rank};

use super::{Entry, Table};
use crate::broken::{self, Hazard};
use crate::{BlockDevice, Event, Identity, Info, Refusal, Rejected, Request, Tag, Watcher};

type Slot = IrqSpinLock<Option<Arc<dyn Watcher>>>;

/// Passes the disk's events on to each partition's watcher.
struct Fan {
    watchers: Box<[Slot]>,
}

impl Watcher for Fan {
    fn event(&self, cx: &BottomHalf, event: Event) {
        for watcher in &self.watchers {
            let watcher = watcher.lock().clone();
            if let Some(watcher) = watcher {
                watcher.event(cx, event);
            }
        }
    }
}

/// A part of a device. Requests are in its own blocks, checked against its own bounds, and come back as they were submitted (X25).
pub struct Partition {
    parent: Arc<dyn BlockDevice>,
    entry: Entry,
    identity: Identity,
    fan: Arc<Fan>,
    index: usize,
}

/// Makes a device of each partition of a table. They share the disk's events: this becomes the disk's watcher. Task context.
pub fn open(parent: &Arc<dyn BlockDevice>, table: &Table) -> Vec<Arc<Partition>> {
    let fan = Arc::new(Fan { watchers: table.entries.iter().map(|_| IrqSpinLock::new(Rank::BLOCK, None)).collect() });
    parent.watch(Arc::clone(&fan) as Arc<dyn Watcher>);
    let partition = |(index, entry): (usize, &Entry)| {
        let whole = parent.identity();
        let controller = format!("{} partition {}", whole.controller, entry.number);
        let identity = Identity { controller, ..whole.clone() };
        let (parent, fan) = (Arc::clone(parent), Arc::clone(&fan));
        Arc::new(Partition { parent, entry: entry.clone(), identity, fan, index })
    };
    table.entries.iter().enumerate().map(partition).collect()
}

impl Partition {
    /// What the table says of it.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl BlockDevice for Partition {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn info(&self) -> Info {
        let info = self.parent.info();
        // The disk may have shrunk since the table was read.
        Info { capacity: self.entry.blocks.min(info.capacity.saturating_sub(self.entry.first)), ..info }
    }

    fn submit(&self, mut request: Request) -> Result<Tag, Rejected> {
        if let Err(error) = request.check_range(&self.info()) {
            return Err(Rejected { request, why: Refusal::Invalid(error) });
        }
        let mut first = self.entry.first;
        if broken::is(Hazard::SectorsForBlocks) {
            first = first * 512 / u64::from(self.parent.info().block_size);
        }
        if broken::is(Hazard::CutsBlocks) {
            first &= u64::from(u32::MAX);
        }
        if let Err(error) = request.move_down(first) {
            return Err(Rejected { request, why: Refusal::Invalid(error) });
        }
        self.parent.submit(request).map_err(|mut rejected| {
            rejected.request.move_back(self.entry.first);
            rejected
        })
    }

    fn commit(&self) {
        self.parent.commit();
    }

    fn cancel(&self, tag: Tag) -> bool {
        self.parent.cancel(tag)
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) {
        if let Some(slot) = self.fan.watchers.get(self.index) {
            let before = slot.lock().replace(watcher);
            drop(before);
        }
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({} at {}, {} blocks)", self.identity.controller, self.entry.first, self.entry.blocks)
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
