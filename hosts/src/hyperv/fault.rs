//! What can go wrong, and how hosts differ.

use crate::Script;
use crate::virtio::Order;

/// What goes wrong with a message that the guest posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostFault {
    /// Is not taken, and the hypercall answers this status (0x13 and 0x12 ask for another try).
    Status(u16),
}

/// What goes wrong with a signal of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalFault {
    /// The hypercall succeeds, and the host does not look.
    Lost,
}

/// What goes wrong with a message to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageFault {
    /// Comes after this much time, in units of 100 ns; later ones may overtake it.
    Delay(u64),
    /// Never comes.
    Drop,
    /// Comes twice.
    Twice,
    /// Comes as another type.
    Kind(u32),
    /// Comes with this many bytes.
    Truncate(u8),
    /// Says that it has this many bytes, up to 255.
    Says(u8),
    /// Comes as another type of slot message than VMBus's.
    SlotKind(u32),
    /// Something else comes first.
    After(Stray),
    /// Comes with another word at this byte, if it is as long.
    Patch(u8, u32),
}

/// A message that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stray {
    /// Of a type that there is not.
    Unknown(u32),
    /// The offer of a device that is not for storage.
    ForeignOffer,
    /// The offer of a channel with an impossible or used number.
    BadOffer(u32),
    /// The rescind of a channel that may not exist.
    Rescind(u32),
    /// The end of an open: of this channel and open id.
    OpenResult(u32, u32),
    /// The end of a GPADL's making: of this channel and handle.
    GpadlCreated(u32, u32),
    /// The end of a GPADL's end: of this handle.
    TornDown(u32),
    /// A version response.
    Version,
    /// The end of an unload.
    Unloaded,
    /// The end of the offers.
    AllOffers,
    /// Four bytes.
    Short,
    /// Of any type, with these words behind the header.
    Words(u32, [u32; 4]),
    /// The offer of a channel of the first controller: channel, connection and index among its channels.
    Offer(u32, u32, u16),
}

/// What goes wrong with a storage request, or with what the host sends in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Completes after this much time, in units of 100 ns.
    Delay(u64),
    /// Completes after this many later requests did (or after a millisecond, if they do not come).
    Behind(u32),
    /// Never answers.
    Never,
    /// Takes the packet for malformed: from here on the channel answers nothing until it is closed.
    Stop,
    /// Performs nothing and answers this SRB status and SCSI status, without sense data.
    Status(u8, u8),
    /// Performs nothing and answers CHECK CONDITION with this sense key, code and qualifier.
    Sense(u8, u8, u8),
    /// Performs nothing and answers BUSY.
    Busy,
    /// Moves this many bytes less than it should, and says so.
    Short(u32),
    /// Says that it moved this many bytes.
    SaysMoved(u32),
    /// Says that there are this many bytes of sense data.
    SaysSense(u8),
    /// Answers twice.
    Duplicate,
    /// Answers this transaction id instead.
    BadTransaction(u64),
    /// Answers the id of the request that was answered before instead.
    StaleTransaction,
    /// An answer that is cut to this many bytes of payload.
    Truncate(u8),
    /// An answer with this many bytes of payload too many.
    Oversize(u8),
    /// A packet that says that it is this many eight-byte words long.
    SaysLength(u16),
    /// A packet that says that its payload begins at this eight-byte word.
    SaysOffset(u16),
    /// A packet of another type.
    Kind(u16),
    /// An answer with another operation than COMPLETE_IO.
    Operation(u32),
    /// A write offset that cannot be.
    Index(u32),
    /// Another word at this byte of the packet, if it is as long.
    Patch(u8, u32),
    /// Another value in a field of the rings, after the answer: the ring for the guest's write offset, read offset, interrupt mask and pending
    /// send size, by number from 0; those of the other from 4. The model takes it for the guest's doing when it sees it.
    Poke(u8, u32),
    /// No signal although one is due.
    NoSignal,
    /// A signal although none is due, when it takes the request.
    Spurious,
    /// An in-band packet of this operation, that nobody asked for, comes first.
    Unsolicited(u32),
}

