//! Hyper-V's guest side between a host that does what the input says and a machine: the whole driver, from the first message to the last.
//!
//! An input begins with five bytes for what the host is like; then each eight bytes are one thing that goes wrong, and when. Whatever that is:
//! nothing panics, every request ends once, a read that succeeds has the disk's data if the disk's answers were left alone, and the guest is at its
//! end in bounded time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use undercroft_block::queue::{BlockQueue, Config as QueueConfig};
use undercroft_block::scsi::{Host, Management, scan};
use undercroft_block::{BlockDevice, Complete, Completion, Error, Op, Request};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::{ThisMachine, leaks};
use undercroft_hal::hyperv::Partition;
use undercroft_hal::{BottomHalf, Task};
use undercroft_hosts::hyperv::{
    Controller, Event, Fault, Hyperv, Knobs, MessageFault, Plugged, PostFault, Settings, SignalFault, Stray,
};
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::virtio::Order;
use undercroft_hosts::{Config, Disk, Machine, Schedule};
use undercroft_storvsc::{Settings as Wishes, Storvsc, VmBus};
use undercroft_timer::timers;

use crate::Bytes;

const VERSIONS: [u32; 9] = [0x6_0000, 0x5_0003, 0x5_0002, 0x5_0001, 0x5_0000, 0x4_0001, 0x4_0000, 0x3_0000, 0x2_0004];
const STORAGE: [u16; 5] = [0x0200, 0x0402, 0x0501, 0x0600, 0x0602];
/// Things that go wrong, at most.
const MOST: usize = 40;
/// Requests, and blocks of each.
const REQUESTS: u64 = 24;
const SEED: u64 = 5;

/// Messages between guest and host that are lost, changed and made up; posts that fail; channels that are taken back.
///
/// # Panics
/// If the driver does wrong.
pub fn vmbus_messages(bytes: &[u8]) {
    run(bytes, |input, host| {
        let (at, what, value) = (u64::from(input.u8()), input.u16(), input.u32());
        let (low, byte) = (value & 0xff, input.u8());
        let messages = std::mem::take(&mut host.faults.messages);
        let fault = match what % 16 {
            0 => MessageFault::Delay(u64::from(value) % 1_000_000),
            1 => MessageFault::Drop,
            2 => MessageFault::Twice,
            3 => MessageFault::Kind(value % 32),
            4 => MessageFault::Truncate(byte),
            5 => MessageFault::Says(byte),
            6 => MessageFault::SlotKind(value),
            7 | 8 => MessageFault::Patch(byte, value),
            9 => MessageFault::Patch(byte, low),
            10 => MessageFault::After(Stray::Words(u32::from(byte) % 32, [low, value >> 8, low, value >> 16])),
            11 => MessageFault::After(Stray::Offer(low % 6, value >> 8, u16::from(byte) % 5)),
            12 => MessageFault::After(Stray::Words(2, [low % 6, 0, 0, 0])),
            13 => {
                let status = [0x13, 0x12, 0x0b, 6, 2][usize::from(byte) % 5];
                host.faults.posts = std::mem::take(&mut host.faults.posts).at(at % 64, PostFault::Status(status));
                MessageFault::Delay(0)
            }
            14 => {
                let event = if byte & 1 == 0 { Event::Rescind(low % 6) } else { Event::Reoffer(low % 6) };
                host.faults.events = std::mem::take(&mut host.faults.events).at(at, event);
                MessageFault::Delay(0)
            }
            _ => MessageFault::After(
                [Stray::Version, Stray::Unloaded, Stray::AllOffers, Stray::Short][usize::from(byte) % 4],
            ),
        };
        host.faults.messages = messages.at(at % 64, fault);
        true
    });
}

/// Packets and control words of the rings, and storage answers, that are lost, changed and made up; signals that are lost.
///
/// # Panics
/// If the driver does wrong.
pub fn vmbus_ring(bytes: &[u8]) {
    run(bytes, |input, host| {
        let (at, what, byte, value) = (u64::from(input.u8()), input.u16(), input.u8(), input.u32());
        let (low, half) = (value as u8, value as u16);
        let fault = match what % 28 {
            0 => Fault::Delay(u64::from(value) % 20_000_000),
            1 => Fault::Behind(value % 32),
            2 => Fault::Never,
            3 => Fault::Stop,
            4 => Fault::Status(low, byte),
            5 => Fault::Sense(byte, low, (value >> 8) as u8),
            6 => Fault::Busy,
            7 => Fault::Short(value),
            8 => Fault::SaysMoved(value),
            9 => Fault::SaysSense(byte),
            10 => Fault::Duplicate,
            11 => Fault::BadTransaction(u64::from(value) << (byte % 33)),
            12 => Fault::StaleTransaction,
            13 => Fault::Truncate(byte),
            14 => Fault::Oversize(byte),
            15 => Fault::SaysLength(half),
            16 => Fault::SaysOffset(half),
            17 => Fault::Kind(half),
            18 => Fault::Operation(value % 16),
            19 => Fault::Index(value),
            20 | 21 => Fault::Poke(byte % 8, value),
            22 => Fault::Poke(byte % 8, value & 0xfff8),
            23 => Fault::Patch(byte, value),
            24 => Fault::NoSignal,
            25 => Fault::Spurious,
            26 => Fault::Unsolicited(value % 16),
            _ => {
                host.faults.signals = std::mem::take(&mut host.faults.signals).at(at, SignalFault::Lost);
                return true;
            }
        };
        host.faults.packets = std::mem::take(&mut host.faults.packets).at(at, fault);
        // What a damaged answer says of its data is not the disk's doing.
        !matches!(fault, Fault::Patch(..) | Fault::StaleTransaction | Fault::BadTransaction(_) | Fault::SaysOffset(_))
    });
}

