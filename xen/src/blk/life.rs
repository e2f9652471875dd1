//! A disk's life after it was connected: a new size, the end, and another beginning when the backend was restarted, or when nothing
//! else helps.
//!
//! | the backend | what is done |
//! |---|---|
//! | says its state again | its size is read |
//! | closes, and the tool stack has taken the disk away; is gone | everything ends with `Removed` |
//! | closes, or begins again, and the disk is to be there | reconnected: what is unfinished is put again, in order |
//! | does not answer, and the queue above asks for a reset | reconnected: what is unfinished ends, for the queue to send again |
//!
//! Reconnecting is parting and meeting as at first. In between the backend has let go of everything that was granted to it; what it keeps all
//! the same is set aside until it does, and nothing is ever put there. A task of its own does all this.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use undercroft_block::{Error, Info};
use undercroft_hal::Instant;
use undercroft_hal::xen::{Domain, EventChannel};

use super::connect::{self, Agreed, Config, Device, at};
use super::disk::Shared;
use super::error::ConnectError;
use super::pool::Granted;
use super::queue::Queue;
use super::shape;
use crate::bus::{Backend, State};
use crate::store::Store;

/// After which time the queues' bottom halves are asked once more to look at their rings.
const DRAIN: Duration = Duration::from_secs(1);

/// What a disk and its task have in common.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) channels: Box<[EventChannel]>,
    pub(super) domain: Arc<Domain>,
    pub(super) store: Arc<Store>,
    pub(super) device: Device,
    pub(super) backend: Backend,
    /// Rings and their size: what the next connection must be able to have, too.
    pub(super) agreed: Agreed,
}

/// Why a disk is connected again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The backend wants it.
    Restarted,
    /// The queue above does.
    Asked,
}

impl Link {
    /// Has every queue looked at.
    pub(super) fn schedule(&self) {
        self.channels.iter().for_each(EventChannel::schedule);
    }

    fn is_over(&self) -> bool {
        self.shared.is_ended()
    }

    /// Takes nothing any more, and has everything end.
    fn end(&self, error: Error) {
        let _ = self.shared.end(error);
        self.schedule();
    }

    /// What news mean.
    async fn look(&self) -> Result<(), ConnectError> {
        let path = &self.backend.path;
        let is_asked = self.shared.takes_wish();
        match at(path, self.backend.state().await)? {
            State::UNKNOWN => self.end(Error::Removed),
            State::CLOSING | State::CLOSED if !connect::is_online(&self.store, path).await? => {
                self.end(Error::Removed);
            }
            State::CONNECTED if is_asked => self.reconnect(Why::Asked).await?,
            State::CONNECTED => {
                let sectors = self.store.number(&format!("{path}/sectors")).await;
                if self.shared.resize(sectors.ok()) {
                    self.schedule();
                }
            }
            _ => self.reconnect(Why::Restarted).await?,
        }
        Ok(())
    }

    async fn reconnect(&self, why: Why) -> Result<(), ConnectError> {
        let Self { shared, store, device, backend, .. } = self;
        let is_over = || self.is_over();
        log::warn!("{}: connecting again ({why:?})", shared.name);
        let since = Instant::now();
        shared.queues.iter().for_each(Queue::hold);
        let state = connect::part(store, &device.path, backend, is_over).await?;
        if state == State::UNKNOWN {
            return Err(ConnectError::Leaving);
        }
        if !connect::has_let_go(state) {
            return Err(ConnectError::Gone(state.0));
        }
        self.drain(why).await;
        let rings = self.renew()?;
        connect::set_state(store, &device.path, State::INITIALISING).await?;
        connect::wait_ready(backend, is_over).await?;
        let config = Config { queues: self.agreed.queues, ring_order: self.agreed.order };
        let agreed = connect::agree(store, &backend.path, (config, rings.len())).await?;
        if agreed != self.agreed {
            return Err(ConnectError::Changed("how many or how large rings it takes"));
        }
        connect::tell(store, &device.path, &rings, agreed).await?;
        let said = connect::wait_connected(store, backend, is_over).await?;
        let depth = shared.fixed.depth / u32::from(agreed.queues.max(1));
        let (info, shape) = shape::shape(&said, agreed.queues, depth)?;
        if shape != shared.shape || (Info { capacity: shared.fixed.capacity, ..info }) != shared.fixed {
            return Err(ConnectError::Changed("the disk"));
        }
        if self.is_over() {
            return Ok(());
        }
        shared.resize(Some(said.sectors));
        connect::set_state(store, &device.path, State::CONNECTED).await?;
        for queue in &shared.queues {
            if !queue.open() {
                return Err(ConnectError::TooMuchKept);
            }
        }
        for (queue, channel) in shared.queues.iter().zip(&self.channels) {
            if queue.commit() {
                let _ = channel.notify();
            }
        }
        shared.reconnects.fetch_add(1, Ordering::Relaxed);
        log::warn!("{}: connected again after {} ms", shared.name, since.elapsed().as_millis());
        self.schedule();
        Ok(())
    }

    /// Has the bottom halves take what was answered, and waits for that.
    async fn drain(&self, why: Why) {
        let queues = &self.shared.queues;
        queues.iter().for_each(|queue| queue.drain(why == Why::Asked));
        self.schedule();
        // Each of them tells.
        while !queues.iter().all(Queue::is_drained) {
            self.backend.news.wait_until(Instant::now() + DRAIN).await;
            self.schedule();
        }
    }

    /// Makes all that was granted fit for another end. Returns the rings as that is told of them.
    fn renew(&self) -> Result<Vec<(Vec<u32>, u32)>, ConnectError> {
        let mut rings = Vec::new();
        let mut all_kept = 0;
        for (queue, channel) in self.shared.queues.iter().zip(&self.channels) {
            let new = || Granted::new(None, &self.domain, self.device.backend, 1 << self.agreed.order);
            let (kept, references) = queue.renew(new)?;
            all_kept += kept;
            rings.push((references, channel.port()));
        }
        if all_kept > 0 {
            log::warn!("{}: the backend keeps {all_kept} pages: they are set aside", self.shared.name);
        }
        Ok(rings)
    }
}

/// Follows the other end's state and the disk's size, until the disk has ended. Whoever ends it tells the backend's news.
pub(super) async fn follow(link: Arc<Link>) {
    loop {
        link.backend.news.wait().await;
        if link.is_over() {
            return;
        }
        match link.look().await {
            Ok(()) => {}
            Err(ConnectError::Leaving) => link.end(Error::Removed),
            // A reconnection that was cut short by the end says nothing.
            Err(_) if link.is_over() => {}
            Err(error) => {
                log::error!("{}: {error}: it is given up", link.shared.name);
                link.end(Error::Broken);
            }
        }
    }
}
