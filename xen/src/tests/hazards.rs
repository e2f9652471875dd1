//! The audit's hazards, each with a twin of the driver that has it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use undercroft_block::{BlockDevice, Complete, Completion, Error, Event as DiskEvent, Refusal, Request, Watcher};
use undercroft_hal::BottomHalf;
use undercroft_hal::hosted::trap;
use undercroft_hosts::virtio::Order;
use undercroft_hosts::xen::{Fault, Knobs, VbdSettings};
use undercroft_hosts::{Config, Schedule, Script};

use super::rig::*;
use crate::blk::ring::START;
use crate::defect::{self, Defect};

/// A machine with so many processors and rings, and answers in any order.
fn rig(cpus: u32, schedule: Schedule, seed: u64) -> Rig {
    let config = Config { cpus: cpus as usize, schedule, seed, ..Config::default() };
    let knobs = Knobs { order: Order::Random, ..Knobs::default() };
    Rig::new(config, knobs, VbdSettings { queues: cpus, ring_order: Some(0), ..VbdSettings::default() })
}

/// Completes by submitting another request, as long as there are some to be sent.
struct Chain {
    disk: Mutex<Option<Arc<crate::blk::XenDisk>>>,
    left: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
}

impl Chain {
    fn stop(&self) {
        self.disk.lock().unwrap().take();
    }
}

struct Link(Arc<Chain>);

impl Complete for Link {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        let chain = &self.0;
        assert_eq!(result, Ok(()), "request {cookie}");
        chain.done.fetch_add(1, Ordering::SeqCst);
        if chain.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            return;
        }
        let disk = trap::outside(|| chain.disk.lock().unwrap().clone()).expect("there until the end");
        let next = trap::outside(|| {
            read(request.lba, request.blocks, 512, Completion::new(Arc::new(Self(Arc::clone(chain))), cookie))
        });
        if disk.submit(next).is_err() {
            chain.refused.fetch_add(1, Ordering::SeqCst);
        }
        disk.commit();
    }
}

/// A-XBLK-05, X10, A-XBLK-02: with the ring full, each completion submits the next request at once: it is taken, for the slot is free, and no lock is held.
fn completions_submit() {
    for (cpus, schedule) in [(1, Schedule::Eager), (1, Schedule::Lazy), (1, Schedule::RANDOM), (4, Schedule::RANDOM)] {
        let rig = rig(cpus, schedule, 7);
        rig.disk(|task, disk| {
            let chain = Arc::new(Chain {
                disk: Mutex::new(Some(disk.clone())),
                left: AtomicU64::new(500),
                done: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            });
            let completion = |cookie| Completion::new(Arc::new(Link(Arc::clone(&chain))), cookie);
            let mut sent = 0;
            while let Ok(_tag) = disk.submit(read(sent * 8, 8, 512, completion(sent))) {
                sent += 1;
                if sent == 32 {
                    break;
                }
            }
            assert_eq!(sent, 32, "the ring takes 32 requests");
            disk.commit();
            task.wait_until(|| chain.done.load(Ordering::SeqCst) == 500 + sent);
            assert_eq!(chain.refused.load(Ordering::SeqCst), 0, "no room for the request that follows a completion");
            chain.stop();
        });
    }
}

#[test]
fn a_xblk_05_x10_completions_run_without_the_lock() {
    completions_submit();
}

#[test]
fn a_xblk_05_x10_completions_run_without_the_lock_control() {
    let message = says(|| defect::with(Defect::CompletesUnderLock, completions_submit));
    assert!(message.contains("a completion runs while a lock"), "{message}");
}

/// A-XBLK-01, A-XBLK-02, X09: submitters and completions at every step of each other, and nothing is allocated under a lock or in an interrupt.
fn nothing_is_allocated_under_a_lock() {
    let before = trap::counts();
    trap::counting(completions_submit);
    let after = trap::counts();
    assert_eq!(after.in_hard_irq - before.in_hard_irq, 0, "allocations in an interrupt");
    assert_eq!(after.under_lock - before.under_lock, 0, "allocations under a lock");
}

#[test]
fn a_xblk_01_a_xblk_02_x09_nothing_is_allocated_under_a_lock() {
    nothing_is_allocated_under_a_lock();
}

#[test]
fn a_xblk_01_a_xblk_02_x09_nothing_is_allocated_under_a_lock_control() {
    let message = says(|| defect::with(Defect::AllocatesUnderLock, nothing_is_allocated_under_a_lock));
    assert!(message.contains("allocations under a lock"), "{message}");
}

/// Notes that there was room.
#[derive(Default)]
struct Room(AtomicBool);

