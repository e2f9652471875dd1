//! Commands before there are interrupts: the drive's status is read until it changes, with a bound in time. Task context.

use undercroft_hal::{Duration, Instant, Task, cpu};

use crate::channel::{LIMIT, PULSE, QUIET};
use crate::defect::{Defect, Defects};
use crate::error::ProbeError;
use crate::identify::{Identified, WORDS};
use crate::registers::{Registers, TaskFile};
use crate::wire::{Command, Control, Status, feature, signature};

/// How long a drive may take for a command that moves no data from the medium.
const TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 10_000 });

/// Who answers at a drive's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Present {
    Nobody,
    Disk,
    Packet,
}

/// How a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// The drive refused it.
    Refused,
    /// The drive did not answer.
    Silent,
}

/// A channel whose drives do not interrupt.
pub(super) struct Polled<'a> {
    _cx: &'a Task,
    registers: Registers,
    defects: Defects,
}

fn wait(time: Duration) {
    let start = Instant::now();
    while start.elapsed() <= time {
        cpu::relax();
    }
}

impl<'a> Polled<'a> {
    pub(super) const fn new(cx: &'a Task, registers: Registers, defects: Defects) -> Self {
        Self { _cx: cx, registers, defects }
    }

    /// Waits until the selected drive is not busy; its status then.
    fn not_busy(&self, limit: Duration) -> Option<Status> {
        let start = Instant::now();
        loop {
            let status = self.registers.alternate();
            if !status.contains(Status::BSY) {
                return Some(status);
            }
            if start.elapsed() > limit {
                return None;
            }
            cpu::relax();
        }
    }

    /// Resets the channel and looks who is there.
    ///
    /// # Errors
    /// [`ProbeError::ResetTimeout`].
    pub(super) fn reset(&self) -> Result<[Present; 2], ProbeError> {
        let registers = &self.registers;
        registers.master_stop();
        if self.floats() {
            return Ok([Present::Nobody; 2]);
        }
        // A reset is to select the first drive. QEMU's leaves the second selected if firmware did, whose status says nothing of a first one
        // that is busy, and loses what is written meanwhile.
        if !self.registers.alternate().intersects(Status::BSY | Status::DRQ)
            && !self.defects.has(Defect::TrustsSelection)
        {
            registers.select(0);
        }
        registers.control(Control::SRST | Control::NIEN);
        wait(PULSE);
        registers.control(Control::NIEN);
        wait(QUIET);
        let mut found = [Present::Nobody; 2];
        for (drive, found) in found.iter_mut().enumerate() {
            if self.defects.has(Defect::AsksTooEarly) {
                *found = Present::Disk;
                registers.select(drive);
                continue;
            }
            if drive == 0 {
                // The first is selected by the reset; the second cannot be asked while it is busy.
                self.not_busy(LIMIT).ok_or(ProbeError::ResetTimeout)?;
            }
            registers.select(drive);
            self.not_busy(LIMIT).ok_or(ProbeError::ResetTimeout)?;
            *found = self.who(drive);
        }
        Ok(found)
    }

    /// Nobody drives the bus: an empty channel reads as ones, or as ones but for the bit that is pulled down.
    fn floats(&self) -> bool {
        let status = self.registers.alternate();
        status == Status::all() || status.bits() == 0x7f
    }

    /// Who is selected, after a reset.
    fn who(&self, drive: usize) -> Present {
        let status = self.registers.alternate();
        match self.registers.signature() {
            signature::PACKET => Present::Packet,
            // An absent second drive has no status; a disk is ready, or will be.
            signature::DISK if !status.is_empty() && !self.floats() => self.answers(drive),
            _ => Present::Nobody,
        }
    }

    /// Whether a register keeps what is written to it, as one of a drive does.
    fn answers(&self, drive: usize) -> Present {
        self.registers.select(drive);
        if self.registers.keeps() { Present::Disk } else { Present::Nobody }
    }

    fn start(&self, drive: usize, task: &TaskFile) -> Result<Status, Failed> {
        self.registers.select(drive);
        if !self.defects.has(Defect::AsksTooEarly) {
            let status = self.not_busy(TIMEOUT).ok_or(Failed::Silent)?;
            if status.contains(Status::DRQ) {
                return Err(Failed::Silent);
            }
        }
        self.registers.issue(drive, task);
        let status = self.not_busy(TIMEOUT).ok_or(Failed::Silent)?;
        // Takes the interrupt back that a drive may have raised in spite of what it was told.
        let _ = self.registers.status();
        if status.intersects(Status::ERR | Status::DF) { Err(Failed::Refused) } else { Ok(status) }
    }

    /// A command without data.
    fn plain(&self, drive: usize, task: &TaskFile) -> Result<(), Failed> {
        let status = self.start(drive, task)?;
        if status.contains(Status::DRQ) { Err(Failed::Silent) } else { Ok(()) }
    }

    /// A command with one sector of data from the drive.
    fn words(&self, drive: usize, command: Command) -> Result<[u16; WORDS], Failed> {
        let status = self.start(drive, &TaskFile::plain(command, 0, 0))?;
        if !status.contains(Status::DRQ) {
            return Err(Failed::Silent);
        }
        let mut words = [0; WORDS];
        for word in &mut words {
            let mut bytes = [0; 2];
            self.registers.read_data(&mut bytes);
            *word = u16::from_le_bytes(bytes);
        }
        self.registers.pause();
        match self.not_busy(TIMEOUT) {
            Some(status) if !status.contains(Status::DRQ) => Ok(words),
            _ => Err(Failed::Silent),
        }
    }

    /// What a drive says of itself, checked.
    pub(super) fn identified(&self, drive: usize) -> Result<Identified, ProbeError> {
        Identified::parse(&self.identify(drive)?, self.defects)
    }

    /// IDENTIFY DEVICE.
    fn identify(&self, drive: usize) -> Result<[u16; WORDS], ProbeError> {
        self.words(drive, Command::IDENTIFY_DEVICE).map_err(|failed| match failed {
            Failed::Refused => ProbeError::IdentifyRefused,
            Failed::Silent => ProbeError::Silent,
        })
    }

    /// IDENTIFY PACKET DEVICE, of which nothing depends on the answer.
    pub(super) fn identify_packet(&self, drive: usize) -> Option<[u16; WORDS]> {
        self.words(drive, Command::IDENTIFY_PACKET_DEVICE).ok()
    }

    /// Sets a drive up for what the driver will do, and notes what it refused.
    pub(super) fn set_up(&self, drive: usize, disk: &mut Identified) -> Result<(), ProbeError> {
        let silent = |failed| if failed == Failed::Silent { Err(ProbeError::Silent) } else { Ok(false) };
        let tell = |task: &TaskFile| self.plain(drive, task).map(|()| true).or_else(silent);
        let features = |feature, count| TaskFile::plain(Command::SET_FEATURES, feature, count);
        // Older drives refuse, and keep their settings anyway.
        tell(&features(feature::KEEP_SETTINGS, 0))?;
        if let Some(mode) = disk.set_mode
            && !tell(&features(feature::TRANSFER_MODE, mode))?
        {
            (disk.dma, disk.fua, disk.trim) = (false, false, false);
        }
        if disk.multiple > 0 && !tell(&TaskFile::plain(Command::SET_MULTIPLE_MODE, 0, disk.multiple))? {
            disk.multiple = 0;
        }
        // A cache that cannot be written out is one to do without.
        if disk.cached && disk.flush.is_none() && tell(&features(feature::CACHE_OFF, 0))? {
            disk.cached = self.identified(drive)?.cached;
        }
        Ok(())
    }
}
