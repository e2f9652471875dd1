//! Hyper-V: the hypervisor interface, the VMBus server, and the StorVSP behind it.
//!
//! Source: the project's notes on the interface (made from OpenVMM's server, Microsoft's guest firmware and runs of a guest against the
//! former, with transcripts byte by byte), and the Hypervisor Top Level Functional Specification 6.0b. Written from the host's side; nothing is
//! shared with the driver.
//!
//! A [`Hyperv`] is a state machine without threads, clocks or memory of its own. Whoever runs the guest passes what it does
//! ([`Hyperv::cpuid`], [`Hyperv::rdmsr`], [`Hyperv::wrmsr`], [`Hyperv::hypercall`]) with the guest's memory ([`Guest`]), gives it turns
//! ([`Hyperv::work`]; [`Hyperv::due`] says when the next is needed), and puts the interrupts that it wants ([`Hyperv::take_interrupts`]) into
//! the guest. So the same code serves a test in one process and a machine monitor with real processors. It is honest by default, notes every
//! breach of the interface by the guest ([`Breach`]), counts what costs ([`Counts`]), and takes a script of faults ([`Faults`]).
//!
//! It looks at a ring only when it was signalled, as long as it asked to be: a guest that loses a signal hangs.
//!
//! ```
//! use undercroft_hosts::hyperv::{Controller, Flat, Hyperv, Settings};
//! use undercroft_hosts::scsi::{Lun, LunSettings, Target};
//! use undercroft_hosts::Disk;
//!
//! let mut host = Hyperv::new(Settings::default());
//! let disk = Target::new().with(0, Lun::new(Disk::new(2048), LunSettings::default()));
//! host.add_controller(Controller::scsi(1, disk));
//! let guest = Flat::new(1 << 20);
//! assert_eq!(host.cpuid(0x4000_0001, 0).unwrap()[0], 0x3123_7648);
//! host.wrmsr(&guest, 0, 0x4000_0000, 1 << 63 | 1).unwrap();
//! host.wrmsr(&guest, 0, 0x4000_0001, 0x1000 | 1).unwrap();
//! assert!(host.breaches().is_empty());
//! ```

mod breach;
mod channel;
mod consts;
mod controller;
mod fault;
mod gpadl;
mod guest;
mod hypercalls;
mod messages;
mod opening;
mod owner;
mod plugged;
mod registers;
mod ring;
mod srb;
mod stor;
mod synic;
mod turn;
mod vmbus;

use std::collections::{BTreeMap, VecDeque};

pub use breach::{Breach, Counts};
pub use controller::Controller;
pub use fault::{Absent, Event, Fault, Faults, Knobs, MessageFault, PostFault, SignalFault, Stray};
pub use guest::{BadGpa, Flat, Guest};
pub use plugged::Plugged;
pub use registers::{Fault as ProtectionFault, Settings};

use channel::Channel;
use synic::{SlotMessage, Vp};
use vmbus::Connection;

/// An interrupt for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupt {
    /// The virtual processor.
    pub vp: u32,
    /// The vector.
    pub vector: u8,
}

/// A Hyper-V host with one guest. See the module's example.
#[derive(Debug)]
pub struct Hyperv {
    /// What the hypervisor is like.
    pub settings: Settings,
    /// Standing differences and lies.
    pub knobs: Knobs,
    /// What goes wrong when.
    pub faults: Faults,
    vps: Vec<Vp>,
    os_id: u64,
    hypercall_page: u64,
    tsc_page: u64,
    connection: Option<Connection>,
    /// Where messages for the guest go.
    messages_to: (u32, u8),
    channels: BTreeMap<u32, Channel>,
    controllers: Vec<Controller>,
    late: Vec<(u64, SlotMessage)>,
    /// Sub-channels to be offered: when, of which controller, with which index.
    coming: Vec<(u64, usize, u16)>,
    interrupts: VecDeque<Interrupt>,
    breaches: Vec<Breach>,
    counts: Counts,
    random: crate::Random,
    last_transaction: u64,
    /// The host's own transactions that the guest has to answer.
    asked: Vec<u64>,
}

impl Hyperv {
    /// A host as after power-on, without devices.
    pub fn new(settings: Settings) -> Self {
        let vps = (0..settings.vps.max(1)).map(|_| Vp::default()).collect();
        Self {
            settings,
            knobs: Knobs::default(),
            faults: Faults::default(),
            vps,
            os_id: 0,
            hypercall_page: 0,
            tsc_page: 0,
            connection: None,
            messages_to: (0, vmbus::SINT),
            channels: BTreeMap::new(),
            controllers: Vec::new(),
            late: Vec::new(),
            coming: Vec::new(),
            interrupts: VecDeque::new(),
            breaches: Vec::new(),
            counts: Counts::default(),
            random: crate::Random::new(1),
            last_transaction: 0,
            asked: Vec::new(),
        }
    }

    /// What the guest did wrong so far.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The interrupts that are due, oldest first.
    pub fn take_interrupts(&mut self) -> Vec<Interrupt> {
        self.interrupts.drain(..).collect()
    }

    /// The version and the features that were agreed, while there is a connection.
    pub fn agreed(&self) -> Option<(u32, u32)> {
        self.connection.as_ref().map(|connection| (connection.version, connection.features))
    }

    /// The channels that are open, by number.
    pub fn open_channels(&self) -> Vec<u32> {
        self.channels.values().filter(|channel| channel.open.is_some()).map(|channel| channel.id).collect()
    }

    /// Lists of guest pages that the host holds.
    pub fn gpadls(&self) -> usize {
        self.channels.values().map(|channel| channel.gpadls.len()).sum()
    }

    /// Replaces the script of faults for packets; they count from the next one on.
    pub fn set_packet_faults(&mut self, faults: crate::Script<Fault>) {
        self.faults.packets = faults;
    }
}
