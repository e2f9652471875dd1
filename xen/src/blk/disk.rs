//! [`XenDisk`]: a disk of another domain. Made and closed in task context; used as [`BlockDevice`] says.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use undercroft_block::{
    BlockDevice, Error, Event, Features, Identity, Info, Refusal, Rejected, Request, Reset, Tag, Watcher,
};
use undercroft_hal::executor::JoinHandle;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::xen::Domain;
use undercroft_hal::{BottomHalf, Task, cpu};

use super::attempt;
use super::connect::{self, Config};
use super::error::ConnectError;
use super::life::Link;
use super::queue::Queue;
use super::shape::Shape;
use crate::bus::News;
use crate::store::{Store, StoreError, Transaction, Watch};

const WATCHER: Rank = Rank::new(34);
const DOOR: Rank = Rank::new(35);

/// What a bottom half has to tell.
mod news {
    pub(super) const RESIZED: u32 = 1;
    pub(super) const REMOVED: u32 = 2;
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Notifications of the other end.
    pub notifications: u64,
    /// Times that it broke the protocol: once, and for good.
    pub breaches: u64,
    /// Times that it was connected again.
    pub reconnects: u64,
}

/// What the queues' bottom halves and the disk's task share with the disk.
pub(super) struct Shared {
    pub(super) name: String,
    /// All but the capacity, which is that of the beginning.
    pub(super) fixed: Info,
    pub(super) shape: Shape,
    capacity: AtomicU64,
    pub(super) queues: Box<[Queue]>,
    /// What waits for the queues' bottom halves.
    task: Arc<News>,
    /// A reset was asked for.
    wish: AtomicBool,
    pub(super) reconnects: AtomicU64,
    watcher: IrqSpinLock<Option<Arc<dyn Watcher>>>,
    news: AtomicU32,
    is_ended: AtomicBool,
    breaches: AtomicU64,
    notifications: AtomicU64,
}

impl Shared {
    /// Of a disk that was just connected.
    pub(super) fn new(name: String, (fixed, shape): (Info, Shape), queues: Box<[Queue]>, task: Arc<News>) -> Self {
        Self {
            name,
            capacity: AtomicU64::new(fixed.capacity),
            fixed,
            shape,
            queues,
            task,
            wish: AtomicBool::new(false),
            reconnects: AtomicU64::new(0),
            watcher: IrqSpinLock::new(WATCHER, None),
            news: AtomicU32::new(0),
            is_ended: AtomicBool::new(false),
            breaches: AtomicU64::new(0),
            notifications: AtomicU64::new(0),
        }
    }

    fn info(&self) -> Info {
        let mut info = self.fixed;
        info.capacity = self.capacity.load(Ordering::Relaxed);
        if self.queues.iter().any(Queue::refuses_discard) {
            info.features.remove(Features::DISCARD);
            info.limits.max_discard_blocks = 0;
        }
        info
    }

    /// A queue's turn.
    pub(super) fn serve(&self, cx: &BottomHalf, index: usize) -> Turn {
        let Some(queue) = self.queues.get(index) else { return Turn::Done };
        let served = queue.serve(cx);
        if let Some(breach) = served.breach {
            log::error!("{}: the backend broke the protocol: {breach:?}; it is not used any more", self.name);
            self.breaches.fetch_add(1, Ordering::Relaxed);
            self.end(Error::Broken);
        }
        if served.drained {
            self.task.tell();
        }
        if served.room {
            self.tell(cx, Event::Room);
        }
        let news = self.news.swap(0, Ordering::AcqRel);
        if news & news::RESIZED != 0 {
            self.tell(cx, Event::Resized);
        }
        if news & news::REMOVED != 0 {
            self.tell(cx, Event::Removed);
        }
        if served.more || served.breach.is_some() { Turn::Again } else { Turn::Done }
    }

    fn tell(&self, cx: &BottomHalf, event: Event) {
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }

    /// Takes a new size in, in sectors. Returns whether it is one.
    pub(super) fn resize(&self, sectors: Option<u64>) -> bool {
        let Some(sectors @ 1..) = sectors else { return false };
        let blocks = sectors >> self.shape.shift;
        let is_new = self.capacity.swap(blocks, Ordering::AcqRel) != blocks;
        if is_new {
            self.news.fetch_or(news::RESIZED, Ordering::AcqRel);
        }
        is_new
    }

    /// Whether it takes nothing any more.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    /// Whether a reset was asked for since this was asked.
    pub(super) fn takes_wish(&self) -> bool {
        self.wish.swap(false, Ordering::AcqRel)
    }

    /// Takes nothing any more. Whoever calls has the queues served after that. Returns whether this was the first time.
    pub(super) fn end(&self, error: Error) -> bool {
        self.queues.iter().for_each(|queue| queue.end(error));
        let is_first = !self.is_ended.swap(true, Ordering::AcqRel);
        if is_first {
            self.news.fetch_or(news::REMOVED, Ordering::AcqRel);
        }
        is_first
    }
}

/// A disk of another domain.
///
/// [`XenDisk::close`] parts from the other end. Dropped without, what the other end still uses of its memory is lost.
pub struct XenDisk {
    identity: Identity,
    link: Arc<Link>,
    /// The watch of the other end's state, and the task that it tells. `None`: closed.
    task: IrqSpinLock<Option<(Watch, JoinHandle<()>)>>,
}

impl fmt::Debug for XenDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XenDisk").field("identity", &self.identity).field("info", &self.info()).finish_non_exhaustive()
    }
}

/// Where the tool stack puts block devices.
const DEVICES: &str = "device/vbd";

/// Has `changed` run, as [`Store::watch`] says, when [`find`] may find others than before.
///
/// # Errors
/// [`StoreError`].
pub fn watch(
    cx: &Task,
    store: &Arc<Store>,
    cpu: usize,
    changed: impl Fn() + Send + Sync + 'static,
) -> Result<Watch, StoreError> {
    store.watch(cx, DEVICES, cpu, changed)
}

/// The numbers of all block devices that the tool stack has given this domain.
///
/// # Errors
/// [`StoreError`].
pub fn find(cx: &Task, store: &Store) -> Result<Vec<String>, StoreError> {
    match store.list(cx, Transaction::NONE, DEVICES) {
        Err(StoreError::NotFound) => Ok(Vec::new()),
        other => other,
    }
}

impl XenDisk {
    /// Connects the block device with this number. `None`: it is no disk (a CD drive).
    ///
    /// An attempt that fails leaves nothing behind: the other end is waited for, a minute at most, and can be connected again. What it still uses then
    /// is kept until it does not.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(
        cx: &Task,
        domain: &Arc<Domain>,
        store: &Arc<Store>,
        number: &str,
        config: Config,
    ) -> Result<Option<Arc<Self>>, ConnectError> {
        let device = connect::device(cx, store, number)?;
        if !device.is_disk {
            return Ok(None);
        }
        let (link, watch, task) = attempt::connect(cx, domain, store, device, config)?;
        let identity = identity(&link);
        Ok(Some(Arc::new(Self { identity, link, task: IrqSpinLock::new(WATCHER, Some((watch, task))) })))
    }

    /// Parts from the other end: what is in flight ends with [`Error::Removed`], nothing is taken any more, and the other end is waited for. Returns
    /// whether it let go of everything; if not, memory is kept for as long as it does not.
    pub fn close(&self, cx: &Task) -> bool {
        let Link { shared, store, device, backend, .. } = &*self.link;
        shared.end(Error::Removed);
        self.link.schedule();
        let taken = self.task.lock().take();
        let Some((watch, task)) = taken else { return true };
        // It looks once more, finds the disk ended, and ends.
        backend.news.tell();
        cx.block_on(task);
        let state = cx.block_on(connect::part(store, &device.path, backend, || false));
        if let Err(error) = watch.end(cx) {
            log::warn!("{}: the watch was not taken back: {error}", shared.name);
        }
        state.is_ok_and(connect::has_let_go)
    }

    /// Whether the other end is gone, or was closed.
    pub fn is_ended(&self) -> bool {
        self.link.shared.is_ended()
    }

    /// What happened so far. Any context.
    pub fn counts(&self) -> Counts {
        let shared = &self.link.shared;
        Counts {
            notifications: shared.notifications.load(Ordering::Relaxed),
            breaches: shared.breaches.load(Ordering::Relaxed),
            reconnects: shared.reconnects.load(Ordering::Relaxed),
        }
    }
}

