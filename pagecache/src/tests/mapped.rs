//! Pages that are mapped for writing, and memory that may fault.

use std::time::Duration;

use undercroft_block::{Error, Event, Op};
use undercroft_hal::hosted::{Cpus, LeakCheck};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{Task, sync};
use undercroft_timer::timers;

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const P: u64 = PAGE as u64;

/// A page is changed through a mapping, of which the cache learns nothing: before its write-back, under it, after it, and just before the mapping goes.
/// Memory is written as another processor would with a translation that it still has.
fn changed_through_a_mapping() -> Result<(), String> {
    let cpus = Cpus::with_manual_clock(1, 1);
    cpus.clone().run(0, |cx| {
        let _check = LeakCheck::new(cx);
        timers::start_service(cx);
        let device = Device::new(info(BYTES, 512));
        let volume = Volume::open(cx, device.clone(), SMALL).unwrap();
        let settle = || (0..20).for_each(|_| cx.run_pending());
        let mapped = volume.pin_blocking(cx, 5 * P).unwrap().map(cx).map_err(|(_, error)| error).unwrap();
        let write = |fill: u8| cpus.ram().write(mapped.addr(cx), &[fill; PAGE]).unwrap();
        let durable = || device.lock().durable[5 * PAGE..6 * PAGE].to_vec();
        let mut result = Ok(());
        let mut check = |fill: u8, when: &str| {
            if durable() != [fill; PAGE] && result.is_ok() {
                result = Err(format!("what was written through the mapping {when} is lost"));
            }
        };
        write(1);
        assert_eq!(volume.sync_all_blocking(cx), Ok(()));
        check(1, "before a sync");
        write(2);
        assert_eq!(volume.sync_all_blocking(cx), Ok(()));
        check(2, "after a write-back");
        // Without a sync, by its age: again and again, and not without a pause.
        write(3);
        let before = device.seen(Op::Write).len();
        for _ in 0..10 {
            cpus.advance(Duration::from_millis(10));
            settle();
        }
        let aged = device.seen(Op::Write).len() - before;
        assert!(aged <= 10, "{aged} write-backs in ten ticks");
        assert_eq!(volume.sync_all_blocking(cx), Ok(()));
        check(3, "and left to age");
        // The write-back has its copy when the page is changed for the last time, and the mapping goes.
        device.hold();
        let sink = std::sync::Arc::<Sink>::default();
        volume.sync_all(cx, Done::in_bottom_half(sink.clone(), 1)).unwrap();
        settle();
        mapped.unmap(cx, || cpus.ram().write(addr_of(&volume, cx), &[4; PAGE]).unwrap());
        device.release();
        settle();
        assert_eq!(volume.sync_all_blocking(cx), Ok(()));
        check(4, "at last");
        drop(sink);
        drop(volume);
        settle();
        result
    })
}

/// Where page 5 is.
fn addr_of(volume: &Volume, cx: &Task) -> u64 {
    let pinned = volume.pin_blocking(cx, 5 * P).unwrap();
    pinned.addr(cx)
}

#[test]
fn p_35_changes_through_a_mapping_are_not_lost() {
    changed_through_a_mapping().unwrap();
}

#[test]
fn p_35_changes_through_a_mapping_are_not_lost_control() {
    let error = broken::with(Hazard::MappedTakenForClean, changed_through_a_mapping).unwrap_err();
    assert!(error.contains("is lost"), "{error}");
}

/// A mapping's page is neither cut off, discarded nor evicted, and keeps the volume.
#[test]
fn p_35_a_mapped_page_stays() {
    with_rig(SMALL, |rig| {
        let mapped = rig.volume.pin_blocking(rig.cx, 5 * P).unwrap().map(rig.cx).map_err(|(_, error)| error).unwrap();
        let addr = mapped.addr(rig.cx);
        rig.volume.truncate(rig.cx, 3 * P, rig.done(1)).unwrap();
        rig.volume.discard(rig.cx, 4 * P..6 * P, rig.done(2)).unwrap();
        rig.settle();
        assert_eq!((rig.result(1), rig.result(2)), (Some(Err(Error::Busy)), Some(Err(Error::Busy))));
        // Everything else is evicted.
        for page in 0..3 * 64 {
            let _ = rig.now(page % 3 * P, PAGE);
        }
        assert_eq!(rig.volume.resize_cache(rig.cx, 1), 16);
        assert_eq!((mapped.addr(rig.cx), mapped.page().index(rig.cx)), (addr, 5));
        assert_eq!(rig.stats().dirty, 1, "it counts as changed");
        mapped.unmap(rig.cx, || ());
    });
}

