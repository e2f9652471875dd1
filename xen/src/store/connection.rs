//! The connection: requests go out whole and one at a time, replies and events come in a bottom half.
//!
//! | function | contexts |
//! |---|---|
//! | [`Connection::serve`] | bottom half |
//! | [`Connection::exchange`] | task, as a future: who waits for it may be run in the middle of another's wait |

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::task::{Poll, Waker};
use core::time::Duration;

use arrayvec::ArrayVec;

use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::TaskWork;
use undercroft_hal::xen::{Notifier, SharedPage};
use undercroft_hal::{BottomHalf, Instant, cpu};
use undercroft_timer::{Callout, Expiry};
use zerocopy::IntoBytes;

use super::error::StoreError;
use super::incoming::Incoming;
use super::wire::{HEADER, Header, Kind, MOST_BODY, page};

/// How long a request may take. The server is a process of the first domain, which may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Watches at most.
pub const WATCHES: usize = 256;
/// Bytes taken in one turn of the bottom half: a server that sends for ever does not keep it.
const BATCH: usize = 64 * 1024;
/// Of what comes in and of the watches; work is scheduled under the latter.
const INCOMING: Rank = Rank::new(30);
const REPLY: Rank = Rank::new(31);
const WATCHERS: Rank = Rank::new(32);
const WAKERS: Rank = Rank::new(33);
/// Requests that wait for their turn and are told of it; others ask again and again.
const WAITERS: usize = 32;

/// The reply that is waited for.
struct Awaited {
    /// The request's number; zero when nobody waits.
    request: u32,
    kind: Kind,
    body: [u8; MOST_BODY],
    length: usize,
    has_come: bool,
}

pub struct Connection {
    page: SharedPage,
    incoming: IrqSpinLock<Incoming>,
    awaited: IrqSpinLock<Awaited>,
    /// Who waits for the request that is under way.
    waker: IrqSpinLock<Option<Waker>>,
    /// Who waits for a turn.
    waiters: IrqSpinLock<ArrayVec<Waker, WAITERS>>,
    /// A task's request is under way.
    is_taken: AtomicBool,
    next_request: AtomicU32,
    is_broken: AtomicBool,
    watchers: IrqSpinLock<[Option<Arc<TaskWork>>; WATCHES]>,
}

impl Connection {
    pub fn new(page: SharedPage) -> Self {
        Self {
            page,
            incoming: IrqSpinLock::new(INCOMING, Incoming::new()),
            awaited: IrqSpinLock::new(
                REPLY,
                Awaited { request: 0, kind: Kind(0), body: [0; MOST_BODY], length: 0, has_come: false },
            ),
            waker: IrqSpinLock::new(WAKERS, None),
            waiters: IrqSpinLock::new(WAKERS, ArrayVec::new_const()),
            is_taken: AtomicBool::new(false),
            next_request: AtomicU32::new(1),
            is_broken: AtomicBool::new(false),
            watchers: IrqSpinLock::new(WATCHERS, [const { None }; WATCHES]),
        }
    }

    /// Takes what has come. Returns whether there may be more.
    pub fn serve(&self, notifier: &Notifier) -> bool {
        let mut taken = 0;
        let mut incoming = self.incoming.lock();
        while !self.is_broken.load(Ordering::Relaxed) && taken < BATCH {
            let Ok(room) = incoming.room() else {
                log::error!("xenstore sent a message that is too long: no more is taken from it");
                self.is_broken.store(true, Ordering::Release);
                break;
            };
            let came = self.page.take(page::REPLIES, page::RING, page::REPLIES_CONSUMED, page::REPLIES_PRODUCED, room);
            incoming.add(came);
            taken += came;
            if let Some((header, body)) = incoming.message() {
                self.deliver(header, body);
                incoming.clear();
            } else if came == 0 {
                break;
            }
        }
        drop(incoming);
        if taken > 0 {
            // The server may wait for room.
            notifier.notify();
        }
        // Also one that waits for room in the ring of requests.
        self.wake();
        taken >= BATCH
    }

    fn deliver(&self, header: Header, body: &[u8]) {
        if Kind(header.kind) == Kind::WATCH_EVENT {
            // A path and our token, each with a zero behind it.
            let token = body.split(|&byte| byte == 0).nth(1).and_then(number);
            let watchers = self.watchers.lock();
            if let Some(Some(work)) = token.and_then(|token| watchers.get(token as usize)) {
                work.schedule();
            }
            return;
        }
        let mut awaited = self.awaited.lock();
        // A reply that nobody waits for (any more) is dropped.
        if awaited.request == header.request && header.request != 0 {
            awaited.kind = Kind(header.kind);
            awaited.length = body.len();
            for (to, from) in awaited.body.iter_mut().zip(body) {
                *to = *from;
            }
            awaited.request = 0;
            awaited.has_come = true;
        }
    }

