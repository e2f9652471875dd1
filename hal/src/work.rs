//! Deferred work: bottom halves and run-queue items.
//!
//! A [`Work`] is a handler bound to a context and a home CPU. [`Work::schedule`] may be called anywhere, hard
//! interrupts included: it takes a bounded number of atomic operations, allocates nothing and cannot fail. Work scheduled
//! twice runs once; scheduled while it runs, it runs again afterwards; it never runs twice at the same time. The queue owns a
//! reference of what is queued, so dropping the handle of queued work is harmless: it will not run any more.
//!
//! UNSAFETY: hands reference-counted nodes to the intrusive queue and takes them back.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::atomic::{AtomicUsize, Ordering};
use crate::clock::Instant;
use crate::context::{BottomHalf, Kind, Task};
use crate::mpsc::{Link, Pop, Queue};
use crate::platform::seam;
use crate::system::{self, PerCpu};
use crate::work_state::WorkState;
use crate::work_stats::Counters;
pub use crate::work_stats::{BUCKETS, QueueStats, queue_stats};
use crate::{cpu, dispatch};

/// Whether a handler wants another turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// All done until scheduled again.
    Done,
    /// The budget ran out before the work did: run again after the others.
    Again,
}

/// Contexts that work can be deferred to.
pub trait Deferred: crate::Context + Sized + 'static {
    #[doc(hidden)]
    fn queue<'a>(cpu: &PerCpuRef<'a>) -> QueueRef<'a>;
}

#[doc(hidden)]
pub struct PerCpuRef<'a>(&'a PerCpu);
#[doc(hidden)]
pub struct QueueRef<'a>(&'a Queue, &'a Counters);

impl Deferred for BottomHalf {
    fn queue<'a>(cpu: &PerCpuRef<'a>) -> QueueRef<'a> {
        QueueRef(&cpu.0.bottom_halves, &cpu.0.bottom_half_counters)
    }
}

impl Deferred for Task {
    fn queue<'a>(cpu: &PerCpuRef<'a>) -> QueueRef<'a> {
        QueueRef(&cpu.0.tasks, &cpu.0.task_counters)
    }
}

// The link comes first, so that a pointer to it is a pointer to the node.
#[repr(C)]
struct Node<C> {
    link: Link,
    state: WorkState,
    /// The CPU of a task that waits for the end of a run, plus one.
    waiter: AtomicUsize,
    home: usize,
    /// When it was queued last: nanoseconds, written before the push and read after the pop.
    queued_at: AtomicU64,
    handler: Box<dyn Fn(&C) -> Turn + Send + Sync>,
}

/// A handle to deferred work. Dropping the handle closes it: queued work does not start any more; running work ends.
pub struct Work<C: Deferred> {
    node: Arc<Node<C>>,
}

/// Work that runs in bottom-half context.
pub type BottomHalfWork = Work<BottomHalf>;
/// Work that runs in task context (the run queue).
pub type TaskWork = Work<Task>;

impl<C: Deferred> Work<C> {
    /// Makes work for CPU `home`; the index is taken modulo the number of CPUs.
    pub fn new(home: usize, handler: impl Fn(&C) -> Turn + Send + Sync + 'static) -> Self {
        let home = home % cpu::count().max(1);
        Self {
            node: Arc::new(Node {
                link: Link::new(),
                state: WorkState::new(),
                waiter: AtomicUsize::new(0),
                home,
                queued_at: AtomicU64::new(0),
                handler: Box::new(handler),
            }),
        }
    }

    /// Closes the work and waits until its handler does not run any more. Queued work does not start.
    pub fn remove(self, cx: &Task) {
        self.node.waiter.store(cpu::current() + 1, Ordering::SeqCst);
        self.node.state.close();
        cx.wait_until(|| !self.node.state.is_running());
    }

    /// Asks for a run of the handler. Any context; never runs it inside this call.
    #[inline]
    pub fn schedule(&self) {
        if self.node.state.schedule() {
            enqueue(Arc::clone(&self.node));
        }
    }
}

