//! A processor's synthetic interrupt controller: message slots, event flags, timers.
//!
//! Source: TLFS 6.0b, chapters 11 and 12; `hyperv.md` 3.2 and 3.4 of the project's notes on the interface.

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use super::consts::{PAGE, sint, slot};
use super::{BadGpa, Breach, Guest, Hyperv, Interrupt};

const SINTS: usize = 16;
const SLOT: u64 = 256;
/// The flag that says that another message waits: bit 0 of the byte at 5.
const PENDING: u32 = 1 << 8;

/// A message for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotMessage {
    pub kind: u32,
    pub payload: Vec<u8>,
    /// What it says its length is.
    pub says: u8,
}

/// A page of the hypervisor's that lies over the guest's memory while it is enabled.
#[derive(Debug)]
struct Overlay {
    register: u64,
    content: Vec<u8>,
}

impl Default for Overlay {
    fn default() -> Self {
        Self { register: 0, content: vec![0; PAGE as usize] }
    }
}

impl Overlay {
    fn base(&self) -> Option<u64> {
        (self.register & 1 != 0).then_some(self.register & !(PAGE - 1))
    }

    fn set(&mut self, guest: &dyn Guest, value: u64) -> Result<(), BadGpa> {
        if let Some(base) = self.base() {
            guest.read(base, &mut self.content)?;
        }
        self.register = value;
        match self.base() {
            Some(base) => guest.write(base, &self.content),
            None => Ok(()),
        }
    }
}

/// A synthetic timer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timer {
    pub config: u64,
    pub count: u64,
    /// When it fires next.
    due: Option<u64>,
}

impl Timer {
    const ENABLE: u64 = 1;
    const PERIODIC: u64 = 2;
    const AUTO_ENABLE: u64 = 8;
    const DIRECT: u64 = 1 << 12;

    fn arm(&mut self, now: u64) {
        let on = self.config & Self::ENABLE != 0 && self.count != 0;
        let periodic = self.config & Self::PERIODIC != 0;
        self.due = on.then_some(if periodic { now.saturating_add(self.count) } else { self.count });
    }

    fn set_config(&mut self, value: u64, now: u64) {
        self.config = value;
        self.arm(now);
    }

    fn set_count(&mut self, value: u64, now: u64) {
        self.count = value;
        if value == 0 {
            self.config &= !Self::ENABLE;
        } else if self.config & Self::AUTO_ENABLE != 0 {
            self.config |= Self::ENABLE;
        }
        self.arm(now);
    }
}

/// A processor.
#[derive(Debug)]
pub(super) struct Vp {
    pub scontrol: u64,
    siefp: Overlay,
    simp: Overlay,
    sints: [u64; SINTS],
    timers: [Timer; 4],
    queues: [VecDeque<SlotMessage>; SINTS],
    /// The slots that hold a message that the guest has not been seen to take.
    filled: [bool; SINTS],
}

impl Default for Vp {
    fn default() -> Self {
        let masked = [sint::MASKED; SINTS];
        let (queues, timers, filled) = Default::default();
        Self { scontrol: 0, siefp: Overlay::default(), simp: Overlay::default(), sints: masked, timers, queues, filled }
    }
}

impl Vp {
    pub fn sint(&self, number: usize) -> u64 {
        self.sints[number]
    }

    pub fn simp(&self) -> u64 {
        self.simp.register
    }

    pub fn siefp(&self) -> u64 {
        self.siefp.register
    }

    pub fn timer(&self, number: usize) -> &Timer {
        &self.timers[number]
    }

    /// Where messages for a SINT go, if they can.
    fn slot(&self, number: usize) -> Option<u64> {
        let on = self.scontrol & 1 != 0 && self.sints[number] & sint::MASKED == 0;
        self.simp.base().filter(|_| on).map(|base| base + number as u64 * SLOT)
    }

    fn waiting(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_empty())
    }
}

impl Hyperv {
    pub(super) fn set_scontrol(&mut self, guest: &dyn Guest, vp: u32, value: u64) {
        self.vps[vp as usize].scontrol = value;
        self.deliver(guest, vp);
    }

    pub(super) fn set_simp(&mut self, guest: &dyn Guest, vp: u32, value: u64) {
        let first = self.vps[vp as usize].simp.register == 0 && value & 1 != 0;
        if let Err(bad) = self.vps[vp as usize].simp.set(guest, value) {
            self.breaches.push(bad.into());
        }
        if first && vp == 0 {
            for payload in std::mem::take(&mut self.knobs.left_over) {
                self.post(vp, 2, slot::VMBUS, payload);
            }
        }
        self.deliver(guest, vp);
    }

    pub(super) fn set_siefp(&mut self, guest: &dyn Guest, vp: u32, value: u64) {
        if let Err(bad) = self.vps[vp as usize].siefp.set(guest, value) {
            self.breaches.push(bad.into());
        }
    }

    pub(super) fn set_sint(&mut self, guest: &dyn Guest, vp: u32, number: usize, value: u64) {
        self.vps[vp as usize].sints[number] = value;
        self.deliver(guest, vp);
    }

    pub(super) fn set_timer(&mut self, guest: &dyn Guest, vp: u32, register: usize, value: u64) {
        let timer = &mut self.vps[vp as usize].timers[register / 2];
        match register % 2 {
            0 => timer.set_config(value, guest.now()),
            _ => timer.set_count(value, guest.now()),
        }
        self.fire_timers(guest);
    }

    /// Queues a message.
    pub(super) fn post(&mut self, vp: u32, number: u8, kind: u32, payload: Vec<u8>) {
        let says = payload.len() as u8;
        if let Some(vp) = self.vps.get_mut(vp as usize) {
            vp.queues[usize::from(number) % SINTS].push_back(SlotMessage { kind, payload, says });
        }
    }

