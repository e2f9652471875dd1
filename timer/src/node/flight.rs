//! A run in flight.
//!
//! UNSAFETY: calls a handler whose type is erased, alone.

use super::{Gate, Key, Open, Ran, Ref};
use crate::expiry::Expiry;
use crate::level::Token;
use crate::state::{State, Tag};

/// A run in flight: the executor's record. There is one at a time for a node, so whoever has it has the handler. It must be ended.
#[must_use]
pub(crate) struct Flight {
    pub(super) node: Ref,
    /// The handler is being called.
    busy: bool,
    /// Which arming it is a run of.
    pub(crate) generation: u32,
    /// The deadline as asked for, and with slack.
    pub(crate) nominal: u64,
    pub(crate) deadline: u64,
    pub(crate) missed: u32,
}

impl Flight {
    pub(crate) const fn node(&self) -> &Ref {
        &self.node
    }

    /// Calls the handler, once.
    pub(crate) fn run(&mut self, token: &Token<'_>, expiry: &Expiry, gate: &mut dyn Gate) -> Ran {
        if core::mem::replace(&mut self.busy, true) {
            return Ran::Void;
        }
        // SAFETY: the table is the node's type's; this is the one flight of the node, and calls its handler once.
        unsafe { (self.node.table.run)(self, token, expiry, gate) }
    }

    /// Goes a step further: from committed to running, from there to left.
    pub(crate) fn advance(&mut self, key: &mut Key, state: State) {
        if let Some(mut open) = self.node.open(key).filter(|_| state.is_in_flight()) {
            let tag = open.tag().with_state(state);
            open.store_tag(tag);
        }
    }

    /// Ends the flight: the node is idle. Its reference is the caller's.
    pub(crate) fn end(self, key: &mut Key) -> Ref {
        if let Some(mut open) = self.node.open(key) {
            let tag = open.tag().with_state(State::Idle);
            open.store_tag(tag);
        }
        self.node
    }
}

impl Open<'_> {
    /// Takes the node, which has just been taken off its list, into flight: the one proof of which is returned.
    pub(crate) fn commit(mut self) -> Option<Flight> {
        if self.tag().state() != State::Due || self.is_linked() {
            return None;
        }
        self.store_tag(self.tag().with_state(State::Committed).without(Tag::CONTENDED));
        self.set_flight(self.generation());
        Some(Flight {
            busy: false,
            generation: self.generation(),
            nominal: self.asked(),
            deadline: self.deadline(),
            missed: self.missed(),
            node: self.node.another(),
        })
    }
}
