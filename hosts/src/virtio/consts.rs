//! Numbers of virtio 1.2, written here from the specification and shared with no driver.

/// Device status bits (2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The guest knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u8 = 8;
    /// The device is broken.
    pub const NEEDS_RESET: u8 = 64;
    /// The guest has given up.
    pub const FAILED: u8 = 128;
}

/// Feature bits that are the same for every device (6).
pub mod feature {
    /// Indirect descriptors.
    pub const INDIRECT: u64 = 1 << 28;
    /// used_event and avail_event.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy driver.
    pub const VERSION_1: u64 = 1 << 32;
    /// The device's access to memory is limited or translated.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// The packed ring.
    pub const RING_PACKED: u64 = 1 << 34;
    /// A queue can be reset on its own.
    pub const RING_RESET: u64 = 1 << 40;
}

/// "No vector" (4.1.4.3).
pub const NO_VECTOR: u16 = 0xffff;
/// The largest queue (2.7).
pub const MAX_QUEUE: u16 = 1 << 15;
