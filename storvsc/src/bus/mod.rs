//! VMBus: the connection with the host, its offers, and the channels that are opened.
//!
//! # Life
//! A connection is made by [`Core::connect`] and ended by [`Core::unload`], both in task context. In between, messages from the host come to the SynIC's
//! slot and are taken by one bottom half ([`control`]), which answers nobody and waits for nothing: it notes offers, marks what was
//! rescinded, and leaves the answer of each question where its asker looks. Questions are asked in task context only ([`ask`]).
//!
//! # Contexts and locks
//! One lock, of rank 26: what is known of channels and questions. No client is called with it held.

mod ask;
mod channel;
mod connect;
mod control;
mod guard;
mod offers;
mod post;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use undercroft_hal::hyperv::{MESSAGES_CPU, Partition};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, TaskWork, Turn};
use undercroft_hal::{BottomHalf, Instant, Task, cpu};

use crate::defect::Defects;
use crate::wire::message::{FeatureFlags, Version};
use ask::Questions;
pub(crate) use channel::Opened;
#[cfg(test)]
pub(crate) use channel::{gpadl_messages, open_message};
#[cfg(test)]
pub(crate) use connect::contact;
pub(crate) use guard::Guard;
pub use offers::Offer;
use offers::Offers;

use core::time::Duration;

/// Who uses channels of a device, and is told what becomes of them. Bottom-half context, no lock held.
pub(crate) trait Client: Send + Sync {
    /// The host took a channel of its device back.
    fn rescinded(&self, channel: u32);
    /// The host offers another channel of its device.
    fn offered(&self, offer: &Offer);
}

/// Who is told that the host offers a device, or took one back that nobody uses. Runs in bottom-half context with no lock held.
pub trait BusWatcher: Send + Sync {
    /// [`VmBus::offers`](crate::VmBus::offers) gives another answer now.
    fn changed(&self, cx: &BottomHalf);
}

/// How far the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Only the answer to the first message counts.
    Connecting,
    Up,
    /// Only the answer to the last message counts.
    Unloading,
    Down,
}

struct Link {
    life: Life,
    version: Version,
    features: FeatureFlags,
    /// Where messages are posted to.
    connection: u32,
    questions: Questions,
    offers: Offers,
}

/// What happened on a bus since it was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BusCounts {
    /// Messages from the host.
    pub messages: u64,
    /// Of those, how many were unknown, too short, or of a channel that there is not.
    pub strange: u64,
    /// Times that a message had to be posted again because the host was behind.
    pub throttled: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    messages: AtomicU64,
    strange: AtomicU64,
    throttled: AtomicU64,
}

/// The connection.
pub(crate) struct Core {
    pub(crate) partition: Arc<Partition>,
    link: IrqSpinLock<Link>,
    /// Takes messages from the slot.
    messages: Arc<BottomHalfWork>,
    /// Releases channels that were taken back and that nobody used.
    keeper: TaskWork,
    watcher: IrqSpinLock<Option<Arc<dyn BusWatcher>>>,
    next_gpadl: AtomicU32,
    pub(crate) changes: AtomicU32,
    counters: Counters,
    pub(crate) defects: Defects,
}

/// How long the host may take for an answer. In tests time passes by looking at it.
pub(crate) const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(4) } else { Duration::from_secs(10) };

/// Lets others work until `done`, for at most `patience`. `false`: it did not come.
pub(crate) fn poll(cx: &Task, patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if done() {
            return true;
        }
        if started.elapsed() > patience {
            return false;
        }
        cx.run_pending();
        cpu::relax();
    }
}

impl Core {
    pub(crate) fn new(partition: Arc<Partition>, defects: Defects) -> Arc<Self> {
        let this = Arc::new_cyclic(|weak: &Weak<Self>| {
            let (for_messages, for_keeper) = (Weak::clone(weak), Weak::clone(weak));
            let link = Link {
                life: Life::Connecting,
                version: Version(0),
                features: FeatureFlags::empty(),
                connection: 0,
                questions: Questions::new(),
                offers: Offers::new(),
            };
            Self {
                partition,
                link: IrqSpinLock::new(Rank::new(26), link),
                messages: Arc::new(BottomHalfWork::new(MESSAGES_CPU, move |cx: &BottomHalf| {
                    for_messages.upgrade().map_or(Turn::Done, |core| core.service(cx))
                })),
                keeper: TaskWork::new(MESSAGES_CPU, move |cx: &Task| {
                    if let Some(core) = for_keeper.upgrade() {
                        core.release_unused(cx);
                    }
                    Turn::Done
                }),
                watcher: IrqSpinLock::new(Rank::new(26), None),
                next_gpadl: AtomicU32::new(0x1_0001),
                changes: AtomicU32::new(0),
                counters: Counters::default(),
                defects,
            }
        });
        this.partition.on_message(&this.messages);
        this
    }

    pub(crate) fn version(&self) -> Version {
        self.link.lock().version
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.lock().life == Life::Up
    }

    pub(crate) fn counts(&self) -> BusCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { messages, strange, throttled } = &self.counters;
        BusCounts { messages: read(messages), strange: read(strange), throttled: read(throttled) }
    }

    pub(crate) fn watch(&self, watcher: Arc<dyn BusWatcher>) {
        // Dropped after the lock: the last reference may run anything.
        let old = self.watcher.lock().replace(watcher);
        drop(old);
    }

    fn tell(&self, cx: &BottomHalf) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.changed(cx);
        }
    }

    fn strange(&self) {
        self.counters.strange.fetch_add(1, Ordering::Relaxed);
    }

    /// First channels of devices that nobody uses.
    pub(crate) fn offers(&self) -> Vec<Offer> {
        // Taken out one by one: nothing may allocate under the lock.
        let mut list = Vec::new();
        while let Some(offer) = { self.link.lock().offers.unused().nth(list.len()).copied() } {
            list.push(offer);
        }
        list
    }

    /// Takes a device into use: its channels, those to come among them, are the client's.
    pub(crate) fn claim(&self, offer: &Offer, client: &Weak<dyn Client>) -> bool {
        self.link.lock().offers.claim(offer, client)
    }

    /// The `nth` sub-channel of a device in use.
    pub(crate) fn sub_channel(&self, of: &Offer, nth: usize) -> Option<Offer> {
        self.link.lock().offers.sub_channel(of, nth)
    }

    /// Tells all users that nothing more goes over their channels.
    pub(crate) fn hold_all(&self) {
        let mut nth = 0;
        while let Some((channel, client)) = { self.link.lock().offers.in_use(nth) } {
            if let Some(client) = client.upgrade() {
                client.rescinded(channel);
            }
            nth += 1;
        }
    }

    /// Ends the use of a device: others may have it, if it is still offered.
    pub(crate) fn give_up(&self, of: &Offer) {
        let client = self.link.lock().offers.give_up(of);
        drop(client);
        self.keeper.schedule();
    }
}
