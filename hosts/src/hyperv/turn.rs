//! The host's turn: taking packets, performing requests, sending answers.

use super::channel::{Open, Outbound, Taken};
use super::consts::{call, packet};
use super::messages::patch;
use super::srb::Work;
use super::{Breach, Fault, Guest, Hyperv};
use crate::virtio::Order;

/// How long a request waits for others that were to overtake it: a millisecond.
const PATIENCE: u64 = 10_000;

/// A packet's bytes: header and padded payload, and what goes wrong with it.
pub(super) fn bytes(kind: u16, flags: u16, transaction: u64, payload: &[u8], faults: &[Fault]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let (mut kind, mut transaction) = (kind, transaction);
    let (mut says_len, mut says_offset) = (None, None);
    for fault in faults {
        match *fault {
            Fault::BadTransaction(other) => transaction = other,
            Fault::Truncate(len) => payload.truncate(usize::from(len)),
            Fault::Oversize(more) => payload.extend(vec![0xee; usize::from(more)]),
            Fault::SaysLength(words) => says_len = Some(words),
            Fault::SaysOffset(words) => says_offset = Some(words),
            Fault::Kind(other) => kind = other,
            Fault::Operation(operation) if payload.len() >= 4 => {
                payload[..4].copy_from_slice(&operation.to_le_bytes());
            }
            _ => {}
        }
    }
    payload.resize(payload.len().next_multiple_of(8), 0);
    let len = says_len.unwrap_or((16 + payload.len()) as u16 / 8);
    let header = [kind, says_offset.unwrap_or(2), len, flags].map(u16::to_le_bytes).concat();
    let mut whole = [header, transaction.to_le_bytes().to_vec(), payload].concat();
    for fault in faults {
        if let Fault::Patch(at, word) = *fault {
            patch(&mut whole, at, word);
        }
    }
    whole
}

impl Hyperv {
    /// The guest signals a connection.
    pub(super) fn signalled(&mut self, guest: &dyn Guest, connection: u32) -> u16 {
        let of = |open: &Open| open.signal == connection;
        let found = self.channels.values_mut().find(|channel| channel.open.as_ref().is_some_and(of));
        let Some(channel) = found else {
            // One that was rescinded may still be signalled until the guest has released it.
            let released = !self.channels.values().any(|c| c.rescinded && c.id == connection & 0x7ff);
            if released {
                self.breaches.push(Breach::SignalConnection(connection));
            }
            return if released { call::INVALID_CONNECTION } else { call::OK };
        };
        let (id, Some(open)) = (channel.id, &mut channel.open) else { return call::OK };
        if open.dead {
            return call::OK;
        }
        let looked = open.incoming.waiting(guest).and_then(|waiting| Ok((waiting, open.outgoing.room_came(guest)?)));
        match looked {
            Ok((waiting, room)) => {
                let needed = room && !open.room || waiting && !open.kicked && !open.incoming.masked();
                open.room |= room;
                open.kicked |= waiting;
                if !needed {
                    self.counts.needless_signals += 1;
                }
            }
            Err(breach) => self.kill(id, breach),
        }
        call::OK
    }

    /// A breach after which a channel answers nothing until it is closed.
    fn kill(&mut self, id: u32, breach: Breach) {
        self.breaches.push(breach);
        if let Some(open) = self.channels.get_mut(&id).and_then(|channel| channel.open.as_mut()) {
            open.dead = true;
        }
    }

    /// Does what can be done now: takes at most `budget` packets of each channel and completes at most as many requests. Returns whether
    /// anything was done.
    pub fn work(&mut self, guest: &dyn Guest, budget: usize) -> bool {
        self.look_at_slots(guest);
        let mut progress = self.fire_timers(guest);
        progress |= self.send_late(guest);
        progress |= self.end_gpadls(guest);
        progress |= self.offer_sub_channels(guest);
        for id in self.channels.keys().copied().collect::<Vec<_>>() {
            match self.turn(guest, id, budget) {
                Ok(did) => progress |= did,
                Err(breach) => self.kill(id, breach),
            }
        }
        progress
    }

