//! Numbers and layouts of virtio 1.2 that all devices share. Types and constants only; any context.
//!
//! Values that a device may extend are open: bit sets keep unknown bits, newtypes keep unknown values.

pub mod legacy;
pub mod mmio;
pub mod pci;
pub mod ring;

use bitflags::bitflags;

/// What a device is (section 5). Open: unknown numbers survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct DeviceId(pub u16);

impl DeviceId {
    /// Block device (5.2).
    pub const BLOCK: Self = Self(2);
    /// Entropy device (5.4).
    pub const ENTROPY: Self = Self(4);
    /// SCSI host (5.6).
    pub const SCSI_HOST: Self = Self(8);
}

impl core::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::BLOCK => f.write_str("virtio-blk"),
            Self::ENTROPY => f.write_str("virtio-rng"),
            Self::SCSI_HOST => f.write_str("virtio-scsi"),
            Self(other) => write!(f, "virtio device {other}"),
        }
    }
}

bitflags! {
    /// The device status field (2.1).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Status: u8 {
        /// The guest noticed the device.
        const ACKNOWLEDGE = 1;
        /// The guest knows how to drive it.
        const DRIVER = 2;
        /// The driver is set up and ready.
        const DRIVER_OK = 4;
        /// The driver has chosen its features; set means that the device accepts them.
        const FEATURES_OK = 8;
        /// The device cannot go on without a reset.
        const NEEDS_RESET = 64;
        /// The driver gave up.
        const FAILED = 128;
        const _ = !0;
    }
}

bitflags! {
    /// Feature bits that are not of one device type (section 6).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u64 {
        /// `VIRTIO_F_INDIRECT_DESC`: a descriptor may point to a table of descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// `VIRTIO_F_EVENT_IDX`: each side says at which index it wants to hear.
        const EVENT_IDX = 1 << 29;
        /// `VIRTIO_F_VERSION_1`: not a legacy device.
        const VERSION_1 = 1 << 32;
        /// `VIRTIO_F_ACCESS_PLATFORM`: the device's addresses are those of the platform's DMA interface.
        const ACCESS_PLATFORM = 1 << 33;
        /// `VIRTIO_F_RING_PACKED`.
        const RING_PACKED = 1 << 34;
        /// `VIRTIO_F_IN_ORDER`.
        const IN_ORDER = 1 << 35;
        /// `VIRTIO_F_RING_RESET`.
        const RING_RESET = 1 << 40;
        const _ = !0;
    }
}

bitflags! {
    /// Why a wired interrupt was raised (4.1.4.5, 4.2.2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Interrupt: u32 {
        /// A queue has used buffers.
        const QUEUE = 1;
        /// The configuration changed, or the device needs a reset.
        const CONFIG = 2;
        const _ = !0;
    }
}

/// "No vector", also read back when the device refuses one (4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;