impl<C: Deferred> Work<C> {
    /// Lets go of the handle without closing the work: what is queued still runs, as often as it asks for, and is freed after that.
    pub fn detach(self) {
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so its reference is released once, here.
        drop(unsafe { core::ptr::read(&raw const this.node) });
    }
}

impl<C: Deferred> core::fmt::Debug for Work<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Work")
            .field("context", &C::KIND)
            .field("home", &self.node.home)
            .field("state", &self.node.state)
            .finish()
    }
}

impl<C: Deferred> Drop for Work<C> {
    fn drop(&mut self) {
        self.node.state.close();
    }
}

/// Links a node that its state says is queued, and makes sure its CPU will look.
fn enqueue<C: Deferred>(node: Arc<Node<C>>) {
    let home = node.home;
    // Published by the push.
    node.queued_at.store(Instant::now().as_nanos(), Relaxed);
    let Some(raw) = NonNull::new(Arc::into_raw(node).cast_mut()) else { return };
    let raw = raw.cast::<Link>();
    system::with(|system| {
        C::queue(&PerCpuRef(&system.cpus[home])).1.queued();
        // SAFETY: the node is linked nowhere (its QUEUED bit was just set, or the runner holds it), and the reference
        // leaked here keeps it in place until `run_one` takes it back.
        unsafe { C::queue(&PerCpuRef(&system.cpus[home])).0.push(raw) };
    });
    dispatch::announce(home);
}

/// What [`run_one`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    /// An item, which was run, or dropped if it was closed.
    Item,
    /// Nothing queued.
    Empty,
    /// A push is under way; its producer will announce it.
    Busy,
}

/// Runs the first item of this CPU's queue for `C`.
///
/// # Safety
/// The caller is this CPU's only consumer of that queue: the dispatcher, not nested in itself.
pub(crate) unsafe fn run_one<C: Deferred>(cx: &C) -> Ran {
    let popped = system::with_cpu(|cpu| {
        // SAFETY: single consumer, by contract.
        unsafe { C::queue(&PerCpuRef(cpu)).0.pop() }
    });
    let link = match popped {
        Pop::Node(link) => link,
        Pop::Empty => return Ran::Empty,
        Pop::Busy => return Ran::Busy,
    };
    // SAFETY: only `enqueue::<C>` pushes to this queue: the pointer is to a Node<C> whose count it leaked.
    let node = unsafe { Arc::from_raw(link.cast::<Node<C>>().as_ptr().cast_const()) };
    let queued_at = Instant::from_nanos(node.queued_at.load(Relaxed));
    system::with_cpu(|cpu| C::queue(&PerCpuRef(cpu)).1.took(queued_at));
    if !node.state.begin() {
        return Ran::Item;
    }
    // If a handler of a test unwinds, its work is over all the same, and may be scheduled again.
    let mut run = Run { node: Some(node), turn: Turn::Done };
    if let Some(node) = &run.node {
        run.turn = (node.handler)(cx);
    }
    drop(run);
    Ran::Item
}

/// A run of a handler: ended when it goes.
struct Run<C: Deferred> {
    node: Option<Arc<Node<C>>>,
    turn: Turn,
}

impl<C: Deferred> Drop for Run<C> {
    fn drop(&mut self) {
        let Some(node) = self.node.take() else { return };
        let again = node.state.finish(self.turn == Turn::Again);
        let waiter = node.waiter.load(Ordering::SeqCst);
        if waiter > 0 && waiter - 1 != cpu::current() {
            seam::kick(waiter - 1);
        }
        if again {
            enqueue(node);
        }
    }
}

/// Whether this CPU has bottom halves or tasks queued.
pub(crate) fn pending(kind: Kind) -> bool {
    system::with_cpu(|cpu| match kind {
        Kind::BottomHalf => !cpu.bottom_halves.is_empty(),
        Kind::Task => !cpu.tasks.is_empty(),
        Kind::HardIrq => false,
    })
}

#[cfg(all(test, not(loom)))]
#[path = "work_tests.rs"]
mod tests;
