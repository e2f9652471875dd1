//! A drive's queue: requests that wait for the channel, first in, first out. Any context, under the channel's lock.

use alloc::collections::VecDeque;

use undercroft_block::{Error, Slab, Tag};

/// Requests that wait at one drive at most.
pub(crate) const DEPTH: u16 = 32;

/// Whether a drive takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It does.
    Running,
    /// It does not any more, and what waits ends with this.
    Gone(Error),
}

/// A request that waits.
#[derive(Debug)]
struct Waiting<T> {
    value: T,
    cancelled: bool,
}

/// A drive's queue. All its memory is taken at the start.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    waiting: Slab<Waiting<T>>,
    /// Their tags in order. It holds those of the slab only, so it never grows.
    order: VecDeque<Tag>,
    pub(crate) life: Life,
    /// A request was refused for want of room.
    pub(crate) starved: bool,
    /// The request that the channel has taken and not finished.
    pub(crate) front: Option<Tag>,
    /// That request is not wanted any more.
    pub(crate) abandon: bool,
}

impl<T> Lane<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Slab::new(0, DEPTH),
            order: VecDeque::with_capacity(usize::from(DEPTH)),
            life: Life::Running,
            starved: false,
            front: None,
            abandon: false,
        }
    }

    /// Puts a request at the end; gives it back if there is no room.
    pub(crate) fn push(&mut self, value: T) -> Result<Tag, T> {
        let tag = self.waiting.insert(Waiting { value, cancelled: false }).map_err(|waiting| waiting.value)?;
        self.order.push_back(tag);
        Ok(tag)
    }

    /// Takes the first out, to be worked on: it is the front until [`Lane::finished`].
    pub(crate) fn take(&mut self) -> Option<T> {
        let tag = self.order.pop_front()?;
        let waiting = self.waiting.remove(tag)?;
        (self.front, self.abandon) = (Some(tag), waiting.cancelled);
        Some(waiting.value)
    }

    /// The front is done. Returns whether somebody waits for room.
    pub(crate) fn finished(&mut self) -> bool {
        (self.front, self.abandon) = (None, false);
        core::mem::take(&mut self.starved)
    }

    /// Marks a request as not wanted any more. Whether it is here.
    pub(crate) fn cancel(&mut self, tag: Tag) -> bool {
        if self.front == Some(tag) {
            self.abandon = true;
            return true;
        }
        let Some(waiting) = self.waiting.get_mut(tag) else { return false };
        waiting.cancelled = true;
        true
    }

    /// Takes out one that waits and is cancelled, or of which `over` says that it is to end, with its error.
    pub(crate) fn sweep(&mut self, over: impl Fn(&T) -> Option<Error>) -> Option<(T, Error)> {
        let slab = &self.waiting;
        let found = self.order.iter().enumerate().find_map(|(at, tag)| {
            let waiting = slab.get(*tag)?;
            let error = if waiting.cancelled { Some(Error::Cancelled) } else { over(&waiting.value) };
            Some((at, *tag, error?))
        });
        let (at, tag, error) = found?;
        self.order.remove(at);
        self.waiting.remove(tag).map(|waiting| (waiting.value, error))
    }

    /// Those that wait.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.order.iter().filter_map(|tag| self.waiting.get(*tag)).map(|waiting| &waiting.value)
    }

    /// Whether there is neither a front nor anybody waiting.
    pub(crate) fn is_idle(&self) -> bool {
        self.front.is_none() && self.waiting.is_empty()
    }
}
