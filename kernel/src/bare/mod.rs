//! The device's own limit: a ring whose descriptors are written once, served by the interrupt handler itself, with nothing of the block layer
//! or of the drivers between. Virtqueues here, PVSCSI's rings in [`pvscsi`]. What `cargo xtask bench linux` sets the drivers beside. Task context.
//!
//! Every completion sends its descriptors again, aimed at another place among the first 16 MiB; answers are looked at when it is over. Of a
//! SCSI host the first unit is used, which must have blocks of 512 bytes.

mod pvscsi;

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use undercroft_hal::dma::{Coherent, DmaConstraints, DmaError};
use undercroft_hal::irq::{self, Handled, IrqError};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{Duration, Instant, Task, pci};
use undercroft_virtio::ProbeError;
use undercroft_virtio::blk::wire::{Header, RequestType};
use undercroft_virtio::queue::need_event;
use undercroft_virtio::scsi::wire::{ANSWER_BYTES, CDB_USED, COMMAND_HEAD_BYTES, CommandAnswer, CommandHead, queue};
use undercroft_virtio::transport::{Doorbell, PciTransport, QueueAddresses, Transport, negotiate, reset};
use undercroft_virtio::wire::ring::{DESC_NEXT, DESC_WRITE, Descriptor, Layout};
use undercroft_virtio::wire::{DeviceId, Features, Status};

use crate::json::{Object, Value};
use crate::pattern::Random;
use crate::report::Report;

const DEPTHS: [u16; 2] = [1, 32];
const BYTES: usize = 4096;
const PLACES: u64 = 4096;
const SECTORS: u64 = BYTES as u64 / 512;
/// Descriptors that a request's begin apart: a power of two.
const STRIDE: u16 = 4;
const SIZE: u16 = 128;
/// Bytes of each request's head and answer, and where the answer begins.
const FRAME: usize = 256;
const ANSWER: usize = 64;
/// The answer before there is one.
const UNTOUCHED: u8 = 0xff;

/// Why there is no figure.
enum Failed {
    Probe(ProbeError),
    Memory(DmaError),
    Interrupt(IrqError),
    /// The device refused the vector, or does not have enough descriptors.
    Refused,
    /// An id that is no request's, or an answer that is an error.
    Answer,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Interrupt(error) => error.fmt(f),
            Self::Refused => f.write_str("the device refused its queue or its vector"),
            Self::Answer => f.write_str("the device answered with an error"),
        }
    }
}

/// What differs between the devices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blk,
    Scsi,
}

impl Kind {
    const fn name(self) -> &'static str {
        if matches!(self, Self::Blk) { "virtio-blk" } else { "virtio-scsi" }
    }

    /// The queue, and the bytes of a head and of an answer.
    const fn shape(self) -> (u16, u32, u32) {
        match self {
            Self::Blk => (0, size_of::<Header>() as u32, 1),
            Self::Scsi => (queue::REQUEST, COMMAND_HEAD_BYTES as u32, ANSWER_BYTES as u32),
        }
    }

    fn write_head(self, frames: &Coherent, at: usize, slot: u16) {
        if self == Self::Blk {
            return frames.write(at, Header { kind: RequestType::IN, reserved: 0.into(), sector: 0.into() });
        }
        let mut cdb = [0; CDB_USED];
        // READ(10).
        (cdb[0], cdb[8]) = (0x28, SECTORS as u8);
        let lun = [1, 0, 0x40, 0, 0, 0, 0, 0];
        let id = u64::from(slot).into();
        frames.write(at, CommandHead { lun, id, task_attribute: 0, priority: 0, crn: 0, cdb });
    }

    #[inline]
    fn aim(self, frames: &Coherent, at: usize, place: u64) {
        let sector = place * SECTORS;
        match self {
            Self::Blk => frames.write(at + 8, sector.to_le()),
            // Within the first 16 MiB: 32 bits hold it.
            Self::Scsi => frames.write(at + 21, (sector as u32).to_be()),
        }
    }

    fn is_good(self, frames: &Coherent, at: usize) -> bool {
        match self {
            Self::Blk => frames.read::<u8>(at + ANSWER) == 0,
            Self::Scsi => {
                let answer: CommandAnswer = frames.read(at + ANSWER);
                (answer.response, answer.status) == (0, 0)
            }
        }
    }
}

struct State {
    /// Used entries taken and available entries made, free-running.
    taken: u16,
    made: u16,
    in_flight: u16,
    random: Random,
    requests: u64,
    end: Instant,
    last: Instant,
    failed: bool,
}