    pub(super) fn live(&mut self, id: u32) -> Option<&mut Open> {
        self.channels.get_mut(&id)?.open.as_mut().filter(|open| !open.dead)
    }

    fn turn(&mut self, guest: &dyn Guest, id: u32, budget: usize) -> Result<bool, Breach> {
        let Some(open) = self.live(id) else { return Ok(false) };
        open.incoming.check(guest)?;
        open.outgoing.check(guest)?;
        let mut progress = false;
        if open.unstick.is_some_and(|at| at <= guest.now()) {
            open.unstick = None;
            open.kicked |= open.incoming.waiting(guest)?;
        }
        progress |= self.take(guest, id, budget)?;
        let mut left = budget;
        while left > 0
            && let Some(at) = self.next_due(guest, id)
        {
            let Some(open) = self.live(id) else { break };
            let taken = open.taken.remove(at);
            let payload = self.perform(guest, id, &taken);
            self.complete(id, &taken, &payload);
            progress = true;
            left -= 1;
        }
        progress |= self.flush(guest, id)?;
        Ok(progress)
    }

    /// Takes packets from a channel that was signalled.
    fn take(&mut self, guest: &dyn Guest, id: u32, budget: usize) -> Result<bool, Breach> {
        let (depth, poll_depth) = (self.knobs.depth, self.knobs.poll_depth);
        let mut progress = false;
        for _ in 0..budget {
            let Some(open) = self.live(id).filter(|open| open.kicked && open.taken.len() < depth) else { break };
            if !open.incoming.masked() {
                open.incoming.set_mask(guest, true)?;
            }
            let Some((packet, wants_signal)) = open.incoming.next(guest)? else {
                // Empty: the next signal wakes the host, or the next completion if it polls.
                open.kicked = false;
                if poll_depth.is_none_or(|depth| open.taken.len() < depth) {
                    open.incoming.set_mask(guest, false)?;
                    open.kicked = open.incoming.waiting(guest)?;
                }
                if open.kicked {
                    continue;
                }
                break;
            };
            self.counts.taken += 1;
            progress = true;
            if wants_signal {
                self.signal(guest, id);
            }
            self.accept(guest, id, &packet)?;
            self.step(guest);
        }
        Ok(progress)
    }

    fn accept(&mut self, guest: &dyn Guest, id: u32, packet: &super::ring::Packet) -> Result<(), Breach> {
        let Some(work) = self.begin(guest, id, packet)? else { return Ok(()) };
        let faults = self.faults.packets.next().unwrap_or_default();
        let transaction = packet.transaction;
        let opens = self.channels.values().filter_map(|channel| channel.open.as_ref());
        if opens.flat_map(|open| &open.taken).any(|other| other.transaction == transaction) {
            self.breaches.push(Breach::TransactionInUse(transaction));
        }
        let due = guest.now();
        let mut taken = Taken { transaction, work, faults, due, behind: 0, patience: due + PATIENCE, never: false };
        for fault in taken.faults.clone() {
            match fault {
                Fault::Delay(units) => taken.due += units,
                Fault::Behind(others) => taken.behind = others,
                Fault::Never | Fault::Stop => taken.never = true,
                Fault::Spurious => self.signal(guest, id),
                Fault::Unsolicited(operation) => self.unsolicited(id, operation, false),
                _ => {}
            }
        }
        let stops = taken.faults.contains(&Fault::Stop);
        if let Some(open) = self.live(id) {
            open.taken.push(taken);
            open.dead = stops;
        }
        Ok(())
    }

    fn next_due(&mut self, guest: &dyn Guest, id: u32) -> Option<usize> {
        let now = guest.now();
        let ready = |t: &Taken| !t.never && t.due <= now && (t.behind == 0 || t.patience <= now);
        let taken = &self.channels.get(&id)?.open.as_ref().filter(|open| !open.dead)?.taken;
        let all: Vec<usize> = (0..taken.len()).filter(|&at| ready(&taken[at])).collect();
        match self.knobs.order {
            Order::Fifo => all.first().copied(),
            Order::Lifo => all.last().copied(),
            Order::Random if all.is_empty() => None,
            Order::Random => Some(all[self.random.below(all.len())]),
        }
    }

