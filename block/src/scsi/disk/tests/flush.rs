//! A flush that was not performed is not reported as done (P-21).

use super::*;
use crate::broken::{self, Hazard};

/// The checks are of results that the test sees, not of panics: `Err` says what was wrong.
fn refused_flush() -> Result<(), String> {
    let mut wrong = Ok(());
    with_disk(
        |unit| unit.unknown = vec![SYNC_10, SYNC_16],
        |cx, _, disk, sink| {
            if sink.simple(cx, &**disk, Op::Flush, 0, 0) != Err(Error::Unsupported) {
                wrong = Err("a flush was reported as done".into());
            }
        },
    );
    wrong
}

#[test]
fn p_21_a_flush_that_is_refused_is_not_done_control() {
    assert_eq!(broken::with(Hazard::RefusedFlushIsDone, refused_flush), Err("a flush was reported as done".into()));
}

#[test]
fn p_21_a_flush_that_is_refused_is_not_done() {
    refused_flush().unwrap();
    // The device claims a cache and knows no way to flush it.
    with_disk(
        |unit| unit.unknown = vec![SYNC_10, SYNC_16],
        |cx, _, disk, sink| {
            assert!(disk.info().features.contains(Features::VOLATILE_CACHE));
            for _ in 0..3 {
                assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Err(Error::Unsupported));
            }
        },
    );
    // "Invalid field" is no proof that the command, or the cache, does not exist.
    with_disk(
        |unit| unit.wce = false,
        |cx, host, disk, sink| {
            script(host, [Reply::sense(5, 0x24, 0), Reply::sense(5, 0x24, 0)]);
            assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Err(Error::Unsupported));
            log(host);
            assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Ok(()));
            assert_eq!(log(host), [SYNC_10], "nothing was concluded from it");
        },
    );
}

#[test]
fn a_lost_cache_fails_the_next_flush_once() {
    for (name, notice) in [
        ("power on", Reply::sense(6, 0x29, 1)),
        ("deferred", Reply { sense: vec![0x71, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 0], ..Reply::sense(3, 0, 0) }),
    ] {
        with_disk(
            |_| (),
            |cx, host, disk, sink| {
                script(host, [notice.clone()]);
                assert_eq!(sink.simple(cx, &**disk, Op::Read, 0, 1), Ok(()));
                assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Ok(()), "nothing had been written: {name}");
                assert_eq!(sink.simple(cx, &**disk, Op::Write, 0, 1), Ok(()));
                // Seen by the flush itself.
                script(host, [notice.clone()]);
                assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Err(Error::Reset), "{name}");
                assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Ok(()));
                script(host, [notice.clone()]);
                assert_eq!(sink.simple(cx, &**disk, Op::Read, 0, 1), Ok(()));
                assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Ok(()), "all writes had been flushed: {name}");
            },
        );
    }
}
