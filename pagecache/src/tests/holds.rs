//! How much is done in one hold of a volume's lock: others wait for it, bottom halves among them.

use undercroft_block::Error;

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::shim::measured;
use crate::*;

const P: u64 = PAGE as u64;
const PAGES: u64 = 1024;

/// Everything that goes through many pages, on a volume of a thousand: no hold looks at more than those of the transfers, with a search
/// for a place for each, however many there are.
fn holds() -> Result<(), String> {
    let config = Config { pages: PAGES as u32, ahead: 4, ..SMALL };
    try_on(info(2 * PAGES * P, 512), config, |rig| {
        let (cx, volume) = (rig.cx, &rig.volume);
        let mut done = 0;
        let mut step = |what: &str, run: &mut dyn FnMut(Done)| {
            done += 1;
            measured::most();
            run(rig.done(done));
            rig.settle();
            let most = measured::most();
            assert!(most <= 900, "{what}: the lock was held for {most} looks at pages");
        };
        let dirty = |first: u64, pages: u64| {
            let page = [7; PAGE];
            (first..first + pages).for_each(|at| volume.write_blocking(cx, at * P, &page).unwrap());
        };
        step("writes", &mut |_| dirty(0, PAGES - 24));
        step("a sync of a range", &mut |done| volume.sync(cx, 0..PAGES / 2 * P, done).unwrap());
        step("a sync", &mut |done| volume.sync_all(cx, done).unwrap());
        step("reads", &mut |_| (0..2 * PAGES).for_each(|at| _ = rig.now(at * P, PAGE).unwrap()));
        step("a large read", &mut |done| volume.read(cx, 0, filled(512 * PAGE, 0), done).unwrap());
        step("a large write", &mut |done| volume.write(cx, 0, filled(512 * PAGE, 9), done).unwrap());
        step("many for one page", &mut |_| {
            rig.device.hold();
            (100..115).for_each(|cookie| rig.read(cookie, 2 * PAGES * P - P, PAGE));
            rig.device.release();
        });
        step("a discard", &mut |done| volume.discard(cx, 0..PAGES / 2 * P, done).unwrap());
        step("writes again", &mut |_| dirty(0, PAGES / 2));
        step("what is dirty is forgotten", &mut |done| volume.invalidate(cx, 0..u64::MAX, done).unwrap());
        step("reads again", &mut |_| (0..PAGES).for_each(|at| _ = rig.now(at * P, PAGE).unwrap()));
        step("a smaller cache", &mut |_| _ = volume.resize_cache(cx, 16));
        step("a shorter volume", &mut |done| volume.truncate(cx, P, done).unwrap());
        assert_eq!(rig.now(P, 1), Err(Error::OutOfRange));
        assert!((1..=13).filter_map(|cookie| rig.result(cookie)).all(|result| result == Ok(())));
    })
}

#[test]
fn a_pc_26_the_lock_is_held_for_a_few_pages() {
    holds().unwrap();
}

#[test]
fn a_pc_26_the_lock_is_held_for_a_few_pages_control() {
    let error = broken::with(Hazard::HeldForAll, holds).unwrap_err();
    assert!(error.contains("the lock was held for"), "{error}");
}
