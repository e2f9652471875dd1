//! The scan over a scripted host.

use std::sync::Arc;

use undercroft_hal::work::{TaskWork, Turn};

use super::super::testing::{MockHost, Reply, Unit as Model, machine, one};
use super::super::{Lun, ProbeError, Response, Status};
use super::*;
use crate::Features;
use crate::broken::{self, Hazard};

fn numbers(scan: &Scan) -> Vec<u32> {
    scan.disks.iter().map(|disk| disk.address().lun.number()).collect()
}

#[test]
fn x23_sparse_and_sixteen_bit_luns_become_disks() {
    machine().run(|cx| {
        let units = [0, 5, 300].map(|lun| (lun, Model::new(u64::from(lun) + 100, if lun == 5 { 4096 } else { 512 })));
        let host = MockHost::new(4, units);
        let found = scan(cx, host).unwrap();
        assert_eq!(numbers(&found), [0, 5, 300]);
        let shapes: Vec<_> = found.disks.iter().map(|d| (d.info().capacity, d.info().block_size)).collect();
        assert_eq!(shapes, [(100, 512), (105, 4096), (400, 512)]);
        let identity = found.disks[2].identity();
        assert_eq!(identity.controller, "test target 0 lun 300");
        assert_eq!((identity.serial.as_str(), identity.model.as_str()), ("UNIT", "VENDOR PRODUCT"));
        assert_eq!(found.disks[2].info().physical_block_size, 4096);
    });
}

#[test]
fn other_kinds_and_empty_places_are_skipped() {
    machine().run(|cx| {
        let mut cd = Model::new(100, 2048);
        cd.kind = 5;
        let mut absent = Model::new(100, 512);
        absent.kind = 0x3f;
        let host = MockHost::new(4, [(0, cd), (1, Model::new(100, 512)), (2, absent)]);
        let found = scan(cx, host).unwrap();
        assert_eq!(numbers(&found), [1]);
        let others: Vec<_> = found.others.iter().map(|(_, why)| *why).collect();
        assert_eq!(others, [ProbeError::OtherKind(super::super::wire::PeripheralType::CD_DVD), ProbeError::Absent]);
        assert!(others.iter().all(|why| !why.is_failure()));
    });
}

#[test]
fn shapes_that_make_no_sense_are_refused() {
    for (blocks, block_size, expected) in [
        (100, 520, ProbeError::BlockSize(520)),
        (100, 0, ProbeError::BlockSize(0)),
        (100, 256, ProbeError::BlockSize(256)),
        (100, 131_072, ProbeError::BlockSize(131_072)),
        (100, u32::MAX, ProbeError::BlockSize(u32::MAX)),
    ] {
        machine().run(|cx| {
            let mut unit = Model::new(blocks, 512);
            unit.block_size = block_size;
            let found = scan(cx, MockHost::new(4, [(0, unit)])).unwrap();
            assert_eq!(found.others, [(Address::default(), expected)]);
        });
    }
    machine().run(|cx| {
        let mut unit = Model::new(u64::MAX, 65_536);
        unit.store = vec![0; 65_536];
        let disk = one(cx, &MockHost::new(4, [(0, unit)]));
        assert_eq!(disk.info().bytes(), u64::MAX, "saturates");
    });
}

#[test]
fn hostile_limits_are_clamped() {
    machine().run(|cx| {
        let mut unit = Model::new(100, 4096);
        unit.pages.insert(0xb0, [&[0, 0xb0, 0xff, 0xff][..], &[0xff; 60]].concat());
        let info = one(cx, &MockHost::new(4, [(0, unit)])).info();
        assert_eq!(info.limits.max_transfer_bytes, 1 << 20, "the host's");
        assert_eq!(info.limits.max_write_zeroes_blocks, u32::MAX);
        let mut unit = Model::new(100, 4096);
        let page = unit.pages.get_mut(&0xb0).unwrap();
        page[8..12].copy_from_slice(&3u32.to_be_bytes());
        page[20..28].fill(0);
        let info = one(cx, &MockHost::new(4, [(0, unit)])).info();
        assert_eq!(info.limits.max_transfer_bytes, 3 * 4096);
        assert!(!info.features.contains(Features::DISCARD));
    });
}

#[test]
fn attention_and_becoming_ready_are_waited_for() {
    machine().run(|cx| {
        let host = MockHost::new(4, [(0, Model::new(100, 512))]);
        host.unit(0, |unit| {
            unit.script.extend([Reply::sense(6, 0x29, 0), Reply::sense(2, 4, 1), Reply::status(Status::BUSY)]);
        });
        one(cx, &host);
        let host = MockHost::new(4, [(0, Model::new(100, 512))]);
        host.unit(0, |unit| unit.script.extend(std::iter::repeat_n(Reply::sense(6, 0x29, 0), 1000)));
        let found = scan(cx, host).unwrap();
        assert_eq!(found.others, [(Address::default(), ProbeError::Failed(Error::NotReady))], "bounded");
    });
}

