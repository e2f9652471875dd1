//! A device's turn: taking requests, performing them, giving them back, raising interrupts.

use super::consts::status;
use super::device::{Signal, Taken};
use super::{Breach, Chain, Fault, Model, Order, Outcome, Request, Virtio};
use crate::Bus;

/// How long a request waits for others that were to overtake it.
const PATIENCE: u64 = 1_000_000;

impl<M: Model> Virtio<M> {
    fn running(&self) -> bool {
        self.status & status::DRIVER_OK != 0 && self.status & status::NEEDS_RESET == 0
    }

    /// Does what can be done now. Returns whether anything was.
    pub(super) fn work(&mut self, bus: &Bus<'_>) -> bool {
        if !self.running() {
            return false;
        }
        self.turn(bus).unwrap_or_else(|breach| {
            self.broken(breach);
            true
        })
    }

    fn turn(&mut self, bus: &Bus<'_>) -> Result<bool, Breach> {
        let mut progress = self.take(bus)?;
        let mut left = bus.budget();
        while left > 0
            && let Some(at) = self.next_due(bus)
        {
            let Some(taken) = self.taken.remove(at) else { break };
            self.complete(bus, taken)?;
            progress = true;
            left -= 1;
            if !self.running() {
                return Ok(true);
            }
        }
        progress |= self.deliver_events(bus)?;
        let negotiated = self.negotiated();
        for queue in self.queues.iter_mut().filter(|queue| queue.enabled && queue.unsignalled()) {
            if queue.wants_interrupt(bus, negotiated)? {
                self.interrupts += 1;
                self.signals.push(Signal::Queue(queue.number));
            }
        }
        Ok(progress)
    }

    /// Takes chains from the queues that were notified.
    fn take(&mut self, bus: &Bus<'_>) -> Result<bool, Breach> {
        let negotiated = self.negotiated();
        let mut progress = false;
        for number in 0..self.queues.len() {
            let mut left = bus.budget();
            while self.queues[number].active {
                let queue = &mut self.queues[number];
                queue.quiet(bus, negotiated)?;
                if left == 0 {
                    break;
                }
                match queue.fetch(bus, negotiated)? {
                    Some(chain) => self.taken_one(bus, number as u16, chain),
                    // Only once it is armed again, and nothing came meanwhile, may the device rest.
                    None => queue.active = queue.rearm(bus, negotiated)?,
                }
                left -= 1;
                progress = true;
            }
        }
        Ok(progress)
    }

