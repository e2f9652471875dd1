//! How many queues of which size, and which CPU uses which. Task context.

use alloc::string::String;
use alloc::vec::Vec;

use undercroft_block::Limits;
use undercroft_hal::cpu::{self, MAX_CPUS};

use crate::transport::Transport;
use crate::wire::Features;

/// Descriptors over all queues: more requests in flight than this have never made a disk faster.
const MAX_DESCRIPTORS: u16 = 256;
/// Descriptors of one queue at least.
const MIN_DESCRIPTORS: u16 = 64;
/// Descriptors of a special queue: its chains are short and few.
pub(super) const SPECIAL_DESCRIPTORS: u16 = 16;

/// The request queues of a device: how many, how large, and how much they hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestQueues {
    /// How many are used.
    pub(crate) count: u16,
    /// Descriptors of one at most.
    pub(crate) max_size: u16,
    /// Requests in flight over all of them.
    pub(crate) depth: u32,
}

impl RequestQueues {
    /// Of a device that has `offered` of them after `special` others; `limits` are cut to what fits in one.
    pub(crate) fn plan(
        transport: &mut dyn Transport,
        features: u64,
        special: u16,
        offered: u16,
        limits: &mut Limits,
    ) -> Self {
        let count = request_queues(transport, special, offered);
        let max_size = queue_size(count);
        let size = transport.queue_max_size(special).min(max_size);
        Self { count, max_size, depth: u32::from(count) * depth(features, size, limits) }
    }
}

/// How many request queues to use: one per CPU, as many as the device has and can tell apart by vectors. They follow `special` others.
fn request_queues(transport: &mut dyn Transport, special: u16, offered: u16) -> u16 {
    // One vector is for changes of the configuration.
    let vectors = transport.vectors().saturating_sub(1 + special).max(1);
    let wanted = offered.min(cpu::count().clamp(1, MAX_CPUS) as u16).min(vectors).max(1);
    // A queue that the device announced but does not have is not missed, as long as there is the first.
    (1..wanted).find(|&queue| transport.queue_max_size(special + queue) == 0).unwrap_or(wanted)
}

/// Descriptors of each of `queues` request queues at most: a power of two.
fn queue_size(queues: u16) -> u16 {
    1 << (MAX_DESCRIPTORS / queues.max(1)).max(MIN_DESCRIPTORS).ilog2()
}

/// Requests that a queue of `size` descriptors holds, with the limits cut to what fits in one.
fn depth(features: u64, size: u16, limits: &mut Limits) -> u32 {
    if Features::from_bits_retain(features).contains(Features::INDIRECT_DESC) {
        return u32::from(size);
    }
    // Without tables of its own a request takes a descriptor for each buffer: head, segments, answer.
    let fits = size.saturating_sub(2).max(1);
    limits.max_segments = limits.max_segments.min(fits);
    let bytes = limits.max_segment_bytes.saturating_mul(u32::from(limits.max_segments));
    limits.max_transfer_bytes = limits.max_transfer_bytes.min(bytes);
    u32::from(size / 3).max(1)
}

/// The queue of each CPU.
pub(crate) fn route(special: u16, queues: u16) -> [u16; MAX_CPUS] {
    let mut route = [special; MAX_CPUS];
    for (slot, queue) in route.iter_mut().zip((0..queues.max(1)).cycle()) {
        *slot = special + queue;
    }
    route
}

/// The negotiated transport features, for people; and whether it is the legacy interface that they are of.
pub(crate) fn feature_names(legacy: bool, bits: u64) -> String {
    let features = Features::from_bits_retain(bits);
    let known = [
        (Features::EVENT_IDX, "event-idx"),
        (Features::INDIRECT_DESC, "indirect"),
        (Features::ACCESS_PLATFORM, "access-platform"),
        (Features::RING_PACKED, "packed"),
        (Features::RING_RESET, "ring-reset"),
    ];
    let agreed = known.iter().filter(|(bit, _)| features.contains(*bit)).map(|(_, name)| *name);
    legacy.then_some("legacy").into_iter().chain(agreed).collect::<Vec<_>>().join(" ")
}
