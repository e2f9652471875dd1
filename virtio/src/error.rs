//! Why a device could not be driven. Small, `Copy`, and says whose fault it was.

use core::fmt;

use undercroft_hal::dma::DmaError;
use undercroft_hal::irq::IrqError;
use undercroft_hal::mmio::MmioError;
use undercroft_hal::pci::PciError;

use crate::queue::RingError;
use crate::wire::pci::Missing;

/// Why a virtio device could not be taken into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeError {
    /// The device has neither the modern interface nor the ports of the legacy one (virtio 0.9).
    Legacy,
    /// The device's register structures are absent or lie outside its BARs.
    Structures(Missing),
    /// The function's BARs could not be used.
    Pci(PciError),
    /// The registers could not be mapped.
    Map(MmioError),
    /// The status did not read back as zero in time after a reset.
    ResetTimeout,
    /// The device did not finish the reset of a queue in time.
    QueueResetTimeout(u16),
    /// The device lacks a feature that the driver cannot do without, by its bit number.
    MissingFeature(u8),
    /// The device did not accept the chosen features (`FEATURES_OK` did not stay).
    FeaturesRefused,
    /// The device says that it needs a reset while it is being set up.
    NeedsReset,
    /// The configuration kept changing while it was read.
    ConfigUnstable,
    /// The configuration holds a value that makes no sense; the field's name.
    BadConfig(&'static str),
    /// The device lacks a queue that its type must have, or offers it with size 0.
    NoQueue(u16),
    /// The device did not accept a queue's settings.
    QueueRefused(u16),
    /// The queue's doorbell lies outside the notification area.
    BadDoorbell(u16),
    /// No way for the device to interrupt.
    NoInterrupt(IrqError),
    /// Memory for the rings could not be had.
    Memory(DmaError),
    /// The device broke the ring's contract while it was being set up.
    Ring(RingError),
    /// The device did not answer its first command in time.
    Silent,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy => f.write_str("the device has no virtio interface that can be used"),
            Self::Structures(missing) => write!(f, "the device's virtio structures are not usable: {missing:?}"),
            Self::Pci(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::ResetTimeout => f.write_str("the device did not finish its reset"),
            Self::QueueResetTimeout(queue) => write!(f, "the device did not finish the reset of queue {queue}"),
            Self::MissingFeature(bit) => write!(f, "the device lacks virtio feature {bit}"),
            Self::FeaturesRefused => f.write_str("the device refused the features that the driver chose"),
            Self::NeedsReset => f.write_str("the device failed while it was being set up"),
            Self::ConfigUnstable => f.write_str("the device's configuration never stays the same"),
            Self::BadConfig(field) => write!(f, "the device's configuration makes no sense: {field}"),
            Self::NoQueue(queue) => write!(f, "the device lacks queue {queue}"),
            Self::QueueRefused(queue) => write!(f, "the device refused the settings of queue {queue}"),
            Self::BadDoorbell(queue) => write!(f, "the doorbell of queue {queue} lies outside the device"),
            Self::NoInterrupt(error) => write!(f, "the device has no usable interrupt: {error}"),
            Self::Memory(error) => error.fmt(f),
            Self::Ring(error) => error.fmt(f),
            Self::Silent => f.write_str("the device did not answer its first command"),
        }
    }
}

impl core::error::Error for ProbeError {}

impl From<PciError> for ProbeError {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

impl From<MmioError> for ProbeError {
    fn from(error: MmioError) -> Self {
        Self::Map(error)
    }
}

impl From<DmaError> for ProbeError {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

impl From<RingError> for ProbeError {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}
