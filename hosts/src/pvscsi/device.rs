//! The device: PCI, registers, interrupts.

use std::collections::{BTreeMap, VecDeque};

use undercroft_hal::mmio::Width;

use super::consts::{BAR_LEN, DEVICE, MSIX_PENDING, MSIX_TABLE, VENDOR, intr, register, status};
use super::rings::Rings;
use super::work::{Poll, Taken};
use super::{Breach, FaultScript, Knobs};
use crate::pci::{BarKind, ConfigSpace, Identity, Msi, Msix};
use crate::scsi::Target;
use crate::{Bus, Device, Space};

/// How the function looks on PCI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// As VMware's: registers in a 64-bit BAR 1, with an MSI-X table inside.
    #[default]
    MsiX,
    /// As QEMU's: registers in BAR 0, and MSI.
    Msi,
    /// Registers in BAR 0, and a line only.
    Line,
}

/// A PVSCSI adapter with its targets.
#[derive(Debug)]
pub struct Pvscsi {
    /// The targets, by number.
    pub targets: BTreeMap<u8, Target>,
    /// Standing lies and limits.
    pub knobs: Knobs,
    pub(super) faults: FaultScript,
    pub(super) config: ConfigSpace,
    msix: Option<Msix>,
    msi: Option<Msi>,
    pub(super) breaches: Vec<Breach>,
    pub(super) command: Option<u32>,
    pub(super) data: Vec<u32>,
    pub(super) status: u32,
    mask: u32,
    pending: u32,
    /// Interrupts to raise at the end of the turn.
    pub(super) raise: u32,
    pub(super) rings: Option<Rings>,
    pub(super) threshold: u32,
    pub(super) poll: Poll,
    pub(super) kicked: bool,
    pub(super) broken: bool,
    pub(super) taken: VecDeque<Taken>,
    pub(super) last_context: u64,
    pub(super) messages: Vec<[u8; 20]>,
    pub(super) message_jump: u32,
    pub(super) leaving: Vec<u8>,
    pub(super) lost: u64,
    pub(super) times: Vec<u64>,
    pub(super) managed: u64,
    pub(super) resets: u64,
    kicks: [u64; 2],
    interrupts: u64,
}

impl Pvscsi {
    /// An adapter in its state after power-on, honest and without faults, with one target, number 0.
    pub fn new(layout: Layout, target: Target) -> Self {
        let identity =
            Identity { vendor: VENDOR, device: DEVICE, revision: 2, class: (1, 7, 0), subsystem: (VENDOR, DEVICE) };
        let mut config = ConfigSpace::new(identity);
        let (mut msix, mut msi) = (None, None);
        match layout {
            Layout::MsiX => {
                config.add_bar(1, BarKind::Memory64, BAR_LEN);
                msix = Some(Msix::inside(&mut config, 1, MSIX_TABLE, MSIX_PENDING, 24));
            }
            Layout::Msi => {
                config.add_bar(0, BarKind::Memory32, BAR_LEN);
                msi = Some(Msi::new(&mut config, true));
            }
            Layout::Line => config.add_bar(0, BarKind::Memory32, BAR_LEN),
        }
        Self {
            targets: [(0, target)].into(),
            knobs: Knobs::default(),
            faults: FaultScript::none(),
            config,
            msix,
            msi,
            breaches: Vec::new(),
            command: None,
            data: Vec::new(),
            status: status::DONE,
            mask: 0,
            pending: 0,
            raise: 0,
            rings: None,
            threshold: 0,
            poll: Poll::default(),
            kicked: false,
            broken: false,
            taken: VecDeque::new(),
            last_context: 0,
            messages: Vec::new(),
            message_jump: 0,
            leaving: Vec::new(),
            lost: 0,
            times: Vec::new(),
            managed: 0,
            resets: 0,
            kicks: [0; 2],
            interrupts: 0,
        }
    }

    /// Replaces the fault script; its requests count from the next one on.
    pub fn set_faults(&mut self, faults: FaultScript) {
        self.faults = faults;
    }

    /// Every breach of the interface by the driver, in order.
    pub fn breaches(&self) -> Vec<Breach> {
        self.breaches.clone()
    }

    /// Requests completed since power-on.
    pub fn completed(&self) -> u64 {
        self.times.len() as u64
    }

    /// When each request was completed, in virtual nanoseconds.
    pub fn times(&self) -> &[u64] {
        &self.times
    }

    /// Requests that the device has and has not completed.
    pub fn in_flight(&self) -> usize {
        self.taken.len()
    }

    /// Kicks for reads and writes, and other kicks.
    pub fn kicks(&self) -> [u64; 2] {
        self.kicks
    }

    /// Interrupts raised (before merging).
    pub fn interrupts(&self) -> u64 {
        self.interrupts
    }

    /// How often the driver reset the adapter.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Aborts and resets of units or bus that were carried out.
    pub fn managed(&self) -> u64 {
        self.managed
    }

    /// Messages that found no room.
    pub fn lost_messages(&self) -> u64 {
        self.lost
    }

    /// Plugs in a target, and says so.
    pub fn plug(&mut self, number: u8, target: Target) {
        self.targets.insert(number, target);
        self.message(0, 0, u32::from(number), [0; 8]);
    }

    /// Pulls out a target with what it was doing, and says so.
    pub fn unplug(&mut self, number: u8) -> Option<Target> {
        self.leaving.push(number);
        self.message(1, 0, u32::from(number), [0; 8]);
        self.targets.remove(&number)
    }

