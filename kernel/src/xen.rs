//! Disks of other domains, where this is a domain of Xen. Task context.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use undercroft_block::BlockDevice;
use undercroft_hal::xen::{Counts, Domain};
use undercroft_hal::{Task, cpu};
use undercroft_xen::blk::{self, Config, XenDisk};
use undercroft_xen::control::{self, Order};
use undercroft_xen::store::{ConnectError, Store, Watch};

use crate::json::{Object, Value};
use crate::news::Attention;
use crate::report::Report;

/// Xen's interface in use, for as long as the image runs.
#[derive(Debug, Clone)]
pub struct Xen {
    domain: Arc<Domain>,
    store: Arc<Store>,
    restarts: Arc<AtomicBool>,
    config: Config,
}

impl Xen {
    /// Connects to the domain's xenstore. `config` is what is asked of backends.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn new(cx: &Task, domain: Domain, config: Config) -> Result<Self, ConnectError> {
        let domain = Arc::new(domain);
        Ok(Self { store: Store::connect(cx, &domain)?, domain, restarts: Arc::default(), config })
    }

    /// The hypervisor's interface.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What was done so far.
    pub(crate) fn counts(&self) -> Counts {
        self.domain.counts()
    }

    /// Reports what was done since `before`.
    pub(crate) fn tell(&self, before: Counts, report: &Report) {
        let now = self.counts();
        let [notifications, granted, revoked] =
            [now.notifications - before.notifications, now.granted - before.granted, now.revoked - before.revoked];
        if report.is_json() {
            return report.json(&Object {
                event: Some("xen"),
                fields: &[
                    ("notifications", Value::Number(notifications)),
                    ("granted", Value::Number(granted)),
                    ("revoked", Value::Number(revoked)),
                ],
            });
        }
        report.text(format_args!(
            "Xen: {notifications} notifications, {granted} grants made and {revoked} taken back since the disks were found"
        ));
    }

    /// Begins to look at the block devices that the tool stack gives this domain, and calls for attention when there are others.
    pub(crate) fn vbds(&self, cx: &Task, attention: &Arc<Attention>, report: &Report) -> Vbds {
        let has_changed = Arc::new(AtomicBool::new(false));
        let (flag, attention, called) = (Arc::clone(&has_changed), Arc::clone(attention), Arc::clone(attention));
        let watch = blk::watch(cx, &self.store, cpu::current(), move || {
            flag.store(true, Ordering::Release);
            attention.call();
        });
        let orders = control::watch(cx, &self.store, cpu::current(), move || called.call());
        let mut watches = Vec::new();
        for watch in [watch, orders] {
            match watch {
                Ok(watch) => watches.push(watch),
                Err(error) => report.problem(&format_args!("a watch in xenstore: {error}"), None),
            }
        }
        Vbds { xen: self.clone(), watches, has_changed, known: Vec::new(), disks: Vec::new() }
    }

    /// Whether the tool stack wants the domain to start again after its end.
    pub fn restarts(&self) -> bool {
        self.restarts.load(Ordering::Relaxed)
    }
}

/// The block devices of this domain.
pub(crate) struct Vbds {
    xen: Xen,
    watches: Vec<Watch>,
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

    /// Shows what was done so far, for people.
    pub(crate) fn show(&self, report: &Report) {
        let Counts { notifications, granted, revoked } = self.xen.counts();
        report.text(format_args!("{notifications} notifications, {granted} grants made, {revoked} taken back"));
        for disk in &self.disks {
            let blk::Counts { notifications, breaches, reconnects } = disk.counts();
            report.text(format_args!(
                "{}: {notifications} notifications, connected again {reconnects} times, {breaches} breaches",
                disk.identity().controller
            ));
        }
    }

    /// Whether the tool stack wants the domain to end.
    pub(crate) fn must_end(&self, cx: &Task, report: &Report) -> bool {
        match control::take(cx, &self.xen.store) {
            Ok(None) => false,
            Ok(Some(order @ (Order::PowerOff | Order::Reboot))) => {
                report.text(format_args!("the tool stack asks for {order:?}"));
                self.xen.restarts.store(order == Order::Reboot, Ordering::Relaxed);
                true
            }
            Ok(Some(order)) => {
                report.text(format_args!("the tool stack asks for {order:?}, which is not done here"));
                false
            }
            Err(error) => {
                report.problem(&format_args!("control/shutdown: {error}"), None);
                false
            }
        }
    }

    /// Connects what is new.
    pub(crate) fn come(&mut self, cx: &Task, report: &Report) -> Vec<Arc<XenDisk>> {
        let Xen { domain, store, .. } = &self.xen;
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
            match XenDisk::connect(cx, domain, store, &number, self.xen.config) {
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
        for error in self.watches.into_iter().filter_map(|watch| watch.end(cx).err()) {
            report.problem(&format_args!("a watch in xenstore: {error}"), None);
        }
        self.disks.iter().for_each(|disk| close(cx, disk, report));
    }
}

fn close(cx: &Task, disk: &XenDisk, report: &Report) {
    if !disk.close(cx) {
        report.problem(&"its backend does not let go of it", Some(&disk.identity().serial));
    }
}