/// Writers who want room do not have a mapped page written over and over.
#[test]
fn a_mapped_page_is_no_room() {
    let config = Config { pages: 16, dirty_percent: 10, ..SMALL };
    with_rig(config, |rig| {
        let mapped = rig.volume.pin_blocking(rig.cx, 5 * P).unwrap().map(rig.cx).map_err(|(_, error)| error).unwrap();
        assert_eq!(rig.volume.write_blocking(rig.cx, 0, &[1; PAGE]), Err(Error::NoMemory), "all that may be dirty is");
        assert_eq!(rig.device.seen(Op::Write).len(), 0);
        mapped.unmap(rig.cx, || ());
        assert_eq!(rig.volume.write_blocking(rig.cx, 0, &[1; PAGE]), Ok(()));
    });
}

#[test]
fn a_page_of_a_read_only_device_is_not_mapped_for_writing() {
    let mut info = info(BYTES, 512);
    info.features |= undercroft_block::Features::READ_ONLY;
    try_on(info, SMALL, |rig| {
        let pinned = rig.volume.pin_blocking(rig.cx, 0).unwrap();
        let (pinned, error) = pinned.map(rig.cx).unwrap_err();
        assert_eq!(error, Error::ReadOnly);
        pinned.unpin(rig.cx);
    })
    .unwrap();
}

/// A process's memory: touching it faults, and what handles that reads a page of the same volume, as for a file that is mapped.
struct Faults<'a> {
    volume: &'a Volume,
    bytes: Vec<u8>,
    faults: usize,
}

impl Faults<'_> {
    fn fault(&mut self, cx: &Task) {
        sync::assert_unlocked("a page fault");
        self.faults += 1;
        let mut page = [0; 16];
        self.volume.read_blocking(cx, (100 + self.faults as u64) * P, &mut page).unwrap();
    }
}

impl UserMemory for Faults<'_> {
    fn put(&mut self, cx: &Task, at: usize, bytes: &[u8]) -> Result<(), Error> {
        self.fault(cx);
        self.bytes.get_mut(at..at + bytes.len()).ok_or(Error::OutOfRange)?.copy_from_slice(bytes);
        Ok(())
    }
    fn get(&mut self, cx: &Task, at: usize, bytes: &mut [u8]) -> Result<(), Error> {
        self.fault(cx);
        bytes.copy_from_slice(self.bytes.get(at..at + bytes.len()).ok_or(Error::OutOfRange)?);
        Ok(())
    }
}

fn memory_that_faults() -> Result<(), String> {
    try_with(SMALL, |rig| {
        let (start, len) = (3 * P + 100, 2 * PAGE + 50);
        let mut user = Faults { volume: &rig.volume, bytes: vec![0; len], faults: 0 };
        rig.volume.read_to_user(rig.cx, start, len, &mut user).unwrap();
        assert_eq!(user.faults, 3, "once for each page");
        assert!(user.bytes == (start as usize..start as usize + len).map(pattern).collect::<Vec<_>>());
        user.bytes.fill(7);
        rig.volume.write_from_user(rig.cx, start, len, &mut user).unwrap();
        assert_eq!(rig.now(start, len).unwrap(), vec![7; len]);
        // Memory that is not there.
        user.bytes.truncate(PAGE);
        let failed = rig.volume.read_to_user(rig.cx, start, len, &mut user);
        assert_eq!(failed, Err(Error::OutOfRange));
        assert_eq!(rig.volume.write_from_user(rig.cx, BYTES - 5, 6, &mut user), Err(Error::OutOfRange));
    })
}

#[test]
fn x31_memory_that_faults_is_touched_with_no_lock_held() {
    memory_that_faults().unwrap();
}

#[test]
fn x31_memory_that_faults_is_touched_with_no_lock_held_control() {
    let error = broken::with(Hazard::UserUnderLock, memory_that_faults).unwrap_err();
    assert!(error.contains("memory that may fault is touched while a lock"), "{error}");
}

/// A device that goes while a page of it is mapped.
#[test]
fn a_mapping_outlives_its_device() {
    with_rig(SMALL, |rig| {
        let mapped = rig.volume.pin_blocking(rig.cx, 5 * P).unwrap().map(rig.cx).map_err(|(_, error)| error).unwrap();
        rig.device.lock().gone = Some(Error::Removed);
        let device = rig.device.clone();
        let work = BottomHalfWork::new(0, move |cx| {
            device.tell(cx, Event::Removed);
            Turn::Done
        });
        work.schedule();
        rig.settle();
        assert_eq!(mapped.page().index(rig.cx), 5);
        mapped.unmap(rig.cx, || ());
        rig.settle();
    });
}
