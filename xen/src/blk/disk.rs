//! [`XenDisk`]: a disk of another domain. Made and closed in task context; used as [`BlockDevice`] says.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use undercroft_block::{BlockDevice, Error, Event, Features, Identity, Info, Refusal, Rejected, Request, Tag, Watcher};
use undercroft_hal::dma::DmaError;
use undercroft_hal::executor::JoinHandle;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::xen::{Domain, EventChannel};
use undercroft_hal::{BottomHalf, Task, cpu, executor};

use super::connect::{self, Config, Device, at};
use super::error::ConnectError;
use super::queue::Queue;
use super::shape;
use crate::bus::{self, Backend, News, State};
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
}

/// What the queues' bottom halves and the watch share with the disk.
struct Shared {
    name: String,
    /// All but the capacity.
    fixed: Info,
    capacity: AtomicU64,
    queues: Box<[Queue]>,
    watcher: IrqSpinLock<Option<Arc<dyn Watcher>>>,
    news: AtomicU32,
    is_ended: AtomicBool,
    breaches: AtomicU64,
    notifications: AtomicU64,
}

impl Shared {
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
    fn serve(&self, cx: &BottomHalf, index: usize) -> Turn {
        let Some(queue) = self.queues.get(index) else { return Turn::Done };
        let served = queue.serve(cx);
        if let Some(breach) = served.breach {
            log::error!("{}: the backend broke the protocol: {breach:?}; it is not used any more", self.name);
            self.breaches.fetch_add(1, Ordering::Relaxed);
            self.end(Error::Broken);
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

    /// Takes a new size in. Returns whether it is one.
    fn resize(&self, sectors: Result<u64, StoreError>) -> bool {
        let shift = (self.fixed.block_size / super::wire::SECTOR).ilog2();
        let Ok(sectors @ 1..) = sectors else { return false };
        let blocks = sectors >> shift;
        let is_new = self.capacity.swap(blocks, Ordering::AcqRel) != blocks;
        if is_new {
            self.news.fetch_or(news::RESIZED, Ordering::AcqRel);
        }
        is_new
    }

    /// Takes nothing any more. Whoever calls has the queues served after that. Returns whether this was the first time.
    fn end(&self, error: Error) -> bool {
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
    device: Device,
    store: Arc<Store>,
    shared: Arc<Shared>,
    channels: Arc<[EventChannel]>,
    backend: IrqSpinLock<Option<(Backend, JoinHandle<()>)>>,
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
        connect::set_state(cx, store, &device.path, State::INITIALISING)?;
        let path = &device.backend_path;
        let backend = at(path, Backend::new(cx, store, path.clone()))?;
        connect::wait_ready(cx, &backend)?;
        let agreed = connect::agree(cx, store, &backend.path, (config, domain.cpus().min(cpu::count())))?;
        let mut rings = Vec::new();
        for _ in 0..agreed.queues {
            rings.push(connect::new_ring(cx, domain, device.backend, agreed.order)?);
        }
        let door: Arc<Door> = Arc::default();
        let mut channels = Vec::new();
        for index in 0..rings.len() {
            let door = Arc::clone(&door);
            let serve =
                move |cx: &BottomHalf, _: &_| door.shared().map_or(Turn::Done, |shared| shared.serve(cx, index));
            channels.push(
                EventChannel::open(cx, domain, device.backend, index % domain.cpus(), serve)
                    .map_err(ConnectError::NoEvents)?,
            );
        }
        let told: Vec<_> = rings
            .iter()
            .zip(&channels)
            .map(|((_, references), channel)| (references.clone(), channel.port()))
            .collect();
        connect::tell(cx, store, &device, &told, agreed)?;
        let said = connect::wait_connected(cx, store, &backend)?;
        let depth = rings.first().map_or(0, |(ring, _)| ring.entries());
        let (fixed, shape) = shape::shape(&said, agreed.queues, depth)?;
        let mut queues = Vec::new();
        for (index, (ring, _)) in (0..).zip(rings) {
            let pages = connect::new_pool(cx, domain, device.backend, depth)?;
            queues.push(Queue::new(index, ring, pages, device.handle, shape));
        }
        let shared = Arc::new(Shared {
            name: device.name.clone(),
            capacity: AtomicU64::new(fixed.capacity),
            fixed,
            queues: queues.into(),
            watcher: IrqSpinLock::new(WATCHER, None),
            news: AtomicU32::new(0),
            is_ended: AtomicBool::new(false),
            breaches: AtomicU64::new(0),
            notifications: AtomicU64::new(0),
        });
        let channels: Arc<[EventChannel]> = channels.into();
        door.set(&shared);
        channels.iter().for_each(EventChannel::schedule);
        connect::set_state(cx, store, &device.path, State::CONNECTED)?;
        let follower = follow(Arc::clone(store), backend.path.clone(), Arc::clone(&backend.news), &shared, &channels);
        let follower = executor::spawn(cx, follower).map_err(|_| ConnectError::Memory(DmaError::NoMemory))?;
        let identity = identity(&device, domain, agreed, depth);
        Ok(Some(Arc::new(Self {
            identity,
            store: Arc::clone(store),
            device,
            shared,
            channels,
            backend: IrqSpinLock::new(WATCHER, Some((backend, follower))),
        })))
    }

    /// Parts from the other end: what is in flight ends with [`Error::Removed`], nothing is taken any more, and the other end is waited for. Returns
    /// whether it let go of everything; if not, memory is lost when the disk is dropped.
    pub fn close(&self, cx: &Task) -> bool {
        self.shared.end(Error::Removed);
        self.channels.iter().for_each(EventChannel::schedule);
        let taken = self.backend.lock().take();
        let Some((mut backend, follower)) = taken else { return true };
        // It looks once more, finds the disk ended, and ends.
        backend.news.tell();
        cx.block_on(follower);
        let say = |state| connect::set_state(cx, &self.store, &self.device.path, state).is_ok();
        // The other end follows: first it wants to end, and when we have ended, it lets go and has ended, too.
        let is_closed = say(State::CLOSING)
            && connect::wait_closing(cx, &backend)
            && say(State::CLOSED)
            && connect::wait_closed(cx, &backend);
        backend.unwatch(cx);
        is_closed
    }

    /// Whether the other end is gone, or was closed.
    pub fn is_ended(&self) -> bool {
        self.shared.is_ended.load(Ordering::Acquire)
    }

    /// What happened so far. Any context.
    pub fn counts(&self) -> Counts {
        Counts {
            notifications: self.shared.notifications.load(Ordering::Relaxed),
            breaches: self.shared.breaches.load(Ordering::Relaxed),
        }
    }
}

impl Drop for XenDisk {
    fn drop(&mut self) {
        self.shared.end(Error::Removed);
        // What is in flight ends without the disk.
        let shared = Arc::clone(&self.shared);
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

fn identity(device: &Device, domain: &Domain, agreed: connect::Agreed, depth: u32) -> Identity {
    let (major, minor) = domain.features().version;
    Identity {
        driver: "xenblk",
        controller: format!("{} of domain {}", device.path, device.backend.0),
        // Disks of Xen have no serial number. The name is the domain's only one of its kind.
        serial: device.name.clone(),
        model: format!("Xen {major}.{minor}"),
        interrupts: format!("event-channel:{}", agreed.queues),
        transport: format!("ring-pages:{} entries:{depth}", 1u32 << agreed.order),
    }
}

/// From an event channel, which is made first, to the disk, which comes later and may be gone.
struct Door(IrqSpinLock<Weak<Shared>>);

impl Default for Door {
    fn default() -> Self {
        Self(IrqSpinLock::new(DOOR, Weak::new()))
    }
}

impl Door {
    fn set(&self, shared: &Arc<Shared>) {
        *self.0.lock() = Arc::downgrade(shared);
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.0.lock().upgrade()
    }
}

/// Follows the other end's state and the disk's size, until the disk has ended.
fn follow(
    store: Arc<Store>,
    path: String,
    news: Arc<News>,
    shared: &Arc<Shared>,
    channels: &Arc<[EventChannel]>,
) -> impl Future<Output = ()> + Send + 'static + use<> {
    let (shared, channels) = (Arc::downgrade(shared), Arc::downgrade(channels));
    async move {
        loop {
            news.wait().await;
            let state = bus::state(&store, &path).await;
            let sectors = store.number(&format!("{path}/sectors")).await;
            // Not held while it waits.
            let (Some(shared), Some(channels)) = (shared.upgrade(), channels.upgrade()) else { return };
            if shared.is_ended.load(Ordering::Acquire) {
                return;
            }
            match state {
                Ok(State::CLOSING | State::CLOSED | State::UNKNOWN) => {
                    let _ = shared.end(Error::Removed);
                }
                Ok(State::CONNECTED) if shared.resize(sectors) => {}
                _ => continue,
            }
            channels.iter().for_each(EventChannel::schedule);
        }
    }
}

impl BlockDevice for XenDisk {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn info(&self) -> Info {
        self.shared.info()
    }

    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        let info = self.shared.info();
        if let Err(error) = request.check(&info) {
            return Err(Rejected { request, why: Refusal::Invalid(error) });
        }
        match self.shared.queues.get(connect::queue_here(self.shared.queues.len())) {
            Some(queue) => queue.submit(request),
            None => Err(Rejected { request, why: Refusal::Gone(Error::Broken) }),
        }
    }

    fn commit(&self) {
        let index = connect::queue_here(self.shared.queues.len());
        if let (Some(queue), Some(channel)) = (self.shared.queues.get(index), self.channels.get(index))
            && queue.commit()
        {
            self.shared.notifications.fetch_add(1, Ordering::Relaxed);
            // A channel whose other end is gone: the watch tells.
            let _ = channel.notify();
        }
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) {
        let before = self.shared.watcher.lock().replace(watcher);
        drop(before);
    }
}
