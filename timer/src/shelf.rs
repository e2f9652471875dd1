//! The shelf: one CPU's wheels and lists, and the key to the nodes on them.
//!
//! A node is in a wheel exactly while its state is `Armed`, on a list exactly while it is `Due`, and each of these changes is made here, in
//! one call (W-07). Whatever is on the shelf has this shelf's CPU for its home.
//!
//! UNSAFETY: wheels and lists link nodes by address. A linked node stays in place: its home cannot change, and its memory is not freed.

use core::ptr::NonNull;

use undercroft_hal::context::Kind;

use crate::broken::{self, Hazard};
use crate::level::LEVELS;
use crate::node::{Flight, Key, Open, Ref, Slack};
use crate::state::{State, Tag};
use crate::wheel::{Line, Links, Wheel};

/// The wheels' tick: 2^10 ns.
pub(crate) const TICK_SHIFT: u32 = 10;

/// See the module.
pub(crate) struct Shelf {
    key: Key,
    wheel: Wheel,
    /// For those that do not set the alarm.
    deferrable: Wheel,
    due: [Line; LEVELS],
    contended: [Line; LEVELS],
}

// SAFETY: the nodes that it links by address may be sent.
unsafe impl Send for Shelf {}

impl Shelf {
    pub(crate) fn new(key: Key, now: u64) -> Self {
        Self {
            key,
            wheel: Wheel::new(now, TICK_SHIFT),
            deferrable: Wheel::new(now, TICK_SHIFT),
            due: Default::default(),
            contended: Default::default(),
        }
    }

    pub(crate) const fn id(&self) -> u32 {
        self.key.id()
    }

    pub(crate) const fn key(&mut self) -> &mut Key {
        &mut self.key
    }

    /// The node's fields, if this is its home.
    #[inline]
    pub(crate) fn open<'a>(&'a mut self, node: &'a Ref) -> Option<Open<'a>> {
        node.open(&mut self.key)
    }

    /// Puts an idle node, or one in transit, in its wheel, for the time that was asked for. Whether the next event became earlier.
    #[inline]
    pub(crate) fn arm(&mut self, node: &Ref) -> bool {
        let Some(open) = node.open(&mut self.key) else { return false };
        let deferrable = open.tag().has(Tag::DEFERRABLE);
        let wheel = if deferrable { &mut self.deferrable } else { &mut self.wheel };
        put(wheel, open) && !deferrable
    }

    /// Does at once what starting a node that is idle and nothing else comes to: asks for `at` and arms it. Whether the next event became
    /// earlier; nothing, and nothing done, for any other node.
    #[inline]
    pub(crate) fn start_idle(&mut self, node: &Ref, at: u64, slack: Option<Slack>) -> Option<bool> {
        let mut open = node.open(&mut self.key).filter(|open| open.tag().is_just(State::Idle))?;
        open.next_generation();
        open.set_missed(0);
        open.ask(at, slack.unwrap_or_else(|| open.slack()));
        Some(put(&mut self.wheel, open))
    }

    /// Does at once what stopping a node that is armed and nothing else comes to. Nothing is done for any other node.
    #[inline]
    pub(crate) fn stop_armed(&mut self, node: &Ref) -> bool {
        let open = node.open(&mut self.key).filter(|open| open.tag().is_just(State::Armed));
        let Some(mut open) = open else { return false };
        open.next_generation();
        take_off(&mut self.wheel, open);
        true
    }

    /// Takes a node that is armed or due off its wheel or list, and makes it idle. Whether it was.
    #[inline]
    pub(crate) fn disarm(&mut self, node: &Ref) -> bool {
        let Some(mut open) = node.open(&mut self.key) else { return false };
        let (tag, links) = (open.tag(), open.links());
        match tag.state() {
            State::Armed => {
                let wheel = if tag.has(Tag::DEFERRABLE) { &mut self.deferrable } else { &mut self.wheel };
                take_off(wheel, open);
                true
            }
            State::Due => {
                open.set_tag(tag.with_state(State::Idle).without(Tag::CONTENDED));
                let lists = if tag.has(Tag::CONTENDED) { &mut self.contended } else { &mut self.due };
                if !broken::is(Hazard::LeftOnList) {
                    // SAFETY: due, so it is in this list.
                    unsafe { lists[node.kind() as usize].remove(links) };
                }
                true
            }
            _ => false,
        }
    }

    /// One step of each wheel: what is due at `now` goes to the lists of its level. Returns which levels have something new (a bit for each),
    /// how many nodes were touched, and whether more is due.
    pub(crate) fn step(&mut self, now: u64) -> Stepped {
        let mut stepped = Stepped::default();
        for deferrable in [false, true] {
            let wheel = if deferrable { &mut self.deferrable } else { &mut self.wheel };
            let step = wheel.step(now);
            stepped.touched += step.touched;
            stepped.more |= step.more;
            loop {
                let wheel = if deferrable { &mut self.deferrable } else { &mut self.wheel };
                let Some(links) = wheel.pop_due() else { break };
                stepped.levels |= self.came_due(links);
            }
        }
        stepped
    }

