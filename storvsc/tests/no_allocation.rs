//! From submit to completion the driver takes nothing from the heap: not in `submit`, not in the interrupt, not in the bottom half, not when the
//! ring is full, not for sense data (A-SVSC-02, A-SVSC-07, A-SVSC-08, X18).
//!
//! The program's allocator ends it on an allocation in a hard interrupt or under a spinlock; the others are counted.

use std::sync::{Arc, Mutex};

use undercroft_block::queue::{self, BlockQueue};
use undercroft_block::scsi::scan;
use undercroft_block::{BlockDevice, Complete, Completion, Data, Error, Op, Piece, Refusal, Request};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::{ThisMachine, TrapAlloc, trap};
use undercroft_hal::hyperv::Partition;
use undercroft_hal::{BottomHalf, Task, cpu};
use undercroft_hosts::hyperv::{Controller, Fault, Hyperv, Plugged};
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::{Config, Disk, Machine, Schedule, Script};
use undercroft_storvsc::{Settings, Storvsc, VmBus};
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
        // The end of a page and the beginning of another.
        let piece = |at: usize| Piece::new(DmaBuf::new(4096, DmaConstraints::ANY).unwrap(), at, block);
        let data = Data::List(vec![piece(4096 - block), piece(0)]);
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
                cpu::relax();
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

fn on_storvsc(schedule: Schedule, pages: u32, allocates: bool) -> u64 {
    let machine = Machine::new(Config { schedule, ..Config::default() });
    let mut model = Hyperv::new(undercroft_hosts::hyperv::Settings::default());
    model.add_controller(Controller::scsi(1, Target::new().with(0, Lun::new(Disk::new(4096), LunSettings::default()))));
    let host = machine.add_window(Plugged::new(model), true);
    machine.run(|task| {
        let partition = Partition::start(task, Arc::new(ThisMachine)).unwrap();
        let settings = Settings { pages_up: pages, pages_down: pages, ..Settings::default() };
        let bus = VmBus::connect(task, partition, &settings).unwrap();
        let controller = Arc::new(Storvsc::new(task, &bus, &bus.offers()[0], settings).unwrap());
        let disk = scan(task, controller).unwrap().disks.remove(0);
        // A queue waits for a unit that is busy.
        timers::start_service(task);
        let device: Arc<dyn BlockDevice> = Arc::new(BlockQueue::new(disk, queue::Config::default()));
        let odd = [Fault::Busy, Fault::Sense(6, 0x29, 3), Fault::Unsolicited(11)];
        host.with(|plugged| plugged.host.set_packet_faults(Script::none().sometimes(5, 20, &odd)));
        // What the task's own side allocates is not forbidden under a lock of its own; the driver's locks are no place for it.
        let count = trap::strict(|| allocations(task, &device, allocates));
        drop(device);
        assert!(bus.close(task));
        count
    })
}

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

#[test]
fn a_svsc_02_a_svsc_07_a_svsc_08_x18_nothing_is_allocated() {
    for schedule in SCHEDULES {
        for pages in [1, 32] {
            assert_eq!(on_storvsc(schedule, pages, false), 0, "{schedule:?} {pages}");
        }
    }
}

#[test]
fn a_svsc_02_a_svsc_07_a_svsc_08_x18_nothing_is_allocated_control() {
    for schedule in SCHEDULES {
        assert!(on_storvsc(schedule, 8, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}
