//! Why a controller or a drive could not be driven. Small, `Copy`, and says whose fault it was.

use core::fmt;

use undercroft_hal::dma::DmaError;
use undercroft_hal::irq::IrqError;
use undercroft_hal::pci::PciError;

/// Why a channel or a drive could not be taken into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeError {
    /// The function's BARs could not be used.
    Pci(PciError),
    /// The drives stayed busy after a reset.
    ResetTimeout,
    /// The drive did not answer its first command in time.
    Silent,
    /// The drive refused to say what it is.
    IdentifyRefused,
    /// What the drive says of itself makes no sense; what of it.
    BadIdentify(&'static str),
    /// The drive is locked by a password.
    Locked,
    /// The drive knows no addressing by block number, and is older than this driver.
    NoLba,
    /// No way for the channel to interrupt.
    NoInterrupt(IrqError),
    /// Memory for tables could not be had.
    Memory(DmaError),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(error) => error.fmt(f),
            Self::ResetTimeout => f.write_str("the drives did not finish their reset"),
            Self::Silent => f.write_str("the drive did not answer its first command"),
            Self::IdentifyRefused => f.write_str("the drive refused to say what it is"),
            Self::BadIdentify(what) => write!(f, "what the drive says of itself makes no sense: {what}"),
            Self::Locked => f.write_str("the drive is locked by a password"),
            Self::NoLba => f.write_str("the drive cannot be addressed by block numbers"),
            Self::NoInterrupt(error) => write!(f, "the channel has no usable interrupt: {error}"),
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