    fn came_due(&mut self, links: NonNull<Links>) -> u8 {
        // SAFETY: the wheel links what `arm` put in, which is there; the links are a node's first field, and the address is the node's.
        let node = unsafe { Ref::of_linked(links.cast()) };
        let kind = node.kind() as usize;
        if let Some(mut open) = node.open(&mut self.key) {
            let tag = open.tag();
            open.set_tag(tag.with_state(State::Due));
            // SAFETY: just off its wheel, so in no list; ours.
            unsafe { self.due[kind].push(open.links()) };
        }
        // Its handle has another: closing takes it off the lists.
        drop(node.release());
        1 << kind
    }

    /// Takes the first node that is due at `level` into flight.
    pub(crate) fn commit(&mut self, level: Kind) -> Option<Flight> {
        let list = &mut self.due[level as usize];
        // SAFETY: linked, so it is there.
        let node = unsafe { Ref::of_linked(list.first()?.cast()) };
        // SAFETY: it is in this list.
        unsafe { list.remove(node.address().cast()) };
        let flight = node.open(&mut self.key).and_then(Open::commit);
        drop(node.release());
        flight
    }

    /// Ends a flight whose lock was held by somebody: the node is due still, and waits apart. Returns the flight's reference.
    pub(crate) fn contend(&mut self, flight: Flight) -> Ref {
        let node = flight.end(&mut self.key);
        if let Some(mut open) = node.open(&mut self.key) {
            let tag = open.tag();
            open.set_tag(tag.with_state(State::Due).with(Tag::CONTENDED));
            // SAFETY: in flight it was in no list; ours.
            unsafe { self.contended[node.kind() as usize].push(open.links()) };
        }
        node
    }

    /// Puts some of those that wait apart back in line. Returns which levels have something new, and whether more wait.
    pub(crate) fn retry(&mut self, mut most: usize) -> (u8, bool) {
        let mut levels = 0;
        for kind in 0..LEVELS {
            while let Some(first) = self.contended[kind].first() {
                if most == 0 {
                    return (levels, true);
                }
                most -= 1;
                // SAFETY: linked, so it is there.
                let node = unsafe { Ref::of_linked(first.cast()) };
                // SAFETY: it is in this list.
                unsafe { self.contended[kind].remove(first) };
                if let Some(mut open) = node.open(&mut self.key) {
                    let tag = open.tag();
                    open.set_tag(tag.without(Tag::CONTENDED));
                    // SAFETY: just off its list; ours.
                    unsafe { self.due[kind].push(open.links()) };
                }
                drop(node.release());
                levels |= 1 << kind;
            }
        }
        (levels, false)
    }

    pub(crate) fn has_due(&self, level: Kind) -> bool {
        self.due[level as usize].first().is_some()
    }

    /// How many are armed or due.
    pub(crate) fn armed(&self) -> usize {
        let listed: usize = self.due.iter().chain(&self.contended).map(Line::len).sum();
        self.wheel.armed() + self.deferrable.armed() + listed
    }

    /// When the wheel has to be stepped.
    #[inline]
    pub(crate) fn next_event(&self) -> Option<u64> {
        self.wheel.next_event()
    }

    /// Whether a step at `now` would find anything.
    pub(crate) fn wants_step(&self, now: u64) -> bool {
        let wants = |wheel: &Wheel| wheel.next_event().is_some_and(|at| at <= now);
        wants(&self.wheel) || wants(&self.deferrable)
    }

    pub(crate) fn cascaded(&self) -> u64 {
        self.wheel.cascaded() + self.deferrable.cascaded()
    }
}

/// Arms a node of this shelf, which is idle or in transit. Whether the wheel's next event became earlier.
#[inline]
fn put(wheel: &mut Wheel, mut open: Open<'_>) -> bool {
    let tag = open.tag();
    if open.is_linked() || !matches!(tag.state(), State::Idle | State::Transit) {
        debug_assert!(false, "armed in state {:?}", tag.state());
        return false;
    }
    open.set_tag(tag.with_state(State::Armed));
    // SAFETY: it is in no wheel; while its state is Armed it has this home and is not freed, and its links are reached with our key.
    unsafe { wheel.insert(open.links(), open.deadline()) }
}

/// Makes an armed node idle, whose wheel this is.
#[inline]
fn take_off(wheel: &mut Wheel, mut open: Open<'_>) {
    let tag = open.tag();
    if tag.state() != State::Armed {
        return debug_assert!(false, "taken off in state {:?}", tag.state());
    }
    open.set_tag(tag.with_state(State::Idle));
    // SAFETY: armed, so it is in this wheel.
    unsafe { wheel.remove(open.links()) };
}

/// What a step did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stepped {
    pub(crate) levels: u8,
    pub(crate) touched: usize,
    pub(crate) more: bool,
}
