//! virtio over MMIO, version 2 (virtio 1.2, 4.2.2). Offsets in bytes; all registers but the configuration are u32.

/// "virt".
pub const MAGIC: u32 = 0x7472_6976;
/// The version that is not legacy.
pub const VERSION: u32 = 2;
/// The legacy version.
pub const VERSION_LEGACY: u32 = 1;

/// [`MAGIC`].
pub const MAGIC_VALUE: usize = 0x000;
/// [`VERSION`].
pub const VERSION_NUMBER: usize = 0x004;
/// The device type; 0 is an empty slot.
pub const DEVICE_ID: usize = 0x008;
/// Half of the device's features.
pub const DEVICE_FEATURES: usize = 0x010;
/// Which half.
pub const DEVICE_FEATURES_SEL: usize = 0x014;
/// Half of the driver's features.
pub const DRIVER_FEATURES: usize = 0x020;
/// Which half.
pub const DRIVER_FEATURES_SEL: usize = 0x024;
/// Which queue the queue registers are about.
pub const QUEUE_SEL: usize = 0x030;
/// Its largest size; 0 where there is no such queue.
pub const QUEUE_NUM_MAX: usize = 0x034;
/// Its size.
pub const QUEUE_NUM: usize = 0x038;
/// Whether it runs.
pub const QUEUE_READY: usize = 0x044;
/// The doorbell: the queue's number is written here.
pub const QUEUE_NOTIFY: usize = 0x050;
/// Why the line is raised.
pub const INTERRUPT_STATUS: usize = 0x060;
/// What of it was handled.
pub const INTERRUPT_ACK: usize = 0x064;
/// Status.
pub const STATUS: usize = 0x070;
/// Descriptor table, low half; the high half follows.
pub const QUEUE_DESC: usize = 0x080;
/// Available ring.
pub const QUEUE_DRIVER: usize = 0x090;
/// Used ring.
pub const QUEUE_DEVICE: usize = 0x0a0;
/// Resets the queue, reads as 1 until that is done; only there with `RING_RESET`.
pub const QUEUE_RESET: usize = 0x0c0;
/// Changes when the configuration does.
pub const CONFIG_GENERATION: usize = 0x0fc;
/// The device's configuration.
pub const CONFIG: usize = 0x100;
