//! A VMBus channel.

use std::collections::{BTreeMap, VecDeque};

use super::Fault;
use super::gpadl::Gpadl;
use super::ring::{Incoming, Outgoing};
use super::srb::Work;

/// A request that the host has taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub transaction: u64,
    pub work: Work,
    pub faults: Vec<Fault>,
    pub due: u64,
    pub behind: u32,
    pub patience: u64,
    pub never: bool,
}

/// A packet to be sent.
#[derive(Debug)]
pub(super) struct Outbound {
    pub bytes: Vec<u8>,
    /// A write offset that is shown instead of the right one, for a moment.
    pub index: Option<u32>,
    /// A field of the rings that is overwritten then, by its number, and by what.
    pub poke: Option<(u8, u32)>,
    pub quiet: bool,
}

/// What an open channel has.
#[derive(Debug)]
pub(super) struct Open {
    pub gpadl: u32,
    /// `None`: the guest polls.
    pub vp: Option<u32>,
    pub flag: u16,
    pub signal: u32,
    pub incoming: Incoming,
    pub outgoing: Outgoing,
    /// Signalled, and not yet found empty.
    pub kicked: bool,
    /// The guest told that there is room again.
    pub room: bool,
    /// Nothing is answered any more until it is closed.
    pub dead: bool,
    pub taken: Vec<Taken>,
    pub outbox: VecDeque<Outbound>,
    /// When the host looks by itself, once.
    pub unstick: Option<u64>,
}

/// A channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub id: u32,
    /// Whose it is; `None`: of a device that is not for storage.
    pub controller: Option<usize>,
    pub sub_index: u16,
    /// The guest was told of it.
    pub offered: bool,
    pub rescinded: bool,
    /// Its device comes back once the guest has released it.
    pub reoffer: bool,
    pub gpadls: BTreeMap<u32, Gpadl>,
    pub open: Option<Open>,
    /// Requests that were in hand when it was closed or rescinded: their memory is the host's until the GPADLs are gone.
    pub orphans: Vec<Taken>,
}

impl Channel {
    pub fn new(id: u32, controller: Option<usize>, sub_index: u16) -> Self {
        Self {
            id,
            controller,
            sub_index,
            offered: false,
            rescinded: false,
            reoffer: false,
            gpadls: BTreeMap::new(),
            open: None,
            orphans: Vec::new(),
        }
    }

    /// Stops its work.
    pub fn shut(&mut self) {
        if let Some(open) = self.open.take() {
            self.orphans.extend(open.taken);
        }
    }
}
