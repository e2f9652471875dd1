//! One channel: up to two drives on one cable, its interrupt and its bus master.

use undercroft_hal::mmio::Width;

use super::bus_master::{BusMaster, INTERRUPT};
use super::drive::{Drive, Way, status};
use super::{Breach, Fault, FaultScript};
use crate::Bus;

const NIEN: u8 = 2;
const SRST: u8 = 4;
const HOB: u8 = 0x80;
const RESET_PULSE: u64 = 5_000;
const RESET_WAIT: u64 = 2_000_000;

/// A channel.
#[derive(Debug, Default)]
pub struct Channel {
    pub(super) drives: [Option<Drive>; 2],
    pub(super) bus_master: BusMaster,
    pub(super) selected: usize,
    control: u8,
    faults: FaultScript,
    pub(super) breaches: Vec<Breach>,
    /// The interrupt line as the channel drives it, and whether it is to be pulsed besides.
    pub(super) line: bool,
    pub(super) pulse: bool,
    /// The device's wish as the controller saw it last; the CPU does not hear of it while it is mute.
    asserted: bool,
    mute: bool,
    extra: bool,
    srst_began: u64,
    srst_ended: Option<u64>,
    /// When the drives answer again after a reset.
    reset_until: u64,
    resets: u32,
    /// A reset leaves the selection as it was, and writes before it is over are lost.
    keeps_selection: bool,
    /// The time of its last turn.
    clock: u64,
}

impl Channel {
    /// A channel with these drives.
    pub fn new(first: Option<Drive>, second: Option<Drive>) -> Self {
        Self { drives: [first, second], ..Self::default() }
    }

    /// Sets the fault script.
    pub fn set_faults(&mut self, faults: FaultScript) {
        self.faults = faults;
    }

    /// What the driver did wrong.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// A drive.
    ///
    /// # Panics
    /// If there is none.
    pub fn drive(&mut self, index: usize) -> &mut Drive {
        self.drives[index].as_mut().expect("there is such a drive")
    }

    /// From now on the channel is as QEMU's: a reset leaves the selected drive selected, now `drive`, as firmware left it; and what is written
    /// before the reset is over is lost, though a drive that is not there shows a status of 0 meanwhile.
    pub fn keep_selection(&mut self, drive: usize) {
        (self.selected, self.keeps_selection) = (drive.min(1), true);
    }

    /// How often it was reset by SRST.
    pub fn resets(&self) -> u32 {
        self.resets
    }

    /// Whether the engine moves data now, or could.
    pub fn dma_active(&self) -> bool {
        self.bus_master.active()
    }

    fn breach(&mut self, breach: Breach) {
        self.breaches.push(breach);
    }

    fn current(&mut self) -> Option<&mut Drive> {
        self.drives[self.selected].as_mut()
    }

    fn resetting(&self, now: u64) -> bool {
        self.control & SRST != 0 || now < self.reset_until
    }

    /// The status register as it reads now.
    fn status(&self, now: u64) -> u8 {
        match &self.drives[self.selected] {
            Some(_) if self.resetting(now) => status::BSY,
            Some(drive) => drive.status,
            // A first drive answers for a second that is not there; an empty cable floats.
            None if self.drives.iter().any(Option::is_some) => 0,
            None => 0xff,
        }
    }

    /// The guest reads a command block register.
    pub(super) fn read(&mut self, bus: &Bus<'_>, register: u8, width: Width) -> u32 {
        if self.drives.iter().all(Option::is_none) {
            return u32::MAX;
        }
        if register == 0 {
            return self.read_data(bus, width);
        }
        if width != Width::U8 {
            self.breach(Breach::Width(register));
        }
        if let Some(ended) = self.srst_ended
            && bus.now().saturating_sub(ended) < RESET_WAIT
        {
            self.breach(Breach::ResetNotAwaited(bus.now() - ended));
        }
        self.srst_ended = None;
        let before = self.control & HOB != 0;
        if register == 7 {
            let status = self.status(bus.now());
            if let Some(drive) = self.current() {
                drive.intrq = false;
            }
            self.update();
            return u32::from(status);
        }
        let Some(drive) = self.current() else { return 0 };
        let pair = match register {
            1 => return u32::from(drive.error),
            2 => drive.count,
            3..=5 => drive.lba[usize::from(register) - 3],
            _ => return u32::from(drive.device | 0xa0),
        };
        u32::from(if before { pair.before } else { pair.now })
    }

