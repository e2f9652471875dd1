//! A node's fields, for whoever has its home's key.
//!
//! UNSAFETY: the wheel's links lie in a cell that the key protects.

use core::ptr::NonNull;

use super::{Key, Ref, Slack};
use crate::completion::Waiters;
use crate::shim::Ordering;
use crate::state::{State, Tag};
use crate::wheel::{Links, Wheel};

/// A node whose home's key is at hand: all its fields.
pub(crate) struct Open<'a> {
    pub(super) node: &'a Ref,
    pub(super) key: &'a mut Key,
}

impl Open<'_> {
    /// What was asked for, without slack: the time that it is armed for, or while it is in flight, of the request that waits.
    #[inline]
    pub(crate) fn asked(&self) -> u64 {
        self.deadline() - u64::from(self.node.early.get())
    }

    /// Asks for `at`, to be served within `slack` after it. Not while it is linked.
    #[inline]
    pub(crate) fn ask(&mut self, at: u64, slack: Slack) {
        let deadline = if slack == Slack::default() { at } else { Wheel::align(at, slack.nanos()) };
        // SAFETY: the key is at hand.
        unsafe { (*self.node.links.get()).set_deadline(deadline) };
        self.node.early.set(u32::try_from(deadline - at).unwrap_or(u32::MAX));
    }

    /// The slack of starts that name none.
    #[inline]
    pub(crate) fn slack(&self) -> Slack {
        self.node.extras.get().slack()
    }

    pub(crate) fn set_slack(&mut self, slack: Slack) {
        self.node.extras.set(self.node.extras.get().with_slack(slack));
    }

    /// Periods left out before the deadline.
    pub(crate) fn missed(&self) -> u32 {
        self.node.extras.get().missed()
    }

    #[inline]
    pub(crate) fn set_missed(&mut self, missed: u64) {
        self.node.extras.set(self.node.extras.get().with_missed(missed));
    }

    /// While it is in flight: the generation of that run.
    pub(crate) fn flight(&self) -> u32 {
        self.key.flights[self.node.kind() as usize]
    }

    pub(super) fn set_flight(&mut self, generation: u32) {
        let level = self.node.kind() as usize;
        debug_assert!(self.key.waiters[level].is_none(), "an executor with two runs in flight");
        self.key.flights[level] = generation;
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

    /// Whether it is in a wheel or in line.
    pub(crate) fn is_linked(&self) -> bool {
        // SAFETY: the key is at hand.
        unsafe { (*self.node.links.get()).is_linked() }
    }

    pub(crate) fn links(&self) -> NonNull<Links> {
        self.node.address().cast()
    }

    /// While it is in flight: those who wait for the end of that.
    pub(crate) fn waiters(&mut self) -> &mut Waiters {
        &mut self.key.waiters[self.node.kind() as usize]
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
