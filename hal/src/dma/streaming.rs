//! [`Streaming`]: an owner's buffer on its way to a device and back.
//!
//! A buffer is *mapped*, *given* to the device, and *finished*; each step consumes the one before, so the bytes cannot be looked at while
//! the device has them. What the device cannot reach (an address above its mask, the wrong alignment, across a boundary, memory that is
//! not DMA memory at all) travels through a bounce buffer. Nobody can free what a device has: dropping a [`Given`] leaves its
//! memory allocated for ever, and counts it ([`abandoned`]). Mapping in task context; the rest in bottom half or task.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{Direction, DmaBuf, DmaConstraints, DmaError, Segment};

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::DmaBuf {}
    impl Sealed for super::Box<[u8]> {}
    impl Sealed for super::Vec<u8> {}
}

/// What can be mapped: [`DmaBuf`], directly where the device can reach it; other owned bytes, through a bounce buffer.
pub trait Buffer: sealed::Sealed {
    #[doc(hidden)]
    fn bytes(&self) -> &[u8];
    #[doc(hidden)]
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Where the device sees the buffer, if the platform promises that it does.
    #[doc(hidden)]
    fn seen(&self) -> Option<Segment>;
}

impl Buffer for DmaBuf {
    fn bytes(&self) -> &[u8] {
        self
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
    fn seen(&self) -> Option<Segment> {
        Some(self.segment())
    }
}

macro_rules! ordinary {
    ($type:ty) => {
        impl Buffer for $type {
            fn bytes(&self) -> &[u8] {
                self
            }
            fn bytes_mut(&mut self) -> &mut [u8] {
                self
            }
            fn seen(&self) -> Option<Segment> {
                None
            }
        }
    };
}

ordinary!(Box<[u8]>);
ordinary!(Vec<u8>);

/// Why a buffer could not be mapped, and the buffer.
#[derive(Debug)]
pub struct MapError<B> {
    /// As it was.
    pub buffer: B,
    /// Why.
    pub error: DmaError,
}

impl<B> fmt::Display for MapError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

struct Parts<B> {
    buffer: B,
    range: Range<usize>,
    bounce: Option<DmaBuf>,
    segment: Segment,
}

/// A buffer that is ready for a device, which has not got it yet. Dropping it gives up the mapping and frees the buffer.
pub struct Streaming<D: Direction, B: Buffer = DmaBuf> {
    parts: Parts<B>,
    _direction: PhantomData<D>,
}

impl<D: Direction, B: Buffer> Streaming<D, B> {
    /// Maps the bytes `range` of `buffer` for a device with these constraints, allocating a bounce buffer if it takes one.
    ///
    /// # Errors
    /// The buffer, with [`DmaError::BadLayout`] for a range that is empty, outside, or longer than the boundary allows, and
    /// [`DmaError::NoMemory`] when there is no memory for a bounce buffer.
    #[track_caller]
    pub fn map(buffer: B, range: Range<usize>, constraints: DmaConstraints) -> Result<Self, MapError<B>> {
        let bounce = match Self::reach(&buffer, &range, constraints) {
            Ok(Some(segment)) => {
                return Ok(Self { parts: Parts { buffer, range, bounce: None, segment }, _direction: PhantomData });
            }
            Ok(None) => DmaBuf::new(range.len(), constraints),
            Err(error) => Err(error),
        };
        match bounce {
            Ok(bounce) => Ok(Self::through(buffer, range, bounce)),
            Err(error) => Err(MapError { buffer, error }),
        }
    }

    /// Maps as [`Streaming::map`] does, through `bounce` if it takes one: for the path of I/O, which allocates nothing. A bounce buffer that
    /// is not needed is dropped, or else comes back from [`Given::finish_keeping`].
    ///
    /// # Errors
    /// As [`Streaming::map`]; [`DmaError::NoMemory`] if `bounce` does not do.
    pub fn map_with(
        buffer: B,
        range: Range<usize>,
        constraints: DmaConstraints,
        bounce: DmaBuf,
    ) -> Result<Self, MapError<B>> {
        let fits = |bounce: &DmaBuf| {
            let segment = Segment { addr: bounce.segment().addr, len: range.len() as u32 };
            range.len() <= bounce.len() && constraints.admit(segment)
        };
        match Self::reach(&buffer, &range, constraints) {
            Ok(Some(segment)) => {
                Ok(Self { parts: Parts { buffer, range, bounce: None, segment }, _direction: PhantomData })
            }
            Ok(None) if fits(&bounce) => Ok(Self::through(buffer, range, bounce)),
            Ok(None) => Err(MapError { buffer, error: DmaError::NoMemory }),
            Err(error) => Err(MapError { buffer, error }),
        }
    }

