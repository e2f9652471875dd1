//! Event channels, the two-level interface: a bit for each, and an interrupt for the bits of a processor.

use std::collections::BTreeMap;

use undercroft_hal::hosted::slot_of_vector;

use super::breach::{Breach, Log};
use super::consts::{PAGE, event, shared};
use super::memory;
use crate::{Bus, Script};

/// What an event channel leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing yet: this domain may connect to it.
    Unbound(u16),
    /// The server of xenstore.
    Store,
    /// A back end.
    Backend,
    /// A virtual interrupt.
    Virtual(u32),
    /// A processor of the guest's.
    Processor,
    /// Something of the tool stack's that this model has not (the console).
    Other,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Port {
    pub end: End,
    pub vcpu: u32,
}

#[derive(Debug, Default)]
pub(super) struct Ports {
    pub ports: BTreeMap<u32, Port>,
    /// Where the shared page is, and what came before it was there.
    pub page: Option<u64>,
    early: Vec<u32>,
    /// Vectors of the virtual processors.
    pub vectors: BTreeMap<u32, u8>,
    /// Ports that the guest has notified and that nobody has looked at.
    pub sent: Vec<u32>,
    /// Notifications that come later.
    late: Vec<(u64, u32)>,
    /// When each virtual processor's timer is due.
    pub timers: BTreeMap<u32, u64>,
}

impl Ports {
    /// Adds one. `None`: there are too many.
    pub fn add(&mut self, end: End, vcpu: u32, most: u32) -> Option<u32> {
        let port = (1..most.min(event::PORTS)).find(|port| !self.ports.contains_key(port))?;
        self.ports.insert(port, Port { end, vcpu });
        Some(port)
    }

    pub fn map(&mut self, bus: &Bus<'_>, frame: u64, log: &mut Log) {
        self.page = Some(frame * PAGE);
        for port in std::mem::take(&mut self.early) {
            self.raise(bus, port, log);
        }
    }

    /// Notifies the guest, now, later or never, as the script says.
    pub fn notify(&mut self, bus: &Bus<'_>, port: u32, script: &mut Script<u64>, log: &mut Log) {
        match script.next().unwrap_or_default().first() {
            Some(&u64::MAX) => {}
            Some(&late) => self.late.push((bus.now() + late, port)),
            None => self.raise(bus, port, log),
        }
    }

    /// Notifies the guest after a time.
    pub fn notify_at(&mut self, at: u64, port: u32) {
        self.late.push((at, port));
    }

    /// Sets the bits and interrupts the processor, as far as they were not set.
    pub fn raise(&mut self, bus: &Bus<'_>, port: u32, log: &mut Log) {
        let Some(&Port { vcpu, .. }) = self.ports.get(&port) else { return };
        let Some(page) = self.page else {
            self.early.push(port);
            return;
        };
        log.counts.events += 1;
        let result = (|| {
            if memory::set_bit(bus, page + shared::PENDING, port)? || memory::bit(bus, page + shared::MASK, port)? {
                return Ok(());
            }
            self.select(bus, page, vcpu, port, log)
        })();
        result.unwrap_or_else(|bad| log.breach(Breach::Memory(bad)));
    }

    fn select(
        &self,
        bus: &Bus<'_>,
        page: u64,
        vcpu: u32,
        port: u32,
        log: &mut Log,
    ) -> Result<(), undercroft_hal::hosted::BadAccess> {
        let info = page + u64::from(vcpu) * shared::VCPU_SIZE;
        if memory::set_bit(bus, info + shared::PENDING_SEL, port / 64)? {
            return Ok(());
        }
        let mut pending = [0];
        memory::read(bus, info + shared::UPCALL_PENDING, &mut pending)?;
        if pending[0] != 0 {
            return Ok(());
        }
        memory::write(bus, info + shared::UPCALL_PENDING, &[1])?;
        // As by the local APIC: an edge, when the byte was zero.
        if let Some(slot) = self.vectors.get(&vcpu).and_then(|vector| slot_of_vector(*vector)) {
            log.counts.interrupts += 1;
            bus.interrupt(vcpu as usize, slot);
        }
        Ok(())
    }

    /// The guest takes the mask from a port.
    pub fn unmask(&mut self, bus: &Bus<'_>, port: u32, log: &mut Log) {
        let (Some(page), Some(&Port { vcpu, .. })) = (self.page, self.ports.get(&port)) else { return };
        let result = (|| {
            memory::clear_bit(bus, page + shared::MASK, port)?;
            if memory::bit(bus, page + shared::PENDING, port)? {
                self.select(bus, page, vcpu, port, log)
            } else {
                Ok(())
            }
        })();
        result.unwrap_or_else(|bad| log.breach(Breach::Memory(bad)));
    }

    /// The guest, or the end of a domain, closes a port.
    pub fn close(&mut self, bus: &Bus<'_>, port: u32) {
        self.ports.remove(&port);
        self.sent.retain(|sent| *sent != port);
        self.late.retain(|(_, late)| *late != port);
        if let Some(page) = self.page {
            // A page of the hypervisor's.
            let _ = memory::clear_bit(bus, page + shared::PENDING, port);
        }
    }

    /// What is due by now. Returns whether anything was.
    pub fn work(&mut self, bus: &Bus<'_>, log: &mut Log) -> bool {
        let now = bus.now();
        let due: Vec<u32> = self.late.iter().filter(|(at, _)| *at <= now).map(|(_, port)| *port).collect();
        self.late.retain(|(at, _)| *at > now);
        let rung: Vec<u32> = self.timers.iter().filter(|(_, at)| **at <= now).map(|(vcpu, _)| *vcpu).collect();
        self.timers.retain(|_, at| *at > now);
        let timers = rung.iter().filter_map(|vcpu| {
            let is_its = |port: &Port| port.end == End::Virtual(super::consts::vcpu::VIRQ_TIMER) && port.vcpu == *vcpu;
            self.ports.iter().find(|(_, port)| is_its(port)).map(|(number, _)| *number)
        });
        let all: Vec<u32> = timers.chain(due).collect();
        all.iter().for_each(|port| self.raise(bus, *port, log));
        !all.is_empty()
    }

    pub fn due(&self) -> Option<u64> {
        self.late.iter().map(|(at, _)| *at).chain(self.timers.values().copied()).min()
    }

    /// Takes the notifications of the ports that `wanted` names.
    pub fn take_sent(&mut self, wanted: impl Fn(u32) -> bool) -> bool {
        let before = self.sent.len();
        self.sent.retain(|port| !wanted(*port));
        self.sent.len() != before
    }
}
