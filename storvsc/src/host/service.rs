//! A lane's bottom half: completions, notices of the host's, and what is left after a close.

use core::sync::atomic::Ordering;

use undercroft_block::scsi::{Command, HostEvent, Outcome, Response};
use undercroft_block::{Slab, Tag};
use undercroft_hal::BottomHalf;
use undercroft_hal::sync::IrqSpinGuard;
use undercroft_hal::work::Turn;

use super::lane::{Lane, Life, Slot, State};
use super::outcome::{self, Answer, LEAST};
use super::packet::{self, Vstor};
use super::{Ask, Controller, Counters, Place};
use crate::defect::Defect;
use crate::ring::Packet;
use crate::wire::ring::{PacketFlags, PacketType};
use crate::wire::vstor::{Operation, PACKET};

/// Packets taken before others get a turn.
const BUDGET: usize = 64;

/// Words of a vstor packet.
const WORDS: usize = PACKET / 8;

fn bytes(words: [u64; WORDS]) -> Vstor {
    let mut bytes = [0; PACKET];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

impl Controller {
    /// Takes what the host has sent.
    pub(super) fn service(&self, cx: &BottomHalf, lane: &Lane) -> Turn {
        Counters::count(&self.counters.batches);
        let mut budget = BUDGET;
        loop {
            let mut state = lane.state.lock();
            match state.life {
                Life::Running | Life::Starting => {}
                Life::Draining(response) => {
                    drop(state);
                    return self.drain(cx, lane, response);
                }
                // Whoever closes or opens it schedules this when that is done.
                Life::Closing | Life::Vacant => {
                    state.serving = false;
                    // Another channel is this one's CPU's now.
                    let elsewhere = state.life == Life::Vacant && self.open_lanes() > 0;
                    let tells = elsewhere && core::mem::take(&mut state.starved);
                    drop(state);
                    self.tell_end(cx);
                    if tells {
                        self.tell(cx, HostEvent::Room);
                    }
                    return Turn::Done;
                }
            }
            if budget == 0 {
                self.end_batch(cx, state);
                return Turn::Again;
            }
            budget -= 1;
            state.serving = true;
            let Some(rings) = &mut state.rings else { return Turn::Done };
            rings.down.mask();
            match rings.down.peek() {
                Ok(Some(packet)) => {
                    let payload = bytes(rings.down.copy(&packet));
                    rings.down.advance(&packet);
                    self.packet(cx, state, &packet, &payload);
                }
                Ok(None) => match rings.down.rest() {
                    Ok(true) => {
                        self.end_batch(cx, state);
                        return Turn::Done;
                    }
                    Ok(false) => {}
                    Err(breach) => self.breach(&mut state, &breach),
                },
                Err(breach) => self.breach(&mut state, &breach),
            }
        }
    }

    /// The host broke the contract: the controller is not used any more.
    #[cold]
    pub(super) fn breach(&self, state: &mut State, what: &dyn core::fmt::Display) {
        log::error!("storvsc: the host broke its contract: {what}");
        state.broken = true;
        state.life = Life::Closing;
        self.ask(Ask::BROKEN);
    }

    /// A batch ends: what its completions sent is published, a host that waited for room is told, and so is whoever found none.
    fn end_batch(&self, cx: &BottomHalf, mut state: IrqSpinGuard<'_, State>) {
        state.serving = false;
        let depth = usize::from(self.settings.depth);
        let State { rings, slots, starved, life, .. } = &mut *state;
        let Some(rings) = rings else { return };
        let (settled, waits) = (rings.down.settle(), rings.up.is_waiting());
        let room = if waits { rings.up.has_room() } else { Ok(true) };
        let published = rings.up.publish();
        let connection = rings.connection;
        let (settled, room) = match (settled, room) {
            (Ok(settled), Ok(room)) => (settled, room),
            (Err(breach), _) | (_, Err(breach)) => return self.breach(&mut state, &breach),
        };
        let tells = *starved && room && *life == Life::Running && slots.len() < depth;
        if tells {
            *starved = false;
        }
        drop(state);
        self.signal(connection, settled | published);
        if tells {
            self.tell(cx, HostEvent::Room);
        }
    }

    fn packet(&self, cx: &BottomHalf, mut state: IrqSpinGuard<'_, State>, packet: &Packet, payload: &Vstor) {
        match packet.kind {
            PacketType::COMPLETION if packet.len < LEAST => self.breach(&mut state, &"a completion that says nothing"),
            PacketType::COMPLETION => match self.take(&mut state.slots, packet.transaction) {
                Some((_, Slot::Command(command))) => self.completed(cx, state, command, payload),
                Some((tag, Slot::Step)) => state.answer = Some((tag, *payload)),
                Some((_, Slot::Management)) => Counters::count(&self.counters.managed),
                None => self.breach(&mut state, &"a completion of what is not under way"),
            },
            PacketType::IN_BAND => self.notice(cx, state, packet, payload),
            // No storage channel carries others. Passed over, it might be an answer that nobody ever gets.
            _ => self.breach(&mut state, &"a packet of a kind that has no place here"),
        }
    }

    /// Takes out what a transaction is about, if that use of its slot is not over.
    fn take(&self, slots: &mut Slab<Slot>, transaction: u64) -> Option<(Tag, Slot)> {
        let tag = Tag::from_bits(transaction);
        if self.defects.has(Defect::TrustsTransaction) {
            return slots.remove_index(tag.index()).map(|slot| (tag, slot));
        }
        slots.remove(tag).map(|slot| (tag, slot))
    }

    #[inline]
    fn completed(&self, cx: &BottomHalf, mut state: IrqSpinGuard<'_, State>, command: Command, payload: &Vstor) {
        let answer = self.read(&command, payload);
        if self.defects.has(Defect::CompletesUnderLock) {
            return self.finish(cx, command, &answer);
        }
        if self.defects.has(Defect::FreesSlotLate) {
            let kept = state.slots.insert(Slot::Management);
            drop(state);
            self.finish(cx, command, &answer);
            if let (Ok(tag), Some(lane)) = (kept, self.lanes.first()) {
                lane.state.lock().slots.free(tag);
            }
            return;
        }
        drop(state);
        self.finish(cx, command, &answer);
    }

    #[inline]
    fn read(&self, command: &Command, payload: &Vstor) -> Answer {
        const REPORT_LUNS: u8 = 0xa0;
        let ide_scan = self.place != Place::Scsi && command.cdb().opcode() == REPORT_LUNS;
        outcome::read(payload, self.version(), command.bytes(), ide_scan, self.defects)
    }

    #[inline]
    fn finish(&self, cx: &BottomHalf, command: Command, answer: &Answer) {
        Counters::count(&self.counters.completions);
        let Answer { response, status, residual, .. } = *answer;
        command.finish(cx, &Outcome { response, status, sense: answer.sense(), residual });
    }

    /// The host says something that nobody asked for.
    #[cold]
    fn notice(&self, cx: &BottomHalf, mut state: IrqSpinGuard<'_, State>, packet: &Packet, payload: &Vstor) {
        Counters::count(&self.counters.notices);
        if packet.flags.contains(PacketFlags::COMPLETION_WANTED)
            && let Some(rings) = &mut state.rings
        {
            let mut answer = packet::plain(Operation::COMPLETE_IO);
            answer[4] = 0;
            let head = (PacketType::COMPLETION, PacketFlags::empty(), packet.transaction);
            if packet::write_in_band(&mut rings.up, head, &answer[..self.version().packet_bytes()]).is_err() {
                Counters::count(&self.counters.unclear);
            }
        }
        drop(state);
        let [a, b, c, d, ..] = *payload;
        match Operation(u32::from_le_bytes([a, b, c, d])) {
            Operation::ENUMERATE_BUS | Operation::REMOVE_DEVICE => self.tell(cx, HostEvent::Rescan),
            _ => Counters::count(&self.counters.unclear),
        }
    }

    /// Finishes what a closed channel had in flight: first what the host had answered, then the rest.
    fn drain(&self, cx: &BottomHalf, lane: &Lane, response: Response) -> Turn {
        for _ in 0..BUDGET {
            let mut state = lane.state.lock();
            if state.life != Life::Draining(response) {
                return Turn::Done;
            }
            if let Some(rings) = &mut state.rings {
                // A breach ends the answers.
                let packet = rings.down.peek().unwrap_or(None);
                let Some(packet) = packet else {
                    let rings = state.rings.take();
                    drop(state);
                    drop(rings);
                    continue;
                };
                let payload = bytes(rings.down.copy(&packet));
                rings.down.advance(&packet);
                let answered = packet.kind == PacketType::COMPLETION && packet.len >= LEAST;
                if answered && let Some((_, Slot::Command(command))) = self.take(&mut state.slots, packet.transaction) {
                    drop(state);
                    let answer = self.read(&command, &payload);
                    self.finish(cx, command, &answer);
                }
                continue;
            }
            match state.slots.remove_any() {
                Some(Slot::Command(command)) => {
                    drop(state);
                    command.finish(cx, &Outcome::failed(response));
                }
                Some(_) => {}
                None => {
                    state.life = Life::Vacant;
                    state.serving = false;
                    return Turn::Again;
                }
            }
        }
        Turn::Again
    }

    /// Tells once that the controller is gone.
    fn tell_end(&self, cx: &BottomHalf) {
        if self.over.load(Ordering::Acquire) && !self.over_told.swap(true, Ordering::AcqRel) {
            self.tell(cx, HostEvent::Gone);
        }
    }
}
