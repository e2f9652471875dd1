//! What virtio-scsi keeps and does per command and per event (virtio 1.2, 5.6.6). Bottom-half context unless said otherwise.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use undercroft_block::Error;
use undercroft_block::scsi::{Command, HostEvent, HostWatcher, Outcome, Response, Status};
use undercroft_hal::BottomHalf;
use undercroft_hal::sync::{IrqSpinLock, Rank};

use super::config;
use super::events;
use super::manage::{self, Manager};
use super::wire::{self, CommandAnswer, ResponseCode, SENSE_SIZE};
use crate::ProbeError;
use crate::defect::Defect;
use crate::device::{Breach, Device, Frames, From, Protocol};
use crate::queue::Used;
use crate::transport::Transport;

/// Offsets in a chain's frame, in bytes.
pub(super) mod frame {
    /// A command's head; an event.
    pub(in crate::scsi) const HEAD: usize = 0;
    /// A command's answer.
    pub(in crate::scsi) const ANSWER: usize = 64;
    /// All of it.
    pub(in crate::scsi) const BYTES: usize = 256;
}

const _: () = assert!(wire::COMMAND_HEAD_BYTES <= frame::ANSWER);
const _: () = assert!(frame::ANSWER + wire::ANSWER_BYTES <= frame::BYTES);

/// What a chain in flight carries.
#[derive(Debug)]
pub(super) enum Slot {
    /// A command, on a request queue.
    Command(Command),
    /// An empty buffer, on the event queue.
    Event,
    /// A question on the control queue.
    Management,
}

/// A command's answer, out of shared memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    response: ResponseCode,
    status: u8,
    residual: u32,
    /// As the device says: anything.
    sense_len: u16,
}

/// What the device answered.
#[derive(Debug)]
pub(super) enum Reply {
    /// To a command.
    Command(Answer),
    /// To a command, with sense data, which is aside: most answers have none and need not carry the room.
    Sense(Answer),
    /// An event; `None` if the device did not write a whole one.
    Event(Option<wire::Event>),
    /// To task management.
    Management(ResponseCode),
}

/// What happened to a host's events, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventCounts {
    /// Buffers that came back.
    pub received: u64,
    /// How often the device said that it had lost events, or returned half of one.
    pub missed: u64,
}

/// virtio-scsi.
pub(super) struct Scsi {
    pub(super) event_bytes: u32,
    received: AtomicU64,
    missed: AtomicU64,
    watcher: IrqSpinLock<Option<Arc<dyn HostWatcher>>>,
    pub(super) management: Manager,
}

impl Scsi {
    pub(super) fn new(event_bytes: u32) -> Self {
        Self {
            event_bytes,
            received: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            watcher: IrqSpinLock::new(Rank::new(34), None),
            management: Manager::default(),
        }
    }

    pub(super) fn counts(&self) -> EventCounts {
        EventCounts { received: self.received.load(Ordering::Relaxed), missed: self.missed.load(Ordering::Relaxed) }
    }

    pub(super) fn watch(&self, watcher: Arc<dyn HostWatcher>) {
        // Dropped after the lock: the last reference may run anything.
        let old = self.watcher.lock().replace(watcher);
        drop(old);
    }

    fn tell(&self, cx: &BottomHalf, event: HostEvent) {
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }

    fn event(&self, cx: &BottomHalf, device: &Device<Self>, event: Option<&wire::Event>) {
        self.received.fetch_add(1, Ordering::Relaxed);
        let told = events::read(event, device.defects);
        if device.defects.has(Defect::StopsAtUnknown) && !told.missed && told.event.is_none() {
            device.stop(Error::Broken);
        }
        if told.missed && !device.defects.has(Defect::IgnoresMissed) {
            self.missed.fetch_add(1, Ordering::Relaxed);
            self.tell(cx, HostEvent::Rescan);
        }
        if let Some(event) = told.event {
            self.tell(cx, event);
        }
    }
}

/// The host-independent name of a response code.
fn response(code: ResponseCode) -> Response {
    match code {
        ResponseCode::OK => Response::Complete,
        ResponseCode::OVERRUN => Response::Overrun,
        ResponseCode::ABORTED => Response::Aborted,
        ResponseCode::BAD_TARGET => Response::BadTarget,
        ResponseCode::RESET => Response::Reset,
        ResponseCode::BUSY => Response::Busy,
        ResponseCode::TRANSPORT_FAILURE => Response::TransportFailure,
        ResponseCode::TARGET_FAILURE => Response::TargetFailure,
        ResponseCode::NEXUS_FAILURE => Response::NexusFailure,
        _ => Response::Failure,
    }
}

