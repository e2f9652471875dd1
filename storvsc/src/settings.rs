//! What may be chosen. Any context.

use crate::wire::{message, vstor};

/// How a controller is driven. The default is right but for tests and for the curious.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Data pages of the ring to the host, at least 1. Where memory is short, less is taken.
    pub pages_up: u32,
    /// Data pages of the ring from the host.
    pub pages_down: u32,
    /// Commands in flight of one channel.
    pub depth: u16,
    /// Channels at most; no more than there are CPUs.
    pub channels: u16,
    /// The newest version of the storage protocol to offer.
    pub newest_storage: vstor::Version,
    /// The newest version of VMBus to offer.
    pub newest_bus: message::Version,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pages_up: 32,
            pages_down: 8,
            depth: 256,
            channels: 64,
            newest_storage: vstor::Version::WIN10,
            newest_bus: message::Version::V6_0,
        }
    }
}
