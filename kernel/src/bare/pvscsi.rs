//! The bare ring of PVSCSI: every entry of the request ring is written once; its interrupt handler sends as many as came back, aimed elsewhere.
//! Task context. See [`super`].

use alloc::sync::Arc;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, Ordering};

use undercroft_hal::dma::{Coherent, DmaConstraints};
use undercroft_hal::irq::{self, Handled, MsiMessage};
use undercroft_hal::mmio::Mmio;
use undercroft_hal::pci::{Bar, Function, Msi, Msix};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{Duration, Instant, Task};
use undercroft_pvscsi::wire::rings::{
    COMPLETIONS_PER_PAGE, Completion, REQUEST_BYTES, REQUESTS_PER_PAGE, Request, RequestFlags, RingsState, TAG_SIMPLE,
};
use undercroft_pvscsi::wire::setup::{MAX_RING_PAGES, SetupRings};
use undercroft_pvscsi::wire::{COMMAND_FAILED, CommandCode, DEVICE, Interrupt, PAGE, REGISTER_BYTES, VENDOR, register};
use zerocopy::{Immutable, IntoBytes};

use super::{BYTES, Failed, PLACES, SECTORS};
use crate::pattern::Random;

/// Pages of the request ring: more entries than are in flight, so that one that is sent again has been taken.
const REQUEST_PAGES: usize = 2;
const REQUESTS: u32 = (REQUEST_PAGES * REQUESTS_PER_PAGE) as u32;
const COMPLETIONS: u32 = COMPLETIONS_PER_PAGE as u32;
/// Bytes for sense data.
const SENSE: usize = 96;

/// Whether the function is one of these.
pub(super) fn is(function: &Function) -> bool {
    (function.vendor, function.device) == (VENDOR, DEVICE)
}

struct State {
    /// Requests made and completions taken, free-running.
    made: u32,
    taken: u32,
    in_flight: u32,
    random: Random,
    requests: u64,
    end: Instant,
    last: Instant,
    failed: bool,
}

/// A ring that its interrupt handler keeps full.
struct Loop {
    registers: Mmio,
    rings: Coherent,
    requests: Coherent,
    completions: Coherent,
    data: Coherent,
    sense: Coherent,
    state: IrqSpinLock<State>,
    over: AtomicBool,
}

