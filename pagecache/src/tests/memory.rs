//! Memory: none is taken on an operation's path but that of pages; when that runs out each operation ends once; nothing is left behind.

use std::time::Duration;

use undercroft_block::{Error, Op};
use undercroft_hal::heap::fail_nth;
use undercroft_hal::hosted::trap;

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const P: u64 = PAGE as u64;

/// What is done with a volume, by name, in a fresh cache.
type Way = (&'static str, fn(&Rig<'_>));

const WAYS: [Way; 8] = [
    ("read", |rig| rig.read(1, 5 * P + 7, 10_000)),
    ("write of a page", |rig| rig.write(1, 5 * P, PAGE, 1)),
    ("write of parts", |rig| rig.write(1, 5 * P + 7, 10_000, 1)),
    ("pin", |rig| rig.volume.pin(rig.cx, 5 * P, rig.done(1)).unwrap()),
    ("sync", |rig| rig.sync(1)),
    ("sync of a range", |rig| rig.volume.sync(rig.cx, P..9 * P, rig.done(1)).unwrap()),
    ("discard", |rig| rig.volume.discard(rig.cx, 0..9 * P, rig.done(1)).unwrap()),
    ("invalidate", |rig| rig.volume.invalidate(rig.cx, 0..9 * P, rig.done(1)).unwrap()),
];