    /// The guest reads the alternate status: the status without its effect.
    pub(super) fn alternate(&self, bus: &Bus<'_>) -> u32 {
        u32::from(self.status(bus.now()))
    }

    /// The guest writes the device control register.
    pub(super) fn control(&mut self, bus: &Bus<'_>, value: u8) {
        let (was, is) = (self.control & SRST != 0, value & SRST != 0);
        self.control = value;
        if is && !was {
            self.srst_began = bus.now();
            self.resets += 1;
            self.extra = false;
            self.drives.iter_mut().flatten().for_each(|drive| drive.reset(true));
        }
        if was && !is {
            let pulse = bus.now() - self.srst_began;
            if pulse < RESET_PULSE {
                self.breach(Breach::ResetPulse(pulse));
            }
            self.srst_ended = Some(bus.now());
            if !self.keeps_selection {
                self.selected = 0;
            }
            let slowest = self.drives.iter().flatten().map(|drive| drive.settings.reset_nanos).max();
            self.reset_until = bus.now() + slowest.unwrap_or(0);
            self.drives.iter_mut().flatten().for_each(|drive| drive.reset(false));
        }
        self.update();
    }

    /// The guest writes a command block register.
    pub(super) fn write(&mut self, bus: &Bus<'_>, register: u8, width: Width, value: u32) {
        if self.drives.iter().all(Option::is_none) {
            return;
        }
        if register == 0 {
            return self.write_data(bus, width, value);
        }
        if width != Width::U8 {
            self.breach(Breach::Width(register));
        }
        if self.keeps_selection && self.resetting(bus.now()) {
            return;
        }
        let status = self.status(bus.now());
        if status & (status::BSY | status::DRQ) != 0 {
            self.breach(Breach::WriteWhileBusy(register, status));
            return;
        }
        self.control &= !HOB;
        let value = value as u8;
        match register {
            6 => {
                self.selected = usize::from(value >> 4 & 1);
                self.drives.iter_mut().flatten().for_each(|drive| drive.device = value);
            }
            7 => self.command(bus, value),
            _ => {
                for drive in self.drives.iter_mut().flatten() {
                    match register {
                        1 => drive.feature.write(value),
                        2 => drive.count.write(value),
                        _ => drive.lba[usize::from(register) - 3].write(value),
                    }
                }
            }
        }
        self.update();
    }

    fn command(&mut self, bus: &Bus<'_>, code: u8) {
        if self.bus_master.active() {
            self.breach(Breach::StartedEarly(code));
        }
        let Self { drives, faults, breaches, selected, .. } = self;
        match &mut drives[*selected] {
            Some(drive) => breaches.extend(drive.command(code, bus.now(), faults).err()),
            None => breaches.push(Breach::NobodyThere(code)),
        }
    }

    fn read_data(&mut self, bus: &Bus<'_>, width: Width) -> u32 {
        let bytes = self.data_width(bus, width, |way| matches!(way, Way::PioIn(_)));
        let Some((drive, bytes)) = bytes else { return u32::MAX };
        let Some(work) = &mut drive.work else { return u32::MAX };
        let mut raw = [0; 4];
        raw[..bytes].copy_from_slice(&work.data[work.moved..work.moved + bytes]);
        Self::advance(drive, bytes);
        self.update();
        u32::from_le_bytes(raw)
    }

