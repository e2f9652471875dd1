//! What a driver did against the specification.

use undercroft_hal::hosted::BadAccess;

/// A breach of virtio 1.2 by the driver, with the section that it breaks. Queue numbers come first where there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// 2.4.1: wrote a status or configured the device after a reset without having read the status back as 0.
    ResetNotAwaited,
    /// 2.1.1: cleared a status bit without a reset.
    StatusBitsCleared(u8),
    /// 3.1.1: set this status out of order.
    StatusOrder(u8),
    /// 3.1.1 step 6: went on without reading FEATURES_OK back.
    FeaturesOkNotReadBack,
    /// 3.1.1 step 6: went on although the device refused FEATURES_OK.
    RefusalIgnored,
    /// 2.2.1: accepted features that were not offered: these bits.
    FeaturesNotOffered(u64),
    /// 2.2.1: wrote features after FEATURES_OK.
    FeaturesAfterOk,
    /// 6.1: did not accept VERSION_1 on a modern transport.
    NoVersion1,
    /// 3.1.1 step 7: configured a queue before FEATURES_OK or after it was enabled.
    QueueConfigOrder(u16),
    /// 4.1.4.3.2: wrote something other than 1 to queue_enable (or queue_reset).
    QueueEnableValue(u16),
    /// 2.7: a queue size that is 0, no power of two, or larger than the device allows.
    QueueSize(u16, u16),
    /// 2.7: ring addresses that are not aligned.
    RingAlignment(u16),
    /// 3.1.1: sent a notification before DRIVER_OK.
    NotifyBeforeDriverOk(u16),
    /// 4.1.5.2: notified a queue that does not exist or is not enabled.
    NotifyNoQueue(u16),
    /// 4.1.5.2: wrote another queue's number to a queue's notify address: where, and what.
    NotifyWrongQueue(u16, u16),
    /// 4.1.4.3: a vector that the MSI-X table does not have.
    VectorOutOfRange(u16),
    /// 4.1.3.1 and 4.2.2.2: accessed a register with the wrong width or alignment (its offset).
    AccessWidth(u64),
    /// Wrote a register that is read-only (its offset).
    ReadOnlyRegister(u64),
    /// 2.6.1: did not wait for a queue reset to finish before using the queue.
    QueueResetNotAwaited(u16),
    /// Used the device with bus mastering off.
    NotBusMaster,
    /// 2.7.13.3: the available index moved by more than the queue size.
    AvailJump(u16),
    /// 2.7.6.1: reserved flags, or any with EVENT_IDX.
    AvailFlags(u16, u16),
    /// 2.7.6: offered a head that is no descriptor.
    HeadOutOfRange(u16, u16),
    /// Offered a chain with a descriptor that the device still owns.
    DescriptorBusy(u16, u16),
    /// 2.7.5: NEXT leads out of the table.
    NextOutOfRange(u16, u16),
    /// 2.7.5.2: a chain that is longer than the queue, or loops.
    ChainTooLong(u16),
    /// 2.7.4.2: a device-readable buffer after a device-writable one.
    ReadableAfterWritable(u16),
    /// 2.7.5.1: a chain of more than 2^32 bytes.
    ChainTooBig(u16),
    /// 2.7.5.3.1: INDIRECT without the feature.
    IndirectNotNegotiated(u16),
    /// 2.7.5.3.1: INDIRECT together with NEXT.
    IndirectWithNext(u16),
    /// 2.7.5.3.1: INDIRECT inside an indirect table.
    IndirectNested(u16),
    /// 2.7.5.3.1: an indirect table whose length is 0 or no multiple of 16.
    IndirectLength(u16, u32),
    /// 2.8.6: a chain of a packed ring whose later descriptors are not available when its first one is.
    PackedChainTorn(u16),
    /// 2.7.5: reserved descriptor flags.
    DescriptorFlags(u16, u16),
    /// 2.7.13: changed a descriptor while the device owned it.
    DescriptorChanged(u16, u16),
    /// Named memory that no driver holds for DMA, or freed it while the device used it.
    Memory(BadAccess),
    /// A request that the device's own section forbids: the section, and what is wrong.
    Request(&'static str),
}

impl From<BadAccess> for Breach {
    fn from(bad: BadAccess) -> Self {
        Self::Memory(bad)
    }
}