/// A ring that its interrupt handler keeps full.
struct Loop {
    kind: Kind,
    depth: u16,
    event_idx: bool,
    layout: Layout,
    ring: Coherent,
    frames: Coherent,
    _data: Coherent,
    doorbell: Doorbell,
    state: IrqSpinLock<State>,
    over: AtomicBool,
}

impl Loop {
    fn put(&self, state: &mut State, slot: u16) {
        let place = state.random.below(PLACES);
        self.kind.aim(&self.frames, FRAME * usize::from(slot), place);
        let entry = self.layout.available + 4 + 2 * usize::from(state.made % SIZE);
        self.ring.write(entry, (slot * STRIDE).to_le());
        state.made = state.made.wrapping_add(1);
    }

    fn used_index(&self) -> u16 {
        u16::from_le(self.ring.atomic_u16(self.layout.used + 2).load(Ordering::Acquire))
    }

    /// Tells the device of what was made since `old`, and when to interrupt next.
    fn publish(&self, state: &State, old: u16) {
        self.ring.atomic_u16(self.layout.available + 2).store(state.made.to_le(), Ordering::Release);
        let wish = self.layout.available + 4 + 2 * usize::from(SIZE);
        self.ring.atomic_u16(wish).store(state.taken.to_le(), Ordering::Relaxed);
        // Both stores before the loads, here and of the used index: the device does the same the other way round.
        fence(Ordering::SeqCst);
        let wants = if self.event_idx {
            let event = self.layout.used + 4 + 8 * usize::from(SIZE);
            need_event(u16::from_le(self.ring.atomic_u16(event).load(Ordering::Relaxed)), state.made, old)
        } else {
            self.ring.atomic_u16(self.layout.used).load(Ordering::Relaxed) == 0
        };
        if state.made != old && wants {
            self.doorbell.ring();
        }
    }

    fn serve(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let runs = now < state.end && !state.failed;
        loop {
            let (used, old) = (self.used_index(), state.made);
            // No more than there can be.
            let count = used.wrapping_sub(state.taken);
            if count > state.in_flight {
                state.failed = true;
                break;
            }
            for _ in 0..count {
                let entry = self.layout.used + 4 + 8 * usize::from(state.taken % SIZE);
                let slot = u32::from_le(self.ring.read(entry)) / u32::from(STRIDE);
                state.taken = state.taken.wrapping_add(1);
                match u16::try_from(slot) {
                    Ok(slot) if slot < self.depth && runs => self.put(&mut state, slot),
                    Ok(slot) if slot < self.depth => state.in_flight -= 1,
                    _ => state.failed = true,
                }
            }
            state.requests += u64::from(count);
            self.publish(&state, old);
            if self.used_index() == state.taken {
                break;
            }
        }
        state.last = now;
        if state.in_flight == 0 || state.failed {
            self.over.store(true, Ordering::Release);
        }
    }

    fn descriptors(&self, data: u64) {
        let (_, head_bytes, answer_bytes) = self.kind.shape();
        for slot in 0..self.depth {
            let (at, first) = (FRAME * usize::from(slot), slot * STRIDE);
            self.kind.write_head(&self.frames, at, slot);
            self.frames.write(at + ANSWER, UNTOUCHED);
            let head = (self.frames.addr(at), head_bytes, 0);
            let answer = (self.frames.addr(at + ANSWER), answer_bytes, DESC_WRITE);
            let data = (data + BYTES as u64 * u64::from(slot), BYTES as u32, DESC_WRITE);
            let all = if self.kind == Kind::Blk { [head, data, answer] } else { [head, answer, data] };
            for ((addr, len, flags), nth) in all.into_iter().zip(0u16..) {
                let more = if nth < 2 { DESC_NEXT } else { 0 };
                let (flags, next) = ((flags | more).into(), (first + nth + 1).into());
                let descriptor = Descriptor { addr: addr.into(), len: len.into(), flags, next };
                self.ring.write(16 * usize::from(first + nth), descriptor);
            }
        }
    }
}

/// Measures every virtio disk controller and every PVSCSI adapter on PCI, and leaves it reset.
pub(crate) fn measure(cx: &Task, millis: u64, seed: u64, report: &Report) {
    for function in pci::devices(cx) {
        if pvscsi::is(&function) {
            for depth in DEPTHS {
                told("pvscsi", depth, pvscsi::run(cx, function, depth, (millis, seed)), report);
            }
        }
        let (device, kind) = match PciTransport::identify(&function) {
            Some(DeviceId::BLOCK) => (DeviceId::BLOCK, Kind::Blk),
            Some(DeviceId::SCSI_HOST) => (DeviceId::SCSI_HOST, Kind::Scsi),
            _ => continue,
        };
        for depth in DEPTHS {
            let result = PciTransport::new(cx, function, device)
                .map_err(Failed::Probe)
                .and_then(|mut transport| run(cx, &mut transport, (kind, depth), (millis, seed)));
            told(kind.name(), depth, result, report);
        }
    }
}