/// What came of a request: its cookie, how it ended and what is in its buffer.
type Ended = (u64, Result<(), Error>, Vec<u8>);

/// Takes what is done.
#[derive(Default)]
struct Sink(Mutex<Vec<Ended>>);

impl Complete for Sink {
    fn complete(&self, _: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        let bytes = request.data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect();
        self.0.lock().expect("nobody panics with it").push((cookie, result, bytes));
    }
}

fn host(input: &mut Bytes<'_>, cpus: usize) -> Hyperv {
    let mut host = Hyperv::new(Settings { vps: cpus as u32, ..Settings::default() });
    let (bus, storage, more) = (input.below(VERSIONS.len()), input.below(STORAGE.len()), input.u8());
    host.knobs = Knobs {
        version: VERSIONS[bus],
        stor_versions: STORAGE[..=storage].to_vec(),
        order: [Order::Fifo, Order::Lifo, Order::Random][usize::from(more) % 3],
        poll_depth: (more & 0x40 != 0).then_some(1),
        resets_abort: more & 0x80 == 0,
        ..Knobs::default()
    };
    let settings = LunSettings { serial: "fuzz".into(), ..LunSettings::default() };
    let disk = Lun::new(Disk::patterned(1 << 12, SEED), settings);
    host.add_controller(Controller::scsi(1, Target::new().with(0, disk)));
    host
}

/// Makes the machine, has `wrong` read what goes wrong (`false`: data may not be the disk's), and drives the disk.
fn run(bytes: &[u8], wrong: impl Fn(&mut Bytes<'_>, &mut Hyperv) -> bool) {
    let mut input = Bytes::new(bytes);
    let how = input.u8();
    let cpus = 1 + usize::from(how & 1);
    let schedule = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM][usize::from(how >> 1) % 3];
    let (pages_up, pages_down) = (1 + u32::from(how >> 4 & 3), 1 + u32::from(how >> 6 & 3));
    let seed = u64::from(input.u8());
    let mut host = host(&mut input, cpus);
    let mut honest = true;
    for _ in 0..MOST {
        if input.is_empty() {
            break;
        }
        honest &= wrong(&mut input, &mut host);
    }
    let machine = Machine::new(Config { ram: 4 << 20, cpus, seed, schedule, ..Config::default() });
    // Much is waited for in vain.
    machine.spins_take(20_000_000);
    machine.add_window(Plugged::new(host), true);
    let wishes = Wishes { pages_up, pages_down, depth: 32, ..Wishes::default() };
    // The host may keep what it was given: that is its lie, and no leak.
    leaks::allowed(|| machine.run(|task| drive(task, &wishes, honest)));
}

fn drive(task: &Task, wishes: &Wishes, honest: bool) {
    timers::start_service(task);
    let Ok(partition) = Partition::start(task, Arc::new(ThisMachine)) else { return };
    let Ok(bus) = VmBus::connect(task, partition, wishes) else { return };
    for offer in bus.offers() {
        let Ok(driver) = Storvsc::new(task, &bus, &offer, *wishes) else { continue };
        let driver = Arc::new(driver);
        let Ok(found) = scan(task, driver.clone()) else { continue };
        for disk in found.disks {
            let (second, rung) = (Duration::from_secs(1), Duration::from_millis(200));
            let config =
                QueueConfig { timeout: second, rungs: [rung, rung, rung, 30 * second], ..QueueConfig::default() };
            use_disk(task, &BlockQueue::new(disk, config), honest);
        }
        let _ = driver.manage(Management::ResetHost);
        task.run_pending();
    }
    let _ = bus.unload(task);
}

fn use_disk(task: &Task, disk: &BlockQueue, honest: bool) {
    let size = disk.info().block_size;
    let sink = Arc::new(Sink::default());
    let mut taken = Vec::new();
    for cookie in 0..REQUESTS {
        let Ok(mut data) = DmaBuf::new(size as usize, DmaConstraints::ANY) else { continue };
        data.fill(cookie as u8);
        let op = if cookie % 4 == 3 { Op::Write } else { Op::Read };
        // What is read is never written.
        let lba = if op == Op::Write { 100 + cookie } else { cookie };
        let completion = Completion::new(Arc::clone(&sink) as Arc<dyn Complete>, cookie);
        if disk.submit(Request::new(op, lba, 1, data.into(), completion)).is_ok() {
            taken.push(cookie);
        }
    }
    disk.commit();
    task.wait_until(|| sink.0.lock().expect("nobody panics with it").len() >= taken.len());
    let mut ended = std::mem::take(&mut *sink.0.lock().expect("nobody panics with it"));
    ended.sort_unstable_by_key(|(cookie, ..)| *cookie);
    assert!(ended.iter().map(|(cookie, ..)| cookie).eq(&taken), "each request ends once");
    for (cookie, result, bytes) in ended {
        let read = cookie % 4 != 3 && result.is_ok() && honest && size == 512;
        assert!(!read || bytes[..] == Disk::pattern(SEED, cookie)[..], "block {cookie} is read as something else");
    }
}
