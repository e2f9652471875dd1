//! Disks that come and go while the image runs. Task context.
//!
//! | what | who says so | what is done |
//! |---|---|---|
//! | a logical unit comes | its SCSI host | the host is looked at again |
//! | a logical unit goes | its SCSI host | its requests have ended; the disk is let go |
//! | a block device of another domain comes, or may have | xenstore | the list there is read again |
//! | a block device of another domain goes | its backend | its requests have ended; the disk is let go, and the backend told |
//! | a capacity changes | the disk | it is read again, where the driver does not do so itself |
//! | a function comes | the slot that it is plugged into | the slot is switched on, the function gets addresses and a driver |
//! | a function is to go | its slot's attention button | its disks take nothing any more; when what is out is back, the driver goes, then the slot is switched off |
//! | a function has gone | its slot | the same, without the courtesy |
//!
//! What slots there are depends on the machine: PCI Express ports with native hot plug. Where ACPI does it (`pc`, and `q35` unless told
//! otherwise), its methods would have to be run, and there is no interpreter for them here.

use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::time::Duration;

use undercroft_block::BlockDevice;
use undercroft_hal::pci::{HotSlot, slots};
use undercroft_hal::{Instant, Task, cpu};

use crate::cached;
use crate::disks::{self, Disk, Disks};
use crate::hyperv::Vmbus;
use crate::report::Report;
use crate::xen::Vbds;

/// How long a disk that is to go may take to be let go by everybody.
const PATIENCE: Duration = Duration::from_secs(90);

/// The slots of the machine, and the events of its disks.
pub(crate) struct Hotplug {
    slots: Vec<Slot>,
}

struct Slot {
    port: HotSlot,
    /// Where the functions are that were found in it.
    places: Vec<String>,
}

impl Hotplug {
    /// Begins to listen to the slots.
    pub(crate) fn begin(cx: &Task, disks: &Disks, report: &Report) -> Self {
        let places = |port: &HotSlot| port.functions(cx).iter().map(|f| format!("pci {}", f.address)).collect();
        let mut slots: Vec<_> = slots(cx).into_iter().map(|port| Slot { places: places(&port), port }).collect();
        for slot in &mut slots {
            let attention = Arc::clone(&disks.attention);
            if let Err(error) = slot.port.listen(cx, move |_| attention.call()) {
                report.text(format_args!("slot {}: not listened to: {error}", slot.port.number()));
            }
        }
        Self { slots }
    }

    /// Acts on what has happened.
    pub(crate) fn act(&mut self, cx: &Task, disks: &mut Disks, report: &Report) {
        while disks.attention.take() {
            for slot in &mut self.slots {
                slot.act(cx, disks, report);
            }
            leave(cx, disks, |disk| disk.news.is_removed(), report);
            if disks.vmbus.as_mut().is_some_and(Vmbus::take_changes) {
                arrive(cx, disks, report, |disks| disks.vmbus(cx, report));
            }
            if disks.vbds.as_ref().is_some_and(Vbds::take_changes) {
                arrive(cx, disks, report, |disks| disks.vbds(cx, report));
            }
            for at in 0..disks.hosts.len() {
                let host = &mut disks.hosts[at];
                let changes = host.bus.changes();
                if core::mem::replace(&mut host.seen, changes) != changes {
                    let (bus, place) = (Arc::clone(&host.bus), host.place.clone());
                    arrive(cx, disks, report, |disks| disks.scan(cx, &bus, &place, report));
                }
            }
            disks.list.iter().filter(|disk| disk.news.take_resized()).for_each(|disk| resized(cx, disk, report));
        }
    }
}

impl Slot {
    fn act(&mut self, cx: &Task, disks: &mut Disks, report: &Report) {
        // The port interrupts again only when all that has happened has been seen.
        loop {
            let state = self.port.look();
            let occupied = !self.places.is_empty();
            if state.present && !occupied && (state.changed || state.attention) {
                self.come(cx, disks, report);
            } else if occupied && (!state.present || state.attention) {
                self.go(cx, disks, report);
            }
            if !state.changed && !state.attention {
                return;
            }
        }
    }

    fn come(&mut self, cx: &Task, disks: &mut Disks, report: &Report) {
        let number = self.port.number();
        match self.port.power_on(cx) {
            Ok(functions) => {
                self.places = functions.iter().map(|function| format!("pci {}", function.address)).collect();
                for function in functions {
                    arrive(cx, disks, report, |disks| disks.function(cx, function, report));
                }
            }
            Err(error) => report.problem(&format_args!("slot {number}: {error}"), None),
        }
    }

    fn go(&mut self, cx: &Task, disks: &mut Disks, report: &Report) {
        let places = core::mem::take(&mut self.places);
        leave(cx, disks, |disk| places.contains(&disk.device.identity().controller), report);
        // A host may have no disks.
        disks.hosts.retain(|host| !places.contains(&host.place));
        self.port.power_off(cx);
        report.text(format_args!("slot {} is switched off", self.port.number()));
    }
}

/// Reports the disks that `find` finds.
fn arrive(cx: &Task, disks: &mut Disks, report: &Report, find: impl FnOnce(&mut Disks)) {
    let before = disks.list.len();
    find(disks);
    for disk in &disks.list[before..] {
        report.text(format_args!("{} has arrived", disk.name));
        disks::describe(cx, disk, report);
    }
}

/// Lets disks go.
fn leave(cx: &Task, disks: &mut Disks, which: impl Fn(&Disk) -> bool, report: &Report) {
    while let Some(at) = disks.list.iter().position(&which) {
        let Disk { name, device, cache, queue, volume, background, news, scsi, load, crew } = disks.list.remove(at);
        if let Err(error) = cached::let_go(cx, volume, news.is_removed()) {
            report.problem(&format_args!("what its cache held was not written: {error}"), Some(&name));
        }
        queue.retire();
        let last = Arc::downgrade(queue.device());
        if let Some(load) = load.into_inner() {
            let back = load.wait(cx);
            report.text(format_args!("{name} load: {}", load.counts(cx)));
            if !back {
                report.problem(&"requests did not come back", Some(&name));
            }
        }
        if let Some(crew) = crew.into_inner() {
            crew.tell(cx, &name, &queue, report);
        }
        let place = device.identity().controller.clone();
        drop((device, cache, queue, background, scsi));
        if let Some(vbds) = &mut disks.vbds {
            vbds.let_go(cx, &place, report);
        }
        if wait_for_end(cx, &last) {
            report.text(format_args!("{name} has left"));
        } else {
            report.problem(&"the device is still in use", Some(&name));
        }
    }
}

/// Waits until nobody has the device.
fn wait_for_end(cx: &Task, device: &Weak<dyn BlockDevice>) -> bool {
    let start = Instant::now();
    while device.strong_count() > 0 && start.elapsed() < PATIENCE {
        cx.run_pending();
        cpu::relax();
    }
    device.strong_count() == 0
}

/// Reads a disk's capacity again.
pub(crate) fn resized(cx: &Task, disk: &Disk, report: &Report) {
    if let Some((bus, scsi)) = &disk.scsi
        && let Err(error) = bus.refresh(cx, scsi)
    {
        report.problem(&format_args!("its capacity cannot be read: {error}"), Some(&disk.name));
    }
    report.text(format_args!("{} has {} blocks", disk.name, disk.device.info().capacity));
}