fn told(name: &str, depth: u16, result: Result<(u64, u64), Failed>, report: &Report) {
    match result {
        Ok((requests, nanos)) => row(name, depth, requests, nanos, report),
        Err(why) => report.problem(&format_args!("bare ring of {name}: {why}"), None),
    }
}

/// Requests, and nanoseconds.
fn run(
    cx: &Task,
    transport: &mut PciTransport,
    (kind, depth): (Kind, u16),
    (millis, seed): (u64, u64),
) -> Result<(u64, u64), Failed> {
    let features = negotiate(transport, Features::EVENT_IDX.bits()).map_err(Failed::Probe)?;
    let number = kind.shape().0;
    if transport.queue_max_size(number) < SIZE {
        return Err(Failed::Refused);
    }
    let layout = Layout::new(SIZE);
    let block = |bytes| Coherent::new(bytes, DmaConstraints::ANY).map_err(Failed::Memory);
    let data = block(BYTES * usize::from(depth))?;
    let (place, now) = (data.addr(0), Instant::now());
    let ring = Arc::new(Loop {
        kind,
        depth,
        event_idx: features & Features::EVENT_IDX.bits() != 0,
        layout,
        ring: block(layout.bytes)?,
        frames: block(FRAME * usize::from(depth))?,
        _data: data,
        doorbell: transport.doorbell(number).map_err(Failed::Probe)?,
        state: IrqSpinLock::new(
            Rank::QUEUE,
            State {
                taken: 0,
                made: 0,
                in_flight: depth,
                random: Random::new(seed),
                requests: 0,
                end: now,
                last: now,
                failed: false,
            },
        ),
        over: AtomicBool::new(false),
    });
    ring.descriptors(place);
    let served = Arc::clone(&ring);
    let registered = irq::message(cx, 0, move |_| {
        served.serve();
        Handled::Yes
    });
    let (handler, message) = registered.map_err(Failed::Interrupt)?;
    let outcome = drive(cx, transport, &ring, (number, message, millis));
    // The device lets go of the memory before it is freed.
    if reset(transport).is_err() {
        transport.isolate();
    }
    transport.enable_vectors(false);
    drop(handler);
    outcome
}

fn drive(
    cx: &Task,
    transport: &mut PciTransport,
    ring: &Loop,
    (number, message, millis): (u16, irq::MsiMessage, u64),
) -> Result<(u64, u64), Failed> {
    let [descriptors, available, used] = [0, ring.layout.available, ring.layout.used].map(|at| ring.ring.addr(at));
    transport.set_queue(number, SIZE, QueueAddresses { descriptors, available, used }).map_err(Failed::Probe)?;
    transport.set_vector(0, message);
    transport.enable_vectors(true);
    if transport.vectors() == 0 || !transport.bind_queue(number, Some(0)) {
        return Err(Failed::Refused);
    }
    transport.enable_queue(number).map_err(Failed::Probe)?;
    transport.set_status(Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK);
    let start = Instant::now();
    {
        let mut state = ring.state.lock();
        state.end = start + Duration::from_millis(millis);
        (0..ring.depth).for_each(|slot| ring.put(&mut state, slot));
        ring.publish(&state, 0);
    }
    cx.wait_until(|| ring.over.load(Ordering::Acquire));
    let state = ring.state.lock();
    let good = (0..ring.depth).all(|slot| ring.kind.is_good(&ring.frames, FRAME * usize::from(slot)));
    if state.failed || !good {
        return Err(Failed::Answer);
    }
    Ok((state.requests, state.last.since(start).as_nanos() as u64))
}

fn row(name: &str, depth: u16, requests: u64, nanos: u64, report: &Report) {
    let iops = (u128::from(requests) * 1_000_000_000 / u128::from(nanos.max(1))) as u64;
    if !report.is_json() {
        return report.text(format_args!("bare ring of {name} at depth {depth}: {iops} IOPS"));
    }
    report.json(&Object {
        event: Some("bare"),
        fields: &[
            ("driver", Value::Text(&name)),
            ("depth", Value::Number(u64::from(depth))),
            ("requests", Value::Number(requests)),
            ("nanoseconds", Value::Number(nanos)),
            ("iops", Value::Number(iops)),
        ],
    });
}
