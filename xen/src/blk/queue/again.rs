//! A queue between two other ends: the one before has ended, and what it has not answered goes to the next.

use alloc::vec::Vec;

use undercroft_block::Tag;

use super::{Phase, Queue, State};
use crate::blk::copy;
use crate::blk::pool::Granted;
use crate::blk::wire::Operation;

/// Pages of a ring at most.
const MOST_RING_PAGES: usize = 16;

impl Queue {
    /// Takes no requests until [`Queue::open`]. Any context.
    pub(crate) fn hold(&self) {
        self.state.lock().phase = Phase::Held;
    }

    /// The other end has ended: [`Queue::serve`] takes what it had answered, ends the rest if `ends` says so, and tells when that is done.
    pub(crate) fn drain(&self, ends: bool) {
        self.state.lock().phase = Phase::Draining { ends };
    }

    /// Whether nobody looks at the ring.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.state.lock();
        state.phase == Phase::Drained || state.gone.is_some()
    }

    /// Makes ring and pages fit for another end, once the queue is drained; `new` makes another ring where the end before keeps this one.
    /// Pages that it keeps are set aside. Returns how many those are, and the ring's references. Task context.
    pub(crate) fn renew<E>(&self, new: impl FnOnce() -> Result<Granted, E>) -> Result<(usize, Vec<u32>), E> {
        let was_kept: Vec<bool> = self.pages.iter().map(Granted::is_kept).collect();
        let kept = self.pages.iter().filter(|page| !page.renew()).count();
        let is_ring_kept = !self.state.lock().ring.memory().renew();
        let other = if is_ring_kept { Some(new()?) } else { None };
        let mut references = Vec::with_capacity(MOST_RING_PAGES);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.epoch = state.epoch.wrapping_add(1);
        state.free.sort(&self.pages, &was_kept);
        let before = match other {
            Some(memory) => Some(state.ring.replace(memory)),
            None => {
                state.ring.restart();
                None
            }
        };
        references.extend(state.ring.memory().references().take(MOST_RING_PAGES));
        drop(guard);
        drop(before);
        Ok((kept, references))
    }

    /// Puts what is unfinished in the ring again, in the order in which it was put there first, and takes requests again. `false`: there are
    /// not enough pages for that. Task context.
    #[must_use]
    pub(crate) fn open(&self) -> bool {
        let mut order = Vec::with_capacity(self.depth());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for index in 0..state.flights.capacity() {
            let tag = state.flights.tag_at(index as u16);
            if let Some((tag, flight)) = tag.and_then(|tag| Some((tag, state.flights.get(tag)?))) {
                order.push((flight.at, tag));
            }
        }
        // Indices run freely: by their distance from the earliest that there can be.
        let first = order
            .iter()
            .map(|(at, _)| *at)
            .reduce(|one, other| if other.wrapping_sub(one).cast_signed() < 0 { other } else { one });
        order.sort_unstable_by_key(|(at, _)| at.wrapping_sub(first.unwrap_or(0)));
        for (_, tag) in &order {
            if !self.put_again(state, *tag) {
                return false;
            }
        }
        state.phase = Phase::Open;
        drop(guard);
        true
    }

    fn put_again(&self, state: &mut State, tag: Tag) -> bool {
        let at = state.ring.next();
        let Some(flight) = state.flights.get_mut(tag) else { return true };
        flight.at = at;
        // What the end before may still write to is no place for data.
        if flight.lent.iter().any(|page| self.pages.get(usize::from(*page)).is_some_and(Granted::is_kept)) {
            let Some(lent) = state.free.lend(flight.lent.len()) else { return false };
            state.free.take_back(&core::mem::replace(&mut flight.lent, lent), &self.pages);
            if flight.operation == Operation::WRITE {
                copy::to_pages(&self.pages, &flight.lent, &flight.request.request().data);
            }
        }
        self.put(&mut state.ring, tag, state.flights.get(tag));
        true
    }

    fn depth(&self) -> usize {
        self.state.lock().flights.capacity()
    }
}
