//! The rings as the device sees them: where their pages are, what it wrote into their state, what the driver wrote there.

use super::Breach;
use crate::Bus;

const PAGE: u64 = 4096;

/// Fields of the rings' state, by offset.
pub mod field {
    pub const REQ_PROD: u64 = 0;
    pub const REQ_CONS: u64 = 4;
    pub const REQ_LOG2: u64 = 8;
    pub const CMP_PROD: u64 = 12;
    pub const CMP_CONS: u64 = 16;
    pub const CMP_LOG2: u64 = 20;
    pub const THRESHOLD: u64 = 24;
    pub const MSG_PROD: u64 = 128;
    pub const MSG_CONS: u64 = 132;
    pub const MSG_LOG2: u64 = 136;
}

/// A ring's pages and entries.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    pub pages: Vec<u64>,
    pub entry: u64,
}

impl Ring {
    pub fn entries(&self) -> u32 {
        (self.pages.len() as u64 * PAGE / self.entry.max(1)) as u32
    }

    pub fn at(&self, index: u32) -> u64 {
        let offset = u64::from(index & (self.entries() - 1)) * self.entry;
        self.pages[(offset / PAGE) as usize] * PAGE + offset % PAGE
    }
}

/// The rings in use.
#[derive(Debug, Clone, Default)]
pub struct Rings {
    pub state: u64,
    pub requests: Ring,
    pub completions: Ring,
    pub messages: Option<Ring>,
    /// What the device wrote.
    pub taken: u32,
    pub completed: u32,
    pub told: u32,
    pub threshold: u32,
    sizes: [u32; 3],
    seen_cmp_cons: u32,
    seen_msg_cons: u32,
}

impl Rings {
    pub fn new(state: u64, requests: Ring, completions: Ring) -> Self {
        Self { state, requests, completions, ..Self::default() }
    }

    pub fn get(&self, bus: &Bus<'_>, field: u64) -> Result<u32, Breach> {
        let value = u32::from_le_bytes(bus.read_array(self.state + field)?);
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
        Ok(value)
    }

    pub fn put(&self, bus: &Bus<'_>, field: u64, value: u32) -> Result<(), Breach> {
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        Ok(bus.write(self.state + field, &value.to_le_bytes())?)
    }

    /// Writes the state that the setup of the request and completion rings leaves.
    pub fn begin(&mut self, bus: &Bus<'_>, lie: bool) -> Result<(), Breach> {
        let off = u32::from(lie);
        self.sizes[0] = self.requests.entries().ilog2() + off;
        self.sizes[1] = self.completions.entries().ilog2();
        for zero in [field::REQ_PROD, field::REQ_CONS, field::CMP_PROD, field::CMP_CONS] {
            self.put(bus, zero, 0)?;
        }
        self.put(bus, field::REQ_LOG2, self.sizes[0])?;
        self.put(bus, field::CMP_LOG2, self.sizes[1])
    }

    /// The same for the message ring.
    pub fn begin_messages(&mut self, bus: &Bus<'_>, ring: Ring) -> Result<(), Breach> {
        self.sizes[2] = ring.entries().ilog2();
        self.messages = Some(ring);
        self.told = 0;
        self.put(bus, field::MSG_PROD, 0)?;
        self.put(bus, field::MSG_CONS, 0)?;
        self.put(bus, field::MSG_LOG2, self.sizes[2])
    }

    /// Checks that the driver left the device's fields alone, and that its own are possible.
    pub fn check(&mut self, bus: &Bus<'_>, breaches: &mut Vec<Breach>) -> Result<(), Breach> {
        let mut mine = vec![
            (field::REQ_CONS, self.taken, "reqConsIdx"),
            (field::REQ_LOG2, self.sizes[0], "reqNumEntriesLog2"),
            (field::CMP_PROD, self.completed, "cmpProdIdx"),
            (field::CMP_LOG2, self.sizes[1], "cmpNumEntriesLog2"),
            (field::THRESHOLD, self.threshold, "reqCallThreshold"),
        ];
        if self.messages.is_some() {
            mine.push((field::MSG_PROD, self.told, "msgProdIdx"));
            mine.push((field::MSG_LOG2, self.sizes[2], "msgNumEntriesLog2"));
        }
        for (field, value, name) in mine {
            if self.get(bus, field)? != value && !breaches.contains(&Breach::DevicesField(name)) {
                breaches.push(Breach::DevicesField(name));
            }
        }
        let cons = self.get(bus, field::CMP_CONS)?;
        if self.completed.wrapping_sub(cons) > self.completed.wrapping_sub(self.seen_cmp_cons) {
            breaches.push(Breach::CompletionsJumped(cons));
        }
        self.seen_cmp_cons = cons;
        if self.messages.is_some() {
            let cons = self.get(bus, field::MSG_CONS)?;
            if self.told.wrapping_sub(cons) > self.told.wrapping_sub(self.seen_msg_cons) {
                breaches.push(Breach::MessagesJumped(cons));
            }
            self.seen_msg_cons = cons;
        }
        Ok(())
    }

    /// The address of the next request, if there is one.
    pub fn next_request(&mut self, bus: &Bus<'_>) -> Result<Option<u64>, Breach> {
        let waiting = self.get(bus, field::REQ_PROD)?.wrapping_sub(self.taken);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.requests.entries() {
            return Err(Breach::RequestsJumped(waiting));
        }
        let at = self.requests.at(self.taken);
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(at))
    }

    /// Tells the driver how many were taken.
    pub fn publish_taken(&self, bus: &Bus<'_>) -> Result<(), Breach> {
        self.put(bus, field::REQ_CONS, self.taken)
    }

    /// Writes a completion.
    pub fn complete(&mut self, bus: &Bus<'_>, completion: [u8; 32]) -> Result<(), Breach> {
        let cons = self.get(bus, field::CMP_CONS)?;
        if self.completed.wrapping_sub(cons) >= self.completions.entries() {
            return Err(Breach::CompletionRingFull);
        }
        bus.write(self.completions.at(self.completed), &completion)?;
        self.publish_completed(bus, 1)
    }

    /// Says that there are `more` completions.
    pub fn publish_completed(&mut self, bus: &Bus<'_>, more: u32) -> Result<(), Breach> {
        self.completed = self.completed.wrapping_add(more);
        self.put(bus, field::CMP_PROD, self.completed)
    }

    /// Writes a message. `false` if there is no ring or no room: then it is lost, and nobody is told.
    pub fn tell(&mut self, bus: &Bus<'_>, message: &[u8; 20]) -> Result<bool, Breach> {
        let Some(ring) = &self.messages else { return Ok(false) };
        if self.told.wrapping_sub(self.get(bus, field::MSG_CONS)?) >= ring.entries() {
            return Ok(false);
        }
        let mut entry = [0; 128];
        entry[..20].copy_from_slice(message);
        bus.write(ring.at(self.told), &entry)?;
        self.publish_told(bus, 1)?;
        Ok(true)
    }

    /// Says that there are `more` messages.
    pub fn publish_told(&mut self, bus: &Bus<'_>, more: u32) -> Result<(), Breach> {
        self.told = self.told.wrapping_add(more);
        self.put(bus, field::MSG_PROD, self.told)
    }
}
