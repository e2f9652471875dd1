//! virtio over PCI (virtio 1.2, 4.1). Types and constants only.

use bitflags::bitflags;

/// Vendor id of every virtio function (4.1.2).
pub const VENDOR: u16 = 0x1af4;
/// Device ids of transitional devices: the type is in the subsystem id (4.1.2.1).
pub const TRANSITIONAL: core::ops::RangeInclusive<u16> = 0x1000..=0x103f;
/// Device ids of modern devices: this plus the device type (4.1.2.1).
pub const MODERN: core::ops::RangeInclusive<u16> = 0x1040..=0x107f;

/// The PCI capability id of virtio's structures: vendor-specific (4.1.4).
pub const CAP_ID: u8 = 0x09;

/// Which structure a capability locates (4.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct CapType(pub u8);

impl CapType {
    /// Common configuration (4.1.4.3).
    pub const COMMON: Self = Self(1);
    /// Notifications (4.1.4.4).
    pub const NOTIFY: Self = Self(2);
    /// Interrupt status (4.1.4.5).
    pub const ISR: Self = Self(3);
    /// Device configuration (4.1.4.6).
    pub const DEVICE: Self = Self(4);
}

/// Offsets in `struct virtio_pci_cap` (4.1.4), in bytes from the capability.
pub mod cap {
    /// Bytes of the whole capability.
    pub const CAP_LEN: u16 = 2;
    /// [`super::CapType`].
    pub const CFG_TYPE: u16 = 3;
    /// Which BAR.
    pub const BAR: u16 = 4;
    /// Where in it.
    pub const OFFSET: u16 = 8;
    /// How many bytes.
    pub const LENGTH: u16 = 12;
    /// Bytes of a capability.
    pub const SIZE: u8 = 16;
    /// In the notification capability only: bytes between the doorbells of two notification offsets.
    pub const NOTIFY_MULTIPLIER: u16 = 16;
    /// Bytes of a notification capability.
    pub const NOTIFY_SIZE: u8 = 20;
}

/// Offsets in `struct virtio_pci_common_cfg` (4.1.4.3), in bytes.
pub mod common {
    /// u32: which half of the device's features shows.
    pub const DEVICE_FEATURE_SELECT: usize = 0x00;
    /// u32: that half.
    pub const DEVICE_FEATURE: usize = 0x04;
    /// u32: which half of the driver's features is written.
    pub const DRIVER_FEATURE_SELECT: usize = 0x08;
    /// u32: that half.
    pub const DRIVER_FEATURE: usize = 0x0c;
    /// u16: the vector of configuration changes.
    pub const CONFIG_VECTOR: usize = 0x10;
    /// u16: how many queues the device has.
    pub const NUM_QUEUES: usize = 0x12;
    /// u8: status.
    pub const STATUS: usize = 0x14;
    /// u8: changes when the configuration does.
    pub const GENERATION: usize = 0x15;
    /// u16: which queue the rest is about.
    pub const QUEUE_SELECT: usize = 0x16;
    /// u16: its size.
    pub const QUEUE_SIZE: usize = 0x18;
    /// u16: its vector.
    pub const QUEUE_VECTOR: usize = 0x1a;
    /// u16: whether it runs.
    pub const QUEUE_ENABLE: usize = 0x1c;
    /// u16: its doorbell, times the multiplier.
    pub const QUEUE_NOTIFY_OFF: usize = 0x1e;
    /// u64: descriptor table.
    pub const QUEUE_DESC: usize = 0x20;
    /// u64: available ring.
    pub const QUEUE_DRIVER: usize = 0x28;
    /// u64: used ring.
    pub const QUEUE_DEVICE: usize = 0x30;
    /// u16: resets the queue, reads as 1 until that is done; only there with `RING_RESET`.
    pub const QUEUE_RESET: usize = 0x3a;
    /// Bytes that every device has.
    pub const SIZE: usize = 0x38;
}

bitflags! {
    /// What was found wrong with a function's virtio capabilities, for reports.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Missing: u8 {
        /// No usable common configuration.
        const COMMON = 1;
        /// No usable notification area.
        const NOTIFY = 2;
        /// No usable interrupt status.
        const ISR = 4;
    }
}
