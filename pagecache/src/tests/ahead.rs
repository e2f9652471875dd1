//! Read-ahead through a volume: how many requests a sequence takes, and what is read for nothing.

use undercroft_block::Op;

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const P: u64 = PAGE as u64;
const AHEAD: Config = Config { pages: 64, ahead: 16, ..SMALL };

fn sequence() -> Result<(), String> {
    try_with(AHEAD, |rig| {
        for at in 0..BYTES / 2048 {
            let start = at as usize * 2048;
            let expected: Vec<u8> = (start..start + 2048).map(pattern).collect();
            assert_eq!(rig.now(at * 2048, 2048).unwrap(), expected);
            rig.settle();
        }
        let (stats, requests) = (rig.stats(), rig.device.seen(Op::Read).len());
        let pages = BYTES / P;
        assert!(requests as u64 <= pages / 3, "{requests} requests for {pages} pages");
        assert!(stats.misses <= 8, "{stats:?}");
        assert_eq!(stats.pages_read, pages, "each page is read once, and none behind the end");
        assert!(stats.ahead_used > pages * 9 / 10, "{stats:?}");
        assert_eq!(stats.ahead_wasted, 0);
    })
}

#[test]
fn a_sequence_is_read_ahead() {
    sequence().unwrap();
}

#[test]
fn a_sequence_is_read_ahead_control() {
    let error = broken::with(Hazard::NoReadAhead, sequence).unwrap_err();
    assert!(error.contains("requests for 256 pages"), "{error}");
}

/// Large reads whose first pages are there and whose others are not, while the cache still takes memory.
fn growing(waits: bool) -> Result<(), String> {
    let config = Config { pages: 512, ahead: 16, ..SMALL };
    try_with(config, |rig| {
        for at in 0..BYTES / (8 * P) {
            if waits {
                assert!(rig.now(at * 8 * P, 8 * PAGE).is_ok());
            } else {
                rig.read(at, at * 8 * P, 8 * PAGE);
            }
            rig.settle();
        }
        let stats = rig.stats();
        assert!(stats.ahead_used > stats.pages_read * 3 / 4, "not read ahead while memory came: {stats:?}");
        assert_eq!((stats.pages_read, stats.ahead_wasted), (BYTES / P, 0));
    })
}

#[test]
fn a_sequence_is_read_ahead_while_the_cache_grows() {
    growing(true).unwrap();
    growing(false).unwrap();
}

#[test]
fn a_sequence_is_read_ahead_though_a_part_of_it_is_there_control() {
    let error = broken::with(Hazard::RestNoted, || growing(true)).unwrap_err();
    assert!(error.contains("not read ahead while memory came"), "{error}");
}

#[test]
fn even_steps_are_read_ahead() {
    with_rig(AHEAD, |rig| {
        for at in 0..25 {
            assert!(rig.now(at * 10 * P, 100).is_ok());
            rig.settle();
        }
        let stats = rig.stats();
        assert!(stats.ahead_used >= 18 && stats.misses <= 7, "{stats:?}");
        assert!(stats.pages_read <= 30, "{stats:?}");
    });
}

#[test]
fn random_reads_are_not() {
    with_rig(AHEAD, |rig| {
        let mut random = undercroft_hosts::Random::new(5);
        for _ in 0..200 {
            // Even pages: no two of them are neighbours.
            assert!(rig.now(random.below(128) as u64 * 2 * P, 10).is_ok());
        }
        let stats = rig.stats();
        assert!(stats.ahead <= 60, "{stats:?}");
    });
}

/// Whoever waits has a transfer, however much is read ahead; and what is read ahead does not push out what is used.
#[test]
fn reading_ahead_takes_nothing_from_those_who_wait() {
    with_rig(Config { reads: 1, ..AHEAD }, |rig| {
        assert!(rig.now(0, 10).is_ok());
        rig.device.hold();
        rig.read(1, P, PAGE);
        rig.read(2, 200 * P, 10);
        rig.read(3, 100 * P, 10);
        rig.settle();
        rig.device.release();
        rig.settle();
        assert!((1..4).all(|cookie| rig.result(cookie) == Some(Ok(()))));
    });
}