impl Watcher for Room {
    fn event(&self, _cx: &BottomHalf, event: DiskEvent) {
        if event == DiskEvent::Room {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// A-XBLK-03, X11: with no page or no entry left a request is refused whole, and its submitter told when there is room; requests are as large as they
/// may be, and a little less.
fn refused_and_told() {
    for (seed, order) in [(0, 0), (1, 1), (2, 4)] {
        let config = Config { schedule: Schedule::Random { work: 20, deliver: 60 }, seed, ..Config::default() };
        let rig = Rig::new(config, Knobs::default(), VbdSettings { ring_order: Some(order), ..VbdSettings::default() });
        rig.disk(|task, disk| {
            let most = disk.info().limits.max_transfer_bytes / 512;
            let (sink, room) = (Sink::new(), Arc::new(Room::default()));
            disk.watch(room.clone());
            let (mut sent, mut done) = (0, 0);
            for round in 0..10 {
                room.0.store(false, Ordering::SeqCst);
                loop {
                    let blocks = most - (sent % 3) as u32;
                    match disk.submit(read(sent * 97 % (SECTORS - 256), blocks, 512, sink.to(sent))) {
                        Ok(_) => sent += 1,
                        Err(refused) => {
                            assert_eq!(refused.why, Refusal::Full);
                            break;
                        }
                    }
                }
                assert!(sent > 10 * round, "{sent} requests in round {round}");
                disk.commit();
                task.wait_until(|| room.0.load(Ordering::SeqCst));
                for finished in sink.take() {
                    assert_eq!(finished.result, Ok(()));
                    let (lba, blocks) = (finished.request.lba, u64::from(finished.request.blocks));
                    assert!(bytes(&finished.request) == rig.expected(lba, blocks), "other data than what is there");
                    done += 1;
                }
            }
            sink.wait(task, (sent - done) as usize);
        });
    }
}

#[test]
fn a_xblk_03_x11_who_is_refused_is_told_when_there_is_room() {
    refused_and_told();
}

#[test]
fn a_xblk_03_x11_who_is_refused_is_told_when_there_is_room_control() {
    let message = says(|| defect::with(Defect::ForgetsRefusal, refused_and_told));
    assert!(message.contains("never comes"), "{message}");
}

/// A-XBLK-03: a disk whose connection fails, before and after the other end has mapped its rings, leaves nothing behind.
fn attempts_that_fail() {
    // One page of the grant table is not enough for a ring and its pages.
    let few = Knobs { grant_frames: 1, ..Knobs::default() };
    let odd = VbdSettings { sector_size: 8192, ..VbdSettings::default() };
    for (knobs, settings) in [(few, VbdSettings::default()), (Knobs::default(), odd)] {
        let rig = Rig::new(Config::default(), knobs, settings);
        rig.domain(|task, domain, store| {
            for _ in 0..3 {
                assert!(rig.connect(task, domain, store).is_err());
                settle(task);
                rig.model(|host| {
                    assert_eq!(host.granted(), 0, "references are still granted");
                    assert_eq!(host.watches(), 0, "watches are left behind");
                });
            }
        });
    }
}

#[test]
fn a_xblk_03_an_attempt_that_fails_leaves_nothing_behind() {
    attempts_that_fail();
}

#[test]
fn a_xblk_03_an_attempt_that_fails_leaves_nothing_behind_control() {
    let message = says(|| defect::with(Defect::LeaksOnFailure, attempts_that_fail));
    assert!(message.contains("watches are left behind"), "{message}");
}

/// X11: the indices of a ring in use run past 2^32.
fn indices_run_past_their_end() {
    for (schedule, persistent) in [(Schedule::Eager, true), (Schedule::Lazy, false), (Schedule::RANDOM, true)] {
        START.set(u32::MAX - 150);
        let config = Config { schedule, ..Config::default() };
        let settings = VbdSettings { persistent, ..VbdSettings::default() };
        let rig = Rig::new(config, Knobs { order: Order::Random, ..Knobs::default() }, settings);
        rig.disk(|task, disk| {
            START.set(0);
            let sink = Sink::new();
            for round in 0..20 {
                let count = 1 + round * 7 % 60;
                for at in 0..count {
                    disk.submit(read(at * 20, 8, 512, sink.to(at))).expect("room");
                }
                disk.commit();
                for done in sink.wait(task, count as usize) {
                    assert_eq!(done.result, Ok(()));
                    assert!(bytes(&done.request) == rig.expected(done.request.lba, 8), "other data than what is there");
                }
            }
        });
    }
}

#[test]
fn x11_indices_of_a_ring_in_use_run_past_their_end() {
    indices_run_past_their_end();
}

#[test]
fn x11_indices_of_a_ring_in_use_run_past_their_end_control() {
    let message = says(|| defect::with(Defect::PlainIndices, indices_run_past_their_end));
    START.set(0);
    assert!(message.contains("never comes"), "{message}");
}

/// X11: an answer to a request that is not out, or to another operation, ends the disk, and ends nobody's request with somebody else's data.
fn an_answer_that_cannot_be(lie: Fault) {
    let rig = Rig::plain();
    rig.wild(|task, domain, store| {
        let disk = rig.connect(task, domain, store).expect("connects").expect("is a disk");
        let sink = Sink::new();
        // The slots have been used.
        for at in 0..5 {
            assert_eq!(one(task, &*disk, &sink, read(at, 1, 512, sink.to(0))).result, Ok(()));
        }
        rig.model(|host| host.set_request_faults(Script::none().at(1, lie)));
        for at in 0..4 {
            disk.submit(read(at * 8, 8, 512, sink.to(at))).expect("room");
        }
        disk.commit();
        sink.wait(task, 4);
        settle(task);
        disk.close(task);
        assert_eq!(disk.counts().breaches, 1, "{lie:?} went unnoticed");
    });
}

#[test]
fn x11_a_response_is_claimed_by_slot_and_generation() {
    for bits in [1, 1 << 48, 1 << 40] {
        an_answer_that_cannot_be(Fault::IdBits(bits));
    }
    an_answer_that_cannot_be(Fault::Operation(1));
    an_answer_that_cannot_be(Fault::Producer(1 << 20));
}

#[test]
fn x11_a_response_is_claimed_by_slot_and_generation_control() {
    let trusting = |defect, lie| says(|| defect::with(defect, || an_answer_that_cannot_be(lie)));
    for (defect, lie) in [(Defect::TrustsSlot, Fault::IdBits(1)), (Defect::IgnoresOperation, Fault::Operation(1))] {
        let message = trusting(defect, lie);
        assert!(message.contains("went unnoticed"), "{defect:?}: {message}");
    }
}