/// What happens after a step. Each message and each packet of the guest's that the host takes is a step, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// This channel is rescinded.
    Rescind(u32),
    /// This channel is rescinded, and its device offered again once the guest has released it.
    Reoffer(u32),
    /// A message that nobody asked for.
    Stray(Stray),
    /// The guest is asked to look at this controller's bus again.
    Enumerate(usize),
    /// The disk of this controller, at target 0, unit 0, changes its size to this many sectors of 512 bytes.
    Resize(usize, u64),
    /// A unit attention (power on, reset) on that disk.
    Attention(usize),
}

/// How a host says that there is no unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Absent {
    /// As OpenVMM: INQUIRY answers with type 0x7F, everything else INVALID LUN without sense.
    #[default]
    Invalid,
    /// As QEMU's Hyper-V code: INQUIRY answers with type 0x7F and INVALID LUN with sense, everything else as well.
    InvalidWithSense,
}

/// How a host deviates from the plain one. All are within the interface except where said.
#[derive(Debug, Clone)]
pub struct Knobs {
    /// Completion order.
    pub order: Order,
    /// The highest VMBus version, and nothing above it: `major << 16 | minor`.
    pub version: u32,
    /// Features of version 6.0 that the host offers.
    pub features: u32,
    /// vstor versions that are taken.
    pub stor_versions: Vec<u16>,
    /// Sub-channels at most; 0: the controller has one channel.
    pub sub_channels: u16,
    /// Bytes that a request moves at most.
    pub max_transfer: u32,
    /// How there is no unit.
    pub absent: Absent,
    /// With this many requests or more in hand the host asks for no signals and looks at the ring when one completes.
    pub poll_depth: Option<usize>,
    /// Requests of a channel that the host has in hand at most.
    pub depth: usize,
    /// Time until a GPADL's end is told, in units of 100 ns.
    pub torn_down_after: u64,
    /// Time until sub-channels are offered, in units of 100 ns.
    pub sub_channels_after: u64,
    /// Messages that were meant for who ran before the guest and are the first in the slot.
    pub left_over: Vec<Vec<u8>>,
    /// A disk that goes is told by REMOVE_DEVICE (as Hyper-V does) and not only by ENUMERATE_BUS.
    pub tells_removal: bool,
    /// Signals a channel again whose ring looks unserviced, this long after it was opened, in units of 100 ns (as OpenVMM does).
    pub unstick_after: Option<u64>,
    /// Refuses to open a channel with this status.
    pub refuses_open: u32,
    /// Refuses to make a GPADL with this status.
    pub refuses_gpadl: u32,
    /// Refuses every contact with this connection state.
    pub refuses_contact: u8,
    /// Ends what was asked for when its unit, bus or adapter is reset (real hosts do, OpenVMM does not).
    pub resets_abort: bool,
}

/// 6.0.
const NEWEST: u32 = 0x0006_0000;

impl Default for Knobs {
    fn default() -> Self {
        Self {
            order: Order::default(),
            version: NEWEST,
            features: 0x0b,
            stor_versions: vec![0x0200, 0x0402, 0x0501, 0x0600],
            sub_channels: 3,
            max_transfer: 0x4_0000,
            absent: Absent::default(),
            poll_depth: None,
            depth: 256,
            torn_down_after: 0,
            sub_channels_after: 0,
            left_over: Vec::new(),
            tells_removal: false,
            unstick_after: None,
            refuses_open: 0,
            refuses_gpadl: 0,
            refuses_contact: 0,
            resets_abort: true,
        }
    }
}

/// What goes wrong when.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// By posted message.
    pub posts: Script<PostFault>,
    /// By signal of the guest's.
    pub signals: Script<SignalFault>,
    /// By message to the guest.
    pub messages: Script<MessageFault>,
    /// By packet that the host takes from a ring: requests, and the packets of initialisation.
    pub packets: Script<Fault>,
    /// By step.
    pub events: Script<Event>,
}
