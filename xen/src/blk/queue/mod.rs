//! One ring of a disk, and what is in flight on it.
//!
//! | function | contexts |
//! |---|---|
//! | [`Queue::submit`], [`Queue::commit`], [`Queue::end`] | any |
//! | [`Queue::serve`] | bottom half, no lock held |
//! | [`Queue::renew`], [`Queue::open`] | task |

mod again;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use undercroft_block::{Error, InFlight, Op, Refusal, Rejected, Request, Slab, Tag};
use undercroft_hal::BottomHalf;
use undercroft_hal::sync::{IrqSpinLock, Rank};

use super::copy;
use super::pool::{Free, Granted, Lent};
use super::ring::Ring;
use super::shape::Shape;
use super::wire::{DIRECT_SEGMENTS, Discard, Indirect, Operation, Response, SECTOR, Segment, Status, Transfer};
use crate::defect::{self, Defect};

/// Responses taken in one turn of the bottom half.
const BATCH: usize = 64;
const RANK: Rank = Rank::new(33);

/// A request that the other end has.
struct Flight {
    request: InFlight,
    /// What the response must repeat.
    operation: Operation,
    lent: Lent,
    /// The ring's index of its entry.
    at: u32,
}

/// What is done with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// They go to the other end.
    Open,
    /// None is taken: the other end is being parted from.
    Held,
    /// The other end has ended. Answers that it has given are taken; what it has not answered ends, if it is to.
    Draining { ends: bool },
    /// That is done: nobody looks at the ring.
    Drained,
}

struct State {
    ring: Ring<Granted>,
    flights: Slab<Flight>,
    free: Free,
    /// Entries promised to requests whose data is being copied.
    promised: u32,
    /// A request was refused for want of room.
    starved: bool,
    phase: Phase,
    /// How often the queue was drained: what was promised before is not kept after it.
    epoch: u32,
    /// Why nothing is taken any more.
    gone: Option<Error>,
}

pub(crate) struct Queue {
    state: IrqSpinLock<State>,
    pages: Box<[Granted]>,
    handle: u16,
    shape: Shape,
    /// The other end does not discard after all.
    refuses_discard: AtomicBool,
}

/// What a turn of the bottom half found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Served {
    /// There is more.
    pub(crate) more: bool,
    /// A request that was refused may be tried again.
    pub(crate) room: bool,
    /// The other end broke the protocol: with what.
    pub(crate) breach: Option<Breach>,
    /// The queue has just been drained.
    pub(crate) drained: bool,
}

impl Served {
    const NOTHING: Self = Self { more: false, room: false, breach: None, drained: false };
}

/// What the other end may not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    /// More responses than requests are out.
    TooMany,
    /// A response to no request that is out.
    Unknown(u64),
    /// A response to another operation than was asked.
    Operation(u8),
}

impl Queue {
    pub(crate) fn new(index: u16, ring: Ring<Granted>, pages: Vec<Granted>, handle: u16, shape: Shape) -> Self {
        let depth = ring.entries() as u16;
        Self {
            state: IrqSpinLock::new(
                RANK,
                State {
                    flights: Slab::new(index, depth),
                    free: Free::new(pages.len()),
                    ring,
                    promised: 0,
                    starved: false,
                    phase: Phase::Open,
                    epoch: 0,
                    gone: None,
                },
            ),
            pages: pages.into_boxed_slice(),
            handle,
            shape,
            refuses_discard: AtomicBool::new(false),
        }
    }

    pub(crate) fn refuses_discard(&self) -> bool {
        self.refuses_discard.load(Ordering::Relaxed)
    }

