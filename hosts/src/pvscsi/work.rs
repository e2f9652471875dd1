//! The device's turn: taking requests, performing them, completing them, telling messages, interrupting.

use super::consts::{host, intr};
use super::request::{Done, Request};
use super::{Breach, Fault, Pvscsi};
use crate::Bus;
use crate::virtio::Order;

/// How long a request waits for others that were to overtake it.
const PATIENCE: u64 = 1_000_000;
/// How often a device with a threshold looks at the ring, and how often in a row for nothing.
const POLL: u64 = 50_000;
const POLLS: u32 = 64;

/// A request that the device has taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub request: Request,
    faults: Vec<Fault>,
    due: u64,
    behind: u32,
    patience: u64,
    never: bool,
}

/// When a device with a threshold looks by itself.
#[derive(Debug, Default)]
pub(super) struct Poll {
    left: u32,
    next: u64,
}

impl Pvscsi {
    /// Does what can be done now. Returns whether anything was.
    pub(super) fn turn(&mut self, bus: &Bus<'_>) -> bool {
        if self.rings.is_none() || self.broken || !self.config.bus_master() {
            return false;
        }
        self.try_turn(bus).unwrap_or_else(|breach| {
            self.fail(breach);
            true
        })
    }

    /// A breach after which the device does nothing until it is reset.
    pub(super) fn fail(&mut self, breach: Breach) {
        self.breaches.push(breach);
        self.broken = true;
    }

    fn try_turn(&mut self, bus: &Bus<'_>) -> Result<bool, Breach> {
        if let Some(rings) = &mut self.rings {
            rings.check(bus, &mut self.breaches)?;
        }
        let mut progress = self.poll(bus);
        if self.kicked {
            progress |= self.take(bus, bus.budget())?;
        }
        let mut left = bus.budget();
        while left > 0
            && let Some(at) = self.next_due(bus)
        {
            let Some(taken) = self.taken.remove(at) else { break };
            let done = self.perform(bus, &taken.request, &taken.faults)?;
            self.complete(bus, &taken.request, done, &taken.faults)?;
            progress = true;
            left -= 1;
        }
        progress |= self.tell(bus)?;
        self.interrupt(bus);
        Ok(progress)
    }

    /// A device with a threshold looks by itself, from time to time.
    fn poll(&mut self, bus: &Bus<'_>) -> bool {
        if self.threshold == 0 || self.poll.left == 0 || bus.now() < self.poll.next {
            return false;
        }
        self.poll.left -= 1;
        self.poll.next = bus.now() + POLL;
        self.kicked = true;
        true
    }

    pub(super) fn start_polling(&mut self, bus: &Bus<'_>) {
        self.poll = Poll { left: POLLS, next: bus.now() + POLL };
    }

    /// Takes requests from the ring.
    pub(super) fn take(&mut self, bus: &Bus<'_>, mut budget: usize) -> Result<bool, Breach> {
        let mut progress = false;
        while let Some(rings) = &mut self.rings {
            if budget == 0 {
                return Ok(true);
            }
            budget -= 1;
            let Some(addr) = rings.next_request(bus)? else {
                // The ring is empty: until the next kick there is nothing to look for.
                self.kicked = false;
                break;
            };
            let request = Request::read(bus, addr, &mut self.breaches)?;
            rings.publish_taken(bus)?;
            self.taken_one(bus, request);
            progress = true;
        }
        Ok(progress)
    }

    fn taken_one(&mut self, bus: &Bus<'_>, request: Request) {
        let context = request.context;
        if context == 0 || context > u64::from(u32::MAX) {
            self.breaches.push(Breach::ContextInvalid(context));
        }
        if self.taken.iter().any(|other| other.request.context == context) {
            self.breaches.push(Breach::ContextInUse(context));
        }
        if self.threshold > 0 {
            self.start_polling(bus);
        }
        let faults = self.faults.next().unwrap_or_default();
        let due = bus.now();
        let mut taken = Taken { request, due, behind: 0, patience: due + PATIENCE, never: false, faults };
        for fault in &taken.faults {
            match *fault {
                Fault::Delay(nanos) => taken.due += nanos,
                Fault::Behind(others) => taken.behind = others,
                Fault::Never => taken.never = true,
                Fault::Spurious => self.raise |= intr::COMPLETION,
                _ => {}
            }
        }
        self.taken.push_back(taken);
    }

