//! Task management, on the control queue (virtio 1.2, 5.6.6.2). Task or bottom-half context, no lock held.
//!
//! What a function ends comes back on its own queue, each command once; the function's own answer says only whether the device took it, and
//! is counted. A function that is never answered keeps its place on the control queue until the device is reset: the queue's size bounds
//! how many such there can be, and the next one is refused, so that recovery goes on to its next rung.

use core::sync::atomic::{AtomicU64, Ordering};

use undercroft_block::Tag;
use undercroft_block::scsi::{Address, Managed, Management};

use super::protocol::{Scsi, Slot, frame};
use super::submit::unit;
use super::wire::{ManagementFunction, ManagementRequest, ResponseCode, queue};
use crate::defect::Defect;
use crate::device::{Device, Life, QueueState, Scope};
use crate::queue::Buffer;

/// What became of task management, since the host's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ManagementCounts {
    /// Functions that the device was asked for.
    pub asked: u64,
    /// Those that it said it has done.
    pub done: u64,
    /// Those that it refused.
    pub refused: u64,
}

/// Words of a set of targets.
const WORDS: usize = 4;

/// What task management keeps.
#[derive(Debug, Default)]
pub(super) struct Manager {
    asked: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
    /// Targets that a reset of the bus has still to reach: as many go out at a time as the control queue holds.
    targets: [AtomicU64; WORDS],
}

impl Manager {
    pub(super) fn counts(&self) -> ManagementCounts {
        let [asked, done, refused] =
            [&self.asked, &self.done, &self.refused].map(|count| count.load(Ordering::Relaxed));
        ManagementCounts { asked, done, refused }
    }

    /// Notes a target.
    fn add(&self, target: u16) {
        if let Some(word) = self.targets.get(usize::from(target) / 64) {
            word.fetch_or(1 << (target % 64), Ordering::AcqRel);
        }
    }

    /// Takes a noted target, so that one of two callers gets it.
    fn take(&self) -> Option<u16> {
        (0u16..).zip(&self.targets).find_map(|(at, word)| {
            let mut seen = word.load(Ordering::Acquire);
            while seen != 0 {
                match word.compare_exchange_weak(seen, seen & (seen - 1), Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return Some(64 * at + seen.trailing_zeros() as u16),
                    Err(now) => seen = now,
                }
            }
            None
        })
    }

    /// Forgets all targets: the device was reset.
    pub(super) fn forget(&self) {
        self.targets.iter().for_each(|word| word.store(0, Ordering::Release));
    }
}

/// Carries out what recovery asks for.
pub(super) fn manage(device: &Device<Scsi>, what: Management) -> Managed {
    if device.defects.has(Defect::NoManagement) {
        return Managed::Asked;
    }
    match what {
        Management::Abort(tag) => abort(device, tag),
        Management::ResetUnit(address) => ask(device, ManagementFunction::LOGICAL_UNIT_RESET, address, 0),
        Management::ResetBus => reset_bus(device),
        Management::ResetHost if device.restart(Scope::Device) => Managed::Asked,
        Management::ResetHost => Managed::Refused,
    }
}

fn abort(device: &Device<Scsi>, tag: Tag) -> Managed {
    let Some(home) = device.queue(usize::from(tag.queue())) else { return Managed::NoCommand };
    let address = {
        let state = home.state.lock();
        match state.slots.get(tag) {
            Some(Slot::Command(command)) => command.address(),
            _ => return Managed::NoCommand,
        }
    };
    // A device that has not been told of the command would find nothing to end, and carry it out later.
    home.commit();
    // The command may end meanwhile, and its slot be used again: by a command of another generation, which the tag does not name.
    ask(device, ManagementFunction::ABORT_TASK, address, tag.to_bits())
}

/// Resets each target that has a command in flight: the others have nothing that could be ended.
fn reset_bus(device: &Device<Scsi>) -> Managed {
    let mut any = false;
    for home in device.queues.iter().skip(usize::from(queue::REQUEST)) {
        home.commit();
        for slot in home.state.lock().slots.iter() {
            if let Slot::Command(command) = slot {
                device.protocol.management.add(command.address().target);
                any = true;
            }
        }
    }
    if !any {
        return Managed::NoCommand;
    }
    if reset_targets(device) { Managed::Asked } else { Managed::Refused }
}

/// Sends as many target resets as there is room for; `false` if there was room for none, although one is waiting.
fn reset_targets(device: &Device<Scsi>) -> bool {
    let mut any = false;
    while let Some(target) = device.protocol.management.take() {
        let address = Address { target, lun: undercroft_block::scsi::Lun::ZERO };
        if ask(device, ManagementFunction::I_T_NEXUS_RESET, address, 0) != Managed::Asked {
            device.protocol.management.add(target);
            return any;
        }
        any = true;
    }
    true
}

/// Puts a function on the control queue.
fn ask(device: &Device<Scsi>, function: ManagementFunction, address: Address, id: u64) -> Managed {
    let Some(control) = device.queue(usize::from(queue::CONTROL)) else { return Managed::Unsupported };
    let mut state = control.state.lock();
    if state.life != Life::Running {
        return Managed::Refused;
    }
    let QueueState { ring, frames, slots, .. } = &mut *state;
    let Ok(mut chain) = ring.chain(2) else { return Managed::Refused };
    let head = chain.head();
    let lun = unit(address, device.defects);
    let request = ManagementRequest { kind: 0.into(), function, lun, id: id.into() };
    frames.write(head, frame::HEAD, request);
    frames.write(head, frame::ANSWER, ResponseCode::UNTOUCHED.0);
    let len = size_of::<ManagementRequest>() as u32;
    chain.push(Buffer { addr: frames.addr(head, frame::HEAD), len, writable: false });
    chain.push(Buffer { addr: frames.addr(head, frame::ANSWER), len: 1, writable: true });
    let Ok(head) = chain.finish() else { return Managed::Refused };
    slots.put(head, Slot::Management);
    drop(state);
    device.protocol.management.asked.fetch_add(1, Ordering::Relaxed);
    control.commit();
    Managed::Asked
}

/// A function was answered.
pub(super) fn answered(device: &Device<Scsi>, response: ResponseCode) {
    let manager = &device.protocol.management;
    if matches!(response, ResponseCode::OK | ResponseCode::FUNCTION_SUCCEEDED) {
        manager.done.fetch_add(1, Ordering::Relaxed);
    } else {
        manager.refused.fetch_add(1, Ordering::Relaxed);
        log::warn!("virtio-scsi: task management was refused: {}", response.0);
    }
    // There is room again.
    let _ = reset_targets(device);
}
