//! The event queue: buffers posted at the start and again after each use, and what an event says (virtio 1.2, 5.6.6.3).

use undercroft_block::scsi::{Address, HostEvent, Lun};

use super::protocol::{Scsi, Slot, frame};
use super::wire::{EVENTS_MISSED, Event, EventKind, ResetReason, queue};
use crate::defect::{Defect, Defects};
use crate::device::{Device, Life, QueueState};
use crate::queue::Buffer;

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// Others were lost.
    pub(super) missed: bool,
    pub(super) event: Option<HostEvent>,
}

/// The unit that an event names, if it names one.
fn unit(lun: [u8; 8]) -> Option<Address> {
    let [1, target, high, low, rest @ ..] = lun else { return None };
    let (lun, _) = Lun::from_bytes([high, low, 0, 0, 0, 0, 0, 0])?;
    (rest == [0; 4]).then_some(Address { target: u16::from(target), lun })
}

/// Reads an event; half of one counts as lost.
pub(super) fn read(event: Option<&Event>, defects: Defects) -> Told {
    let Some(event) = event else { return Told { missed: true, event: None } };
    let what = event.event.get();
    let (mut unit, reason) = (unit(event.lun), event.reason.get());
    if defects.has(Defect::OneUnit) {
        unit = Lun::new(0).map(|lun| Address { target: 0, lun });
    }
    let event = match (EventKind(what & !EVENTS_MISSED), unit) {
        (EventKind::TRANSPORT_RESET, Some(unit)) => match ResetReason(reason) {
            ResetReason::RESCAN => Some(HostEvent::Added(unit)),
            ResetReason::REMOVED => Some(HostEvent::Removed(unit)),
            // The unit reports the reset itself, by a unit attention.
            _ => None,
        },
        (EventKind::TRANSPORT_RESET, None) => Some(HostEvent::Rescan),
        (EventKind::PARAM_CHANGE, Some(unit)) => Some(HostEvent::Changed(unit, reason as u8, (reason >> 8) as u8)),
        _ => None,
    };
    Told { missed: what & EVENTS_MISSED != 0, event }
}

/// Gives the device as many empty buffers as there is room for.
pub(super) fn post_all(device: &Device<Scsi>) {
    let Some(events) = device.queue(usize::from(queue::EVENT)) else { return };
    // Not in the loop's head, where the lock would be held for the whole loop.
    let size = events.state.lock().ring.size();
    for _ in 0..size {
        post(device, queue::EVENT);
    }
    events.commit();
}

/// Gives the device an empty buffer. The bottom half that is at work, or the caller's commit, tells it.
pub(super) fn post(device: &Device<Scsi>, queue: u16) {
    let Some(queue) = device.queue(usize::from(queue)) else { return };
    let mut state = queue.state.lock();
    if state.life != Life::Running {
        return;
    }
    let QueueState { ring, frames, slots, .. } = &mut *state;
    // No room is no loss: as many were posted as there is room for.
    let Ok(mut chain) = ring.chain(1) else { return };
    let head = chain.head();
    // What the last event left must not be taken for the next.
    frames.write(head, frame::HEAD, [0u64; 2]);
    chain.push(Buffer { addr: frames.addr(head, frame::HEAD), len: device.protocol.event_bytes, writable: true });
    if let Ok(head) = chain.finish() {
        slots.put(head, Slot::Event);
    }
}

#[cfg(all(not(loom), test))]
mod tests {
    use super::*;

    fn told(event: u32, lun: [u8; 8], reason: u32) -> Told {
        read(Some(&Event { event: event.into(), lun, reason: reason.into() }), Defects::none())
    }

    #[test]
    fn events_say_what_they_say() {
        let unit = Address { target: 3, lun: Lun::new(300).unwrap() };
        let lun = [1, 3, 0x41, 0x2c, 0, 0, 0, 0];
        let says = |event| Told { missed: false, event };
        assert_eq!(told(1, lun, 1), says(Some(HostEvent::Added(unit))));
        assert_eq!(told(1, lun, 2), says(Some(HostEvent::Removed(unit))));
        assert_eq!(told(1, lun, 0), says(None));
        assert_eq!(told(3, lun, 0x092a), says(Some(HostEvent::Changed(unit, 0x2a, 9))));
        assert_eq!(told(1, [0; 8], 1), says(Some(HostEvent::Rescan)));
        assert_eq!(told(0, [0; 8], 0), says(None));
        assert_eq!(told(77, lun, 5), says(None), "an event from the future");
    }

    #[test]
    fn a_vscsi_02_missed_events_are_noticed() {
        assert_eq!(told(EVENTS_MISSED, [0; 8], 0), Told { missed: true, event: None });
        assert!(told(EVENTS_MISSED | 1, [1, 0, 0, 4, 0, 0, 0, 0], 2).event.is_some(), "it says two things");
        assert_eq!(read(None, Defects::none()), Told { missed: true, event: None });
    }
}
