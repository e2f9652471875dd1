//! Event channels, by the two-level interface: a bit that Xen sets, and an interrupt for the bits of a CPU.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering;

use arrayvec::ArrayVec;

use super::domain::{Domain, Inner};
use super::wire::{self, AllocateUnbound, BindVcpu, MYSELF, Port, event, shared};
use super::{DomainId, Errno};
use crate::atomic::step;
use crate::broken::{self, Hazard};
use crate::context::{BottomHalf, Task};
use crate::irq::Handled;
use crate::sync::{IrqSpinLock, Rank};
use crate::work::{BottomHalfWork, Turn};

/// Event channels of one CPU at most.
const LISTENERS: usize = 64;
/// Taken in the hard interrupt handler, under the lock of the interrupt's slot.
const RANK: Rank = Rank::new(29);
/// Xen's error for want of room.
const NO_SPACE: Errno = Errno(28);

struct Listener {
    port: u32,
    work: Arc<BottomHalfWork>,
}

pub(super) struct Listeners(IrqSpinLock<ArrayVec<Listener, LISTENERS>>);

impl Listeners {
    pub(super) fn new() -> Self {
        Self(IrqSpinLock::new(RANK, ArrayVec::new_const()))
    }
}

/// Where an event channel's bit is: offset in its array, and mask in that word.
fn bit(port: u32) -> (usize, u32) {
    (port as usize / 32 * 4, 1 << (port % 32))
}

impl Inner {
    /// The interrupt of a CPU's event channels, on that CPU.
    pub(super) fn interrupt(&self, cpu: usize) -> Handled {
        let Some(listeners) = self.listeners.get(cpu) else { return Handled::No };
        let vcpu = self.vcpus[cpu].load(Ordering::Relaxed) as usize % shared::VCPUS * shared::VCPU_BYTES;
        // First the byte, then the words, then the bits: the order in which Xen sets them, turned round. What comes meanwhile interrupts
        // again. The byte's neighbour, the mask, is not used by guests of this kind.
        let upcall = self.info.word(vcpu + shared::UPCALL_PENDING);
        if !broken::is(Hazard::UpcallClearedLate) {
            upcall.fetch_and(!0xFF, Ordering::SeqCst);
        }
        step();
        self.info.word(vcpu + shared::PENDING_WORDS).store(0, Ordering::SeqCst);
        step();
        self.info.word(vcpu + shared::PENDING_WORDS + 4).store(0, Ordering::SeqCst);
        step();
        for listener in &*listeners.0.lock() {
            let (offset, bit) = bit(listener.port);
            let pending = self.info.word(shared::PENDING + offset);
            if pending.load(Ordering::Relaxed) & bit != 0 {
                // Cleared before the ring is looked at: what comes after that sets it again.
                pending.fetch_and(!bit, Ordering::SeqCst);
                step();
                listener.work.schedule();
            }
            step();
        }
        if broken::is(Hazard::UpcallClearedLate) {
            upcall.fetch_and(!0xFF, Ordering::SeqCst);
        }
        Handled::Yes
    }

    fn listen(&self, cpu: usize, port: u32, work: &Arc<BottomHalfWork>) -> Result<(), Errno> {
        let listeners = self.listeners.get(cpu).filter(|_| port < shared::PORTS).ok_or(NO_SPACE)?;
        if let Err(full) = listeners.0.lock().try_push(Listener { port, work: Arc::clone(work) }) {
            // Dropped without the lock.
            drop(full);
            return Err(NO_SPACE);
        }
        let (offset, bit) = bit(port);
        self.info.word(shared::PENDING + offset).fetch_and(!bit, Ordering::SeqCst);
        self.info.word(shared::MASK + offset).fetch_and(!bit, Ordering::SeqCst);
        // For what came before.
        work.schedule();
        Ok(())
    }

    fn unlisten(&self, cpu: usize, port: u32) {
        let Some(listeners) = self.listeners.get(cpu) else { return };
        let mut list = listeners.0.lock();
        let gone = list.iter().position(|listener| listener.port == port).map(|at| list.swap_remove(at));
        drop(list);
        drop(gone);
    }

