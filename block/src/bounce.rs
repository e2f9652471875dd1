//! [`Bounce`]: a disk whose device cannot reach all memory, for requests from anywhere.
//!
//! A device may reach less than there is: its addresses may be narrow, or all that the platform shows it is one area (virtio's
//! `ACCESS_PLATFORM` on a machine whose other memory is private). A request whose data the device reaches goes straight through. Any other
//! travels through a buffer of a pool, made once within reach: what is written is copied on its way out, what was read on its way back.
//! With all buffers in use the next such request is refused with [`Refusal::Full`], and [`Event::Room`] follows. The path of a request
//! allocates nothing.
//!
//! Contexts as [`BlockDevice`]'s.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use undercroft_hal::BottomHalf;
use undercroft_hal::dma::{DmaBuf, DmaConstraints, DmaError, Segment};
use undercroft_hal::sync::{IrqSpinLock, Rank};

use crate::request::Parent;
use crate::scsi::Managed;
use crate::{
    BlockDevice, Complete, Data, Error, Event, Identity, Info, Op, Piece, Recovery, Refusal, Rejected, Request, Reset,
    Slab, Tag, Watcher,
};

/// What a request in flight left behind.
struct Held {
    parent: Parent,
    data: Data,
}

struct State {
    held: Slab<Held>,
    spare: Vec<DmaBuf>,
    /// A request found no buffer.
    starved: bool,
}

/// The buffers, and who waits for one.
struct Pool {
    state: IrqSpinLock<State>,
    watcher: IrqSpinLock<Option<Arc<dyn Watcher>>>,
}

/// A disk in front of one that does not reach all memory.
pub struct Bounce {
    device: Arc<dyn BlockDevice>,
    pool: Arc<Pool>,
    /// Bytes of each buffer.
    bytes: u32,
}

impl Bounce {
    /// Puts `count` buffers of `bytes` in front of `device`: as many requests that it does not reach can be in flight, none longer. Cut to
    /// what the device takes in one piece. Task context.
    ///
    /// # Errors
    /// [`DmaError`] when there is no such memory within the device's reach.
    pub fn new(device: Arc<dyn BlockDevice>, count: u16, bytes: u32) -> Result<Self, DmaError> {
        let limits = device.info().limits;
        let bytes = bytes.min(limits.max_segment_bytes).min(limits.max_transfer_bytes);
        let spare = (0..count).map(|_| DmaBuf::new(bytes as usize, limits.dma)).collect::<Result<_, _>>()?;
        let state = State { held: Slab::new(0, count), spare, starved: false };
        let pool = Arc::new(Pool {
            state: IrqSpinLock::new(Rank::BLOCK, state),
            watcher: IrqSpinLock::new(Rank::BLOCK, None),
        });
        Ok(Self { device, pool, bytes })
    }

    fn reaches(data: &Data, reach: DmaConstraints) -> bool {
        let last = |segment: Segment| segment.addr.saturating_add(u64::from(segment.len).saturating_sub(1));
        data.segments().all(|segment| last(segment) <= reach.max_addr)
    }

    /// Sends the request on through a buffer of the pool.
    fn detour(&self, mut request: Request) -> Result<Tag, Rejected> {
        if let Err(error) = request.check(&self.info()) {
            return Err(Rejected { request, why: Refusal::Invalid(error) });
        }
        let mut state = self.pool.state.lock();
        let Some(mut buffer) = state.spare.pop() else {
            state.starved = true;
            return Err(Rejected { request, why: Refusal::Full });
        };
        drop(state);
        if request.op == Op::Write {
            let mut at = 0;
            for bytes in request.data.pieces().iter().map(Piece::bytes) {
                buffer[at..at + bytes.len()].copy_from_slice(bytes);
                at += bytes.len();
            }
        }
        let len = request.data.len();
        let data = core::mem::replace(&mut request.data, Data::One(Piece::new(buffer, 0, len)));
        let parent = request.take_over(Arc::clone(&self.pool) as Arc<dyn Complete>, 0);
        let kept = self.pool.state.lock().held.insert(Held { parent, data });
        let tag = match kept {
            Ok(tag) => tag,
            // There are as many places as buffers.
            Err(held) => {
                self.pool.put_back(&mut request, held);
                return Err(Rejected { request, why: Refusal::Full });
            }
        };
        request.set_cookie(tag.to_bits());
        self.device.submit(request).map_err(|mut rejected| {
            let held = self.pool.state.lock().held.remove(tag);
            if let Some(held) = held {
                self.pool.put_back(&mut rejected.request, held);
            }
            rejected
        })
    }
}

impl Pool {
    /// Makes the request what it was. Whether somebody waits for the buffer that is free now.
    fn put_back(&self, request: &mut Request, held: Held) -> bool {
        let through = core::mem::replace(&mut request.data, held.data);
        request.give_back_to(held.parent);
        let mut state = self.state.lock();
        if let Ok(buffer) = through.into_buf() {
            // Within the capacity: all of them were in it.
            state.spare.push(buffer);
        }
        core::mem::take(&mut state.starved)
    }
}

impl Complete for Pool {
    fn complete(&self, cx: &BottomHalf, cookie: u64, mut request: Request, result: Result<(), Error>) {
        let held = self.state.lock().held.remove(Tag::from_bits(cookie));
        // A completion runs once: it is there.
        let Some(mut held) = held else { return };
        if request.op == Op::Read && result.is_ok() {
            let from = request.data.pieces().first().map_or(&[][..], Piece::bytes);
            let mut at = 0;
            for to in held.data.pieces_mut().iter_mut().map(Piece::bytes_mut) {
                to.copy_from_slice(&from[at..at + to.len()]);
                at += to.len();
            }
        }
        let room = self.put_back(&mut request, held);
        request.accept().finish(cx, result);
        let watcher = if room { self.watcher.lock().clone() } else { None };
        if let Some(watcher) = watcher {
            watcher.event(cx, Event::Room);
        }
    }
}

impl BlockDevice for Bounce {
    fn identity(&self) -> &Identity {
        self.device.identity()
    }

    fn info(&self) -> Info {
        let mut info = self.device.info();
        info.limits.max_transfer_bytes = info.limits.max_transfer_bytes.min(self.bytes);
        info.limits.dma = DmaConstraints { max_addr: u64::MAX, ..info.limits.dma };
        info
    }

    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        if Self::reaches(&request.data, self.device.info().limits.dma) {
            return self.device.submit(request);
        }
        self.detour(request)
    }

    fn commit(&self) {
        self.device.commit();
    }

    fn cancel(&self, tag: Tag) -> bool {
        self.device.cancel(tag)
    }

    fn reset(&self, what: Reset) -> bool {
        self.device.reset(what)
    }

    fn recover(&self, what: Recovery) -> Managed {
        self.device.recover(what)
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) {
        let before = self.pool.watcher.lock().replace(Arc::clone(&watcher));
        drop(before);
        self.device.watch(watcher);
    }
}

impl fmt::Debug for Bounce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bounce({}, {} bytes each)", self.identity().controller, self.bytes)
    }
}
