//! The host's turn: xenstore, back ends, their rings.

use super::Xen;
use super::consts::state;
use super::fault::{Event, Fault};
use super::request::{Reach, Request};
use super::ring::{Reply, Taken};
use crate::Bus;
use crate::virtio::Order;

/// How long a request waits for others that were to overtake it: a millisecond.
const PATIENCE: u64 = 1_000_000;

impl Xen {
    /// Whether a notification of the guest's tells nothing new.
    pub(super) fn is_needless(&mut self, bus: &Bus<'_>, port: u32) -> bool {
        let rings = self.vbds.iter_mut().flat_map(|vbd| &mut vbd.rings);
        rings.filter(|ring| ring.port == port).any(|ring| !ring.has_news(bus))
    }

    /// Does what can be done now: takes at most `budget` requests of each ring and completes at most as many. Returns whether anything was
    /// done.
    pub fn work(&mut self, bus: &Bus<'_>, budget: usize) -> bool {
        let mut progress = self.ports.work(bus, &mut self.log);
        progress |= self.serve_store(bus, budget);
        for index in 0..self.vbds.len() {
            progress |= self.lay_ghosts(bus, index);
            progress |= self.step_backend(bus, index);
            for ring in 0..self.vbds[index].rings.len() {
                progress |= self.serve_ring(bus, (index, ring), budget);
            }
        }
        // What back ends have said.
        progress |= self.send_store(bus);
        if progress {
            self.grants.check(&mut self.log);
        }
        progress
    }

    /// When there is next something to do without being asked.
    pub fn due(&self, now: u64) -> Option<u64> {
        let of_rings = self.vbds.iter().flat_map(|vbd| &vbd.rings).filter(|ring| !ring.dead);
        let taken = of_rings.flat_map(|ring| &ring.taken).filter(|taken| !taken.never);
        let requests = taken.map(|taken| if taken.behind > 0 { taken.due.max(taken.patience) } else { taken.due });
        let steps = self.vbds.iter().map(|vbd| vbd.next);
        let ghosts = self.vbds.iter().flat_map(|vbd| &vbd.ghosts).map(|(at, _)| *at);
        let others = self.ports.due().into_iter().chain(self.server.due());
        requests.chain(steps).chain(ghosts).chain(others).filter(|at| *at > now).min()
    }

    fn serve_store(&mut self, bus: &Bus<'_>, budget: usize) -> bool {
        let port = self.store_port;
        self.server.kicked |= self.ports.take_sent(|sent| sent == port);
        let (mut progress, mut took) = (false, false);
        for _ in 0..budget {
            let (message, taken) = self.server.take(bus, &mut self.log);
            progress |= taken;
            took |= taken;
            match message {
                Some(message) => {
                    self.answer(bus, &message);
                    self.step(bus);
                }
                None if !taken => break,
                None => {}
            }
        }
        if took {
            // There is room.
            self.notify(bus, port);
        }
        self.send_store(bus) || progress
    }

    fn send_store(&mut self, bus: &Bus<'_>) -> bool {
        let (sent, notify) = self.server.send(bus, &mut self.log);
        if notify {
            self.notify(bus, self.store_port);
        }
        sent
    }

    pub(super) fn notify(&mut self, bus: &Bus<'_>, port: u32) {
        self.ports.notify(bus, port, &mut self.faults.notifications, &mut self.log);
    }

    fn serve_ring(&mut self, bus: &Bus<'_>, at: (usize, usize), budget: usize) -> bool {
        let port = self.vbds[at.0].rings[at.1].port;
        let sent = self.ports.take_sent(|sent| sent == port);
        self.vbds[at.0].rings[at.1].kicked |= sent;
        let mut progress = false;
        for _ in 0..budget {
            // A script may take the ring away.
            if !self.take_one(bus, at) {
                break;
            }
            progress = true;
        }
        let mut left = budget;
        while left > 0
            && let Some(next) = self.next_due(bus, at)
        {
            self.complete(bus, at, next);
            (left, progress) = (left - 1, true);
        }
        let Some(ring) = self.vbds[at.0].rings.get_mut(at.1) else { return true };
        match ring.flush(bus) {
            Ok((sent, notify)) => {
                self.log.counts.responses += sent;
                match notify {
                    Some(Some(when)) => self.ports.notify_at(when, port),
                    Some(None) => self.notify(bus, port),
                    None => {}
                }
            }
            Err(breach) => ring.kill(breach, &mut self.log),
        }
        progress
    }