    /// Whoever waits for the request that is under way looks again.
    fn wake(&self) {
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Sends a request and waits for its reply: its body.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn exchange(
        self: &Arc<Self>,
        notifier: &Notifier,
        (kind, transaction): (Kind, u32),
        body: &[&[u8]],
    ) -> Result<Vec<u8>, StoreError> {
        let length: usize = body.iter().map(|part| part.len()).sum();
        if length > MOST_BODY {
            return Err(StoreError::TooLong);
        }
        // For the result: memory is had before anything is sent.
        let mut result = Vec::with_capacity(MOST_BODY);
        let mut message = Vec::with_capacity(HEADER + length);
        let _turn = self.turn().await;
        let deadline = Instant::now() + PATIENCE;
        let watched = Arc::clone(self);
        let alarm = Callout::<BottomHalf>::new(cpu::current(), move |_: &BottomHalf, _: &Expiry| watched.wake());
        if alarm.start_at(deadline).is_err() {
            return Err(StoreError::Silent);
        }
        let request = self.next_request.fetch_add(1, Ordering::Relaxed).max(1);
        {
            let mut awaited = self.awaited.lock();
            awaited.request = request;
            awaited.has_come = false;
        }
        let header = Header { kind: kind.0, request, transaction, length: length as u32 };
        message.extend_from_slice(header.as_bytes());
        body.iter().for_each(|part| message.extend_from_slice(part));
        let mut done = 0;
        while done < message.len() {
            let sent = self.send(&message[done..]);
            done += sent;
            notifier.notify();
            if sent == 0 {
                self.until(deadline, || self.has_room()).await?;
            }
        }
        self.until(deadline, || self.awaited.lock().has_come).await?;
        let awaited = self.awaited.lock();
        // No longer than what was set aside.
        result.extend_from_slice(&awaited.body[..awaited.length]);
        let answered = awaited.kind;
        drop(awaited);
        match answered {
            Kind::ERROR => Err(StoreError::named(&result)),
            same if same == kind => Ok(result),
            _ => Err(StoreError::Broken),
        }
    }

    /// Sends what there is room for. Returns how much.
    fn send(&self, bytes: &[u8]) -> usize {
        let (consumed, produced) = (page::REQUESTS_CONSUMED, page::REQUESTS_PRODUCED);
        let mut bytes = bytes.iter().copied();
        self.page.send(page::REQUESTS, page::RING, consumed, produced, &mut bytes) as usize
    }

    fn has_room(&self) -> bool {
        let produced = self.page.word(page::REQUESTS_PRODUCED).load(Ordering::Relaxed);
        produced.wrapping_sub(self.page.word(page::REQUESTS_CONSUMED).load(Ordering::Acquire)) < page::RING
    }

    /// Waits, looking again after each of the server's notifications.
    async fn until(&self, deadline: Instant, ready: impl Fn() -> bool) -> Result<(), StoreError> {
        poll_fn(|context| {
            // First who is to be woken, then the look: what comes in between wakes.
            let before = self.waker.lock().replace(context.waker().clone());
            drop(before);
            if ready() {
                Poll::Ready(Ok(()))
            } else if self.is_broken.load(Ordering::Acquire) {
                Poll::Ready(Err(StoreError::Broken))
            } else if Instant::now() >= deadline {
                // What was sent in part cannot be taken back: nothing after it would be understood.
                self.is_broken.store(true, Ordering::Release);
                Poll::Ready(Err(StoreError::Silent))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// One request at a time.
    async fn turn(&self) -> Turn<'_> {
        let take = || self.is_taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        poll_fn(|context| {
            if take() {
                return Poll::Ready(());
            }
            let waker = context.waker();
            if self.waiters.lock().try_push(waker.clone()).is_err() {
                waker.wake_by_ref();
            }
            // It may have been given back before that.
            if take() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Turn(self)
    }

    /// Has `work` scheduled at each event with the token that this returns.
    pub fn add_watcher(&self, work: Arc<TaskWork>) -> Result<usize, StoreError> {
        let mut watchers = self.watchers.lock();
        let Some((token, place)) = watchers.iter_mut().enumerate().find(|(_, place)| place.is_none()) else {
            drop(watchers);
            drop(work);
            return Err(StoreError::TooManyWatches);
        };
        *place = Some(work);
        Ok(token)
    }

    pub fn remove_watcher(&self, token: usize) {
        let gone = self.watchers.lock().get_mut(token).and_then(Option::take);
        drop(gone);
    }
}

/// A decimal number, as xenstore holds them.
pub fn number(text: &[u8]) -> Option<u64> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// The turn of a task, over when it is dropped.
struct Turn<'a>(&'a Connection);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.awaited.lock().request = 0;
        let before = self.0.waker.lock().take();
        self.0.is_taken.store(false, Ordering::Release);
        let waiters = core::mem::take(&mut *self.0.waiters.lock());
        drop(before);
        waiters.into_iter().for_each(Waker::wake);
    }
}
