//! The node: what a callout is, owned by the core and counted by references.
//!
//! References are held by the handle, by an executor for as long as a run is in flight, and by those who wait for a node that has no handle
//! any more. The links of wheels and lists count for nothing: closing a callout takes it off them, every handle closes its callout when it goes, and a
//! node that is linked is never freed. Everything but the count and the home belongs to whoever has the home's key, which lies under the home's
//! lock; so no field is read or written without it (W-11, W-12, W-20).
//!
//! UNSAFETY: a counted pointer to memory whose type is erased, cells that a lock elsewhere protects, and handlers that one executor at a time calls.

use alloc::boxed::Box;
use core::cell::{Cell, UnsafeCell};
use core::ops::Deref;
use core::ptr::NonNull;

use undercroft_hal::context::Kind;

use crate::broken::{self, Hazard};
use crate::cell::{Exclusive, Witness};
use crate::expiry::Expiry;
use crate::level::Token;
use crate::next::Next;
use crate::shim::{AtomicU32, Ordering};
use crate::state::State;
use crate::wheel::Links;

mod dead;
mod extras;
mod flight;
mod key;
mod open;

pub(crate) use dead::Dead;
use extras::Extras;
pub(crate) use extras::Slack;
pub(crate) use flight::Flight;
pub(crate) use key::{Key, cpu_of, new_keys, wheel_of};
pub(crate) use open::Open;

/// A handler's type, as a node keeps it.
pub(crate) trait Handler: Send + 'static {
    /// Where it runs.
    const KIND: Kind;
    /// It runs with a lock of its client's held, and `gate` is asked once it has that.
    const BOUND: bool;
    /// Runs it, if `token` is of its level.
    fn run(&mut self, token: &Token<'_>, expiry: &Expiry, flight: &mut Flight, gate: &mut dyn Gate) -> Ran;
}

/// What a lock-bound handler asks its executor.
pub(crate) trait Gate {
    /// The lock is held: may the handler run still?
    fn enter(&mut self, flight: &mut Flight) -> bool;
    /// The handler returned; the lock is held still.
    fn leave(&mut self, flight: &mut Flight, next: Next);
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It ran, and says what it wants next.
    Done(Next),
    /// It ran, and `leave` has been told.
    Left,
    /// Its lock was held by somebody.
    Contended,
    /// It was stopped or replaced before it had its lock.
    Void,
}

struct Table {
    kind: Kind,
    bound: bool,
    /// # Safety
    /// The flight's node is of this table's type, and the caller has its handler to itself.
    run: unsafe fn(&mut Flight, &Token<'_>, &Expiry, &mut dyn Gate) -> Ran,
    /// # Safety
    /// The node is of this table's type, and nobody else has it.
    free: unsafe fn(NonNull<Node>),
}

/// A node's header: all that the core keeps about a callout. The handler follows; with a small one, a node is a cache line.
#[repr(C)]
pub(crate) struct Node {
    links: UnsafeCell<Links>,
    refs: AtomicU32,
    /// The wheel that it belongs to: see [`Key`].
    home: AtomicU32,
    table: &'static Table,
    /// By how much the deadline in the links is later than what was asked for, in nanoseconds; at most so much.
    early: Cell<u32>,
    extras: Cell<Extras>,
    witness: Witness,
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Node>() == 56 && core::mem::offset_of!(Node, links) == 0);

#[repr(C)]
struct Typed<H> {
    node: Node,
    handler: Exclusive<H>,
}

// SAFETY: atomics may be shared; the cells are reached through `Open` only, with the home's key, which is under its lock.
unsafe impl Sync for Node {}
// SAFETY: as above; the handler is Send, and so is what waiters hold.
unsafe impl Send for Node {}

/// A counted reference. It must be released: dropping it leaks the node.
#[derive(PartialEq, Eq)]
pub(crate) struct Ref(NonNull<Node>);

// SAFETY: a node may be shared and sent.
unsafe impl Send for Ref {}
// SAFETY: as above.
unsafe impl Sync for Ref {}

impl Deref for Ref {
    type Target = Node;