#[inline]
fn outcome<'a>(device: &Device<Scsi>, answer: &Answer, sense: &'a [u8]) -> Outcome<'a> {
    let ignored = device.defects.has(Defect::IgnoresResponse);
    let mut sense_len = usize::from(answer.sense_len);
    if !device.defects.has(Defect::TrustsSenseLength) {
        sense_len = sense_len.min(sense.len());
    }
    Outcome {
        response: if ignored { Response::Complete } else { response(answer.response) },
        status: Status(answer.status),
        sense: &sense[..sense_len],
        residual: answer.residual,
    }
}

impl Protocol for Scsi {
    type Slot = Slot;
    type Reply = Reply;
    /// Sense data.
    type Aside = Option<[u8; SENSE_SIZE]>;
    type News = ();
    const FRAME: usize = frame::BYTES;

    #[inline]
    fn reply(&self, frames: &Frames, used: Used, slot: &Slot, aside: &mut Self::Aside) -> Result<Reply, Breach> {
        if let Slot::Event = slot {
            let whole = used.len as usize >= size_of::<wire::Event>();
            return Ok(Reply::Event(whole.then(|| frames.read(used.head, frame::HEAD))));
        }
        if let Slot::Management = slot {
            let response = ResponseCode(frames.read(used.head, frame::ANSWER));
            return if response == ResponseCode::UNTOUCHED { Err(Breach) } else { Ok(Reply::Management(response)) };
        }
        let answer: CommandAnswer = frames.read(used.head, frame::ANSWER);
        let response = ResponseCode(answer.response);
        // A device that returns a chain without a response has not carried it out, and may still do so.
        if response == ResponseCode::UNTOUCHED {
            return Err(Breach);
        }
        // The used length is no help here: some hosts always say 0.
        let sense_len = u16::try_from(answer.sense_len.get()).unwrap_or(u16::MAX);
        let answer = Answer { response, status: answer.status, residual: answer.residual.get(), sense_len };
        if sense_len == 0 {
            return Ok(Reply::Command(answer));
        }
        *aside = Some(frames.read(used.head, frame::ANSWER + size_of::<CommandAnswer>()));
        Ok(Reply::Sense(answer))
    }

    #[inline]
    fn fills(reply: &Reply) -> bool {
        matches!(reply, Reply::Sense(_))
    }

    #[inline]
    fn finish(&self, cx: &BottomHalf, From { device, queue, aside }: From<'_, Self>, slot: Slot, reply: &Reply) {
        match slot {
            Slot::Command(command) => match reply {
                Reply::Command(answer) => command.finish(cx, &outcome(device, answer, &[])),
                Reply::Sense(answer) => {
                    let sense = aside.as_ref().map_or(&[][..], |sense| sense);
                    command.finish(cx, &outcome(device, answer, sense));
                }
                Reply::Event(_) | Reply::Management(_) => command.finish(cx, &Outcome::failed(Response::Broken)),
            },
            Slot::Management => {
                if let Reply::Management(response) = reply {
                    manage::answered(device, *response);
                }
            }
            Slot::Event => {
                // The buffer goes back first: the device must not lose events while this one is acted on.
                if !device.defects.has(Defect::KeepsEventBuffers) {
                    events::post(device, queue);
                }
                if let Reply::Event(event) = reply {
                    self.event(cx, device, event.as_ref());
                }
            }
        }
    }

    fn finish_idle(&self, cx: &BottomHalf, slot: Slot) {
        if let Slot::Command(command) = slot {
            command.finish(cx, &Outcome::GOOD);
        }
    }

    fn end(&self, cx: &BottomHalf, slot: Slot, error: Error) {
        let response = match error {
            Error::Removed => Response::Removed,
            Error::Broken => Response::Broken,
            // Nothing was done: it is sent again after a while, whatever it is.
            Error::NotStarted => Response::Busy,
            _ => Response::Reset,
        };
        match slot {
            Slot::Command(command) => command.finish(cx, &Outcome::failed(response)),
            Slot::Management => self.management.forget(),
            Slot::Event => {}
        }
    }

    fn room(&self, cx: &BottomHalf, _queue: u16) {
        self.tell(cx, HostEvent::Room);
    }

    fn prepare(&self, transport: &mut dyn Transport) -> Result<(), ProbeError> {
        config::fix_sizes(transport)
    }

    fn restarted(&self, cx: &BottomHalf, device: &Device<Self>, (): ()) {
        events::post_all(device);
        // What happened to units meanwhile was told to nobody.
        self.tell(cx, HostEvent::Rescan);
    }

    fn look(&self, _transport: &dyn Transport) {}

    fn config_changed(&self, cx: &BottomHalf, (): ()) {
        // Nothing in the configuration changes by itself, except on hosts that report units this way.
        self.tell(cx, HostEvent::Rescan);
    }

    fn over(&self, cx: &BottomHalf) {
        self.tell(cx, HostEvent::Gone);
    }
}