    fn next_due(&self, bus: &Bus<'_>) -> Option<usize> {
        let now = bus.now();
        let ready = |t: &Taken| !t.never && t.due <= now && (t.behind == 0 || t.patience <= now);
        let mut ready = (0..self.taken.len()).filter(|&at| ready(&self.taken[at]));
        match self.knobs.order {
            Order::Fifo => ready.next(),
            Order::Lifo => ready.next_back(),
            Order::Random => {
                let all: Vec<usize> = ready.collect();
                if all.is_empty() { None } else { Some(all[bus.below(all.len())]) }
            }
        }
    }

    /// Writes the completion, or what the faults make of it.
    fn complete(&mut self, bus: &Bus<'_>, request: &Request, done: Done, faults: &[Fault]) -> Result<(), Breach> {
        let (mut context, mut done, mut times, mut jump, mut quiet) = (request.context, done, 1, 0, false);
        for fault in faults {
            match *fault {
                Fault::SaysMoved(bytes) => done.moved = bytes,
                Fault::SaysSense(bytes) => done.sense = bytes,
                Fault::Duplicate => times = 2,
                Fault::BadContext(other) => context = other,
                Fault::OldContext => context = context.wrapping_sub(1 << 16) & 0xffff_ffff,
                Fault::StaleContext => context = self.last_context,
                Fault::ProducerJump(by) => jump = by,
                Fault::NoInterrupt => quiet = true,
                _ => {}
            }
        }
        let Some(rings) = &mut self.rings else { return Ok(()) };
        for _ in 0..times {
            rings.complete(bus, done.entry(context))?;
        }
        if jump > 0 {
            rings.publish_completed(bus, jump)?;
        }
        self.last_context = request.context;
        self.times.push(bus.now());
        if !quiet {
            self.raise |= intr::COMPLETION;
        }
        for other in &mut self.taken {
            other.behind = other.behind.saturating_sub(1);
        }
        Ok(())
    }

    /// Ends what is meant, without performing it.
    pub(super) fn end(&mut self, bus: &Bus<'_>, status: u16, meant: impl Fn(&Request) -> bool) -> Result<(), Breach> {
        for taken in std::mem::take(&mut self.taken) {
            if meant(&taken.request) {
                self.complete(bus, &taken.request, Done::host(status), &[])?;
            } else {
                self.taken.push_back(taken);
            }
        }
        Ok(())
    }

    /// A target goes away with what it was doing.
    pub(super) fn end_target(&mut self, bus: &Bus<'_>, target: u8) -> Result<(), Breach> {
        self.end(bus, host::ABORT_QUEUE, |request| request.target == target)
    }

    fn tell(&mut self, bus: &Bus<'_>) -> Result<bool, Breach> {
        let mut progress = false;
        for gone in std::mem::take(&mut self.leaving) {
            self.end_target(bus, gone)?;
            progress = true;
        }
        let Some(rings) = &mut self.rings else { return Ok(progress) };
        for message in std::mem::take(&mut self.messages) {
            if rings.tell(bus, &message)? {
                self.raise |= intr::MESSAGE;
            } else {
                self.lost += 1;
            }
            progress = true;
        }
        if self.message_jump > 0 {
            rings.publish_told(bus, std::mem::take(&mut self.message_jump))?;
            self.raise |= intr::MESSAGE;
            progress = true;
        }
        Ok(progress)
    }

    /// When the device next does something by itself.
    pub(super) fn next_time(&self) -> Option<u64> {
        let waits = |taken: &Taken| if taken.behind > 0 { taken.due.max(taken.patience) } else { taken.due };
        let taken = self.taken.iter().filter(|taken| !taken.never).map(waits).min();
        let poll = (self.threshold > 0 && self.poll.left > 0).then_some(self.poll.next);
        if self.rings.is_none() || self.broken { None } else { taken.into_iter().chain(poll).min() }
    }

    /// What the device waits for, in words.
    pub(super) fn words(&self, bus: &Bus<'_>) -> String {
        let never = self.taken.iter().filter(|taken| taken.never).count();
        let mut text = format!("pvscsi, {} in flight ({never} never to be answered)", self.taken.len());
        if let Some(rings) = &self.rings {
            let published = rings.get(bus, super::rings::field::REQ_PROD).unwrap_or_default();
            let waiting = published.wrapping_sub(rings.taken);
            if waiting > 0 && !self.kicked {
                text += &format!(", {waiting} published without a kick");
            }
        }
        if !self.breaches.is_empty() {
            text += &format!(", breaches {:?}", self.breaches);
        }
        text
    }
}