    /// Takes a request that fits the disk, or gives it back.
    pub(crate) fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        let bytes = request.data.len();
        let operation = match request.op {
            Op::Read => Operation::READ,
            Op::Write => Operation::WRITE,
            Op::Discard => Operation::DISCARD,
            Op::Flush => match self.shape.flush {
                Some(operation) => operation,
                None => return Err(refuse(request, Refusal::Invalid(Error::Unsupported))),
            },
            Op::WriteZeroes => return Err(refuse(request, Refusal::Invalid(Error::Unsupported))),
        };
        let data_pages = bytes.div_ceil(copy::PAGE);
        let is_indirect = data_pages > DIRECT_SEGMENTS;
        // Room is promised first: the copy is made without the lock.
        let (lent, epoch) = {
            let mut state = self.state.lock();
            if let Some(error) = state.gone {
                return Err(refuse(request, Refusal::Gone(error)));
            }
            let has_entry = state.phase == Phase::Open && state.ring.free() > state.promised;
            match if has_entry { state.free.lend(data_pages + usize::from(is_indirect)) } else { None } {
                Some(lent) => {
                    state.promised += 1;
                    (lent, state.epoch)
                }
                None => {
                    state.starved = !defect::is(Defect::ForgetsRefusal);
                    return Err(refuse(request, Refusal::Full));
                }
            }
        };
        if request.op == Op::Write {
            copy::to_pages(&self.pages, &lent, &request.data);
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.promised -= 1;
        if let Some(error) = state.gone {
            state.free.take_back(&lent, &self.pages);
            return Err(refuse(request, Refusal::Gone(error)));
        }
        // The other end changed meanwhile: the pages may not be what they were.
        if state.phase != Phase::Open || state.epoch != epoch {
            state.free.take_back(&lent, &self.pages);
            state.starved = true;
            return Err(refuse(request, Refusal::Full));
        }
        let flight = Flight { request: request.accept(), operation, lent, at: state.ring.next() };
        match state.flights.insert(flight) {
            Ok(tag) => {
                self.put(&mut state.ring, tag, state.flights.get(tag));
                Ok(tag)
            }
            Err(flight) => {
                // There are as many places as entries, and an entry was promised.
                state.free.take_back(&flight.lent, &self.pages);
                Err(refuse(flight.request.give_back(), Refusal::Full))
            }
        }
    }

    /// Puts a request in the ring, where there is room.
    fn put(&self, ring: &mut Ring<Granted>, tag: Tag, flight: Option<&Flight>) {
        let Some(Flight { request, operation, lent, .. }) = flight else { return };
        let (request, id, operation) = (request.request(), tag.to_bits(), *operation);
        let bytes = request.data.len();
        let sector = request.lba << self.shape.shift;
        let sectors = u64::from(request.blocks) << self.shape.shift;
        let data_pages = bytes.div_ceil(copy::PAGE);
        if operation == Operation::DISCARD {
            ring.put(Discard { operation: operation.0, flags: 0, handle: self.handle, _pad: 0, id, sector, sectors });
        } else if data_pages > DIRECT_SEGMENTS {
            ring.put(self.indirect(operation, lent, bytes, id, sector));
        } else {
            let mut list = [Segment::default(); DIRECT_SEGMENTS];
            for (to, from) in list.iter_mut().zip(self.segments(lent, bytes)) {
                *to = from;
            }
            ring.put(Transfer {
                operation: operation.0,
                segments: data_pages as u8,
                handle: self.handle,
                _pad: 0,
                id,
                sector,
                list,
            });
        }
    }

    /// An indirect request: the last page lent holds its segments.
    fn indirect(&self, operation: Operation, lent: &Lent, bytes: usize, id: u64, sector: u64) -> Indirect {
        let mut pages = [0; super::wire::INDIRECT_PAGES];
        let mut segments = 0;
        if let Some((last, data)) = lent.split_last()
            && let Some(page) = self.pages.get(usize::from(*last))
        {
            for segment in self.segments(data, bytes) {
                page.write(usize::from(segments) * size_of::<Segment>(), segment);
                segments += 1;
            }
            pages[0] = page.reference();
        }
        Indirect {
            operation: Operation::INDIRECT.0,
            what: operation.0,
            segments,
            _pad: 0,
            id,
            sector,
            handle: self.handle,
            _pad2: 0,
            pages,
            _pad3: 0,
        }
    }

    /// The segments of so many bytes in so many pages.
    fn segments<'a>(&'a self, lent: &'a [u16], bytes: usize) -> impl Iterator<Item = Segment> + 'a {
        lent.iter().enumerate().filter_map(move |(at, page)| {
            let here = bytes.checked_sub(at * copy::PAGE)?.min(copy::PAGE);
            let last = (here / SECTOR as usize).checked_sub(1)? as u8;
            Some(Segment { reference: self.pages.get(usize::from(*page))?.reference(), first: 0, last, _pad: 0 })
        })
    }

    /// Shows the other end what was submitted. Returns whether to notify it.
    #[must_use]
    pub(crate) fn commit(&self) -> bool {
        self.state.lock().ring.publish()
    }

