//! Standing lies and limits of a device, as opposed to those about single requests ([`FaultScript`](super::FaultScript)).

/// In which order a device completes what it has in hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// As it came.
    #[default]
    Fifo,
    /// Last come, first done.
    Lifo,
    /// By chance, from the machine's seed.
    Random,
}

/// How a device deviates from the plain one. All are within the specification except where said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Knobs {
    /// Features not to offer, of those that the device has.
    pub without: u64,
    /// Further features to offer: the packed ring, or one that the device does not implement (a lie, unless the driver ignores it).
    pub with: u64,
    /// Clears FEATURES_OK whatever the driver accepts.
    pub refuse_features: bool,
    /// How many vector assignments to grant (`None`: all); the others read back as 0xFFFF.
    pub vectors: Option<u16>,
    /// How many reads of the status after a reset show the old one; the device goes on working until then.
    pub reset_reads: u32,
    /// The same for the reset of a queue.
    pub queue_reset_reads: u32,
    /// The reset of a queue does not end what is in flight there, which is answered later, with its old buffers, in what is the queue then. A
    /// breach of 2.6.1, and what QEMU's disks do.
    pub queue_reset_goes_on: bool,
    /// Completion order.
    pub order: Order,
    /// One notify address for all queues (PCI: a multiplier of 0).
    pub shared_notify: bool,
}