    /// Sends a message: its kind, a bus, a target, a unit.
    pub fn message(&mut self, kind: u32, bus: u32, target: u32, lun: [u8; 8]) {
        let mut message = [0; 20];
        for (at, word) in [kind, bus, target].into_iter().enumerate() {
            message[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
        }
        message[12..].copy_from_slice(&lun);
        self.messages.push(message);
    }

    /// Says that there are this many messages more than were written: a lie.
    pub fn jump_messages(&mut self, by: u32) {
        self.message_jump = by;
    }

    /// Raises interrupts for nothing.
    pub fn interrupt_for_nothing(&mut self) {
        self.raise |= intr::COMPLETION | intr::MESSAGE;
    }

    /// After a reset.
    pub(super) fn forget(&mut self) {
        self.rings = None;
        self.taken.clear();
        self.messages.clear();
        self.leaving.clear();
        (self.threshold, self.pending, self.raise, self.message_jump) = (0, 0, 0, 0);
        (self.kicked, self.broken) = (false, false);
    }

    /// Raises what is to be raised.
    pub(super) fn interrupt(&mut self, bus: &Bus<'_>) {
        let fresh = std::mem::take(&mut self.raise);
        self.pending |= fresh;
        self.interrupts += u64::from(fresh != 0);
        let due = self.pending & self.mask != 0;
        if let Some(msix) = self.msix.as_mut().filter(|msix| msix.enabled(&self.config)) {
            if due && fresh != 0 {
                msix.raise(bus, &self.config, 0);
            }
        } else if let Some(msi) = self.msi.as_ref().filter(|msi| msi.enabled(&self.config)) {
            if due && fresh != 0 {
                msi.raise(bus, &self.config);
            }
        } else {
            bus.set_line(due && !self.config.intx_disabled());
        }
    }

    fn kick(&mut self, bus: &Bus<'_>, reads_or_writes: bool) {
        self.kicks[usize::from(!reads_or_writes)] += 1;
        if !self.config.bus_master() {
            return self.breaches.push(Breach::NotBusMaster);
        }
        if self.rings.is_none() {
            return self.breaches.push(Breach::KickWithoutRings);
        }
        self.kicked = true;
        // Other commands are taken at once; of reads and writes the device takes note.
        if !reads_or_writes
            && !self.broken
            && let Err(breach) = self.take(bus, usize::MAX)
        {
            self.fail(breach);
        }
    }

    fn in_msix(&self, offset: u64) -> bool {
        self.msix.is_some() && offset >= MSIX_TABLE
    }
}

impl Device for Pvscsi {
    fn read(&mut self, _bus: &Bus<'_>, _space: Space, offset: u64, width: Width) -> u64 {
        if let Some(msix) = self.msix.as_ref().filter(|_| self.in_msix(offset)) {
            return u64::from(msix.read(offset));
        }
        if width != Width::U32 || !offset.is_multiple_of(4) {
            self.breaches.push(Breach::AccessWidth(offset));
        }
        u64::from(match offset {
            register::COMMAND_STATUS => self.status,
            register::INTR_STATUS => self.pending,
            register::INTR_MASK => self.mask,
            register::LAST_STATUS..register::LAST_STATUS_END => 0,
            _ => {
                self.breaches.push(Breach::NoSuchRead(offset));
                u32::MAX
            }
        })
    }

    fn write(&mut self, bus: &Bus<'_>, _space: Space, offset: u64, width: Width, value: u64) {
        let value = value as u32;
        if self.in_msix(offset) {
            if let Some(msix) = &mut self.msix {
                msix.write(bus, &self.config, offset, value);
            }
            return;
        }
        if width != Width::U32 || !offset.is_multiple_of(4) {
            self.breaches.push(Breach::AccessWidth(offset));
        }
        match offset {
            register::COMMAND => self.begin_command(bus, value),
            register::COMMAND_DATA => self.command_data(bus, value),
            register::INTR_STATUS => self.pending &= !value,
            register::INTR_MASK => self.mask = value & intr::ALL,
            register::KICK_RW => self.kick(bus, true),
            register::KICK_NON_RW => self.kick(bus, false),
            register::DEBUG => {}
            _ => self.breaches.push(Breach::NoSuchWrite(offset)),
        }
        self.interrupt(bus);
    }

    fn work(&mut self, bus: &Bus<'_>) -> bool {
        let raised = self.raise != 0;
        let progress = self.turn(bus);
        self.interrupt(bus);
        progress | raised
    }

    fn due(&self) -> Option<u64> {
        self.next_time()
    }

    fn config_read(&mut self, _bus: &Bus<'_>, offset: u16) -> u32 {
        self.config.read(offset)
    }

    fn config_write(&mut self, bus: &Bus<'_>, offset: u16, value: u32) {
        self.config.write(offset, value);
        if let Some(msix) = &mut self.msix {
            msix.send_pending(bus, &self.config);
        }
        self.interrupt(bus);
    }

    fn bar_at(&self, addr: u64) -> Option<(u8, u64)> {
        self.config.bar_at(addr)
    }

    fn assign_bars(&mut self, next: u64) -> u64 {
        self.config.assign_bars(next)
    }

    fn diagnose(&self, bus: &Bus<'_>) -> String {
        self.words(bus)
    }
}
