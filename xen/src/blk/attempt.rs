//! Connecting a disk for the first time, and what becomes of an attempt that fails. Task context.
//!
//! The other end may reach the rings from the moment at which it is told of them. An attempt that fails parts from it as a disk that is closed does,
//! takes its watch back, and only then gives up its event channels and its pages; those that the other end still uses are set aside until it does not.
//! All that it needs but a slot for its task is made before the other end is told of anything.

use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_block::{Error, Info};
use undercroft_hal::dma::DmaError;
use undercroft_hal::executor::JoinHandle;
use undercroft_hal::work::Turn;
use undercroft_hal::xen::{Domain, EventChannel};
use undercroft_hal::{BottomHalf, Task, cpu, executor};

use super::connect::{self, Agreed, Config, Device, at};
use super::disk::{Door, Shared};
use super::error::ConnectError;
use super::life::{self, Link};
use super::pool::Granted;
use super::queue::Queue;
use super::ring::Ring;
use super::shape::{self, Shape};
use crate::bus::{Backend, State};
use crate::defect::{self, Defect};
use crate::store::{Store, Watch};

/// A connected disk, the watch of the other end's state, and the task that it tells.
pub(super) type Connected = (Arc<Link>, Watch, JoinHandle<()>);

/// What an attempt has of the other end and for it.
struct Attempt<'a> {
    domain: &'a Arc<Domain>,
    store: &'a Arc<Store>,
    device: &'a Device,
    backend: &'a Backend,
    door: Arc<Door>,
    /// Each with its references.
    rings: Vec<(Ring<Granted>, Vec<u32>)>,
    /// The pages for each ring's data.
    pools: Vec<Vec<Granted>>,
    channels: Vec<EventChannel>,
}

impl Attempt<'_> {
    /// Makes all that the disk needs.
    fn prepare(&mut self, cx: &Task, agreed: Agreed) -> Result<(), ConnectError> {
        let (domain, other) = (self.domain, self.device.backend);
        for index in 0..usize::from(agreed.queues) {
            let (ring, references) = connect::new_ring(cx, domain, other, agreed.order)?;
            let entries = ring.entries();
            self.rings.push((ring, references));
            self.pools.push(connect::new_pool(cx, domain, other, entries)?);
            let door = Arc::clone(&self.door);
            let serve =
                move |cx: &BottomHalf, _: &_| door.shared().map_or(Turn::Done, |shared| shared.serve(cx, index));
            let channel = EventChannel::open(cx, domain, other, index % domain.cpus(), serve);
            self.channels.push(channel.map_err(ConnectError::NoEvents)?);
        }
        Ok(())
    }

    /// Comes together with the other end.
    fn meet(&mut self, cx: &Task, config: Config) -> Result<(Agreed, Info, Shape), ConnectError> {
        let (store, path) = (self.store, &self.device.path);
        cx.block_on(connect::set_state(store, path, State::INITIALISING))?;
        cx.block_on(connect::wait_ready(self.backend, || false))?;
        let cpus = self.domain.cpus().min(cpu::count());
        let agreed = cx.block_on(connect::agree(store, &self.backend.path, (config, cpus)))?;
        self.prepare(cx, agreed)?;
        let channels = self.channels.iter().map(EventChannel::port);
        let told: Vec<_> = self.rings.iter().map(|(_, references)| references.clone()).zip(channels).collect();
        cx.block_on(connect::tell(store, path, &told, agreed))?;
        let said = cx.block_on(connect::wait_connected(store, self.backend, || false))?;
        let (fixed, shape) = shape::shape(&said, agreed.queues, self.depth())?;
        // The other end has nothing to tell of its rings before it has a request.
        cx.block_on(connect::set_state(store, path, State::CONNECTED))?;
        Ok((agreed, fixed, shape))
    }

    /// Requests that one ring takes.
    fn depth(&self) -> u32 {
        self.rings.first().map_or(0, |(ring, _)| ring.entries())
    }
}

/// Connects a disk.
pub(super) fn connect(
    cx: &Task,
    domain: &Arc<Domain>,
    store: &Arc<Store>,
    device: Device,
    config: Config,
) -> Result<Connected, ConnectError> {
    let path = &device.backend_path;
    let (backend, watch) = at(path, Backend::new(cx, store, path))?;
    let mut attempt = Attempt {
        domain,
        store,
        device: &device,
        backend: &backend,
        door: Arc::default(),
        rings: Vec::new(),
        pools: Vec::new(),
        channels: Vec::new(),
    };
    let (agreed, fixed, shape) = match attempt.meet(cx, config) {
        Ok(met) => met,
        Err(error) => {
            give_up(cx, store, (&device, &backend), watch);
            return Err(error);
        }
    };
    let Attempt { door, rings, pools, channels, .. } = attempt;
    let queue = |(index, ((ring, _), pages))| Queue::new(index, ring, pages, device.handle, shape);
    let queues = (0..).zip(rings.into_iter().zip(pools)).map(queue).collect();
    let shared = Arc::new(Shared::new(device.name.clone(), (fixed, shape), queues, Arc::clone(&backend.news)));
    door.set(&shared);
    let link = Arc::new(Link {
        shared,
        channels: channels.into(),
        domain: Arc::clone(domain),
        store: Arc::clone(store),
        device,
        backend,
        agreed,
    });
    link.schedule();
    let Ok(task) = executor::spawn(cx, life::follow(Arc::clone(&link))) else {
        link.shared.end(Error::Removed);
        give_up(cx, store, (&link.device, &link.backend), watch);
        return Err(ConnectError::Memory(DmaError::NoMemory));
    };
    Ok((link, watch, task))
}

/// Has the other end let go, and takes the watch back. What fails here changes nothing for the caller, who has an error to return: pages that are
/// still in use are kept wherever they are dropped.
fn give_up(cx: &Task, store: &Store, (device, backend): (&Device, &Backend), watch: Watch) {
    if defect::is(Defect::LeaksOnFailure) {
        return;
    }
    let name = &device.name;
    match cx.block_on(connect::part(store, &device.path, backend, || false)) {
        Ok(state) if connect::has_let_go(state) => {}
        Ok(State(state)) => log::warn!("{name}: the backend does not part, it is in state {state}"),
        Err(error) => log::warn!("{name}: not parted from the backend: {error}"),
    }
    if let Err(error) = watch.end(cx) {
        log::warn!("{name}: the watch was not taken back: {error}");
    }
}
