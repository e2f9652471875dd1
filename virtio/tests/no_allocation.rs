//! From submit to completion the drivers take nothing from the heap: not in `submit`, not in the interrupt, not in the bottom half (A-VQ-04,
//! A-VBLK-02, A-VSCSI-03, A-VSCSI-12); nor does an event on its way to whoever hears of it, and its buffer back (A-VSCSI-01).
//!
//! Everything that the guest's side allocates or frees while requests are on their way is counted; what the device models allocate is theirs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use undercroft_block::scsi::{Host, HostEvent, HostWatcher, scan};
use undercroft_block::{BlockDevice, Complete, Completion, Data, Error, Op, Piece, Refusal, Request};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::{TrapAlloc, trap};
use undercroft_hal::{BottomHalf, Task, cpu, pci};
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::virtio::{Blk, Scsi, ScsiEvent};
use undercroft_hosts::{Config, Disk, Machine, Schedule};
use undercroft_virtio::{Found, probe_pci};

#[global_allocator]
static ALLOCATOR: TrapAlloc = TrapAlloc::strict();

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

/// The operations of three rounds, with their blocks; a flush carries no data, so the request keeps it aside.
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
    let rounds = || rounds(task, device, &sink, &mut requests, &mut aside);
    trap::by_guest(rounds).1
}

fn rounds(
    task: &Task,
    device: &Arc<dyn BlockDevice>,
    sink: &Sink,
    requests: &mut [Option<Request>; SLOTS],
    aside: &mut [Data; SLOTS],
) {
    for round in 0..12 {
        let (op, blocks) = ROUNDS[round % 3];
        for (idle, aside) in requests.iter_mut().zip(aside.iter_mut()) {
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
}

fn on_blk(schedule: Schedule, allocates: bool) -> u64 {
    let machine = Machine::new(Config { schedule, ..Config::default() });
    machine.add_virtio_pci(Blk::new(Disk::new(4096)));
    machine.run(|task| {
        let Ok(Some(Found::Blk(blk))) = probe_pci(task, pci::devices(task)[0]) else { panic!("no disk") };
        let device: Arc<dyn BlockDevice> = blk;
        allocations(task, &device, allocates)
    })
}

fn on_scsi(schedule: Schedule, allocates: bool) -> u64 {
    let machine = Machine::new(Config { schedule, ..Config::default() });
    let unit = Lun::new(Disk::new(4096), LunSettings::default());
    machine.add_virtio_pci(Scsi::new(Target::new().with(0, unit)));
    machine.run(|task| {
        let Ok(Some(Found::Scsi(host))) = probe_pci(task, pci::devices(task)[0]) else { panic!("no host") };
        let device: Arc<dyn BlockDevice> = scan(task, host).unwrap().disks.remove(0);
        allocations(task, &device, allocates)
    })
}

/// Counts what it is told. With `allocates` it does what it must not: the control.
struct Told {
    added: AtomicUsize,
    allocates: bool,
}

impl HostWatcher for Told {
    fn event(&self, _cx: &BottomHalf, event: HostEvent) {
        if self.allocates {
            drop(std::hint::black_box(Box::new(event)));
        }
        if matches!(event, HostEvent::Added(_)) {
            self.added.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Many more events than there are buffers, each told; what is allocated and freed meanwhile, and how many buffers came back.
fn events(schedule: Schedule, allocates: bool) -> u64 {
    const AT_ONCE: u16 = 8;
    const ROUNDS: u16 = 12;
    let machine = Machine::new(Config { schedule, ..Config::default() });
    let handle =
        machine.add_virtio_pci(Scsi::new(Target::new().with(0, Lun::new(Disk::new(64), LunSettings::default()))));
    machine.run(|task| {
        let Ok(Some(Found::Scsi(host))) = probe_pci(task, pci::devices(task)[0]) else { panic!("no host") };
        let told = Arc::new(Told { added: AtomicUsize::new(0), allocates });
        host.watch(told.clone());
        let mut allocated = 0;
        for round in 1..=ROUNDS {
            // What the model keeps is its own.
            handle.with(|host| (0..AT_ONCE).for_each(|lun| host.model().event(ScsiEvent::Rescan(0, lun + 1))));
            let wanted = usize::from(round * AT_ONCE);
            let arrive = || {
                task.wait_until(|| {
                    cpu::relax();
                    told.added.load(Ordering::Relaxed) == wanted
                })
            };
            allocated += trap::by_guest(arrive).1;
        }
        assert_eq!((host.event_counts().received, host.event_counts().missed), (u64::from(ROUNDS * AT_ONCE), 0));
        allocated
    })
}

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

#[test]
fn a_vq_04_a_vblk_02_blk_allocates_nothing() {
    for schedule in SCHEDULES {
        assert_eq!(on_blk(schedule, false), 0, "{schedule:?}");
    }
}

#[test]
fn a_vscsi_03_a_vscsi_12_scsi_allocates_nothing() {
    for schedule in SCHEDULES {
        assert_eq!(on_scsi(schedule, false), 0, "{schedule:?}");
    }
}

#[test]
fn a_vscsi_01_an_event_and_its_buffer_allocate_nothing() {
    for schedule in SCHEDULES {
        assert_eq!(events(schedule, false), 0, "{schedule:?}");
    }
}

#[test]
fn a_vscsi_01_control_a_bottom_half_that_allocates() {
    for schedule in SCHEDULES {
        assert!(events(schedule, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}

#[test]
fn a_vq_04_a_vblk_02_control_a_bottom_half_that_allocates() {
    for schedule in SCHEDULES {
        assert!(on_blk(schedule, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}

#[test]
fn a_vscsi_03_a_vscsi_12_control_a_bottom_half_that_allocates() {
    for schedule in SCHEDULES {
        assert!(on_scsi(schedule, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}
