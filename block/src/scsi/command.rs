//! A command on its way to a logical unit and back.

use alloc::sync::Arc;
use core::fmt;

use undercroft_hal::dma::Segment;
use undercroft_hal::{BottomHalf, Instant};

use super::{Address, Lun, Outcome};
use crate::{InFlight, Piece};

/// A command descriptor block, inline. 16 bytes hold every command that this crate sends, and every transport carries that many.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cdb {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Cdb {
    /// Bytes of the longest.
    pub const MAX: usize = 16;

    /// A CDB of `N` bytes (6, 10, 12 or 16).
    pub const fn new<const N: usize>(from: [u8; N]) -> Self {
        const { assert!(N <= Self::MAX && N >= 6, "a CDB has 6 to 16 bytes") };
        let mut bytes = [0; Self::MAX];
        let mut at = 0;
        while at < N {
            bytes[at] = from[at];
            at += 1;
        }
        Self { bytes, len: N as u8 }
    }

    /// Its bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(Self::MAX)]
    }

    /// Its bytes with zeroes behind, as transports with a fixed field carry it.
    #[inline]
    pub const fn padded(&self) -> &[u8; Self::MAX] {
        &self.bytes
    }

    /// The operation code.
    pub const fn opcode(&self) -> u8 {
        self.bytes[0]
    }
}

impl fmt::Debug for Cdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cdb({:02x?})", self.bytes())
    }
}

/// Which way a command's data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// No data.
    None,
    /// From the device into the buffers.
    In,
    /// From the buffers to the device.
    Out,
}

/// Which part of its request's work a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// What the request asks for.
    Work,
    /// A flush: the request's own, or the one behind a write that must be durable.
    Flush,
}

/// Who sent a command, and is given it back with its outcome: a disk, or the scan.
pub trait Initiator: Send + Sync {
    /// Takes the command back. Runs in bottom-half context with no lock held; it may submit. Must end the command's request exactly once, or
    /// send the command again.
    fn done(self: Arc<Self>, cx: &BottomHalf, command: Command, outcome: &Outcome<'_>);
}

/// What a command says, beside its request: kept within that request, so that a command moves as a pointer, too.
pub(crate) struct Frame {
    pub(super) address: Address,
    pub(super) cdb: Cdb,
    pub(super) direction: Direction,
    /// How often it was sent again: the initiator's business, like what follows.
    pub(super) attempts: u8,
    /// Which part of the request's work it does.
    pub(super) step: Step,
    /// The writes that a flush covers.
    pub(super) mark: u64,
    /// Parameter data, where it is not the request's own data that moves.
    pub(super) parameters: Option<Piece>,
    /// Present while the host has the command.
    pub(super) initiator: Option<Arc<dyn Initiator>>,
}

impl Frame {
    /// Of a request that is no command's.
    pub(crate) const EMPTY: Self = Self {
        address: Address { target: 0, lun: Lun::ZERO },
        cdb: Cdb { bytes: [0; Cdb::MAX], len: 0 },
        direction: Direction::None,
        attempts: 0,
        step: Step::Work,
        mark: 0,
        parameters: None,
        initiator: None,
    };
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.address, self.cdb, self.direction)
    }
}

/// A command in flight, built around the block request that it serves. Linear like the request: the host calls [`Command::finish`] exactly
/// once, or gives the command back from `submit`.
#[must_use = "a command must be finished"]
pub struct Command {
    pub(super) request: InFlight,
}

impl Command {
    /// A command that serves `request` and moves the request's data.
    #[inline]
    pub fn new(
        address: Address,
        cdb: Cdb,
        direction: Direction,
        mut request: InFlight,
        initiator: Arc<dyn Initiator>,
    ) -> Self {
        let frame = request.frame_mut();
        (frame.address, frame.cdb, frame.direction) = (address, cdb, direction);
        (frame.attempts, frame.step, frame.mark) = (0, Step::Work, 0);
        (frame.parameters, frame.initiator) = (None, Some(initiator));
        Self { request }
    }

    /// What it says beside its request.
    #[inline]
    pub(super) fn frame(&self) -> &Frame {
        self.request.frame()
    }

    #[inline]
    pub(super) fn frame_mut(&mut self) -> &mut Frame {
        self.request.frame_mut()
    }

    /// The logical unit that it is for.
    #[inline]
    pub fn address(&self) -> Address {
        self.frame().address
    }

    /// The command descriptor block.
    #[inline]
    pub fn cdb(&self) -> &Cdb {
        &self.frame().cdb
    }

    /// Which way its data goes.
    #[inline]
    pub fn direction(&self) -> Direction {
        self.frame().direction
    }

    /// The memory that its data moves from or to, in order; empty exactly if the direction is [`Direction::None`].
    #[inline]
    pub fn pieces(&self) -> &[Piece] {
        match (&self.frame().parameters, self.frame().direction) {
            (_, Direction::None) => &[],
            (Some(piece), _) => core::slice::from_ref(piece),
            (None, _) => self.request.request().data.pieces(),
        }
    }

    /// As [`Command::pieces`], for a host that moves data by the CPU (programmed I/O, a model).
    pub fn pieces_mut(&mut self) -> &mut [Piece] {
        if self.direction() == Direction::None {
            return &mut [];
        }
        if self.frame().parameters.is_none() {
            return self.request.data_mut().pieces_mut();
        }
        self.frame_mut().parameters.as_mut_slice()
    }

    /// What descriptors carry for [`Command::pieces`].
    #[inline]
    pub fn segments(&self) -> impl ExactSizeIterator<Item = Segment> + Clone + '_ {
        self.pieces().iter().map(Piece::segment)
    }

    /// Bytes of data in all.
    pub fn bytes(&self) -> u64 {
        self.pieces().iter().map(|piece| piece.len() as u64).sum()
    }

    /// When its submitter gives up.
    pub fn deadline(&self) -> Option<Instant> {
        self.request.request().deadline
    }

    /// The request that it served, for its initiator to end.
    pub fn into_request(self) -> InFlight {
        self.request
    }

    /// Hands the command back to its initiator. The host holds no lock, has forgotten the command, and has a free slot for the next one.
    pub fn finish(mut self, cx: &BottomHalf, outcome: &Outcome<'_>) {
        undercroft_hal::sync::assert_unlocked("a command is finished");
        if let Some(initiator) = self.frame_mut().initiator.take() {
            initiator.done(cx, self, outcome);
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} {:?} {:?})", self.address(), self.cdb(), self.direction())
    }
}
