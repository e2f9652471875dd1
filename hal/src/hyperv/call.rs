//! Hypercalls (TLFS 3): posting a message, signalling an event.

use core::fmt;
use core::sync::atomic::Ordering;

use super::partition::Inner;
use super::registers::PAGE;
use crate::dma::Coherent;

/// `HvCallPostMessage`.
const POST_MESSAGE: u64 = 0x5c;
/// `HvCallSignalEvent`, with its input in registers.
const SIGNAL_EVENT: u64 = 0x1_005d;
/// Bytes of a message's payload at most.
const MOST_PAYLOAD: usize = 240;
/// Bytes before it.
const HEAD: usize = 16;

/// The status of a hypercall (TLFS appendix B). Open: a hypervisor may answer anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// No memory in the hypervisor.
    pub const INSUFFICIENT_MEMORY: Self = Self(0x0b);
    /// No such connection; some hosts say so when they are busy.
    pub const INVALID_CONNECTION: Self = Self(0x12);
    /// Messages are in the way: try again.
    pub const INSUFFICIENT_BUFFERS: Self = Self(0x13);
}

/// Why a hypercall did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// The hypervisor's answer.
    Refused(Status),
    /// A message longer than 240 bytes.
    TooLong,
    /// The interface is not in use any more.
    Stopped,
}

impl CallError {
    /// Whether the same call may do later: the host is behind with what it was sent.
    pub const fn is_busy(self) -> bool {
        matches!(
            self,
            Self::Refused(Status::INVALID_CONNECTION | Status::INSUFFICIENT_BUFFERS | Status::INSUFFICIENT_MEMORY)
        )
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(Status(status)) => write!(f, "the hypercall was refused with status {status:#x}"),
            Self::TooLong => f.write_str("the message is longer than a message may be"),
            Self::Stopped => f.write_str("the hypervisor's interface is not in use any more"),
        }
    }
}

fn result(answer: u64) -> Result<(), CallError> {
    match Status(answer as u16) {
        Status::SUCCESS => Ok(()),
        status => Err(CallError::Refused(status)),
    }
}

/// Lays out a message for the hypervisor: connection, zero, type, length, payload. A page is written whole, as the input never crosses one.
fn lay_out(page: &Coherent, connection: u32, kind: u32, payload: &[u8]) {
    page.write(0, [connection, 0, kind, payload.len() as u32].map(u32::to_le));
    let mut padded = [0u8; MOST_PAYLOAD];
    for (to, from) in padded.iter_mut().zip(payload) {
        *to = *from;
    }
    page.write(HEAD, padded);
}

const _: () = assert!(HEAD + MOST_PAYLOAD <= PAGE);

impl Inner {
    pub(super) fn post(&self, connection: u32, kind: u32, payload: &[u8]) -> Result<(), CallError> {
        if !self.in_use.load(Ordering::Acquire) {
            return Err(CallError::Stopped);
        }
        let page = self.input.lock();
        self.post_by(&page, connection, kind, payload)
    }

    /// Posts by way of an input page that is the caller's.
    pub(super) fn post_by(&self, page: &Coherent, connection: u32, kind: u32, payload: &[u8]) -> Result<(), CallError> {
        if payload.len() > MOST_PAYLOAD {
            return Err(CallError::TooLong);
        }
        lay_out(page, connection, kind, payload);
        self.posts.fetch_add(1, Ordering::Relaxed);
        result(self.hypervisor.hypercall(POST_MESSAGE, page.addr(0), 0))
    }

    pub(super) fn signal(&self, connection: u32, flag: u16) -> Result<(), CallError> {
        if !self.in_use.load(Ordering::Acquire) {
            return Err(CallError::Stopped);
        }
        self.signals.fetch_add(1, Ordering::Relaxed);
        result(self.hypervisor.hypercall(SIGNAL_EVENT, u64::from(connection) | u64::from(flag) << 32, 0))
    }
}