    fn notify(&self, port: u32) -> Result<(), Errno> {
        self.notifications.fetch_add(1, Ordering::Relaxed);
        self.call(wire::call::EVENT_CHANNEL, event::SEND, &mut Port { port }).map(drop)
    }

    fn close(&self, port: u32) {
        // A port that is ours can be closed.
        let _ = self.call(wire::call::EVENT_CHANNEL, event::CLOSE, &mut Port { port });
    }
}

/// Notifies the other end of an event channel.
pub struct Notifier {
    inner: Arc<Inner>,
    port: u32,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Notifier {
    /// Notifies the other end. Any context. That it is not there (any more) is no error here: what depends on it learns that otherwise.
    pub fn notify(&self) {
        let _ = self.inner.notify(self.port);
    }
}

/// An end of an event channel. Dropped, it is closed, unless the tool stack had made it, and its handler does not start any more.
pub struct EventChannel {
    inner: Arc<Inner>,
    port: u32,
    cpu: usize,
    work: Arc<BottomHalfWork>,
    is_ours: bool,
}

impl fmt::Debug for EventChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventChannel").field("port", &self.port).field("cpu", &self.cpu).finish_non_exhaustive()
    }
}

impl EventChannel {
    /// An end that `remote` may connect to. `handler` runs in a bottom half of `cpu` after each notification, several being one, and
    /// once at first.
    ///
    /// # Errors
    /// Xen's; 28 (no space) for a CPU that there is not, or that has 64 channels already.
    pub fn open(
        _cx: &Task,
        domain: &Domain,
        remote: DomainId,
        cpu: usize,
        handler: impl Fn(&BottomHalf, &Notifier) -> Turn + Send + Sync + 'static,
    ) -> Result<Self, Errno> {
        let mut argument = AllocateUnbound { domain: MYSELF, remote: remote.0, port: 0 };
        domain.inner.call(wire::call::EVENT_CHANNEL, event::ALLOCATE_UNBOUND, &mut argument)?;
        Self::with(domain, argument.port, cpu, true, handler)
    }

    /// An end that the tool stack has made, as [`EventChannel::open`]. It is not closed in the end.
    ///
    /// # Errors
    /// As [`EventChannel::open`].
    pub fn adopt(
        _cx: &Task,
        domain: &Domain,
        port: u32,
        cpu: usize,
        handler: impl Fn(&BottomHalf, &Notifier) -> Turn + Send + Sync + 'static,
    ) -> Result<Self, Errno> {
        Self::with(domain, port, cpu, false, handler)
    }

    fn with(
        domain: &Domain,
        port: u32,
        cpu: usize,
        is_ours: bool,
        handler: impl Fn(&BottomHalf, &Notifier) -> Turn + Send + Sync + 'static,
    ) -> Result<Self, Errno> {
        let inner = &domain.inner;
        let notifier = Notifier { inner: Arc::clone(inner), port };
        let work = Arc::new(BottomHalfWork::new(cpu, move |cx| handler(cx, &notifier)));
        // From here on it is closed whatever fails.
        let this = Self { inner: Arc::clone(inner), port, cpu, work: Arc::clone(&work), is_ours };
        let vcpu = inner.vcpus.get(cpu).ok_or(NO_SPACE)?.load(Ordering::Relaxed);
        inner.call(wire::call::EVENT_CHANNEL, event::BIND_VCPU, &mut BindVcpu { port, vcpu })?;
        inner.listen(cpu, port, &work)?;
        inner.call(wire::call::EVENT_CHANNEL, event::UNMASK, &mut Port { port })?;
        Ok(this)
    }

    /// Its number, which the other domain is told.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Notifies the other end. Any context.
    ///
    /// # Errors
    /// Xen's: the other end is not there (any more).
    pub fn notify(&self) -> Result<(), Errno> {
        self.inner.notify(self.port)
    }

    /// What notifies the other end, apart from this.
    pub fn notifier(&self) -> Notifier {
        Notifier { inner: Arc::clone(&self.inner), port: self.port }
    }

    /// Has the handler run as if a notification had come. Any context.
    pub fn schedule(&self) {
        self.work.schedule();
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        self.inner.unlisten(self.cpu, self.port);
        if self.is_ours {
            self.inner.close(self.port);
        }
    }
}