    /// Takes a request from a ring.
    fn take_one(&mut self, bus: &Bus<'_>, (index, queue): (usize, usize)) -> bool {
        let Some(vbd) = self.vbds.get_mut(index) else { return false };
        if queue >= vbd.rings.len() {
            return false;
        }
        // Apart from its disk for as long as the request is looked at.
        let mut ring = vbd.rings.remove(queue);
        let taken = match ring.take(bus) {
            Ok(taken) => taken,
            Err(breach) => {
                ring.kill(breach, &mut self.log);
                None
            }
        };
        let Some(bytes) = taken else {
            vbd.rings.insert(queue, ring);
            return false;
        };
        self.log.counts.taken += 1;
        let mut reach = Reach { bus, grants: &mut self.grants, log: &mut self.log };
        let request = Request::parse(&mut reach, vbd, &mut ring, &bytes);
        let due = bus.now();
        let faults = self.faults.requests.next().unwrap_or_default();
        let mut taken = Taken { request, faults, due, behind: 0, patience: due + PATIENCE, never: false };
        let mut spurious = false;
        for fault in &taken.faults {
            match *fault {
                Fault::Delay(nanos) => taken.due += nanos,
                Fault::Behind(others) => taken.behind = others,
                Fault::Never => taken.never = true,
                Fault::Spurious => spurious = true,
                _ => {}
            }
        }
        let port = ring.port;
        ring.taken.push(taken);
        vbd.rings.insert(queue, ring);
        if spurious {
            self.notify(bus, port);
        }
        self.step(bus);
        true
    }

    fn next_due(&mut self, bus: &Bus<'_>, (index, queue): (usize, usize)) -> Option<usize> {
        let ring = self.vbds.get(index)?.rings.get(queue).filter(|ring| !ring.dead)?;
        let now = bus.now();
        let ready = |taken: &Taken| !taken.never && taken.due <= now && (taken.behind == 0 || taken.patience <= now);
        let all: Vec<usize> = (0..ring.taken.len()).filter(|&at| ready(&ring.taken[at])).collect();
        match self.knobs.order {
            Order::Fifo => all.first().copied(),
            Order::Lifo => all.last().copied(),
            Order::Random if all.is_empty() => None,
            Order::Random => Some(all[bus.below(all.len())]),
        }
    }

    /// Performs a request and queues the answer, or what the faults make of it.
    fn complete(&mut self, bus: &Bus<'_>, (index, queue): (usize, usize), at: usize) {
        let vbd = &mut self.vbds[index];
        let taken = vbd.rings[queue].taken.remove(at);
        let said = taken.faults.iter().find_map(|fault| match fault {
            Fault::Status(status) => Some(*status),
            _ => None,
        });
        let status = said.unwrap_or_else(|| taken.request.perform(bus, &vbd.disk, &vbd.shape, &mut self.log));
        for (reference, writes) in &taken.request.held {
            self.grants.unmap(*reference, *writes, &mut self.log);
        }
        let ring = &mut vbd.rings[queue];
        let stale = std::mem::replace(&mut ring.last_id, taken.request.id);
        let shown = if self.knobs.answers_indirect { taken.request.operation } else { taken.request.does };
        let mut reply = Reply { id: taken.request.id, operation: shown, status, quiet: false, late: None, jump: None };
        let mut times = 1;
        for fault in &taken.faults {
            match *fault {
                Fault::SaysStatus(status) => reply.status = status,
                Fault::Id(id) => reply.id = id,
                Fault::IdBits(bits) => reply.id ^= bits,
                Fault::StaleId => reply.id = stale,
                Fault::Duplicate => times = 2,
                Fault::Operation(operation) => reply.operation = operation,
                Fault::Producer(by) => reply.jump = Some(by),
                Fault::NoEvent => reply.quiet = true,
                Fault::LateEvent(nanos) => reply.late = Some(nanos),
                Fault::TouchesLate if vbd.persistent => taken.request.touch(bus, &mut self.log),
                _ => {}
            }
        }
        for _ in 0..times {
            let Reply { id, operation, status, quiet, late, jump } = reply;
            ring.replies.push_back(Reply { id, operation, status, quiet, late, jump });
        }
        for other in &mut ring.taken {
            other.behind = other.behind.saturating_sub(1);
        }
    }

