//! The wheel of this project, as callouts use it: behind the lock that interrupt handlers take, with nodes of one cache line.
//!
//! UNSAFETY: keeps the wheel's contract: nodes are in a box that outlives their time in the wheel, and are touched by the wheel only.

use std::ptr::NonNull;

use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_timer::wheel::{Links, Wheel};

use crate::subject::Subject;

/// A tick is 1024 ns.
const SHIFT: u32 = 10;

/// As large as a callout's header.
#[repr(C, align(64))]
struct Node {
    links: Links,
    rest: [u64; 4],
}

/// The wheel and its nodes.
pub struct Ours {
    wheel: IrqSpinLock<Wheel>,
    nodes: Box<[Node]>,
    first: NonNull<Node>,
    /// The most nodes that a step touched.
    touched: usize,
    /// Steps that left something that was due.
    unfinished: usize,
}

// SAFETY: the nodes are worked on under the wheel's lock only.
unsafe impl Send for Ours {}

impl Ours {
    fn node(&self, id: u32) -> NonNull<Links> {
        assert!((id as usize) < self.nodes.len());
        // SAFETY: it is one of the nodes, and the links are its first field.
        unsafe { self.first.add(id as usize) }.cast()
    }
}

impl Subject for Ours {
    const NAME: &'static str = "undercroft wheel";

    fn make(room: u32) -> Self {
        let mut nodes: Box<[Node]> = (0..room).map(|_| Node { links: Links::new(), rest: [0; 4] }).collect();
        let first = NonNull::new(nodes.as_mut_ptr()).expect("a box is somewhere");
        let wheel = IrqSpinLock::new(Rank::WHEEL, Wheel::new(0, SHIFT));
        Self { wheel, nodes, first, touched: 0, unfinished: 0 }
    }

    #[inline]
    fn start(&mut self, id: u32, at: u64) {
        let node = self.node(id);
        // SAFETY: the node is armed once at a time and stays where it is.
        unsafe { self.wheel.lock().insert(node, at << SHIFT) };
    }

    #[inline]
    fn stop(&mut self, id: u32) {
        let node = self.node(id);
        // SAFETY: it is armed.
        unsafe { self.wheel.lock().remove(node) };
    }

    fn expire(&mut self, to: u64, due: &mut Vec<u32>) {
        let one_tick = to << SHIFT == self.wheel.lock().clock() + (1 << SHIFT);
        loop {
            // As an executor does: a step, and then one at a time.
            let step = self.wheel.lock().step(to << SHIFT);
            self.touched = self.touched.max(step.touched);
            self.unfinished += usize::from(step.more && one_tick);
            loop {
                let node = self.wheel.lock().pop_due();
                let Some(node) = node else { break };
                // SAFETY: all nodes in the wheel are of the box.
                due.push(unsafe { node.cast::<Node>().offset_from(self.first) } as u32);
            }
            if !step.more {
                return;
            }
        }
    }

    #[inline]
    fn next(&mut self) -> Option<u64> {
        self.wheel.lock().next_event()
    }

    fn facts(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("nodes touched by a step, at most", self.touched as f64),
            ("steps of 1 tick that left something due", self.unfinished as f64),
            ("nodes moved down in all", self.wheel.lock().cascaded() as f64),
        ]
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // The words that a callout keeps there are written, so that their lines are a callout's.
        self.nodes.iter_mut().for_each(|node| node.rest[0] = 1);
    }
}
