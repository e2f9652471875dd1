//! Loads: ten thousand requests, 64 at a time, over one, two and four rings, in any order, held against what is on the disk; and what they cost in
//! notifications and interrupts.

use undercroft_block::queue::{BlockQueue, Config as QueueConfig};
use undercroft_block::{BlockDevice, Refusal};
use undercroft_hal::Task;
use undercroft_hosts::virtio::Order;
use undercroft_hosts::xen::{Fault, Knobs, VbdSettings};
use undercroft_hosts::{Config, Random, Schedule, Script};

use super::rig::*;

const DEPTH: u64 = 64;

fn rig(queues: u32, schedule: Schedule, seed: u64, settings: VbdSettings) -> Rig {
    let config = Config { cpus: queues as usize, schedule, seed, ..Config::default() };
    let knobs = Knobs { order: Order::Random, ..Knobs::default() };
    Rig::new(config, knobs, VbdSettings { queues, ..settings })
}

/// Reads and writes, each place used by one request at a time; what a read finds is what was written there last.
fn run(rig: &Rig, task: &Task, disk: &dyn BlockDevice, requests: u64, seed: u64) {
    let mut random = Random::new(seed);
    let sink = Sink::new();
    let (mut sent, mut done) = (0, 0);
    // A request's place follows from its slot, so that no two overlap.
    let slots = SECTORS / DEPTH;
    let mut free: Vec<u64> = (0..DEPTH).collect();
    while done < requests {
        while sent < requests
            && let Some(slot) = free.pop()
        {
            let blocks = 1 + random.below(16) as u64;
            let lba = slot * slots + random.below((slots - blocks) as usize) as u64;
            let request = if random.chance(40) {
                let fill: Vec<u8> = (0..blocks * 512).map(|at| (at ^ sent ^ seed) as u8).collect();
                write(lba, &fill, 512, sink.to(slot))
            } else {
                read(lba, blocks as u32, 512, sink.to(slot))
            };
            match disk.submit(request) {
                Ok(_) => sent += 1,
                Err(refused) => {
                    free.push(slot);
                    drop(refused.request);
                    break;
                }
            }
        }
        disk.commit();
        task.wait_until(|| sink.count() > 0);
        for Done { cookie, request, result, .. } in sink.take() {
            assert_eq!(result, Ok(()));
            let blocks = u64::from(request.blocks);
            assert!(bytes(&request) == rig.expected(request.lba, blocks), "request at block {}", request.lba);
            free.push(cookie);
            done += 1;
        }
    }
}

#[test]
fn ten_thousand_requests_over_one_two_and_four_rings() {
    for (queues, schedule, persistent) in [
        (1, Schedule::Eager, true),
        (1, Schedule::RANDOM, false),
        (2, Schedule::RANDOM, true),
        (4, Schedule::RANDOM, true),
    ] {
        let rig = rig(queues, schedule, 11 + u64::from(queues), VbdSettings { persistent, ..VbdSettings::default() });
        rig.disk(|task, disk| {
            assert_eq!(rig.model(|host| host.rings(0)), queues as usize);
            run(&rig, task, &**disk, 10_000, u64::from(queues));
        });
        assert_eq!(rig.counts().needless_sends, 0);
    }
}

#[test]
fn answers_that_come_late_and_events_that_tell_nothing() {
    for seed in 0..3 {
        let rig = rig(2, Schedule::RANDOM, seed, VbdSettings::default());
        rig.disk(|task, disk| {
            let faults = [Fault::Delay(5_000), Fault::Behind(9), Fault::Spurious, Fault::LateEvent(3_000)];
            rig.model(|host| host.set_request_faults(Script::none().sometimes(seed, 30, &faults)));
            run(&rig, task, &**disk, 3_000, seed);
        });
    }
}

/// A batch costs one notification, and its answers one interrupt.
#[test]
fn one_notification_and_one_interrupt_for_a_batch() {
    let rig = Rig::scheduled(Schedule::Lazy, 1);
    rig.disk(|task, disk| {
        let sink = Sink::new();
        settle(task);
        let before = rig.counts();
        for batch in 1..=50 {
            for at in 0..DEPTH {
                disk.submit(read(at, 1, 512, sink.to(at))).unwrap();
            }
            disk.commit();
            sink.wait(task, DEPTH as usize);
            let now = rig.counts();
            assert!(now.sends - before.sends <= batch, "{} notifications in {batch} batches", now.sends - before.sends);
            assert!(now.interrupts - before.interrupts <= batch, "{} interrupts", now.interrupts - before.interrupts);
            assert_eq!(now.needless_sends, before.needless_sends);
        }
    });
}

/// X11, A-XBLK-03: sizes around multiples of what a request holds, with the ring full and the pool of pages empty, with and without a queue
/// before the disk that cuts them.
#[test]
fn a_xblk_03_x11_multiples_of_the_limit_with_the_ring_full() {
    for (indirect, order) in [(0, 0), (0, 1), (32, 0), (32, 1)] {
        for seed in 0..2 {
            let settings = VbdSettings { indirect, ring_order: Some(order), ..VbdSettings::default() };
            let rig = rig(1, Schedule::RANDOM, seed, settings);
            rig.disk(|task, disk| {
                let limit = disk.info().limits.max_transfer_bytes / 512;
                let queue = BlockQueue::new(disk.clone(), QueueConfig::default());
                let sink = Sink::new();
                let mut random = Random::new(seed);
                for round in 0..6 {
                    let mut sent = 0;
                    for slot in 0..48 {
                        let blocks = ((1 + slot as u32 % 3) * limit + random.below(3) as u32 - 1).min(3 * limit);
                        let lba = slot % 16 * 1000 % (SECTORS - u64::from(blocks));
                        let request = read(lba, blocks, 512, sink.to(slot));
                        match queue.submit(request) {
                            Ok(_) => sent += 1,
                            Err(refused) => assert_eq!(refused.why, Refusal::Full),
                        }
                    }
                    queue.commit();
                    assert!(sent > 30, "round {round}: {sent} were taken");
                    for done in sink.wait(task, sent) {
                        assert_eq!(done.result, Ok(()));
                        let blocks = u64::from(done.request.blocks);
                        assert!(bytes(&done.request) == rig.expected(done.request.lba, blocks), "{} blocks", blocks);
                    }
                }
                drop(queue);
            });
        }
    }
}