    /// What back ends that died have left: they write to it once more, and let go of it.
    fn lay_ghosts(&mut self, bus: &Bus<'_>, index: usize) -> bool {
        let ghosts = std::mem::take(&mut self.vbds[index].ghosts);
        let (over, rest): (Vec<_>, Vec<_>) = ghosts.into_iter().partition(|(at, _)| *at <= bus.now());
        self.vbds[index].ghosts = rest;
        let any = !over.is_empty();
        for (_, ring) in over {
            ring.taken.iter().for_each(|taken| taken.request.touch(bus, &mut self.log));
            self.let_go(ring);
        }
        any
    }

    /// A step is over: what the script has for it happens.
    fn step(&mut self, bus: &Bus<'_>) {
        self.log.counts.steps += 1;
        for event in self.faults.events.next().unwrap_or_default() {
            self.happen(bus, event);
        }
    }

    /// Has something happen now.
    pub fn happen(&mut self, bus: &Bus<'_>, event: Event) {
        let index = match event {
            Event::FireWatches => {
                for watch in self.server.watches.clone() {
                    self.server.event(bus.now(), &watch.said, &watch.token, &mut self.log);
                }
                return;
            }
            Event::Says(index, _)
            | Event::Detach(index)
            | Event::Kill(index)
            | Event::Restart(index)
            | Event::Close(index)
            | Event::Vanish(index)
            | Event::Resize(index, _)
            | Event::Notify(index) => index,
        };
        if self.vbds.get(index).is_none_or(|vbd| vbd.state.is_none() && !matches!(event, Event::Restart(_))) {
            return;
        }
        let state_path = format!("{}/state", self.back_path(index));
        match event {
            Event::Says(_, state) => self.server.set(bus.now(), &state_path, state, &mut self.log),
            Event::Detach(_) => {
                self.vbds[index].online = false;
                let path = format!("{}/online", self.back_path(index));
                self.server.set(bus.now(), &path, 0, &mut self.log);
                self.go(bus, index, state::CLOSING);
            }
            Event::Close(_) => self.go(bus, index, state::CLOSING),
            Event::Kill(_) => self.die(bus, index),
            Event::Restart(_) => {
                self.die(bus, index);
                // What the front end said to the one before is not for this one.
                self.vbds[index].front = state::UNKNOWN;
                self.go(bus, index, state::INITIALISING);
            }
            Event::Vanish(_) => {
                self.die(bus, index);
                self.forget(bus, index);
            }
            Event::Resize(_, sectors) => {
                let vbd = &mut self.vbds[index];
                vbd.disk.resize(sectors);
                vbd.most_sectors = vbd.most_sectors.max(sectors);
                let connected = vbd.state == Some(state::CONNECTED);
                let path = format!("{}/sectors", self.back_path(index));
                self.server.set(bus.now(), &path, sectors, &mut self.log);
                if connected {
                    // Said again, so that the watch on it fires.
                    self.server.set(bus.now(), &state_path, state::CONNECTED, &mut self.log);
                }
            }
            Event::Notify(_) => {
                let ports: Vec<u32> = self.vbds[index].rings.iter().map(|ring| ring.port).collect();
                ports.into_iter().for_each(|port| self.notify(bus, port));
            }
            Event::FireWatches => {}
        }
    }

    /// The back end dies.
    fn die(&mut self, bus: &Bus<'_>, index: usize) {
        let until = bus.now() + self.knobs.lingers;
        self.vbds[index].state = None;
        for ring in std::mem::take(&mut self.vbds[index].rings) {
            if self.knobs.lingers > 0 {
                self.unbind(ring.port);
                self.vbds[index].ghosts.push((until, ring));
            } else {
                ring.taken.iter().for_each(|taken| taken.request.touch(bus, &mut self.log));
                self.let_go(ring);
            }
        }
    }

    /// What the host knows of a guest that hangs.
    pub fn words(&self) -> String {
        let mut text = format!("breaches {:?}, {:?}", self.log.breaches, self.log.counts);
        for vbd in &self.vbds {
            let rings: Vec<_> = vbd.rings.iter().map(|ring| (ring.kicked, ring.taken.len(), ring.dead)).collect();
            text += &format!("; vbd {} back {:?} front {} rings {rings:?}", vbd.number, vbd.state, vbd.front);
        }
        text
    }
}
