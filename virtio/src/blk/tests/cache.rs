//! The switch of the write cache.

use undercroft_block::{Features, Reset};

use super::*;

fn volatile(driver: &VirtioBlk) -> bool {
    driver.info().features.contains(Features::VOLATILE_CACHE)
}

/// What was written before the switch is durable after it, and so is what is written then; after a reset, too.
fn switched_off(defects: Defects) {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule);
        rig.run_with(defects, |task, driver| {
            let sink = Sink::new();
            let put = |sector, fill| {
                go(&driver, write(sector, &[fill; 512], 512, sink.to(sector))).unwrap();
                assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
            };
            assert!(volatile(&driver));
            put(1, 1);
            assert_ne!(rig.disk.durable_sector(1), [1; 512]);
            assert_eq!(driver.set_write_cache(task, false), Ok(()));
            settle(task);
            assert!(!volatile(&driver));
            assert_eq!(rig.disk.durable_sector(1), [1; 512], "a write from before the switch is volatile");
            put(2, 2);
            assert_eq!(rig.disk.durable_sector(2), [2; 512]);
            assert!(driver.reset(Reset::Device));
            settle(task);
            assert!(!volatile(&driver) && !rig.disk.write_back(), "the choice holds after a reset");
            assert_eq!(driver.set_write_cache(task, true), Ok(()));
            settle(task);
            assert!(volatile(&driver) && rig.disk.write_back());
        });
    }
}

#[test]
fn a_cache_that_is_switched_off_holds_nothing_back() {
    switched_off(GOOD);
}

#[test]
#[should_panic(expected = "a write from before the switch is volatile")]
fn a_cache_that_is_switched_off_holds_nothing_back_control() {
    switched_off(Defects::one(Defect::SwitchesWithoutFlush));
}

#[test]
fn a_flush_that_fails_leaves_the_cache_volatile() {
    let rig = Rig::schedule(Schedule::RANDOM).faults(FaultScript::none().at(1, Fault::Error));
    rig.run(|task, driver| {
        assert_eq!(driver.set_write_cache(task, false), Err(Error::Medium));
        settle(task);
        assert!(volatile(&driver));
        assert_eq!(driver.set_write_cache(task, false), Ok(()), "it can be tried again");
        assert!(!volatile(&driver));
    });
}

#[test]
fn a_device_without_the_switch_says_so() {
    let rig = Rig::new(BlkLimits { cache_control: false, ..BlkLimits::default() });
    rig.run(|task, driver| {
        assert_eq!(driver.set_write_cache(task, false), Err(Error::Unsupported));
        assert!(volatile(&driver));
    });
}
