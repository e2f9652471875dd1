//! Parts that are set aside, and what a write takes.

use std::sync::{Arc, Mutex};

use undercroft_block::{BlockDevice, Complete, Completion, Error, Op, Request};
use undercroft_hal::BottomHalf;

use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const P: u64 = PAGE as u64;

/// Takes requests back.
#[derive(Default)]
struct Back(Mutex<Vec<(Request, Result<(), Error>)>>);

impl Complete for Back {
    fn complete(&self, _: &BottomHalf, _: u64, request: Request, result: Result<(), Error>) {
        undercroft_hal::hosted::trap::outside(|| self.0.lock().unwrap().push((request, result)));
    }
}

/// A request to what is set aside: its data.
fn direct(rig: &Rig<'_>, aside: &Aside, op: Op, lba: u64, data: undercroft_block::Data) -> Vec<u8> {
    let back = Arc::<Back>::default();
    let blocks = (data.len() / 512) as u32;
    aside.submit(Request::new(op, lba, blocks, data, Completion::new(back.clone(), 0))).unwrap();
    aside.commit();
    rig.settle();
    let mut ended = back.0.lock().unwrap();
    let (request, result) = ended.pop().expect("it ended");
    result.unwrap();
    bytes_of(&request.data)
}

fn log() -> Result<(), String> {
    try_with(SMALL, |rig| {
        let (log, end) = (4 * P, 8 * P);
        // The cache has some of it, dirty and clean.
        rig.volume.write_blocking(rig.cx, log, &[1; PAGE]).unwrap();
        rig.now(log + P, PAGE).unwrap();
        let aside = rig.volume.set_aside(rig.cx, log..end).unwrap();
        assert!(direct(rig, &aside, Op::Read, 0, filled(PAGE, 0)) == [1; PAGE], "the cache has something else: dirty");
        direct(rig, &aside, Op::Write, 8, filled(PAGE, 2));
        // Nothing of it comes into the cache.
        for (at, len) in [(log, 1), (end - 1, 1), (log - 1, 2), (0, 10 * PAGE)] {
            assert_eq!(rig.now(at, len), Err(Error::Busy), "the cache has something else: {at}");
            assert_eq!(rig.volume.write_blocking(rig.cx, at, &vec![9; len]), Err(Error::Busy));
        }
        rig.read(1, log, PAGE);
        rig.write(2, log, 100, 9);
        rig.volume.pin(rig.cx, log, rig.done(3)).unwrap();
        rig.settle();
        assert_eq!([1, 2, 3].map(|cookie| rig.result(cookie)), [Some(Err(Error::Busy)); 3]);
        // Its neighbours are as ever, and reading on towards it stops there.
        assert!(rig.now(0, 4 * PAGE).is_ok() && rig.now(end, PAGE).is_ok());
        // Not twice, and not what is not there.
        assert_eq!(rig.volume.set_aside(rig.cx, end - P..end + P).map(drop), Err(Error::Busy));
        assert_eq!(rig.volume.set_aside(rig.cx, 1..P).map(drop), Err(Error::BadLength));
        assert_eq!(rig.volume.set_aside(rig.cx, 0..BYTES + P).map(drop), Err(Error::OutOfRange));
        // Its end is the device's, as far as it can see.
        let beyond = Request::new(Op::Read, 32, 1, filled(512, 0), Completion::new(Arc::<Back>::default(), 0));
        assert!(aside.submit(beyond).is_err());
        // Back: what was written past the cache is there.
        drop(aside);
        rig.settle();
        assert!(rig.now(log + P, PAGE).unwrap() == [2; PAGE], "the cache has something else afterwards");
        assert!(rig.volume.set_aside(rig.cx, end - P..end + P).is_ok());
        rig.settle();
    })
}

#[test]
fn p_37_a_log_is_not_cached() {
    log().unwrap();
}

#[test]
fn p_37_a_log_is_not_cached_control() {
    let error = broken::with(Hazard::AsideIgnored, log).unwrap_err();
    assert!(error.contains("the cache has something else"), "{error}");
}

/// A log goes on when the last handle of its volume has gone.
#[test]
fn p_37_a_log_keeps_its_volume() {
    with_rig(SMALL, |rig| {
        let device = super::device::Device::new(super::device::info(BYTES, 512));
        let volume = Volume::open(rig.cx, device.clone(), SMALL).unwrap();
        volume.write_blocking(rig.cx, 9 * P, &[5; 512]).unwrap();
        let pinned = volume.pin_blocking(rig.cx, 6 * P).unwrap();
        assert_eq!(volume.set_aside(rig.cx, 4 * P..8 * P).map(drop), Err(Error::Busy), "a page of it is pinned");
        pinned.unpin(rig.cx);
        rig.settle();
        let aside = volume.set_aside(rig.cx, 4 * P..8 * P).unwrap();
        drop(volume);
        rig.settle();
        direct(rig, &aside, Op::Write, 0, filled(512, 3));
        assert!(device.lock().store[4 * PAGE..][..512] == [3; 512]);
        assert!(device.lock().store[9 * PAGE..][..512] == [5; 512], "what was dirty is written all the same");
        drop(aside);
        rig.settle();
    });
}

/// A-PC-40: a write that needs nothing read first ends in the call, whatever else goes on: no operation, nothing to be merged.
fn no_operation() -> Result<(), String> {
    try_with(Config { operations: 1, ..SMALL }, |rig| {
        rig.now(3 * P, 1).unwrap();
        rig.device.hold();
        // The only operation that there can be waits for the device.
        rig.read(1, 20 * P, PAGE);
        for (at, len) in [(5 * P, PAGE), (3 * P + 100, 50), (BYTES - P, PAGE)] {
            rig.volume.write_blocking(rig.cx, at, &vec![1; len]).unwrap();
        }
        assert_eq!((rig.result(1), rig.stats().operations), (None, 1));
        rig.device.release();
        rig.settle();
    })
}

#[test]
fn a_pc_40_a_write_that_needs_no_reading_is_no_operation() {
    no_operation().unwrap();
}

#[test]
fn a_pc_40_a_write_that_needs_no_reading_is_no_operation_control() {
    let error = broken::with(Hazard::AlwaysAnOperation, no_operation).unwrap_err();
    assert!(error.contains("an interrupt that never comes"), "{error}");
}
