//! The interrupt controller: messages to slots, lines to slots with edge and level semantics.

use std::collections::{BTreeMap, BTreeSet};

use undercroft_hal::irq::{IrqLine, MsiMessage, Slot};

use crate::Random;

/// Where messages go: the address names the CPU, the data the slot.
const MSI_BASE: u64 = 0xfee0_0000;
const MSI_CPU_SHIFT: u32 = 12;

#[derive(Debug)]
struct Line {
    level: bool,
    route: Option<Slot>,
    /// The devices that hold the line asserted.
    sources: BTreeSet<usize>,
    /// An edge was seen and not delivered.
    edge: bool,
}

/// An interrupt to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub slot: Slot,
    /// The level line that it came from.
    pub level_line: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Controller {
    /// Pending messages. One that comes again before it is delivered merges, as in a local APIC.
    pending: Vec<(usize, Slot)>,
    routed: BTreeSet<(usize, u16)>,
    lines: BTreeMap<u32, Line>,
    stray: Vec<MsiMessage>,
}

impl Controller {
    pub fn add_line(&mut self, line: IrqLine) {
        self.lines.entry(line.number).or_insert(Line {
            level: line.level,
            route: None,
            sources: BTreeSet::new(),
            edge: false,
        });
    }

    pub fn route_message(&mut self, slot: Slot, cpu: usize) -> MsiMessage {
        self.routed.insert((cpu, slot.0));
        MsiMessage { addr: MSI_BASE | (cpu as u64) << MSI_CPU_SHIFT, data: u32::from(slot.0) }
    }

    pub fn route_line(&mut self, number: u32, slot: Option<Slot>) -> bool {
        match self.lines.get_mut(&number) {
            Some(line) => {
                line.route = slot;
                true
            }
            None => false,
        }
    }

    pub fn message(&mut self, message: MsiMessage) {
        let cpu = (message.addr.wrapping_sub(MSI_BASE) >> MSI_CPU_SHIFT) as usize;
        let slot = message.data as u16;
        if self.routed.contains(&(cpu, slot)) {
            if !self.pending.contains(&(cpu, Slot(slot))) {
                self.pending.push((cpu, Slot(slot)));
            }
        } else {
            self.stray.push(message);
        }
    }

    pub fn raise(&mut self, cpu: usize, slot: Slot) {
        self.message(MsiMessage { addr: MSI_BASE | (cpu as u64) << MSI_CPU_SHIFT, data: u32::from(slot.0) });
    }

    pub fn set_line(&mut self, number: u32, source: usize, asserted: bool) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        if asserted {
            let rising = line.sources.is_empty();
            line.sources.insert(source);
            // An edge on a masked line is lost, as in an I/O APIC.
            line.edge |= rising && !line.level && line.route.is_some();
        } else {
            line.sources.remove(&source);
        }
    }

    pub fn asserted(&self, number: u32) -> bool {
        self.lines.get(&number).is_some_and(|line| !line.sources.is_empty())
    }

    /// Messages that went where no interrupt was routed.
    pub fn stray(&self) -> &[MsiMessage] {
        &self.stray
    }

    /// Takes the next interrupt for `cpu`: the oldest message and the lowest line first, or any if `random` is given.
    pub fn take(&mut self, cpu: usize, random: Option<&mut Random>) -> Option<Due> {
        let messages = self.pending.iter().filter(|(to, _)| *to == cpu).map(|(_, slot)| (*slot, None));
        // Lines go to the first CPU.
        let lines = self.lines.iter().filter(|_| cpu == 0).filter_map(|(&number, line)| {
            let due = if line.level { !line.sources.is_empty() } else { line.edge };
            Some((line.route.filter(|_| due)?, Some(number)))
        });
        let due: Vec<_> = messages.chain(lines).collect();
        let at = if due.is_empty() { 0 } else { random.map_or(0, |random| random.below(due.len())) };
        let &(slot, line) = due.get(at)?;
        match line.and_then(|number| self.lines.get_mut(&number)) {
            Some(line) => line.edge = false,
            None => self.pending.retain(|pending| *pending != (cpu, slot)),
        }
        let level_line = line.filter(|number| self.lines[number].level);
        Some(Due { slot, level_line })
    }
}