impl Drop for XenDisk {
    fn drop(&mut self) {
        self.link.shared.end(Error::Removed);
        // Its task ends.
        self.link.backend.news.tell();
        // What is in flight ends without the disk.
        let shared = Arc::clone(&self.link.shared);
        let farewell = BottomHalfWork::new(cpu::current(), move |cx| {
            for index in 0..shared.queues.len() {
                while shared.serve(cx, index) == Turn::Again {}
            }
            Turn::Done
        });
        farewell.schedule();
        farewell.detach();
    }
}

fn identity(link: &Link) -> Identity {
    let Link { shared, domain, device, agreed, .. } = link;
    let (major, minor) = domain.features().version;
    let entries = shared.fixed.depth / u32::from(agreed.queues.max(1));
    Identity {
        driver: "xenblk",
        controller: format!("{} of domain {}", device.path, device.backend.0),
        // Disks of Xen have no serial number. The name is the domain's only one of its kind.
        serial: device.name.clone(),
        model: format!("Xen {major}.{minor}"),
        interrupts: format!("event-channel:{}", agreed.queues),
        transport: format!("ring-pages:{} entries:{entries}", 1u32 << agreed.order),
    }
}

/// From an event channel, which is made first, to the disk, which comes later and may be gone.
pub(super) struct Door(IrqSpinLock<Weak<Shared>>);

impl Default for Door {
    fn default() -> Self {
        Self(IrqSpinLock::new(DOOR, Weak::new()))
    }
}

impl Door {
    pub(super) fn set(&self, shared: &Arc<Shared>) {
        *self.0.lock() = Arc::downgrade(shared);
    }

    pub(super) fn shared(&self) -> Option<Arc<Shared>> {
        self.0.lock().upgrade()
    }
}

impl BlockDevice for XenDisk {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn info(&self) -> Info {
        self.link.shared.info()
    }

    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        let shared = &self.link.shared;
        let info = shared.info();
        if let Err(error) = request.check(&info) {
            return Err(Rejected { request, why: Refusal::Invalid(error) });
        }
        match shared.queues.get(connect::queue_here(shared.queues.len())) {
            Some(queue) => queue.submit(request),
            None => Err(Rejected { request, why: Refusal::Gone(Error::Broken) }),
        }
    }

    fn commit(&self) {
        let shared = &self.link.shared;
        let index = connect::queue_here(shared.queues.len());
        if let (Some(queue), Some(channel)) = (shared.queues.get(index), self.link.channels.get(index))
            && queue.commit()
        {
            shared.notifications.fetch_add(1, Ordering::Relaxed);
            // A channel whose other end is gone: the watch tells.
            let _ = channel.notify();
        }
    }

    /// Nothing less than connecting again ends what the other end has: it knows no aborts.
    fn reset(&self, what: Reset) -> bool {
        if what != Reset::Device || self.is_ended() {
            return false;
        }
        self.link.shared.wish.store(true, Ordering::Release);
        self.link.backend.news.tell();
        true
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) {
        let before = self.link.shared.watcher.lock().replace(watcher);
        drop(before);
    }
}
