//! A node's fields, for whoever has its home's key.
//!
//! UNSAFETY: the wheel's links lie in a cell that the key protects.

use core::cell::Cell;
use core::ptr::NonNull;

use super::{Key, Ref};
use crate::completion::Waiters;
use crate::shim::Ordering;
use crate::state::{State, Tag};
use crate::wheel::Links;

/// A node whose home's key is at hand: all its fields.
pub(crate) struct Open<'a> {
    pub(super) node: &'a Ref,
    pub(super) key: &'a mut Key,
}

macro_rules! field {
    ($($get:ident, $set:ident: $type:ty = $($path:ident).+;)*) => {
        $(
            #[inline]
            pub(crate) fn $get(&self) -> $type {
                self.node.$($path).+.get()
            }
            #[inline]
            pub(crate) fn $set(&mut self, value: $type) {
                self.node.$($path).+.set(value);
            }
        )*
    };
}

impl Open<'_> {
    field! {
        next_deadline, set_next_deadline: u64 = head.next_deadline;
        nominal, set_nominal: u64 = more.nominal;
        waiting, set_waiting: u64 = more.waiting;
        slack, set_slack: u32 = more.slack;
        default_slack, set_default_slack: u32 = more.default_slack;
        missed, set_missed: u32 = more.missed;
        flight, set_flight: u32 = more.flight;
    }

    #[inline]
    pub(crate) fn tag(&self) -> Tag {
        // SAFETY: the key is at hand.
        Tag::from_bits(unsafe { (*self.node.links.get()).tag })
    }

    /// Changes the flags, or the state between those in which it is not in flight.
    #[inline]
    pub(crate) fn set_tag(&mut self, tag: Tag) {
        let now = self.tag().state();
        // In flight and out of it is a matter of `Flight`s, of which there is one at a time.
        let tag = if now.is_in_flight() || tag.state().is_in_flight() { tag.with_state(now) } else { tag };
        self.store_tag(tag);
    }

    /// In a control: erases the note that it is in flight.
    #[cfg(test)]
    pub(crate) fn force_idle(&mut self) {
        let tag = self.tag().with_state(State::Idle).without(Tag::NEXT);
        self.store_tag(tag);
    }

    #[inline]
    pub(super) fn store_tag(&mut self, tag: Tag) {
        // SAFETY: the key is at hand.
        unsafe { (*self.node.links.get()).tag = tag.bits() };
    }

    /// Which arming, or other change of mind, was the last.
    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        // SAFETY: the key is at hand.
        unsafe { (*self.node.links.get()).word }
    }

    #[inline]
    pub(crate) fn next_generation(&mut self) -> u32 {
        let next = self.generation().wrapping_add(1);
        // SAFETY: the key is at hand.
        unsafe { (*self.node.links.get()).word = next };
        next
    }

    /// The deadline in force, slack included.
    pub(crate) fn deadline(&self) -> u64 {
        // SAFETY: the key is at hand.
        unsafe { (*self.node.links.get()).deadline() }
    }

    /// Whether it is in a wheel.
    pub(crate) fn is_linked(&self) -> bool {
        // SAFETY: the key is at hand.
        unsafe { (*self.node.links.get()).is_linked() }
    }

    pub(crate) fn links(&self) -> NonNull<Links> {
        self.node.address().cast()
    }

    pub(crate) fn waiters(&self) -> &Cell<Waiters> {
        &self.node.head.waiters
    }

    pub(crate) fn node(&self) -> &Ref {
        self.node
    }

    /// Gives the node to another wheel. Not while it is linked or in flight.
    pub(crate) fn move_to(self, home: u32) -> bool {
        let tag = self.tag();
        let free = !self.is_linked() && matches!(tag.state(), State::Idle | State::Transit);
        if free {
            debug_assert!(self.key.id != home);
            // Release: who finds the new home sees what was written here.
            self.node.home.store(home, Ordering::Release);
        }
        free
    }
}