    pub(super) fn post_as(&mut self, vp: u32, number: u8, message: SlotMessage) {
        if let Some(vp) = self.vps.get_mut(vp as usize) {
            vp.queues[usize::from(number) % SINTS].push_back(message);
        }
    }

    /// Puts messages in slots that are free.
    pub(super) fn deliver(&mut self, guest: &dyn Guest, vp: u32) {
        for number in 0..SINTS {
            if let Err(bad) = self.deliver_to(guest, vp, number) {
                self.breaches.push(bad.into());
            }
        }
    }

    fn deliver_to(&mut self, guest: &dyn Guest, vp: u32, number: usize) -> Result<(), BadGpa> {
        while let Some(at) = self.vps[vp as usize].slot(number).filter(|_| !self.queue(vp, number).is_empty()) {
            if guest.load(at)? != 0 {
                if !std::mem::replace(&mut self.vps[vp as usize].filled[number], true) {
                    // No message of ours: it stays in the way until the guest takes it.
                    self.breaches.push(Breach::SlotWritten(vp));
                }
                guest.fetch_or(at + 4, PENDING)?;
                // The flag before another look at the type; the guest does the same the other way round.
                fence(Ordering::SeqCst);
                if guest.load(at)? != 0 {
                    return Ok(());
                }
            }
            self.vps[vp as usize].filled[number] = false;
            let Some(message) = self.queue(vp, number).pop_front() else { return Ok(()) };
            let len = message.payload.len().min(slot::PAYLOAD);
            let more = if self.queue(vp, number).is_empty() { 0 } else { PENDING };
            guest.write(at + 16, &message.payload[..len])?;
            guest.write(at + 8, &0u64.to_le_bytes())?;
            guest.store(at + 4, u32::from(message.says) | more)?;
            guest.store(at, message.kind)?;
            // A type of 0 is an empty slot, whatever else lies in it.
            self.vps[vp as usize].filled[number] = message.kind != 0;
            self.counts.messages += 1;
            self.raise(vp, number);
        }
        Ok(())
    }

    /// Notes which slots the guest has emptied.
    pub(super) fn look_at_slots(&mut self, guest: &dyn Guest) {
        for vp in &mut self.vps {
            for number in (0..SINTS).filter(|number| vp.filled[*number]).collect::<Vec<_>>() {
                let full = vp.slot(number).is_some_and(|at| guest.load(at) != Ok(0));
                vp.filled[number] = full || vp.slot(number).is_none();
            }
        }
    }

    fn queue(&mut self, vp: u32, number: usize) -> &mut VecDeque<SlotMessage> {
        &mut self.vps[vp as usize].queues[number]
    }

    pub(super) fn end_of_message(&mut self, guest: &dyn Guest, vp: u32) {
        if !self.vps[vp as usize].waiting() {
            self.counts.needless_eoms += 1;
        }
        self.deliver(guest, vp);
    }

    fn raise(&mut self, vp: u32, number: usize) {
        let value = self.vps[vp as usize].sints[number];
        if value & (sint::MASKED | sint::POLLING) == 0 {
            self.interrupt(vp, value as u8);
        }
    }

    fn interrupt(&mut self, vp: u32, vector: u8) {
        self.counts.interrupts += 1;
        self.interrupts.push_back(Interrupt { vp, vector });
    }

    /// Sets an event flag. One interrupt when it was clear before.
    pub(super) fn set_flag(&mut self, guest: &dyn Guest, vp: u32, number: u8, flag: u16) {
        let number = usize::from(number) % SINTS;
        let Some(processor) = self.vps.get(vp as usize) else { return };
        let base = processor.siefp.base().filter(|_| processor.scontrol & 1 != 0);
        let Some(base) = base else {
            self.breaches.push(Breach::SynicOff(vp));
            return;
        };
        let at = base + number as u64 * SLOT + u64::from(flag / 32) * 4;
        match guest.fetch_or(at, 1 << (flag % 32)) {
            Ok(old) if old >> (flag % 32) & 1 == 0 => self.raise(vp, number),
            Ok(_) => {}
            Err(bad) => self.breaches.push(bad.into()),
        }
    }

    /// Fires the timers whose time has come.
    pub(super) fn fire_timers(&mut self, guest: &dyn Guest) -> bool {
        let now = guest.now();
        let mut fired = false;
        for vp in 0..self.vps.len() {
            for index in 0..4 {
                let timer = &mut self.vps[vp].timers[index];
                let Some(due) = timer.due.filter(|due| *due <= now) else { continue };
                fired = true;
                let config = timer.config;
                if config & Timer::PERIODIC != 0 {
                    let missed = (now - due) / timer.count;
                    timer.due = Some(due.saturating_add((missed + 1).saturating_mul(timer.count)));
                } else {
                    timer.config &= !Timer::ENABLE;
                    timer.due = None;
                }
                if config & Timer::DIRECT != 0 {
                    self.interrupt(vp as u32, (config >> 4) as u8);
                } else {
                    let times = [due, now].map(u64::to_le_bytes).concat();
                    let payload = [(index as u64).to_le_bytes().to_vec(), times].concat();
                    self.post(vp as u32, (config >> 16) as u8 & 0xf, slot::TIMER, payload);
                    self.deliver(guest, vp as u32);
                }
            }
        }
        fired
    }

    /// When a timer fires next.
    pub(super) fn timer_due(&self) -> Option<u64> {
        self.vps.iter().flat_map(|vp| &vp.timers).filter_map(|timer| timer.due).min()
    }

    /// Messages that wait for their slot.
    pub(super) fn messages_waiting(&self) -> usize {
        self.vps.iter().flat_map(|vp| &vp.queues).map(VecDeque::len).sum()
    }
}