    #[inline]
    fn deref(&self) -> &Node {
        // SAFETY: counted, so it is there.
        unsafe { self.0.as_ref() }
    }
}

impl Ref {
    /// A node with one reference whose home is `home`. Allocates.
    pub(crate) fn new<H: Handler>(home: u32, handler: H) -> Self {
        let table: &'static Table = &const { Table { kind: H::KIND, bound: H::BOUND, run: run::<H>, free: free::<H> } };
        let typed = Typed {
            node: Node {
                links: UnsafeCell::new(Links::new()),
                refs: AtomicU32::new(1),
                home: AtomicU32::new(home),
                table,
                early: Cell::new(0),
                extras: Cell::new(Extras::default()),
                witness: Witness::new(),
            },
            handler: Exclusive::new(handler),
        };
        Self(NonNull::from(Box::leak(Box::new(typed))).cast())
    }

    /// # Safety
    /// The node is there, because it is linked: its home's key is at hand.
    pub(super) unsafe fn of_linked(node: NonNull<Node>) -> Self {
        let this = Self(node);
        this.refs.fetch_add(1, Ordering::Relaxed);
        this
    }

    pub(crate) fn another(&self) -> Self {
        self.refs.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }

    /// In a control: looks, without a lock or an order, whether others have a reference.
    #[cfg(test)]
    pub(crate) fn is_shared(&self) -> bool {
        self.refs.load(Ordering::Relaxed) > 1
    }

    /// In a control: as if somebody had not counted.
    pub(crate) fn miscount(&self) {
        self.refs.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) const fn address(&self) -> NonNull<Node> {
        self.0
    }

    /// Gives the reference up. If it was the last, the node is the caller's to free.
    #[must_use]
    pub(crate) fn release(self) -> Option<Dead> {
        // Release: whatever was done with the node comes before it is freed; acquire: and is seen by who frees it.
        if self.refs.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        self.witness.used();
        let dead = Dead(self.0);
        // SAFETY: nobody else has the node any more.
        let linked = unsafe { (*self.links.get()).is_linked() } || dead.tag().state() != State::Idle;
        debug_assert!(!linked, "the last reference of a node that is linked or in flight");
        // Were it ever linked, leaking it would be the lesser evil.
        (!linked).then_some(dead)
    }

    /// The node's fields, if `key` is its home's.
    #[inline]
    pub(crate) fn open<'a>(&'a self, key: &'a mut Key) -> Option<Open<'a>> {
        // Acquire: another wheel's lock protected it when this became its home, with nothing of ours in between (W-11).
        if self.home() != key.id && !broken::is(Hazard::HomeUnchecked) {
            return None;
        }
        self.witness.used();
        Some(Open { node: self, key })
    }

    /// The wheel that it belongs to; another moment, another answer, unless its lock is held.
    #[inline]
    pub(crate) fn home(&self) -> u32 {
        self.home.load(broken::ordering(Hazard::HomeRelaxed, Ordering::Acquire))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.table.kind
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.table.bound
    }
}

/// The reference of a handle: taken out when the handle goes, and not used after that.
pub(crate) struct Owner(Option<Ref>);

impl Owner {
    pub(crate) const fn new(node: Ref) -> Self {
        Self(Some(node))
    }

    pub(crate) const fn take(&mut self) -> Option<Ref> {
        self.0.take()
    }
}

impl Deref for Owner {
    type Target = Ref;

    #[inline]
    fn deref(&self) -> &Ref {
        match &self.0 {
            Some(node) => node,
            None => unreachable!("a handle that has gone"),
        }
    }
}

/// # Safety
/// As [`Table::run`].
unsafe fn run<H: Handler>(flight: &mut Flight, token: &Token<'_>, expiry: &Expiry, gate: &mut dyn Gate) -> Ran {
    // SAFETY: of that type, and counted by the flight, which is there until this returns.
    let typed = unsafe { flight.node.address().cast::<Typed<H>>().as_ref() };
    // SAFETY: the caller has the handler to itself.
    unsafe { typed.handler.with(|handler| handler.run(token, expiry, flight, gate)) }
}

/// # Safety
/// As [`Table::free`].
unsafe fn free<H: Handler>(node: NonNull<Node>) {
    // SAFETY: `Ref::new` leaked a box of this type, and nobody else has it.
    drop(unsafe { Box::from_raw(node.cast::<Typed<H>>().as_ptr()) });
}
