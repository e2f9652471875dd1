//! The adapter's registers. Any context; commands by one caller at a time.

use undercroft_hal::mmio::Mmio;
use undercroft_hal::pci::{Bar, Function};
use zerocopy::{Immutable, IntoBytes};

use crate::ProbeError;
use crate::wire::{COMMAND_FAILED, CommandCode, Interrupt, REGISTER_BYTES, register};

/// Which kick is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kick {
    /// None.
    None,
    /// Blocks are to be read or written.
    ReadWrite,
    /// Something else is to be done, at once.
    Other,
}

/// The registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers(Mmio);

impl Registers {
    /// Maps them: the first memory BAR that is long enough.
    pub(crate) fn map(function: &Function) -> Result<Self, ProbeError> {
        let fits =
            |index: &u8| matches!(function.bar(*index), Ok(Bar::Memory { len, .. }) if len >= REGISTER_BYTES as u64);
        let index = (0..6).find(fits).ok_or(ProbeError::NoRegisters)?;
        Ok(Self(function.map_bar(index)?))
    }

    /// Gives a command with its descriptor, and returns what became of it. The read also is the answer to whether it arrived: the device has
    /// acted on it by then.
    pub(crate) fn command(&self, code: CommandCode, descriptor: &(impl IntoBytes + Immutable)) -> u32 {
        self.0.write(register::COMMAND, code.0);
        for word in descriptor.as_bytes().chunks_exact(4) {
            self.0.write(register::COMMAND_DATA, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
        self.0.read(register::COMMAND_STATUS)
    }

    /// Whether the device knows a command: it is given without its descriptor, and the next command takes its place.
    pub(crate) fn knows(&self, code: CommandCode) -> bool {
        self.command(code, &()) != COMMAND_FAILED
    }

    /// Resets the adapter. `false` if it did not accept that.
    pub(crate) fn reset(&self) -> bool {
        self.mask(Interrupt::empty());
        self.command(CommandCode::ADAPTER_RESET, &()) != COMMAND_FAILED
    }

    /// Sets which interrupts are raised.
    pub(crate) fn mask(&self, raised: Interrupt) {
        self.0.write(register::INTERRUPT_MASK, raised.bits());
    }

    /// Takes and acknowledges the pending interrupts; empty when the line was raised by another device, or this one is gone.
    #[inline]
    pub(crate) fn take_interrupts(&self) -> Interrupt {
        let pending: u32 = self.0.read(register::INTERRUPT_STATUS);
        let known = Interrupt::from_bits_truncate(pending);
        if pending == u32::MAX || known.is_empty() {
            return Interrupt::empty();
        }
        self.0.write(register::INTERRUPT_STATUS, known.bits());
        known
    }

    /// Tells the device that there are requests. What was published before is visible to it when the write arrives.
    #[inline]
    pub(crate) fn kick(&self, kick: Kick) {
        match kick {
            Kick::None => {}
            Kick::ReadWrite => self.0.write(register::KICK_READ_WRITE, 0u32),
            Kick::Other => self.0.write(register::KICK_OTHER, 0u32),
        }
    }
}
