//! Xen's guest side between a host that does what the input says and a machine: the whole driver, from xenstore's first message to the last.
//!
//! An input begins with four bytes for what the host is like; then each eight bytes are one thing that goes wrong, and when. Whatever that is:
//! nothing panics, every request ends once, a read that succeeds has the disk's data, and the guest is at its end in bounded time.

use std::sync::Arc;

use undercroft_block::{BlockDevice, Completion};
use undercroft_hal::Task;
use undercroft_hal::hosted::{ThisMachine, leaks};
use undercroft_hal::work::Turn;
use undercroft_hal::xen::{Access, Domain, DomainId, EventChannel, Grant};
use undercroft_hosts::rig::{Sink, bytes, read, settle, write};
use undercroft_hosts::virtio::Order;
use undercroft_hosts::xen::{Event, Fault, Knobs, Plugged, Settings, StoreFault, VbdSettings, Xen};
use undercroft_hosts::{Config, Disk, Machine, Schedule};
use undercroft_timer::timers;
use undercroft_xen::blk::{Config as Wishes, XenDisk, find};
use undercroft_xen::store::Store;

use crate::Bytes;

/// Things that go wrong, at most.
const MOST: usize = 40;
const REQUESTS: u64 = 24;
const SEED: u64 = 5;
const SECTORS: u64 = 1 << 12;

/// Messages of xenstore's that are lost, changed and made up; states that change out of order.
///
/// # Panics
/// If the driver does wrong.
pub fn xenstore(input: &[u8]) {
    run(input, |input, host| {
        let (at, what, value, byte) = (u64::from(input.u8()), input.u8(), input.u32(), input.u16());
        let fault = match what % 18 {
            0 => StoreFault::Delay(u64::from(value) * 1000),
            1 => StoreFault::Drop,
            2 => StoreFault::Twice,
            3 => StoreFault::Kind(value % 32),
            4 => StoreFault::Request(value),
            5 => StoreFault::Length(value),
            6 => StoreFault::Length(value % 5000),
            7 => StoreFault::Truncate(byte % 64),
            8 => StoreFault::Garbage(byte as u8),
            9 => StoreFault::Refused(["EIO", "ENOENT", "EACCES", "E2BIG", "", "?"][usize::from(byte) % 6]),
            10 => StoreFault::Again,
            11 => StoreFault::StrayEvent(["0", "1", "255", "256", "-1", ""][usize::from(byte) % 6]),
            12 => StoreFault::StrayReply,
            13 => StoreFault::Bytewise,
            14 => StoreFault::NoEvent,
            15 => StoreFault::Producer(value),
            16 => {
                let event = Event::Says(0, u64::from(value % 9));
                host.faults.events = std::mem::take(&mut host.faults.events).at(at, event);
                return true;
            }
            _ => {
                let event =
                    [Event::FireWatches, Event::Detach(0), Event::Close(0), Event::Vanish(0), Event::Resize(0, 8)];
                let event = event[usize::from(byte) % event.len()];
                host.faults.events = std::mem::take(&mut host.faults.events).at(at, event);
                return true;
            }
        };
        host.faults.replies = std::mem::take(&mut host.faults.replies).at(at % 64, fault);
        true
    });
}

/// Responses in a disk's rings that are lost, changed and made up; notifications that are lost.
///
/// # Panics
/// If the driver does wrong.
pub fn blkif_ring(input: &[u8]) {
    run(input, |input, host| {
        let (at, what, value, byte) = (u64::from(input.u8()), input.u8(), input.u32(), input.u16());
        let fault = match what % 15 {
            0 => Fault::Delay(u64::from(value)),
            1 => Fault::Behind(value % 32),
            2 => Fault::Never,
            3 => Fault::Status(byte as i16),
            4 => Fault::SaysStatus(byte as i16),
            5 => Fault::Id(u64::from(value) << (byte % 33)),
            6 => Fault::IdBits(1 << (byte % 64)),
            7 => Fault::StaleId,
            8 => Fault::Duplicate,
            9 => Fault::Operation(byte as u8),
            10 => Fault::Producer(value),
            11 => Fault::NoEvent,
            12 => Fault::LateEvent(u64::from(value)),
            13 => Fault::Spurious,
            _ => Fault::TouchesLate,
        };
        host.faults.requests = std::mem::take(&mut host.faults.requests).at(at % 64, fault);
        // One that says that it was done, another's answer, or data that is read while it is written to.
        !matches!(
            fault,
            Fault::SaysStatus(0)
                | Fault::Status(0)
                | Fault::StaleId
                | Fault::Id(_)
                | Fault::IdBits(_)
                | Fault::TouchesLate
        )
    });
}