#[test]
fn a_vscsi_05_memory_running_out_anywhere_is_an_error_and_leaks_nothing() {
    let mut failures = 0;
    for nth in 0.. {
        let machine = machine();
        machine.fail_dma_after(nth);
        let whole = machine.run(|cx| {
            let found = scan(cx, MockHost::new(4, [(0, Model::new(100, 512))]));
            match found {
                Ok(found) if found.disks.len() == 1 => true,
                Ok(found) => {
                    assert_eq!(found.others, [(Address::default(), ProbeError::Failed(Error::NoMemory))]);
                    false
                }
                Err(error) => {
                    assert_eq!(error, Error::NoMemory);
                    false
                }
            }
        });
        assert_eq!(machine.live_dma_blocks(), 0);
        if whole {
            break;
        }
        failures += 1;
    }
    assert!(failures >= 5, "the answer buffer and four parameter buffers");
}

#[test]
fn answers_cut_anywhere_never_panic() {
    machine().run(|cx| {
        for residual in 0..=4100 {
            let host = MockHost::new(4, [(0, Model::new(100, 512))]);
            host.unit(0, |unit| unit.script.extend(std::iter::repeat_n(Reply { residual, ..Reply::good() }, 30)));
            let found = scan(cx, host).unwrap();
            assert!(found.disks.is_empty(), "zeroes are no disk");
        }
        for report in [vec![], vec![0; 7], vec![0xff; 4096], [&[0, 0, 0, 16][..], &[0; 20]].concat()] {
            let host = MockHost::new(4, [(0, Model::new(100, 512))]);
            host.state.lock().unwrap().report = Some(report);
            let _ = scan(cx, host).unwrap();
        }
    });
}

#[test]
fn old_devices_without_report_luns_vpd_or_mode_pages() {
    machine().run(|cx| {
        let mut unit = Model::new(100, 512);
        unit.version = 2;
        unit.unknown = vec![0x5a, 0x9e];
        unit.pages.clear();
        let host = MockHost::new(4, [(0, unit)]);
        let disk = one(cx, &host);
        let features = disk.info().features;
        assert!(features.contains(Features::VOLATILE_CACHE), "nobody says that there is none");
        assert!(!features.intersects(Features::DISCARD | Features::WRITE_ZEROES | Features::FUA | Features::READ_ONLY));
    });
}

#[test]
fn a_host_that_is_gone_or_silent_ends_the_scan() {
    let machine = machine();
    machine.run(|cx| {
        let host = MockHost::new(4, [(0, Model::new(100, 512))]);
        host.state.lock().unwrap().gone = Some(Error::Broken);
        assert_eq!(scan(cx, host).unwrap_err(), Error::Broken);
        let host = MockHost::new(4, [(0, Model::new(100, 512))]);
        host.unit(0, |unit| unit.script.extend([Reply::response(Response::Broken)]));
        let found = scan(cx, host).unwrap();
        assert_eq!(found.others, [(Address::default(), ProbeError::Failed(Error::Broken))]);
    });
}

/// A host that takes what it is asked and never answers, on a machine where nothing else will ever happen: the scan ends by its own alarm.
fn silent_host() {
    let machine = machine();
    machine.run(|cx| {
        undercroft_timer::timers::start_service(cx);
        let host = MockHost::new(4, [(0, Model::new(100, 512))]);
        host.state.lock().unwrap().silent = true;
        let begun = undercroft_hal::Instant::now();
        assert!(scan(cx, host.clone()).map_or(true, |found| found.disks.is_empty()));
        assert!(begun.elapsed().as_secs() >= 30, "it was given its time");
        // As the host does when it is reset.
        host.state.lock().unwrap().silent = false;
        host.commit();
        cx.run_pending();
    });
}

#[test]
fn a_silent_host_ends_the_scan() {
    silent_host();
}

#[test]
fn a_silent_host_ends_the_scan_control() {
    let hangs = || broken::with(Hazard::NoDeadlines, silent_host);
    let message = undercroft_hosts::rig::says(hangs);
    assert!(message.contains("the guest waits for an interrupt that never comes"), "{message}");
}

/// Two scans at once: the second starts while the first has asked the unit what it is.
fn scan_in_scan() -> usize {
    machine().run(|cx| {
        let host = MockHost::new(4, [(0, Model::new(100, 512))]);
        let bus = Arc::new(Bus::new(host.clone()));
        let inner = Arc::new(std::sync::Mutex::new(Vec::new()));
        let work = {
            let (bus, inner) = (Arc::clone(&bus), Arc::clone(&inner));
            Arc::new(TaskWork::new(0, move |cx| {
                inner.lock().unwrap().extend(bus.scan(cx).unwrap().disks);
                Turn::Done
            }))
        };
        let hook = Arc::clone(&work);
        host.state.lock().unwrap().on_inquiry = Some(Box::new(move || hook.schedule()));
        let outer = bus.scan(cx).unwrap().disks;
        cx.run_pending();
        let count = outer.len() + inner.lock().unwrap().len();
        assert!(bus.scan(cx).unwrap().disks.is_empty(), "a known disk is not found again");
        drop(outer);
        inner.lock().unwrap().clear();
        assert_eq!(bus.scan(cx).unwrap().disks.len(), 1, "once nobody has it any more, it is");
        count
    })
}