    /// Queues the answer, or what the faults make of it.
    pub(super) fn complete(&mut self, id: u32, taken: &Taken, payload: &[u8]) {
        let last = std::mem::replace(&mut self.last_transaction, taken.transaction);
        let (mut transaction, mut times, mut index, mut quiet) = (taken.transaction, 1, None, false);
        let mut poke = None;
        for fault in &taken.faults {
            match *fault {
                Fault::StaleTransaction => transaction = last,
                Fault::Duplicate => times = 2,
                Fault::Index(offset) => index = Some(offset),
                Fault::NoSignal => quiet = true,
                Fault::Poke(field, value) => poke = Some((field, value)),
                _ => {}
            }
        }
        let bytes = bytes(packet::COMPLETION, 0, transaction, payload, &taken.faults);
        let polls = self.knobs.poll_depth.is_some();
        let Some(open) = self.live(id) else { return };
        for _ in 0..times {
            open.outbox.push_back(Outbound { bytes: bytes.clone(), index, poke, quiet });
        }
        open.kicked |= polls && open.incoming.masked();
        for other in &mut open.taken {
            other.behind = other.behind.saturating_sub(1);
        }
    }

    /// Sends what waits to be sent, as one batch.
    fn flush(&mut self, guest: &dyn Guest, id: u32) -> Result<bool, Breach> {
        let Some(open) = self.live(id) else { return Ok(false) };
        if open.outbox.is_empty() || open.outgoing.waits() && !open.room {
            return Ok(false);
        }
        open.room = false;
        let (mut sent, mut quiet, mut full, mut poke) = (0, false, false, None);
        while let Some(next) = open.outbox.front() {
            if let Some(offset) = next.index {
                open.outgoing.lie(guest, offset)?;
                open.outbox.pop_front();
                // The lie stays: from now on the channel is of no use.
                open.dead = true;
                self.signal(guest, id);
                return Ok(true);
            }
            if open.outgoing.put(guest, &next.bytes)?.is_none() {
                full = true;
                break;
            }
            quiet |= next.quiet;
            poke = next.poke.or(poke);
            open.outbox.pop_front();
            sent += 1;
        }
        let signal = open.outgoing.publish(guest)? && !quiet;
        match poke {
            Some((field @ 0..4, value)) => open.outgoing.poke(guest, field, value)?,
            Some((field, value)) => open.incoming.poke(guest, field, value)?,
            None => {}
        }
        self.counts.sent += sent;
        self.counts.ring_full += u64::from(full);
        if signal {
            self.signal(guest, id);
        }
        Ok(sent > 0)
    }

    /// Signals a channel.
    fn signal(&mut self, guest: &dyn Guest, id: u32) {
        self.counts.channel_signals += 1;
        let sint = self.messages_to.1;
        let open = self.channels.get(&id).and_then(|channel| channel.open.as_ref());
        if let Some((vp, flag)) = open.and_then(|open| Some((open.vp?, open.flag))) {
            self.set_flag(guest, vp, sint, flag);
        }
    }

    /// The last touch of memory that the requests of a closed channel name: what a slow device does just before the guest is told that it may
    /// have its memory back.
    pub(super) fn settle(&mut self, guest: &dyn Guest, id: u32) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        for taken in std::mem::take(&mut channel.orphans) {
            let Work::Command(srb) = &taken.work else { continue };
            let touched = srb.fetch(guest, srb.len).and_then(|data| {
                let late = vec![0xdb; data.len()];
                if srb.reads { srb.fill(guest, &late) } else { Ok(()) }
            });
            if let Err(bad) = touched {
                self.breaches.push(bad.into());
            }
        }
    }
}