/// Grants made and taken back, event channels opened, notified and closed, with a host that has few of either.
///
/// # Panics
/// If a grant is given out twice, or something is left behind.
pub fn grant_evtchn(input: &[u8]) {
    let mut input = Bytes::new(input);
    let mut host = Xen::new(Settings::default());
    host.knobs = Knobs {
        grant_frames: 1 + u32::from(input.u8() % 3),
        ports: 3 + u32::from(input.u8() % 80),
        ..Knobs::default()
    };
    let machine = Machine::new(Config { ram: 1 << 20, ..Config::default() });
    let host = machine.add_window(Plugged::new(host), true);
    machine.run(|task| {
        let Ok(domain) = Domain::start(task, Arc::new(ThisMachine)) else { return };
        let mut grants: Vec<Grant> = Vec::new();
        let mut channels: Vec<EventChannel> = Vec::new();
        for _ in 0..4000 {
            if input.is_empty() {
                break;
            }
            let (what, which) = (input.u8(), usize::from(input.u8()));
            match what % 8 {
                0..=2 => {
                    for _ in 0..=which {
                        let Ok(grant) = domain.grant(DomainId(0), 300 + which as u64, Access::Write) else { break };
                        assert!(grant.reference() >= 8, "one of the tool stack's");
                        assert!(!grants.contains(&grant), "a grant is given out twice");
                        grants.push(grant);
                    }
                }
                3 if !grants.is_empty() => {
                    let grant = grants.swap_remove(which % grants.len());
                    assert!(domain.revoke(grant).is_ok(), "nobody uses it");
                }
                4 => drop(domain.add_grants(task)),
                5 => channels.extend(EventChannel::open(task, &domain, DomainId(0), which % 2, |_, _| Turn::Done)),
                6 if !channels.is_empty() => drop(channels.swap_remove(which % channels.len())),
                _ => drop(channels.get(which % channels.len().max(1)).map(EventChannel::notify)),
            }
        }
        let held = host.with(|plugged| plugged.host.granted());
        assert_eq!(held, grants.len(), "the table holds what was granted");
        assert!(grants.into_iter().all(|grant| domain.revoke(grant).is_ok()));
        drop(channels);
        settle(task);
    });
    host.with(|plugged| {
        assert_eq!((plugged.host.granted(), plugged.host.open_ports()), (0, 0), "something is left behind");
        assert_eq!(plugged.host.breaches(), []);
    });
}

/// Makes the machine, has `wrong` read what goes wrong (`false`: data may not be the disk's), and drives the disk.
fn run(input: &[u8], wrong: impl Fn(&mut Bytes<'_>, &mut Xen) -> bool) {
    let mut input = Bytes::new(input);
    let (how, shape, kind, seed) = (input.u8(), input.u8(), input.u8(), u64::from(input.u8()));
    let cpus = 1 + usize::from(how & 1);
    let schedule = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM][usize::from(how >> 1) % 3];
    let mut host = Xen::new(Settings { vcpus: cpus as u32, ..Settings::default() });
    host.knobs.order = [Order::Fifo, Order::Lifo, Order::Random][usize::from(how >> 4) % 3];
    host.knobs.transactions_fail = u32::from(how >> 6);
    let settings = VbdSettings {
        sector_size: if shape & 1 == 0 { 512 } else { 4096 },
        queues: 1 + u32::from(shape >> 1 & 1),
        ring_order: (shape & 4 == 0).then_some(u32::from(shape >> 3 & 1)),
        indirect: [0, 12, 256][usize::from(shape >> 4) % 3],
        persistent: kind & 1 == 0,
        flush: kind & 2 == 0,
        discard: kind & 4 == 0,
        ..VbdSettings::default()
    };
    host.add_vbd(0, Disk::patterned(SECTORS, SEED), settings);
    let mut honest = true;
    for _ in 0..MOST {
        if input.is_empty() {
            break;
        }
        honest &= wrong(&mut input, &mut host);
    }
    let machine = Machine::new(Config { ram: 8 << 20, cpus, seed, schedule, ..Config::default() });
    // Much is waited for in vain.
    machine.spins_take(20_000_000);
    machine.add_window(Plugged::new(host), true);
    // The host may keep what it was given: that is its lie, and no leak.
    leaks::allowed(|| machine.run(|task| drive(task, honest)));
}

fn drive(task: &Task, honest: bool) {
    timers::start_service(task);
    let Ok(domain) = Domain::start(task, Arc::new(ThisMachine)) else { return };
    let domain = Arc::new(domain);
    let Ok(store) = Store::connect(task, &domain) else { return };
    let Ok(found) = find(task, &store) else { return };
    for number in found {
        let Ok(Some(disk)) = XenDisk::connect(task, &domain, &store, &number, Wishes::default()) else { continue };
        use_disk(task, &disk, honest);
    }
}

fn use_disk(task: &Task, disk: &XenDisk, honest: bool) {
    let size = disk.info().block_size;
    let sink = Sink::new();
    let mut taken = Vec::new();
    for cookie in 0..REQUESTS {
        let completion = Completion::new(sink.clone(), cookie);
        let request = match cookie % 4 {
            // What is read is never written.
            3 => write(300 + cookie, &vec![7; size as usize], size, completion),
            blocks => read(cookie, 1 + blocks as u32, size, completion),
        };
        if disk.submit(request).is_ok() {
            taken.push(cookie);
        }
        if cookie % 5 == 0 {
            disk.commit();
        }
    }
    disk.commit();
    settle(task);
    // What is not answered ends with this.
    disk.close(task);
    task.wait_until(|| sink.count() >= taken.len());
    settle(task);
    let mut ended = sink.take();
    ended.sort_unstable_by_key(|done| done.cookie);
    assert!(ended.iter().map(|done| done.cookie).eq(taken), "each request ends once");
    for done in ended.iter().filter(|done| done.cookie % 4 != 3 && done.result.is_ok() && honest) {
        let first = done.cookie * u64::from(size / 512);
        let data = bytes(&done.request);
        let expected: Vec<u8> = (0..data.len() as u64 / 512).flat_map(|at| Disk::pattern(SEED, first + at)).collect();
        assert!(data == expected, "block {} is read as something else", done.cookie);
    }
}