/// Runs what is to be done with allocation `nth` failing: it is told once; everything works afterwards. `true`: one failed.
fn starved(name: &str, nth: u64, way: fn(&Rig<'_>)) -> Result<bool, String> {
    let mut failed = false;
    try_with(SMALL, |rig| {
        failed = fail_nth(nth, || {
            way(rig);
            rig.settle();
        })
        .failed;
        let result = rig.result(1).unwrap_or_else(|| panic!("{name}, allocation {nth}: it was not told"));
        assert!(result.is_ok() || failed && result == Err(Error::NoMemory), "{name}, allocation {nth}: {result:?}");
        assert_eq!(rig.stats().operations, 0);
        rig.sink.ended.lock().unwrap().clear();
        // Memory is back: so it is, and everything works.
        rig.pass(Duration::from_millis(20));
        way(rig);
        rig.settle();
        assert_eq!(rig.result(1), Some(Ok(())), "{name}, allocation {nth}: it does not work afterwards");
        rig.sink.ended.lock().unwrap().clear();
        rig.settle();
        rig.volume.invalidate(rig.cx, 0..u64::MAX, rig.done(2)).unwrap();
        rig.settle();
        assert_eq!(rig.result(2), Some(Ok(())), "{name}, allocation {nth}: a pin is left");
    })?;
    Ok(failed)
}

/// A-PC-02 and all others of memory that runs out, for every operation and every allocation.
fn every_allocation() -> Result<u32, String> {
    let mut failures = 0;
    for (name, way) in WAYS {
        // The first allocation of a read or write is that of the test's own data.
        let own = u64::from(name.contains("read") || name.contains("write"));
        for nth in own.. {
            if !starved(name, nth, way)? {
                break;
            }
            failures += 1;
        }
    }
    Ok(failures)
}

#[test]
fn a_pc_02_memory_that_runs_out_ends_each_operation_once() {
    assert!(every_allocation().unwrap() >= 4, "allocations were failed");
}

#[test]
fn a_pc_02_memory_that_runs_out_ends_each_operation_once_control() {
    let error = broken::with(Hazard::ForgottenWithoutMemory, every_allocation).unwrap_err();
    assert!(error.contains("it was not told"), "{error}");
}

#[test]
fn x34_memory_that_runs_out_is_noticed_control() {
    let error = broken::with(Hazard::MemoryIgnored, every_allocation).unwrap_err();
    // There is nothing to lend the device, and what it is asked for is too short.
    assert!(error.contains("Err(BadLength)"), "{error}");
}

#[test]
fn x12_no_lock_stays_taken_control() {
    let error = broken::with(Hazard::LockKept, every_allocation).unwrap_err();
    assert!(error.contains("lock order recursion: rank 8"), "{error}");
}

#[test]
fn a_pc_07_memory_is_taken_with_no_lock_held_control() {
    let error = broken::with(Hazard::AllocatesUnderLock, every_allocation).unwrap_err();
    assert!(error.contains("memory for pages is allocated while a lock of rank 8"), "{error}");
}

/// A-PC-22: a write for whose second page there is no memory, while the first is being read for it: it ends once, after that, and others go on.
#[test]
fn a_pc_22_a_write_that_runs_out_of_memory_half_way() {
    with_rig(Config { pages: 16, dirty_percent: 100, ..SMALL }, |rig| {
        let pins: Vec<_> = (0..8).map(|page| rig.volume.pin_blocking(rig.cx, (100 + page) * P).unwrap()).collect();
        assert_eq!(rig.volume.resize_cache(rig.cx, 16), 16);
        rig.device.hold();
        // Nine pages, of which eight can be had; write-back cannot make room, since the device fails.
        for page in 0..9 {
            rig.device.fail(Op::Write, page * 8, Error::Hardware, 1000);
        }
        rig.write(1, 10, 9 * PAGE - 20, 4);
        rig.settle();
        assert_eq!(rig.result(1), None);
        rig.device.release();
        rig.settle();
        assert_eq!(rig.result(1), Some(Err(Error::Hardware)), "told once, with the reason why there is no room");
        rig.device.lock().faults.clear();
        drop(pins);
        rig.settle();
        rig.write(2, 10, 9 * PAGE - 20, 5);
        rig.settle();
        assert_eq!(rig.result(2), Some(Ok(())));
        assert_eq!(rig.now(10, 9 * PAGE - 20).unwrap(), vec![5; 9 * PAGE - 20]);
    });
}

/// When no memory is to be had, pages are evicted instead, and once time has passed it is asked for again.
#[test]
fn memory_that_is_short_means_a_smaller_cache() {
    with_rig(SMALL, |rig| {
        for page in 0..16 {
            assert!(rig.now(page * P, 1).is_ok());
        }
        let run = fail_nth(0, || {
            for page in 16..40 {
                assert!(rig.now(page * P, 1).is_ok());
            }
        });
        assert!(run.failed);
        assert_eq!(rig.stats().pages, 16, "asked again and again");
        rig.pass(Duration::from_millis(15));
        for page in 0..64 {
            assert!(rig.now(page * P, 1).is_ok());
        }
        assert_eq!(rig.stats().pages, 64);
    });
}

#[test]
fn a_volume_that_cannot_be_opened_leaves_nothing() {
    with_rig(SMALL, |rig| {
        for nth in 0.. {
            let device = Device::new(info(BYTES, 512));
            let run = fail_nth(nth, || Volume::open(rig.cx, device, SMALL));
            match run.value {
                Ok(_) if !run.failed => {
                    assert!(nth >= 2);
                    break;
                }
                Ok(_) => panic!("a failure was not noticed"),
                Err(error) => assert_eq!(error, Error::NoMemory),
            }
        }
        let refuse = |block_size, most| {
            let mut info = info(BYTES, block_size);
            info.limits.max_transfer_bytes = most;
            Volume::open(rig.cx, Device::new(info), SMALL).map(drop)
        };
        assert_eq!(refuse(8192, 1 << 20), Err(Error::Unsupported));
        assert_eq!(refuse(512, 2048), Err(Error::Unsupported));
        assert_eq!(refuse(4096, 4096), Ok(()));
        rig.settle();
    });
}

/// Nothing is allocated or freed for an operation: not its waiting, not its transfers, not its completion, not when it fails.
fn nothing_allocated() -> Result<(), String> {
    try_with(Config { dirty_percent: 30, ..SMALL }, |rig| {
        rig.settle();
        for page in 0..64 {
            assert!(rig.now(page * P, 1).is_ok());
        }
        let data = |cookie: u64| trap::outside(|| (filled(5 * PAGE, cookie as u8), rig.done(cookie)));
        let mut cookie = 0;
        let mut on_the_path = |what: &str, start: &dyn Fn(u64, undercroft_block::Data, Done)| {
            cookie += 1;
            let (data, done) = data(cookie);
            let ((), count) = trap::by_guest(|| {
                start(cookie, data, done);
                for _ in 0..20 {
                    rig.cx.run_pending();
                }
            });
            assert_eq!(count, 0, "{what} allocated or freed something");
            trap::outside(|| rig.sink.ended.lock().unwrap().clear());
        };
        let (cx, volume) = (rig.cx, &rig.volume);
        for round in 0..3 {
            let at = |page: u64| (page + 60 * round) * P;
            on_the_path("a read", &|_, data, done| volume.read(cx, at(64) + 9, data, done).unwrap());
            on_the_path("a write", &|_, data, done| volume.write(cx, at(70) + 9, data, done).unwrap());
            for page in 0..8 {
                on_the_path("a throttled write", &|_, data, done| {
                    volume.write(cx, at(64 + 5 * page), data, done).unwrap()
                });
            }
            rig.device.fail(Op::Read, at(50) / 512, Error::Medium, 5);
            on_the_path("a failed read", &|_, data, done| volume.read(cx, at(50), data, done).unwrap());
            rig.device.fail(Op::Write, at(64) / 512, Error::Medium, 1);
            on_the_path("a sync", &|_, data, done| {
                volume.sync_all(cx, done).unwrap();
                trap::outside(|| drop(data));
            });
            on_the_path("a pin", &|_, data, done| {
                volume.pin(cx, at(3), done).unwrap();
                trap::outside(|| drop(data));
            });
            on_the_path("a discard", &|_, data, done| {
                volume.discard(cx, at(64)..at(80), done).unwrap();
                trap::outside(|| drop(data));
            });
        }
    })
}

#[test]
fn a_pc_11_operations_take_no_memory() {
    nothing_allocated().unwrap();
}

#[test]
fn a_pc_11_operations_take_no_memory_control() {
    let error = broken::with(Hazard::Allocates, nothing_allocated).unwrap_err();
    assert!(error.contains("a read allocated or freed something"), "{error}");
}

/// Memory is given back with no lock held.
fn given_back() -> Result<(), String> {
    try_with(SMALL, |rig| {
        for page in 0..64 {
            assert!(rig.now(page * P, 1).is_ok());
        }
        assert_eq!(rig.volume.resize_cache(rig.cx, 16), 16);
    })
}

#[test]
fn a_pc_34_memory_is_given_back_with_no_lock_held() {
    given_back().unwrap();
}

#[test]
fn a_pc_34_memory_is_given_back_with_no_lock_held_control() {
    let error = broken::with(Hazard::FreesUnderLock, given_back).unwrap_err();
    assert!(error.contains("memory of pages is freed while a lock of rank 8"), "{error}");
}

/// A-PC-05, pattern 26: the last reference to a volume goes in a bottom half, when the last write-back and the last read have come back.
fn last_reference() -> Result<(), String> {
    try_with(SMALL, |rig| {
        let device = Device::new(info(BYTES, 512));
        let volume = Volume::open(rig.cx, device.clone(), SMALL).unwrap();
        device.hold();
        volume.read(rig.cx, 50 * P, filled(9, 0), rig.done(1)).unwrap();
        volume.write(rig.cx, 0, filled(PAGE, 0x3c), rig.done(2)).unwrap();
        drop(volume);
        rig.settle();
        device.release();
        rig.settle();
        assert!(device.lock().store[..PAGE] == [0x3c; PAGE], "what was dirty is lost");
        assert_eq!((rig.result(1), rig.result(2)), (Some(Ok(())), Some(Ok(()))));
    })
}

#[test]
fn a_pc_05_the_last_reference_goes_in_a_bottom_half() {
    last_reference().unwrap();
}

#[test]
fn a_pc_05_the_last_reference_goes_in_a_bottom_half_control() {
    let error = broken::with(Hazard::OrphanKept, last_reference).unwrap_err();
    assert!(error.contains("leaked: "), "{error}");
}

/// What is dirty when the last handle goes is written all the same, even if that does not go well at first.
fn dirty_and_dropped() -> Result<(), String> {
    try_with(SMALL, |rig| {
        let device = Device::new(info(BYTES, 512));
        let volume = Volume::open(rig.cx, device.clone(), SMALL).unwrap();
        volume.write_blocking(rig.cx, 5, &[8; 9]).unwrap();
        // The first attempt fails: after that no request holds on to the volume.
        device.fail(Op::Write, 0, Error::Medium, 1);
        drop(volume);
        rig.settle();
        rig.pass(Duration::from_millis(20));
        assert!(device.lock().store[5..14] == [8; 9], "what was dirty is lost");
    })
}

#[test]
fn p_26_what_is_dirty_outlives_its_handles() {
    dirty_and_dropped().unwrap();
}

#[test]
fn p_26_what_is_dirty_outlives_its_handles_control() {
    let error = broken::with(Hazard::DirtyDropped, dirty_and_dropped).unwrap_err();
    assert!(error.contains("what was dirty is lost"), "{error}");
}
