//! A channel with its commands in flight.

use alloc::sync::{Arc, Weak};

use undercroft_block::Slab;
use undercroft_block::Tag;
use undercroft_block::scsi::{Command, Response};
use undercroft_hal::BottomHalf;
use undercroft_hal::cpu;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, Turn};

use super::Controller;
use super::packet::Vstor;
use crate::Settings;
use crate::bus::Opened;
use crate::defect::Defects;
use crate::ring::{Down, Receiver, Ring, Sender, Up};

/// Slots beyond the commands': for what the driver itself asks.
pub(super) const SPARE: u16 = 4;

/// Where a lane is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its channel is not open.
    Vacant,
    /// Open, and not ready for commands.
    Starting,
    /// Commands go in and out.
    Running,
    /// Being closed. The rings are not looked at.
    Closing,
    /// The host has let go: what is in the rings is the last of it, and what is left ends so.
    Draining(Response),
}

/// What a transaction is about.
pub(crate) enum Slot {
    /// A command.
    Command(Command),
    /// A step of the initialisation: its answer is waited for.
    Step,
    /// A reset of a unit or of the bus.
    Management,
}

/// The two rings of an open channel.
pub(crate) struct Rings {
    pub(crate) up: Sender<Up>,
    pub(crate) down: Receiver<Down>,
    pub(crate) connection: u32,
    pub(crate) channel: u32,
}

impl Rings {
    pub(super) fn new(ring: &Ring, (connection, channel): (u32, u32), defects: Defects) -> Self {
        let (up, down) = (ring.up(), ring.down());
        let (up_size, down_size) = (up.size(), down.size());
        let (up, down) = (Sender::new(up, up_size), Receiver::new(down, down_size));
        #[cfg(test)]
        let (up, down) = (up.with_defects(defects), down.with_defects(defects));
        #[cfg(not(test))]
        let _ = defects;
        Self { up, down, connection, channel }
    }
}

/// What a lane's lock protects.
pub(crate) struct State {
    pub(crate) life: Life,
    /// There while the channel is open, and until the last answer was taken.
    pub(crate) rings: Option<Rings>,
    pub(crate) slots: Slab<Slot>,
    /// A submitter was refused for want of room.
    pub(crate) starved: bool,
    /// The bottom half is at work and will publish what is added meanwhile.
    pub(crate) serving: bool,
    /// The answer to a step of the initialisation.
    pub(crate) answer: Option<(Tag, Vstor)>,
    /// A rescind, or a breach of the host's: nothing more will come.
    pub(crate) broken: bool,
}

/// A channel.
pub(crate) struct Lane {
    /// The CPU that its bottom half is at home on.
    pub(crate) cpu: usize,
    pub(crate) state: IrqSpinLock<State>,
    pub(crate) work: Arc<BottomHalfWork>,
    /// The open channel, for the keeper.
    pub(crate) opened: IrqSpinLock<Option<Opened>>,
}

impl Lane {
    pub(super) fn new(index: usize, controller: &Weak<Controller>, settings: Settings, _defects: Defects) -> Self {
        let weak = Weak::clone(controller);
        let home = index % cpu::count();
        let work = BottomHalfWork::new(home, move |cx: &BottomHalf| {
            weak.upgrade().map_or(Turn::Done, |controller| controller.service(cx, &controller.lanes[index]))
        });
        let state = State {
            life: Life::Vacant,
            rings: None,
            slots: Slab::new(index as u16, settings.depth.clamp(1, 4096) + SPARE),
            starved: false,
            serving: false,
            answer: None,
            broken: false,
        };
        Self {
            cpu: home,
            state: IrqSpinLock::new(Rank::QUEUE, state),
            work: Arc::new(work),
            opened: IrqSpinLock::new(Rank::new(31), None),
        }
    }

    /// The channel was rescinded: nothing more goes in, and nothing more will come.
    pub(super) fn hold(&self, channel: u32) {
        let mut state = self.state.lock();
        if state.rings.as_ref().is_some_and(|rings| rings.channel == channel) {
            state.broken = true;
            if matches!(state.life, Life::Running | Life::Starting) {
                state.life = Life::Closing;
            }
        }
    }
}