    fn taken_one(&mut self, bus: &Bus<'_>, queue: u16, chain: Chain) {
        let scripted = self.model.scripted(queue);
        let faults = if scripted { self.faults.next().unwrap_or_default() } else { Vec::new() };
        let mut taken =
            Taken { queue, chain, due: bus.now(), behind: 0, patience: bus.now() + PATIENCE, never: false, faults };
        for fault in &taken.faults {
            match *fault {
                Fault::Delay(nanos) => taken.due += nanos,
                Fault::Behind(others) => taken.behind = others,
                Fault::Never => taken.never = true,
                Fault::Spurious => self.signals.push(Signal::Queue(queue)),
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

    fn complete(&mut self, bus: &Bus<'_>, taken: Taken) -> Result<(), Breach> {
        let Taken { queue: number, chain, faults, .. } = taken;
        if faults.contains(&Fault::NeedsReset) {
            self.needs_reset();
            return Ok(());
        }
        let index = usize::from(number);
        if let Some(slot) = self.queues[index].changed(bus, &chain)? {
            self.breaches.push(Breach::DescriptorChanged(number, slot));
        }
        let mut request = Request { bus, chain: &chain, breaches: &mut self.breaches };
        let len = match self.model.execute(number, &mut request, &faults)? {
            Outcome::Done(len) => len,
            Outcome::Keep => {
                self.kept[index].push_back(chain);
                return Ok(());
            }
            Outcome::DoneAfter(cancel, len) => {
                self.cancel(bus, &cancel)?;
                len
            }
        };
        self.give_back(bus, number, &chain, len, &faults)
    }

    fn cancel(&mut self, bus: &Bus<'_>, cancel: &super::Cancel) -> Result<(), Breach> {
        for taken in std::mem::take(&mut self.taken) {
            let mut request = Request { bus, chain: &taken.chain, breaches: &mut self.breaches };
            match self.model.cancel(taken.queue, &mut request, cancel)? {
                Some(len) => self.give_back(bus, taken.queue, &taken.chain, len, &[])?,
                None => self.taken.push_back(taken),
            }
        }
        Ok(())
    }

    /// Writes the used entry, or what the faults make of it.
    fn give_back(
        &mut self,
        bus: &Bus<'_>,
        number: u16,
        chain: &Chain,
        len: u32,
        faults: &[Fault],
    ) -> Result<(), Breach> {
        let queue = &mut self.queues[usize::from(number)];
        let (mut id, mut len, mut times, mut jump, mut gives) = (u32::from(chain.head), len, 1, 0, true);
        for fault in faults {
            match *fault {
                Fault::Short(by) => len = len.saturating_sub(by),
                Fault::TooLong(by) => len = (chain.writable() as u32).saturating_add(by),
                Fault::Duplicate => times = 2,
                Fault::IndexJump(by) => jump = by,
                Fault::BadId => (id, gives) = (u32::from(queue.size) + id, false),
                Fault::IdleId => {
                    // With every descriptor in flight there is none to lie about.
                    if let Some(idle) = queue.idle_descriptor() {
                        (id, gives) = (u32::from(idle), false);
                    }
                }
                _ => {}
            }
        }
        if gives {
            queue.release(chain);
            self.completed += 1;
        }
        for _ in 0..times {
            queue.push(bus, id, len, chain.places)?;
        }
        if jump > 0 {
            queue.publish(bus, jump)?;
        }
        if faults.contains(&Fault::NoInterrupt) {
            queue.wants_interrupt(bus, super::queue::Negotiated::default())?;
        }
        for other in self.taken.iter_mut().filter(|taken| taken.queue == number) {
            other.behind = other.behind.saturating_sub(1);
        }
        Ok(())
    }

    fn deliver_events(&mut self, bus: &Bus<'_>) -> Result<bool, Breach> {
        let mut progress = false;
        loop {
            let kept = &self.kept;
            let room = |queue: u16| kept.get(usize::from(queue)).is_some_and(|kept| !kept.is_empty());
            let Some((number, bytes)) = self.model.event(&room) else { return Ok(progress) };
            let Some(chain) = self.kept[usize::from(number)].pop_front() else { return Ok(progress) };
            let len = bytes.len().min(chain.writable() as usize);
            Request { bus, chain: &chain, breaches: &mut self.breaches }.write(0, &bytes[..len])?;
            self.give_back(bus, number, &chain, len as u32, &[])?;
            progress = true;
        }
    }

    /// When the device next does something by itself.
    pub(super) fn due(&self) -> Option<u64> {
        let waits = |taken: &Taken| if taken.behind > 0 { taken.due.max(taken.patience) } else { taken.due };
        let taken = self.taken.iter().filter(|taken| !taken.never).map(waits).min();
        if self.running() { taken } else { None }
    }

    /// What the device waits for, in words.
    pub(super) fn diagnose(&self, bus: &Bus<'_>) -> String {
        let mut text = format!("virtio {}, status {:#04x}", self.model.device_id(), self.status);
        for queue in self.queues.iter().filter(|queue| queue.enabled) {
            let taken = self.taken.iter().filter(|taken| taken.queue == queue.number).count();
            let never = self.taken.iter().filter(|taken| taken.queue == queue.number && taken.never).count();
            let waiting = queue.waiting(bus).unwrap_or_default();
            text += &format!(", queue {}: {taken} in flight ({never} never to be answered)", queue.number);
            if waiting > 0 && !queue.active {
                text += &format!(", {waiting} published without a notification");
            }
        }
        if !self.breaches.is_empty() {
            text += &format!(", breaches {:?}", self.breaches);
        }
        text
    }
}