    /// Takes what has come, and finishes it.
    pub(crate) fn serve(&self, cx: &BottomHalf) -> Served {
        for _ in 0..BATCH {
            let mut state = self.state.lock();
            if let Some(error) = state.gone {
                drop(state);
                self.fail(cx, error);
                return Served::NOTHING;
            }
            if state.phase == Phase::Drained {
                return Served::NOTHING;
            }
            let response = match state.ring.take() {
                Ok(Some(response)) => response,
                Ok(None) => match state.phase {
                    Phase::Draining { ends: true } if !state.flights.is_empty() => {
                        let Some(flight) = state.flights.remove_any() else { continue };
                        let is_shown = state.ring.is_shown(flight.at);
                        state.free.take_back(&flight.lent, &self.pages);
                        drop(state);
                        flight.request.finish(cx, Err(if is_shown { Error::Reset } else { Error::NotStarted }));
                        continue;
                    }
                    Phase::Draining { .. } => {
                        state.phase = Phase::Drained;
                        return Served { drained: true, ..Served::NOTHING };
                    }
                    _ => {
                        let more = state.ring.arm();
                        let room = !more && state.phase == Phase::Open && core::mem::take(&mut state.starved);
                        return Served { more, room, ..Served::NOTHING };
                    }
                },
                Err(_) => return breached(Breach::TooMany),
            };
            let flight = match claim(&mut state, &response) {
                Ok(flight) => flight,
                Err(breach) => return breached(breach),
            };
            drop(state);
            self.finish(cx, flight, Status(response.status));
        }
        let mut state = self.state.lock();
        let room = state.phase == Phase::Open && core::mem::take(&mut state.starved);
        Served { more: true, room, ..Served::NOTHING }
    }

    fn finish(&self, cx: &BottomHalf, flight: Flight, status: Status) {
        let Flight { mut request, operation, lent, .. } = flight;
        let result = match status {
            Status::OK => Ok(()),
            Status::UNSUPPORTED => {
                if operation == Operation::DISCARD {
                    self.refuses_discard.store(true, Ordering::Relaxed);
                }
                Err(Error::Unsupported)
            }
            _ => Err(Error::Hardware),
        };
        if result.is_ok() && operation == Operation::READ {
            copy::from_pages(&self.pages, &lent, request.data_mut());
        }
        self.state.lock().free.take_back(&lent, &self.pages);
        let _held = defect::is(Defect::CompletesUnderLock).then(|| self.state.lock());
        request.finish(cx, result);
    }

    /// Takes nothing any more, for this reason; what is out is finished with it by the next [`Queue::serve`]. Any context.
    pub(crate) fn end(&self, error: Error) {
        self.state.lock().gone.get_or_insert(error);
    }

    /// Finishes all that is out. What the other end still does to the pool's pages is nobody's.
    fn fail(&self, cx: &BottomHalf, error: Error) {
        loop {
            let flight = self.state.lock().flights.remove_any();
            let Some(flight) = flight else { return };
            flight.request.finish(cx, Err(error));
        }
    }
}

/// The request that a response is to.
fn claim(state: &mut State, response: &Response) -> Result<Flight, Breach> {
    let mut tag = Tag::from_bits(response.id);
    if defect::is(Defect::TrustsSlot) {
        tag = state.flights.tag_at(tag.index()).unwrap_or(tag);
    }
    if defect::is(Defect::AllocatesUnderLock) {
        drop(core::hint::black_box(Box::new(tag)));
    }
    let flight = state.flights.get(tag).ok_or(Breach::Unknown(response.id))?;
    let lent = &flight.lent;
    let said = Operation(response.operation);
    // Hosts answer an indirect request with what it was, or as what it came.
    let is_indirect = lent.len() > DIRECT_SEGMENTS && said == Operation::INDIRECT;
    if said != flight.operation && !is_indirect && !defect::is(Defect::IgnoresOperation) {
        return Err(Breach::Operation(response.operation));
    }
    state.flights.remove(tag).ok_or(Breach::Unknown(response.id))
}

fn breached(breach: Breach) -> Served {
    Served { breach: Some(breach), ..Served::NOTHING }
}

fn refuse(request: Request, why: Refusal) -> Rejected {
    Rejected { request, why }
}
