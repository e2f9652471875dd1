//! Who sleeps on a CPU, by slot and generation: what a waker's number names.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::Spawned;
use crate::context::Task;
use crate::cpu;
use crate::platform::seam;
use crate::sync::{IrqSpinLock, Rank};

/// The most sleepers of one CPU.
const MOST: usize = 1024;

/// Names one use of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(super) index: u16,
    pub(super) generation: u32,
}

/// Who is woken.
#[derive(Clone)]
pub(crate) enum Sleeper {
    /// A spawned task.
    Task(Arc<Spawned>),
    /// A task that waits in `block_on`.
    Waiter(Arc<AtomicBool>),
}

#[derive(Default)]
struct Slot {
    generation: u32,
    taken: bool,
    sleeper: Option<Sleeper>,
}

/// One CPU's sleepers.
pub(crate) struct Slots {
    table: IrqSpinLock<Vec<Slot>>,
}

impl core::fmt::Debug for Slots {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Slots")
    }
}

impl Slots {
    pub(crate) const fn new() -> Self {
        Self { table: IrqSpinLock::new(Rank::EXECUTOR, Vec::new()) }
    }

    /// Takes a free slot, growing the table if there is none: outside the lock, since nothing may allocate under one.
    pub(super) fn reserve(&self, _cx: &Task) -> Option<Key> {
        loop {
            let mut table = self.table.lock();
            if let Some(index) = table.iter().position(|slot| !slot.taken) {
                let slot = &mut table[index];
                slot.taken = true;
                return Some(Key { index: index as u16, generation: slot.generation });
            }
            let (len, room) = (table.len(), table.capacity());
            drop(table);
            if len >= MOST {
                return None;
            }
            if room == len {
                let mut grown = Vec::with_capacity((len * 2).max(16));
                let mut table = self.table.lock();
                if grown.capacity() > table.len() {
                    grown.append(&mut table);
                    let old = core::mem::replace(&mut *table, grown);
                    drop(table);
                    drop(old);
                }
            } else {
                // There is room: this does not allocate.
                self.table.lock().push(Slot::default());
            }
        }
    }

    pub(super) fn fill(&self, key: Key, sleeper: Sleeper) {
        if let Some(slot) = self.table.lock().get_mut(usize::from(key.index)) {
            slot.sleeper = Some(sleeper);
        }
    }

    /// Ends a use of a slot. What was in it is the caller's to drop, with no lock held.
    pub(super) fn release(&self, _cx: &Task, key: Key) -> Option<Sleeper> {
        let mut table = self.table.lock();
        let slot = table.get_mut(usize::from(key.index)).filter(|slot| slot.generation == key.generation)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.taken = false;
        slot.sleeper.take()
    }

    /// Wakes whoever `key` names, if that use is not over. Any context. `cpu` is the CPU whose table this is.
    pub(super) fn wake(&self, cpu: usize, key: Key) {
        let table = self.table.lock();
        let Some(slot) = table.get(usize::from(key.index)) else { return };
        if slot.generation != key.generation {
            return;
        }
        match &slot.sleeper {
            Some(Sleeper::Task(spawned)) => spawned.work.schedule(),
            Some(Sleeper::Waiter(woken)) => {
                woken.store(true, Ordering::Release);
                // On this CPU the interrupt or bottom half that wakes ends the halt by itself.
                if cpu != cpu::current() {
                    seam::kick(cpu);
                }
            }
            None => (),
        }
    }
}