    /// Where the device sees the range, `None` if it needs a bounce buffer.
    fn reach(buffer: &B, range: &Range<usize>, constraints: DmaConstraints) -> Result<Option<Segment>, DmaError> {
        let inside = range.start < range.end && range.end <= buffer.bytes().len();
        let (true, Ok(len)) = (inside, u32::try_from(range.len())) else { return Err(DmaError::BadLayout) };
        let seen = buffer.seen().map(|whole| Segment { addr: whole.addr + range.start as u64, len });
        Ok(seen.filter(|&segment| constraints.admit(segment)))
    }

    fn through(buffer: B, range: Range<usize>, mut bounce: DmaBuf) -> Self {
        let len = range.len();
        if D::READ_BY_DEVICE {
            bounce[..len].copy_from_slice(&buffer.bytes()[range.clone()]);
        } else {
            // What another request left in it is none of this device's business.
            bounce[..len].fill(0);
        }
        let segment = Segment { addr: bounce.segment().addr, len: len as u32 };
        Self { parts: Parts { buffer, range, bounce: Some(bounce), segment }, _direction: PhantomData }
    }

    /// What a descriptor carries.
    pub const fn segment(&self) -> Segment {
        self.parts.segment
    }

    /// Whether the data travels through a bounce buffer.
    pub const fn is_bounced(&self) -> bool {
        self.parts.bounce.is_some()
    }

    /// The buffer back, which no device has seen.
    pub fn unmap(self) -> B {
        self.parts.buffer
    }

    /// The device gets it: from now on only [`Given::finish`] brings it back.
    pub const fn give(self) -> Given<D, B> {
        Given { mapped: ManuallyDrop::new(self) }
    }
}

/// A buffer that a device has. Whoever holds it keeps it until the device has given it back or was reset; whoever asked for the transfer
/// may be long gone.
pub struct Given<D: Direction, B: Buffer = DmaBuf> {
    mapped: ManuallyDrop<Streaming<D, B>>,
}

impl<D: Direction, B: Buffer> Given<D, B> {
    /// What a descriptor carries.
    pub fn segment(&self) -> Segment {
        self.mapped.parts.segment
    }

    /// The buffer back. The device has given it back, having written `written` bytes (more than there are counts as all), or was reset (0).
    pub fn finish(self, written: usize) -> B {
        self.finish_keeping(written).0
    }

    /// As [`Given::finish`], with the bounce buffer, if there was one, for the next transfer.
    pub fn finish_keeping(self, written: usize) -> (B, Option<DmaBuf>) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so its content is moved out once, here.
        let mapped = unsafe { ManuallyDrop::take(&mut this.mapped) };
        let Parts { mut buffer, range, bounce, .. } = mapped.parts;
        if let (true, Some(bounce)) = (D::WRITTEN_BY_DEVICE, &bounce) {
            let len = written.min(range.len());
            buffer.bytes_mut()[range.start..range.start + len].copy_from_slice(&bounce[..len]);
        }
        (buffer, bounce)
    }
}

/// Memory that was dropped while a device had it.
static ABANDONED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

impl<D: Direction, B: Buffer> Drop for Given<D, B> {
    fn drop(&mut self) {
        // The device may write it at any time: it stays allocated.
        ABANDONED[0].fetch_add(1, Ordering::Relaxed);
        ABANDONED[1].fetch_add(self.mapped.parts.buffer.bytes().len() as u64, Ordering::Relaxed);
    }
}

/// How many buffers, and how many bytes in them, were dropped while a device had them: a defect of a driver, which costs this memory and
/// nothing else.
pub fn abandoned() -> (u64, u64) {
    (ABANDONED[0].load(Ordering::Relaxed), ABANDONED[1].load(Ordering::Relaxed))
}

impl<D: Direction, B: Buffer> fmt::Debug for Streaming<D, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounced = self.is_bounced();
        f.debug_struct("Streaming").field("segment", &self.parts.segment).field("bounced", &bounced).finish()
    }
}

impl<D: Direction, B: Buffer> fmt::Debug for Given<D, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("segment", &self.mapped.parts.segment).finish()
    }
}
