//! The ports of one channel. Any context; who may write what is the channel's matter.

use undercroft_hal::mmio::Ports;

use crate::wire::{Command, Control, ErrorBits, MasterCommand, MasterStatus, Status, block, device, master};

/// A command's registers (ATA 8): what goes to the drive, in the order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskFile {
    pub(crate) command: Command,
    pub(crate) features: u16,
    /// Sectors, or what else the command counts. 0 stands for the most.
    pub(crate) count: u16,
    pub(crate) lba: u64,
    /// Registers are written twice: 48 bits of address, 16 of count.
    pub(crate) ext: bool,
}

impl TaskFile {
    /// A command without an address.
    pub(crate) const fn plain(command: Command, features: u8, count: u8) -> Self {
        Self { command, features: features as u16, count: count as u16, lba: 0, ext: false }
    }
}

/// A channel's ports. Cheap to copy: the interrupt handler has its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers {
    command: Ports,
    control: Ports,
    master: Option<Ports>,
}

impl Registers {
    /// `control` is the one port of the control register.
    pub(crate) const fn new(command: Ports, control: Ports, master: Option<Ports>) -> Self {
        Self { command, control, master }
    }

    /// Whether the channel has a bus master.
    pub(crate) const fn has_master(&self) -> bool {
        self.master.is_some()
    }

    /// The status; reading it takes the drive's interrupt back.
    pub(crate) fn status(&self) -> Status {
        Status::from_bits_retain(self.command.read(block::STATUS))
    }

    /// The status, without any effect.
    pub(crate) fn alternate(&self) -> Status {
        Status::from_bits_retain(self.control.read(0))
    }

    /// What went wrong.
    pub(crate) fn error(&self) -> ErrorBits {
        ErrorBits::from_bits_retain(self.command.read(block::ERROR))
    }

    /// LBA mid and high: the signature after a reset.
    pub(crate) fn signature(&self) -> (u8, u8) {
        (self.command.read(block::LBA_MID), self.command.read(block::LBA_HIGH))
    }

    /// Whether the selected drive's registers keep what is written to them.
    pub(crate) fn keeps(&self) -> bool {
        [(0x55u8, 0xaau8), (0xaa, 0x55)].into_iter().all(|(count, low)| {
            self.command.write(block::COUNT, count);
            self.command.write(block::LBA_LOW, low);
            (self.command.read::<u8>(block::COUNT), self.command.read::<u8>(block::LBA_LOW)) == (count, low)
        })
    }

    /// Lets the 400 ns pass that a drive may take to show its status: each read of a port takes 100 or more.
    pub(crate) fn pause(&self) {
        for _ in 0..5 {
            let _: u8 = self.control.read(0);
        }
    }

    /// Selects a drive, and lets it show its status.
    pub(crate) fn select(&self, drive: usize) {
        self.command.write(block::DEVICE, device::LBA | if drive == 1 { device::SECOND } else { 0 });
        self.pause();
    }

    /// Writes a command for the selected `drive`, which is not busy, and lets it show its status.
    pub(crate) fn issue(&self, drive: usize, task: &TaskFile) {
        let write = |register, value: u64| self.command.write(register, value as u8);
        let (features, count) = (u64::from(task.features), u64::from(task.count));
        let mut device = device::LBA | if drive == 1 { device::SECOND } else { 0 };
        if task.ext {
            write(block::FEATURES, features >> 8);
            write(block::COUNT, count >> 8);
            write(block::LBA_LOW, task.lba >> 24);
            write(block::LBA_MID, task.lba >> 32);
            write(block::LBA_HIGH, task.lba >> 40);
        } else {
            device |= (task.lba >> 24) as u8 & 0xf;
        }
        write(block::FEATURES, features);
        write(block::COUNT, count);
        write(block::LBA_LOW, task.lba);
        write(block::LBA_MID, task.lba >> 8);
        write(block::LBA_HIGH, task.lba >> 16);
        write(block::DEVICE, u64::from(device));
        write(block::COMMAND, u64::from(task.command.0));
        self.pause();
    }

    /// Writes the control register.
    pub(crate) fn control(&self, control: Control) {
        self.control.write(0, control.bits());
    }

    /// Reads a block of data; `bytes` has an even length.
    pub(crate) fn read_data(&self, bytes: &mut [u8]) {
        for pair in bytes.chunks_exact_mut(2) {
            pair.copy_from_slice(&self.command.read::<u16>(block::DATA).to_le_bytes());
        }
    }

    /// Writes a block of data; `bytes` has an even length.
    pub(crate) fn write_data(&self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(2) {
            self.command.write(block::DATA, u16::from_le_bytes([pair[0], pair[1]]));
        }
    }

    /// The bus master's status; `None` without one.
    pub(crate) fn master_status(&self) -> Option<MasterStatus> {
        self.master.map(|ports| MasterStatus::from_bits_retain(ports.read(master::STATUS)))
    }

    /// Clears bits of the bus master's status.
    pub(crate) fn master_clear(&self, status: MasterStatus, bits: MasterStatus) {
        if let Some(ports) = self.master {
            ports.write(master::STATUS, (status & MasterStatus::CAPABLE | bits).bits());
        }
    }

    /// Gives the bus master its table and its direction, with the engine stopped.
    pub(crate) fn master_prepare(&self, table: u32, to_memory: bool) {
        if let Some(ports) = self.master {
            ports.write(master::TABLE, table);
            ports.write(master::COMMAND, Self::direction(to_memory).bits());
            let status = MasterStatus::from_bits_retain(ports.read(master::STATUS));
            self.master_clear(status, MasterStatus::ERROR | MasterStatus::INTERRUPT);
        }
    }

    const fn direction(to_memory: bool) -> MasterCommand {
        if to_memory { MasterCommand::TO_MEMORY } else { MasterCommand::empty() }
    }

    /// Starts the engine.
    pub(crate) fn master_start(&self, to_memory: bool) {
        if let Some(ports) = self.master {
            ports.write(master::COMMAND, (Self::direction(to_memory) | MasterCommand::START).bits());
        }
    }

    /// Stops the engine: it touches no memory any more.
    pub(crate) fn master_stop(&self) {
        if let Some(ports) = self.master {
            ports.write(master::COMMAND, 0u8);
        }
    }
}