#[test]
fn x26_two_scans_make_one_disk() {
    assert_eq!(scan_in_scan(), 1);
}

#[test]
fn x26_two_scans_make_one_disk_control() {
    CHECK_THEN_ACT.set(true);
    assert_eq!(scan_in_scan(), 2, "the check must catch a roster that claims after asking");
}

#[test]
fn x23_numbers_the_host_cannot_address_are_left_out() {
    machine().run(|cx| {
        let host = MockHost::new(4, [(0, Model::new(100, 512)), (0x4000, Model::new(100, 512))]);
        assert_eq!(numbers(&scan(cx, host.clone()).unwrap()), [0]);
        assert_eq!(host.info.max_lun, 0x3fff);
        assert!(Lun::new(0x4000).is_some());
    });
}

/// Hears that its disk is gone, and in the middle of that takes another off the roster.
struct Leaver {
    host: Arc<MockHost>,
    takes: Address,
    told: std::sync::atomic::AtomicU32,
}

impl crate::Watcher for Leaver {
    fn event(&self, cx: &BottomHalf, _event: crate::Event) {
        if self.told.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            self.host.event(cx, HostEvent::Removed(self.takes));
        }
    }
}

/// The roster is walked with its lock dropped for each disk, and each disk that is told takes another off it: whoever takes whom, every one
/// of them is told.
fn taken_off_during_the_walk() {
    const DISKS: u32 = 5;
    for takes in 0..DISKS {
        machine().run(|cx| {
            let host = MockHost::new(4, (0..DISKS).map(|lun| (lun, Model::new(100, 512))));
            let bus = Bus::new(host.clone());
            let disks = bus.scan(cx).unwrap().disks;
            let leavers: Vec<_> = (0..DISKS)
                .map(|lun| {
                    let takes = disks[((lun + takes) % DISKS) as usize].address();
                    Arc::new(Leaver { host: host.clone(), takes, told: Default::default() })
                })
                .collect();
            disks.iter().zip(&leavers).for_each(|(disk, leaver)| disk.watch(leaver.clone()));
            let theirs = host.clone();
            let gone = undercroft_hal::work::BottomHalfWork::new(0, move |cx| {
                theirs.event(cx, HostEvent::Gone);
                Turn::Done
            });
            gone.schedule();
            cx.run_pending();
            let told = |leaver: &Arc<Leaver>| leaver.told.load(std::sync::atomic::Ordering::Relaxed) > 0;
            assert!(leavers.iter().all(told), "a disk was passed over when another left");
        });
    }
}

#[test]
fn x16_a_roster_that_changes_while_it_is_walked() {
    taken_off_during_the_walk();
}

#[test]
#[should_panic(expected = "a disk was passed over when another left")]
fn x16_a_roster_that_changes_while_it_is_walked_control() {
    MOVES_ENTRIES.set(true);
    taken_off_during_the_walk();
}

/// Places on the roster are used again: it does not grow with every disk that comes and goes.
#[test]
fn places_on_the_roster_are_used_again() {
    machine().run(|cx| {
        let host = MockHost::new(4, [(0, Model::new(100, 512))]);
        let bus = Bus::new(host.clone());
        for _ in 0..50 {
            let disks = bus.scan(cx).unwrap().disks;
            assert_eq!(disks.len(), 1);
            bus.roster.settle(disks[0].address(), None);
            bus.roster.settle(disks[0].address(), None);
        }
        // Target 0 with its unit, and whatever else was asked once.
        assert!(bus.roster.claims.lock().len() <= 2);
    });
}

/// A disk that a target does not list any more is told so, once, and its address is free; the others are left alone.
#[test]
fn a_disk_that_is_not_listed_any_more_is_gone() {
    machine().run(|cx| {
        let host = MockHost::new(4, [0, 5, 6].map(|lun| (lun, Model::new(100, 512))));
        let bus = Bus::new(host.clone());
        let disks = bus.scan(cx).unwrap().disks;
        let leavers: Vec<_> = disks
            .iter()
            .map(|disk| {
                let told = std::sync::atomic::AtomicU32::new(1);
                let leaver = Arc::new(Leaver { host: host.clone(), takes: disk.address(), told });
                crate::BlockDevice::watch(&**disk, leaver.clone());
                leaver
            })
            .collect();
        let five = disks[1].address();
        host.state.lock().unwrap().units.remove(&five);
        assert!(bus.scan(cx).unwrap().disks.is_empty());
        assert!(bus.scan(cx).unwrap().disks.is_empty());
        cx.run_pending();
        let told: Vec<_> = leavers.iter().map(|l| l.told.load(std::sync::atomic::Ordering::Relaxed) - 1).collect();
        assert_eq!(told, [0, 1, 0]);
        host.state.lock().unwrap().units.insert(five, Model::new(200, 512));
        assert_eq!(numbers(&bus.scan(cx).unwrap()), [5], "another disk of that address is found");
    });
}
