//! Why an adapter could not be driven. Small, `Copy`, and says whose fault it was.

use core::fmt;

use undercroft_hal::dma::DmaError;
use undercroft_hal::irq::IrqError;
use undercroft_hal::pci::PciError;

/// Why an adapter could not be taken into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeError {
    /// No BAR holds the registers.
    NoRegisters,
    /// The BAR could not be used.
    Pci(PciError),
    /// The adapter did not accept its reset, or is not there any more.
    ResetRefused,
    /// The adapter did not accept the rings.
    RingsRefused,
    /// No way for the adapter to interrupt.
    NoInterrupt(IrqError),
    /// Memory for the rings could not be had.
    Memory(DmaError),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRegisters => f.write_str("the adapter has no BAR that holds its registers"),
            Self::Pci(error) => error.fmt(f),
            Self::ResetRefused => f.write_str("the adapter did not accept its reset"),
            Self::RingsRefused => f.write_str("the adapter did not accept the rings"),
            Self::NoInterrupt(error) => write!(f, "the adapter has no usable interrupt: {error}"),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ProbeError {}

impl From<PciError> for ProbeError {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

impl From<DmaError> for ProbeError {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}
