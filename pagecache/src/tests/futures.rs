//! The `async` functions: they do what the others do, more at once than there are slots, and may be dropped at any time.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use undercroft_block::*;

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const P: u64 = PAGE as u64;

fn futures(rig: &Rig<'_>, slots: u16) -> Futures {
    Futures::new(rig.volume.another(rig.cx).unwrap(), slots).unwrap()
}

#[test]
fn they_do_what_the_others_do() {
    with_rig(SMALL, |rig| {
        let disk = futures(rig, 2);
        rig.cx.block_on(async {
            disk.write(100, filled(3 * PAGE, 7)).await.unwrap();
            let data = disk.read(90, filled(3 * PAGE, 0)).await.unwrap();
            assert_eq!(bytes_of(&data)[..10], (90..100).map(pattern).collect::<Vec<_>>());
            assert!(bytes_of(&data)[10..].iter().all(|byte| *byte == 7));
            disk.sync(0..P).await.unwrap();
            assert_eq!(rig.device.lock().durable[100..PAGE], [7; PAGE - 100]);
            let pinned = disk.pin(P).await.unwrap();
            assert_eq!(disk.discard(0..4 * P).await, Err(Error::Busy));
            drop(pinned);
            rig.settle();
            disk.discard(0..4 * P).await.unwrap();
            disk.sync_all().await.unwrap();
            let refused = disk.read(BYTES - 1, filled(2, 3)).await.unwrap_err();
            assert_eq!((refused.error, bytes_of(&refused.data)), (Error::OutOfRange, vec![3; 2]));
            assert_eq!(disk.pin(BYTES).await.unwrap_err(), Error::OutOfRange);
            rig.device.fail(Op::Read, 10 * 8, Error::Medium, 1);
            assert_eq!(disk.read(10 * P, filled(9, 3)).await.unwrap_err().error, Error::Medium);
        });
    });
}

/// What a test has woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Many more at once than slots, and than the volume has: all are done, and nobody is polled who was not woken.
#[test]
fn more_than_there_are_slots_wait_for_one() {
    with_rig(Config { operations: 3, ..SMALL }, |rig| {
        for slots in [1, 2, 9] {
            let disk = futures(rig, slots);
            let mut asked: Vec<_> = (0..20)
                .map(|page| {
                    let woken = Arc::new(Woken(AtomicU32::new(1)));
                    let fill = page as u8 + 1;
                    (woken, Some(Box::pin(disk.write(page * P + 5, filled(2 * PAGE, fill)))))
                })
                .collect();
            for _ in 0..1000 {
                for (woken, future) in &mut asked {
                    if woken.0.swap(0, Ordering::SeqCst) == 0 {
                        continue;
                    }
                    let waker = Waker::from(woken.clone());
                    let Some(running) = future else { continue };
                    if let Poll::Ready(done) = running.as_mut().poll(&mut Context::from_waker(&waker)) {
                        done.unwrap();
                        *future = None;
                    }
                }
                rig.cx.run_pending();
            }
            assert!(asked.iter().all(|(_, future)| future.is_none()), "{slots} slots: somebody was forgotten");
        }
    });
}

/// Polls a future so often, with time for the device in between, and drops it if it is not over.
fn polled<T>(rig: &Rig<'_>, times: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(done);
        }
        rig.cx.run_pending();
    }
    None
}

/// Each function, dropped after each number of polls, with the device holding its answers or not: nothing is left under way, the memory is back
/// (the rig looks), each page of a write is as before or as written, and everything works afterwards.
#[test]
fn they_may_be_dropped_at_any_time() {
    for (times, held) in (0..6).flat_map(|times| [(times, false), (times, true)]) {
        with_rig(SMALL, |rig| {
            let disk = futures(rig, 2);
            let hold = || {
                if held {
                    rig.device.hold()
                }
            };
            let go_on = || {
                rig.device.release();
                rig.settle();
            };
            hold();
            polled(rig, times, disk.read(0, filled(3 * PAGE, 0)));
            hold();
            polled(rig, times, disk.pin(5 * P));
            go_on();
            hold();
            polled(rig, times, disk.write(10 * P + 9, filled(2 * PAGE, 0x55)));
            go_on();
            hold();
            polled(rig, times, disk.sync_all());
            go_on();
            let there = rig.now(10 * P, 3 * PAGE).unwrap();
            for page in 0..3 {
                let start = page * PAGE;
                let before: Vec<u8> = (0..PAGE).map(|at| pattern(10 * PAGE + start + at)).collect();
                let range = (9_usize.saturating_sub(start)).min(PAGE)..(2 * PAGE + 9).saturating_sub(start).min(PAGE);
                let mut after = before.clone();
                after[range].fill(0x55);
                let page = &there[start..start + PAGE];
                assert!(page == before || page == after, "polled {times} times: a page was written in part");
            }
            hold();
            polled(rig, times, disk.discard(20 * P..30 * P));
            go_on();
            rig.cx.block_on(async {
                disk.write(0, filled(PAGE, 1)).await.unwrap();
                disk.sync_all().await.unwrap();
            });
            assert_eq!(rig.store(0, PAGE), [1; PAGE]);
            assert_eq!(rig.volume.stats(rig.cx).operations, 0, "polled {times} times: something is under way");
        });
    }
}

/// A sync that nobody waits for any more fails: the next one tells. And each error is told once.
fn given_up_sync() -> Result<(), String> {
    for times in 1..5 {
        try_with(SMALL, |rig| {
            let disk = futures(rig, 2);
            rig.device.fail(Op::Write, 8, Error::Medium, 1);
            rig.cx.block_on(disk.write(P, filled(PAGE, 4))).unwrap();
            rig.device.hold();
            let told = polled(rig, times, disk.sync_all());
            assert_eq!(told, None);
            rig.device.release();
            rig.settle();
            let told = rig.cx.block_on(disk.sync_all());
            assert_eq!(told, Err(Error::Medium), "polled {times} times: an error was told to nobody");
            rig.pass(Duration::from_millis(50));
            assert_eq!(rig.cx.block_on(disk.sync_all()), Ok(()));
        })?;
    }
    Ok(())
}

#[test]
fn a_sync_that_is_given_up_takes_no_error_with_it() {
    given_up_sync().unwrap();
}

#[test]
fn a_sync_that_is_given_up_takes_no_error_with_it_control() {
    let error = broken::with(Hazard::ErrorGoesWithItsFuture, given_up_sync).unwrap_err();
    assert!(error.contains("an error was told to nobody"), "{error}");
}

/// The handle that it was made of goes with it, and what is dirty is written all the same.
#[test]
fn what_was_given_up_outlives_its_handle() {
    with_rig(SMALL, |rig| {
        let disk = futures(rig, 2);
        rig.device.hold();
        polled(rig, 2, disk.write(3 * P + 1, filled(10, 0x77)));
        drop(disk);
        rig.device.release();
        rig.settle();
        assert_eq!(rig.now(3 * P + 1, 10).unwrap(), [0x77; 10]);
    });
}
