//! From submit to completion the driver takes nothing from the heap: not in `submit`, not in the interrupt, not in the bottom half, not for a
//! table, not for sense data, not when a busy unit is asked again (A-PVS-01, A-PVS-04, A-PVS-05, X18).
//!
//! The program's allocator ends it on an allocation in a hard interrupt or under a spinlock; the others are counted.

use std::sync::{Arc, Mutex};

use undercroft_block::queue::{self, BlockQueue};
use undercroft_block::scsi::scan;
use undercroft_block::{BlockDevice, Complete, Completion, Data, Error, Op, Piece, Refusal, Request};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::{TrapAlloc, trap};
use undercroft_hal::{BottomHalf, Task, pci};
use undercroft_hosts::pvscsi::{Fault, FaultScript, Knobs, Layout, Pvscsi};
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::{Config, Disk, Machine, Schedule};
use undercroft_pvscsi::probe;
use undercroft_timer::timers;

#[global_allocator]
static ALLOCATOR: TrapAlloc = TrapAlloc::new();

const SLOTS: usize = 8;

/// A request that is done, and how it went.
type Done = (Request, Result<(), Error>);

/// Takes finished requests in places made before. With `allocates` its completions do what they must not: the control.
struct Sink {
    places: [Mutex<Option<Done>>; SLOTS],
    allocates: bool,
}

impl Complete for Sink {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        if self.allocates {
            drop(std::hint::black_box(Box::new(cookie)));
        }
        *self.places[cookie as usize].lock().unwrap() = Some((request, result));
    }
}

const ROUNDS: [(Op, u32); 3] = [(Op::Write, 2), (Op::Read, 2), (Op::Flush, 0)];

/// Writes, reads and flushes, eight at a time, again and again; counts what is allocated and freed meanwhile.
fn allocations(task: &Task, device: &Arc<dyn BlockDevice>, allocates: bool) -> u64 {
    let sink = Arc::new(Sink { places: [const { Mutex::new(None) }; SLOTS], allocates });
    let block = device.info().block_size as usize;
    let make = |slot: usize| {
        let piece = |at: usize| Piece::new(DmaBuf::new(8192, DmaConstraints::ANY).unwrap(), at, block);
        let data = Data::List(vec![piece(0), piece(block)]);
        let sink: Arc<dyn Complete> = sink.clone();
        Request::new(Op::Write, slot as u64 * 2, 2, data, Completion::new(sink, slot as u64))
    };
    let mut requests: [Option<Request>; SLOTS] = core::array::from_fn(|slot| Some(make(slot)));
    let mut aside: [Data; SLOTS] = Default::default();
    // What the scan left in line is freed first.
    task.run_pending();
    let before = trap::counts().by_guest;
    for round in 0..12 {
        let (op, blocks) = ROUNDS[round % 3];
        for (idle, aside) in requests.iter_mut().zip(&mut aside) {
            let mut request = idle.take().unwrap();
            if (op == Op::Flush) != request.data.is_empty() {
                core::mem::swap(&mut request.data, aside);
            }
            (request.op, request.blocks) = (op, blocks);
            while let Err(rejected) = device.submit(request) {
                assert_eq!(rejected.why, Refusal::Full);
                request = rejected.request;
                device.commit();
                task.run_pending();
            }
        }
        device.commit();
        for (idle, place) in requests.iter_mut().zip(&sink.places) {
            let mut done = None;
            task.wait_until(|| {
                done = place.lock().unwrap().take();
                done.is_some()
            });
            let (request, result) = done.unwrap();
            assert_eq!(result, Ok(()), "round {round}");
            *idle = Some(request);
        }
    }
    trap::counts().by_guest - before
}

fn on_pvscsi(schedule: Schedule, layout: Layout, allocates: bool) -> u64 {
    let machine = Machine::new(Config { schedule, ..Config::default() });
    let unit = Lun::new(Disk::new(4096), LunSettings::default());
    let mut model = Pvscsi::new(layout, Target::new().with(0, unit));
    model.knobs = Knobs { max_targets: Some(1), ..Knobs::default() };
    let host = machine.add_pci(model);
    machine.run(|task| {
        let adapter = probe(task, pci::devices(task)[0]).unwrap().expect("an adapter");
        let disk = scan(task, adapter).unwrap().disks.remove(0);
        // A queue waits for a unit that is busy.
        timers::start_service(task);
        let device: Arc<dyn BlockDevice> = Arc::new(BlockQueue::new(disk, queue::Config::default()));
        let odd = [Fault::ScsiStatus(8), Fault::Sense(6, 0x29, 3), Fault::Spurious];
        host.with(|model| model.set_faults(FaultScript::none().sometimes(5, 20, &odd)));
        // What the task's own side allocates is not forbidden under a lock of its own; the driver's locks are no place for it.
        trap::strict(|| allocations(task, &device, allocates))
    })
}

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

#[test]
fn a_pvs_01_a_pvs_04_x18_nothing_is_allocated() {
    for schedule in SCHEDULES {
        for layout in [Layout::MsiX, Layout::Msi, Layout::Line] {
            assert_eq!(on_pvscsi(schedule, layout, false), 0, "{schedule:?} {layout:?}");
        }
    }
}

#[test]
fn a_pvs_01_a_pvs_04_x18_nothing_is_allocated_control() {
    for schedule in SCHEDULES {
        assert!(on_pvscsi(schedule, Layout::MsiX, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}
