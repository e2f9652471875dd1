//! Disks of other domains, where this is a domain of Xen. Task context.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use undercroft_block::BlockDevice;
use undercroft_hal::xen::Domain;
use undercroft_hal::{Task, cpu};
use undercroft_xen::blk::{self, Config, XenDisk};
use undercroft_xen::store::{ConnectError, Store, Watch};

use crate::news::Attention;
use crate::report::Report;

/// Xen's interface in use, for as long as the image runs.
#[derive(Debug, Clone)]
pub struct Xen {
    domain: Arc<Domain>,
    store: Arc<Store>,
}

impl Xen {
    /// Connects to the domain's xenstore.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn new(cx: &Task, domain: Domain) -> Result<Self, ConnectError> {
        let domain = Arc::new(domain);
        Ok(Self { store: Store::connect(cx, &domain)?, domain })
    }

    /// The hypervisor's interface.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Begins to look at the block devices that the tool stack gives this domain, and calls for attention when there are others.
    pub(crate) fn vbds(&self, cx: &Task, attention: &Arc<Attention>, report: &Report) -> Vbds {
        let has_changed = Arc::new(AtomicBool::new(false));
        let (flag, attention) = (Arc::clone(&has_changed), Arc::clone(attention));
        let watch = blk::watch(cx, &self.store, cpu::current(), move || {
            flag.store(true, Ordering::Release);
            attention.call();
        });
        let watch = watch.inspect_err(|error| report.problem(&format_args!("device/vbd: {error}"), None)).ok();
        Vbds { xen: self.clone(), watch, has_changed, known: Vec::new(), disks: Vec::new() }
    }
}

/// The block devices of this domain.
pub(crate) struct Vbds {
    xen: Xen,
    watch: Option<Watch>,
    /// There may be others than were seen last.
    has_changed: Arc<AtomicBool>,
    /// The numbers of those that were looked at, and are there still.
    known: Vec<String>,
    /// Those in use: the other end is told when they are not used any more.
    disks: Vec<Arc<XenDisk>>,
}

impl Vbds {
    /// Whether there may be others than were seen last.
    pub(crate) fn take_changes(&self) -> bool {
        self.has_changed.swap(false, Ordering::AcqRel)
    }

    /// Connects what is new.
    pub(crate) fn come(&mut self, cx: &Task, report: &Report) -> Vec<Arc<XenDisk>> {
        let Xen { domain, store } = &self.xen;
        let numbers = match blk::find(cx, store) {
            Ok(numbers) => numbers,
            Err(error) => {
                report.problem(&error, None);
                return Vec::new();
            }
        };
        self.known.retain(|known| numbers.contains(known));
        let mut new = Vec::new();
        for number in numbers {
            if self.known.contains(&number) {
                continue;
            }
            match XenDisk::connect(cx, domain, store, &number, Config::default()) {
                Ok(Some(disk)) => new.push(disk),
                Ok(None) => report.text(format_args!("device/vbd/{number} is no disk: left alone")),
                // It is on its way out, or was gone before it was looked at: if it comes again, the watch tells.
                Err(blk::ConnectError::Leaving) => continue,
                Err(error) => report.problem(&format_args!("device/vbd/{number}: {error}"), None),
            }
            self.known.push(number);
        }
        self.disks.extend(new.iter().cloned());
        new
    }

    /// Parts from the disk at `place`, as its identity says it, if it is one of these.
    pub(crate) fn let_go(&mut self, cx: &Task, place: &str, report: &Report) {
        let Some(at) = self.disks.iter().position(|disk| disk.identity().controller == place) else { return };
        let disk = self.disks.swap_remove(at);
        close(cx, &disk, report);
        self.known.retain(|number| !place.starts_with(&format!("device/vbd/{number} ")));
        // Another may have its number already.
        self.has_changed.store(true, Ordering::Release);
    }

    /// Parts from all.
    pub(crate) fn leave(self, cx: &Task, report: &Report) {
        if let Some(Err(error)) = self.watch.map(|watch| watch.end(cx)) {
            report.problem(&format_args!("device/vbd: {error}"), None);
        }
        self.disks.iter().for_each(|disk| close(cx, disk, report));
    }
}

fn close(cx: &Task, disk: &XenDisk, report: &Report) {
    if !disk.close(cx) {
        report.problem(&"its backend does not let go of it", Some(&disk.identity().serial));
    }
}