    fn write_data(&mut self, bus: &Bus<'_>, width: Width, value: u32) {
        let bytes = self.data_width(bus, width, |way| matches!(way, Way::PioOut(_)));
        let Some((drive, bytes)) = bytes else { return };
        let Some(work) = &mut drive.work else { return };
        let moved = work.moved;
        work.data[moved..moved + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        Self::advance(drive, bytes);
        self.update();
    }

    /// The drive whose data register is accessed, and how many bytes go over; `None`, with a breach, if none do.
    fn data_width(&mut self, bus: &Bus<'_>, width: Width, of: impl Fn(Way) -> bool) -> Option<(&mut Drive, usize)> {
        let bytes = width.bytes();
        if !matches!(width, Width::U16 | Width::U32) {
            self.breach(Breach::Width(0));
            return None;
        }
        let ready = self.status(bus.now()) & (status::BSY | status::DRQ) == status::DRQ;
        let fits = self
            .current()
            .and_then(|drive| drive.work.as_ref())
            .is_some_and(|work| ready && of(work.way) && work.block_left >= bytes);
        if !fits {
            self.breach(Breach::DataWithoutDrq);
            return None;
        }
        self.current().map(|drive| (drive, bytes))
    }

    fn advance(drive: &mut Drive, bytes: usize) {
        let Some(work) = &mut drive.work else { return };
        work.moved += bytes;
        work.block_left -= bytes;
        if work.block_left == 0 {
            drive.status = status::BSY;
            // The last block of programmed input leaves the drive at rest at once.
            if matches!(work.way, Way::PioIn(_)) && work.moved == work.data.len() {
                drive.next_block();
            }
        }
    }

    /// The guest writes a bus master register of this channel.
    pub(super) fn write_master(&mut self, bus: &Bus<'_>, offset: u64, value: u8, master: bool) {
        let (was, mut found) = (self.bus_master.active(), Vec::new());
        self.bus_master.write(bus, offset, value, master, &mut |breach| found.push(breach));
        self.breaches.append(&mut found);
        if self.bus_master.active() && !was {
            self.check_start();
        }
        self.update();
    }

    /// The engine was started: does it fit the command?
    fn check_start(&mut self) {
        let (to_memory, total) = (self.bus_master.to_memory(), self.bus_master.total);
        let Some(work) = self.current().and_then(|drive| drive.work.as_ref()) else { return };
        let (code, len) = (work.code, work.data.len());
        let way = if to_memory { Way::DmaIn } else { Way::DmaOut };
        if !matches!(work.way, Way::DmaIn | Way::DmaOut) {
            return;
        }
        if work.way != way {
            self.breach(Breach::Direction(code));
        }
        if total == 0 {
            self.breach(Breach::TableEmpty);
        } else if total != len {
            self.breach(Breach::TableLength(total as i64 - len as i64));
        }
    }

    /// Gives the drives their turn. Whether anything got done.
    pub(super) fn work(&mut self, bus: &Bus<'_>) -> bool {
        self.clock = bus.now();
        if self.control & SRST != 0 || bus.now() < self.reset_until || bus.budget() == 0 {
            return false;
        }
        let mut progress = false;
        for index in 0..2 {
            let Some(drive) = &mut self.drives[index] else { continue };
            if drive.work.is_none() && self.extra && drive.status & status::BSY == 0 && !drive.intrq {
                self.extra = false;
                self.bus_master.status |= INTERRUPT;
                self.pulse = true;
                progress = true;
            }
            let Some(drive) = &mut self.drives[index] else { continue };
            let Some(work) = &drive.work else { continue };
            if bus.now() < work.not_before {
                continue;
            }
            progress |= if work.fresh {
                self.mute |= work.has(Fault::InterruptLost);
                self.extra |= work.has(Fault::Extra);
                drive.begin()
            } else if matches!(work.way, Way::DmaIn | Way::DmaOut) {
                self.dma(bus, index)
            } else {
                self.disturb(index) || self.drives[index].as_mut().is_some_and(Drive::next_block)
            };
        }
        self.update();
        progress
    }

    /// Passes the selected drive's wish for an interrupt on.
    fn update(&mut self) {
        let wish = self.control & NIEN == 0 && self.current().is_some_and(|drive| drive.intrq);
        if wish && !self.asserted {
            self.bus_master.status |= INTERRUPT;
        }
        if !wish && self.asserted {
            self.mute = false;
        }
        self.asserted = wish;
        self.line = wish && !self.mute;
    }

    /// When something next happens by itself.
    pub(super) fn due(&self) -> Option<u64> {
        let works = self.drives.iter().flatten().filter_map(|drive| drive.work.as_ref());
        works.map(|work| work.not_before).chain([self.reset_until]).filter(|at| *at > self.clock).min()
    }

    /// What it waits for, for people.
    pub(super) fn diagnose(&self) -> String {
        let drives = self.drives.iter().map(|drive| match drive {
            None => "none".to_owned(),
            Some(drive) => {
                let code = drive.work.as_ref().map(|work| (work.code, work.moved));
                format!("status {:#x} intrq {} work {code:x?}", drive.status, drive.intrq)
            }
        });
        let drives: Vec<_> = drives.collect();
        format!("{drives:?}, bus master {:#x}, line {}", self.bus_master.status, self.line)
    }
}
