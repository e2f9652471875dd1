//! The memory of the rings, and the order of accesses to it. Any context.
//!
//! The rings' algorithm is generic over this, so that the very same code runs on DMA memory and under `loom`.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use undercroft_hal::dma::{Coherent, DmaConstraints, DmaError};
use zerocopy::FromZeros;
use zerocopy::little_endian::U64;

use crate::pages::Array;
use crate::wire::PAGE;
use crate::wire::rings::{
    COMPLETION_BYTES, COMPLETIONS_PER_PAGE, Completion, MESSAGE_BYTES, Message, REQUEST_BYTES, REQUESTS_PER_PAGE,
    Request, RingsState,
};
use crate::wire::setup::{SetupMessageRing, SetupRings};

/// What driver and device share. Entries are the driver's own numbers and in range.
pub(crate) trait RingMemory {
    /// Writes a request. Visible to the device no later than the next [`RingMemory::publish_requests`].
    fn set_request(&self, entry: u32, request: Request);
    /// Stores how many requests there were, after everything written before (release).
    fn publish_requests(&self, index: u32);
    /// Loads how many requests the device has taken, and from how many not taken it wants a kick.
    fn progress(&self) -> (u32, u32);
    /// Loads how many completions there were, before everything read afterwards (acquire).
    fn completions(&self) -> u32;
    /// Copies a completion out.
    fn completion(&self, entry: u32) -> Completion;
    /// Stores how many completions were taken, after everything read before (release).
    fn take_completions(&self, index: u32);
    /// Loads how many messages there were, before everything read afterwards (acquire).
    fn messages(&self) -> u32;
    /// Copies a message out.
    fn message(&self, entry: u32) -> Message;
    /// Stores how many messages were taken, after everything read before (release).
    fn take_messages(&self, index: u32);
    /// Orders every store before it before every load after it (a full fence).
    fn full_fence(&self);
}

/// Memory that a device sees.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Coherent,
    requests: Array,
    completions: Array,
    messages: Array,
}

impl Shared {
    /// Rings of these many pages, each a power of two.
    pub(crate) fn new(request_pages: usize, message_pages: usize) -> Result<Self, DmaError> {
        // A completion for each request that can be in flight.
        let completion_pages = (request_pages * REQUESTS_PER_PAGE).div_ceil(COMPLETIONS_PER_PAGE);
        Ok(Self {
            state: Coherent::new(PAGE, DmaConstraints::ANY)?,
            requests: Array::new(request_pages, REQUEST_BYTES)?,
            completions: Array::new(completion_pages, COMPLETION_BYTES)?,
            messages: Array::new(message_pages, MESSAGE_BYTES)?,
        })
    }

    /// Entries of the three rings: requests, completions, messages.
    pub(crate) fn sizes(&self) -> [u32; 3] {
        [self.requests.len(), self.completions.len(), self.messages.len()]
    }

    /// Zeroes everything: nothing of an earlier use may be taken for the device's word.
    pub(crate) fn clear(&self) {
        self.state.clear();
        [&self.requests, &self.completions, &self.messages].into_iter().for_each(Array::clear);
    }

    /// What names the rings to the device.
    pub(crate) fn setup(&self) -> SetupRings {
        let mut setup = SetupRings::new_zeroed();
        setup.request_pages.set(self.requests.pages() as u32);
        setup.completion_pages.set(self.completions.pages() as u32);
        setup.state_page.set(self.state.addr(0) / PAGE as u64);
        put(&mut setup.request, &self.requests);
        put(&mut setup.completion, &self.completions);
        setup
    }

    /// What names the message ring to the device.
    pub(crate) fn setup_messages(&self) -> SetupMessageRing {
        let mut setup = SetupMessageRing::new_zeroed();
        setup.pages.set(self.messages.pages() as u32);
        put(&mut setup.ring, &self.messages);
        setup
    }

    /// Whether the device says that the request and completion rings have the sizes that they were given.
    pub(crate) fn is_understood(&self) -> bool {
        let state: RingsState = self.state.read(0);
        let [requests, completions, _] = self.sizes().map(u32::ilog2);
        (state.request_entries_log2.get(), state.completion_entries_log2.get()) == (requests, completions)
    }

    /// The same of the message ring.
    pub(crate) fn are_messages_understood(&self) -> bool {
        let state: RingsState = self.state.read(0);
        state.message_entries_log2.get() == self.messages.len().ilog2()
    }

    #[inline]
    fn index(&self, offset: usize) -> &AtomicU32 {
        self.state.atomic_u32(offset)
    }
}

fn put(numbers: &mut [U64], pages: &Array) {
    numbers.iter_mut().zip(pages.numbers()).for_each(|(to, number)| to.set(number));
}

impl RingMemory for Shared {
    #[inline]
    fn set_request(&self, entry: u32, request: Request) {
        self.requests.write(entry, 0, request);
    }

    #[inline]
    fn publish_requests(&self, index: u32) {
        self.index(offset_of!(RingsState, request_producer)).store(index.to_le(), Ordering::Release);
    }

    #[inline]
    fn progress(&self) -> (u32, u32) {
        let load = |offset| u32::from_le(self.index(offset).load(Ordering::Relaxed));
        (load(offset_of!(RingsState, request_consumer)), load(offset_of!(RingsState, request_call_threshold)))
    }

    #[inline]
    fn completions(&self) -> u32 {
        u32::from_le(self.index(offset_of!(RingsState, completion_producer)).load(Ordering::Acquire))
    }

    #[inline]
    fn completion(&self, entry: u32) -> Completion {
        self.completions.read(entry, 0)
    }

    #[inline]
    fn take_completions(&self, index: u32) {
        self.index(offset_of!(RingsState, completion_consumer)).store(index.to_le(), Ordering::Release);
    }

    #[inline]
    fn messages(&self) -> u32 {
        u32::from_le(self.index(offset_of!(RingsState, message_producer)).load(Ordering::Acquire))
    }

    fn message(&self, entry: u32) -> Message {
        self.messages.read(entry, 0)
    }

    fn take_messages(&self, index: u32) {
        self.index(offset_of!(RingsState, message_consumer)).store(index.to_le(), Ordering::Release);
    }

    #[inline]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}
