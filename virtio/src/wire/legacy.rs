//! The legacy interface (virtio 1.2, 4.1.4.10, 4.2.4, 2.7.2; virtio 0.9.5). Types and constants only.

/// Registers of legacy virtio over PCI, in I/O ports of BAR 0 (4.1.4.10). Offsets in bytes.
pub mod pci {
    /// u32: the device's features.
    pub const DEVICE_FEATURES: u16 = 0x00;
    /// u32: the driver's.
    pub const DRIVER_FEATURES: u16 = 0x04;
    /// u32: where the selected queue is, in pages of 4096 bytes; 0 for nowhere.
    pub const QUEUE_PFN: u16 = 0x08;
    /// u16: its size, which the driver cannot choose; 0 where there is no such queue.
    pub const QUEUE_SIZE: u16 = 0x0c;
    /// u16: which queue the queue registers are about.
    pub const QUEUE_SELECT: u16 = 0x0e;
    /// u16: the doorbell of all queues.
    pub const QUEUE_NOTIFY: u16 = 0x10;
    /// u8: status.
    pub const STATUS: u16 = 0x12;
    /// u8: why the line is raised; reading it acknowledges.
    pub const ISR: u16 = 0x13;
    /// u16: the vector of configuration changes; only there while MSI-X is on.
    pub const CONFIG_VECTOR: u16 = 0x14;
    /// u16: the selected queue's vector; only there while MSI-X is on.
    pub const QUEUE_VECTOR: u16 = 0x16;
    /// The device's configuration, while MSI-X is off.
    pub const CONFIG: u16 = 0x14;
    /// The device's configuration, while MSI-X is on.
    pub const CONFIG_WITH_MSIX: u16 = 0x18;
}

/// Registers that virtio-mmio of version 1 has in place of others (4.2.4). Offsets in bytes.
pub mod mmio {
    /// Bytes of the driver's pages, the unit of [`QUEUE_PFN`].
    pub const GUEST_PAGE_SIZE: usize = 0x028;
    /// The alignment of the used ring in bytes.
    pub const QUEUE_ALIGN: usize = 0x03c;
    /// Where the selected queue is, in pages; 0 for nowhere.
    pub const QUEUE_PFN: usize = 0x040;
}

/// Bytes of a page, and the alignment of a legacy queue and of its used ring (2.7.2).
pub const PAGE: usize = 4096;