impl Loop {
    /// Gives a command with its descriptor; `false` if the adapter did not accept it.
    fn command(&self, code: CommandCode, descriptor: &(impl IntoBytes + Immutable)) -> bool {
        self.registers.write(register::COMMAND, code.0);
        for word in descriptor.as_bytes().chunks_exact(4) {
            self.registers.write(register::COMMAND_DATA, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
        self.registers.read::<u32>(register::COMMAND_STATUS) != COMMAND_FAILED
    }

    /// Writes every entry, with data of its own.
    fn entries(&self) {
        for entry in 0..REQUESTS as usize {
            let mut cdb = [0; 16];
            // READ(10).
            (cdb[0], cdb[8]) = (0x28, SECTORS as u8);
            let request = Request {
                context: (entry as u64 + 1).into(),
                data_addr: self.data.addr(entry * BYTES).into(),
                data_len: (BYTES as u64).into(),
                sense_addr: self.sense.addr(entry * SENSE).into(),
                sense_len: (SENSE as u32).into(),
                flags: RequestFlags::TO_HOST.bits().into(),
                cdb,
                cdb_len: 10,
                lun: [0; 8],
                tag: TAG_SIMPLE,
                bus: 0,
                target: 0,
                cpu: 0,
                reserved: [0; 3],
            };
            self.requests.write(entry * REQUEST_BYTES, request);
        }
    }

    fn set_up(&self) -> bool {
        let mut setup = SetupRings {
            request_pages: (REQUEST_PAGES as u32).into(),
            completion_pages: 1.into(),
            state_page: (self.rings.addr(0) / PAGE as u64).into(),
            request: [0.into(); MAX_RING_PAGES],
            completion: [0.into(); MAX_RING_PAGES],
        };
        for (page, number) in setup.request.iter_mut().take(REQUEST_PAGES).enumerate() {
            number.set(self.requests.addr(page * PAGE) / PAGE as u64);
        }
        setup.completion[0].set(self.completions.addr(0) / PAGE as u64);
        self.command(CommandCode::SETUP_RINGS, &setup)
    }

    #[inline]
    fn index(&self, offset: usize) -> u32 {
        u32::from_le(self.rings.atomic_u32(offset).load(Ordering::Acquire))
    }

    /// Aims the next entry.
    #[inline]
    fn put(&self, state: &mut State) {
        let entry = (state.made % REQUESTS) as usize;
        // Within the first 16 MiB: 32 bits hold it.
        let sector = (state.random.below(PLACES) * SECTORS) as u32;
        self.requests.write(entry * REQUEST_BYTES + offset_of!(Request, cdb) + 2, sector.to_be());
        state.made = state.made.wrapping_add(1);
    }

    fn publish(&self, state: &State) {
        let made = self.rings.atomic_u32(offset_of!(RingsState, request_producer));
        made.store(state.made.to_le(), Ordering::Release);
        self.registers.write(register::KICK_READ_WRITE, 0u32);
    }

    fn serve(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let runs = now < state.end && !state.failed;
        loop {
            let count = self.index(offset_of!(RingsState, completion_producer)).wrapping_sub(state.taken);
            // No more than there can be.
            if count > state.in_flight {
                state.failed = true;
            }
            if count == 0 || state.failed {
                break;
            }
            // The first answer after a reset is the unit's word of it.
            let (old, settled) = (state.made, state.requests > 0);
            for _ in 0..count {
                let entry = (state.taken % COMPLETIONS) as usize;
                let answer: Completion = self.completions.read(entry * size_of::<Completion>());
                state.taken = state.taken.wrapping_add(1);
                state.failed |= settled && (answer.host_status.get(), answer.scsi_status.get()) != (0, 0);
                if runs {
                    self.put(&mut state);
                } else {
                    state.in_flight -= 1;
                }
            }
            state.requests += u64::from(count);
            let taken = self.rings.atomic_u32(offset_of!(RingsState, completion_consumer));
            taken.store(state.taken.to_le(), Ordering::Release);
            if state.made != old {
                self.publish(&state);
            }
        }
        state.last = now;
        if state.in_flight == 0 || state.failed {
            self.over.store(true, Ordering::Release);
        }
    }
}

/// How it interrupts.
enum Means {
    MsiX(Msix),
    Msi(Msi),
}

impl Means {
    fn connect(function: Function, message: MsiMessage) -> Option<Self> {
        if let Ok(Some(msix)) = Msix::new(function) {
            msix.set(0, message);
            msix.enable();
            return Some(Self::MsiX(msix));
        }
        Msi::new(function).filter(|msi| msi.enable(message)).map(Self::Msi)
    }

    fn disable(&self) {
        match self {
            Self::MsiX(msix) => msix.disable(),
            Self::Msi(msi) => msi.disable(),
        }
    }
}

/// Requests, and nanoseconds.
pub(super) fn run(cx: &Task, function: Function, depth: u16, (millis, seed): (u64, u64)) -> Result<(u64, u64), Failed> {
    function.enable();
    let fits = |index: &u8| matches!(function.bar(*index), Ok(Bar::Memory { len, .. }) if len >= REGISTER_BYTES as u64);
    let index = (0..6).find(fits).ok_or(Failed::Refused)?;
    let registers = function.map_bar(index).map_err(|_| Failed::Refused)?;
    let block = |bytes| Coherent::new(bytes, DmaConstraints::ANY).map_err(Failed::Memory);
    let now = Instant::now();
    let state = State {
        made: 0,
        taken: 0,
        in_flight: u32::from(depth),
        random: Random::new(seed),
        requests: 0,
        end: now,
        last: now,
        failed: false,
    };
    let ring = Arc::new(Loop {
        registers,
        rings: block(PAGE)?,
        requests: block(REQUEST_PAGES * PAGE)?,
        completions: block(PAGE)?,
        data: block(REQUESTS as usize * BYTES)?,
        sense: block(REQUESTS as usize * SENSE)?,
        state: IrqSpinLock::new(Rank::QUEUE, state),
        over: AtomicBool::new(false),
    });
    ring.entries();
    let served = Arc::clone(&ring);
    let registered = irq::message(cx, 0, move |_| {
        served.serve();
        Handled::Yes
    });
    let (handler, message) = registered.map_err(Failed::Interrupt)?;
    let outcome = match Means::connect(function, message) {
        Some(means) => {
            let outcome = drive(cx, &ring, depth, millis);
            // The device lets go of the memory before it is freed.
            ring.registers.write(register::INTERRUPT_MASK, 0u32);
            if !ring.command(CommandCode::ADAPTER_RESET, &()) {
                function.disable_bus_master();
            }
            means.disable();
            outcome
        }
        None => Err(Failed::Refused),
    };
    drop(handler);
    outcome
}

fn drive(cx: &Task, ring: &Loop, depth: u16, millis: u64) -> Result<(u64, u64), Failed> {
    if !ring.command(CommandCode::ADAPTER_RESET, &()) || !ring.set_up() {
        return Err(Failed::Refused);
    }
    ring.registers.write(register::INTERRUPT_MASK, Interrupt::COMPLETIONS.bits());
    let start = Instant::now();
    {
        let mut state = ring.state.lock();
        state.end = start + Duration::from_millis(millis);
        (0..depth).for_each(|_| ring.put(&mut state));
        ring.publish(&state);
    }
    cx.wait_until(|| ring.over.load(Ordering::Acquire));
    let state = ring.state.lock();
    if state.failed { Err(Failed::Answer) } else { Ok((state.requests, state.last.since(start).as_nanos() as u64)) }
}
