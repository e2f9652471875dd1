//! Loads: ten thousand requests, 64 at a time, over one, two and four channels, in any order, held against what is on the disk; and what they
//! cost in signals and interrupts.

use std::sync::Arc;

use undercroft_block::scsi::{ScsiDisk, scan};
use undercroft_block::{BlockDevice, Error};
use undercroft_hal::Task;
use undercroft_hosts::hyperv::{Event, Fault, Knobs};
use undercroft_hosts::virtio::Order;
use undercroft_hosts::{Config, Random, Schedule, Script};

use super::rig::{Rig, SECTORS, Sink, bytes, read, settle, write};

const DEPTH: u64 = 64;

fn rig(channels: usize, schedule: Schedule, seed: u64) -> Rig {
    let config = Config { cpus: channels, schedule, seed, ..Config::default() };
    let knobs = Knobs { order: Order::Random, sub_channels: channels as u16 - 1, ..Knobs::default() };
    Rig::new(config, knobs)
}

/// Reads and writes, each place used by one request at a time; what a read finds is what was written there last.
fn run(rig: &Rig, task: &Task, disk: &ScsiDisk, requests: u64, seed: u64) {
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
                write(lba, &fill, &sink, slot)
            } else {
                read(lba, blocks as u32, &sink, slot)
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
        for (slot, result, request) in sink.take() {
            assert_eq!(result, Ok(()));
            let blocks = u64::from(request.blocks);
            assert!(bytes(&request) == rig.expected(request.lba, blocks), "request at block {}", request.lba);
            free.push(slot);
            done += 1;
        }
    }
}

#[test]
fn ten_thousand_requests_over_one_two_and_four_channels() {
    for (channels, schedule) in [(1, Schedule::RANDOM), (2, Schedule::RANDOM), (4, Schedule::RANDOM)] {
        let rig = rig(channels, schedule, 11 + channels as u64);
        rig.driver(|task, _, driver| {
            settle(task);
            assert_eq!(usize::from(driver.channels()), channels);
            let disk = scan(task, driver).unwrap().disks.remove(0);
            run(&rig, task, &disk, 10_000, channels as u64);
        });
        assert_eq!(rig.counts().needless_signals, 0);
    }
}

#[test]
fn slow_answers_and_a_host_that_polls() {
    for (seed, poll_depth) in [(1, None), (2, Some(1)), (3, Some(8))] {
        let rig = rig(2, Schedule::RANDOM, seed);
        rig.model(|host| {
            host.knobs.poll_depth = poll_depth;
            let faults = [Fault::Delay(50), Fault::Behind(9), Fault::Spurious];
            host.faults.packets = Script::none().sometimes(seed, 30, &faults);
        });
        rig.disks(|task, disks| run(&rig, task, &disks[0], 3_000, seed));
    }
}

/// A batch costs one signal, and its answers one interrupt.
#[test]
fn one_signal_and_one_interrupt_for_a_batch() {
    let rig = Rig::scheduled(Schedule::Lazy, 1);
    rig.disks(|task, disks| {
        let sink = Sink::new();
        settle(task);
        let before = rig.counts();
        for batch in 1..=50 {
            for at in 0..DEPTH {
                disks[0].submit(read(at, 1, &sink, at)).unwrap();
            }
            disks[0].commit();
            sink.wait(task, DEPTH as usize);
            let now = rig.counts();
            assert!(
                now.signals - before.signals <= batch,
                "{} signals in {batch} batches",
                now.signals - before.signals
            );
            assert!(now.interrupts - before.interrupts <= batch, "{} interrupts", now.interrupts - before.interrupts);
            assert_eq!(now.needless_signals, before.needless_signals);
        }
    });
}

fn outcome(result: Result<(), Error>) {
    assert!(matches!(result, Ok(()) | Err(Error::Removed | Error::Reset | Error::NotStarted)), "{result:?}");
}

/// The controller goes in the middle of a load: every request ends once, and nothing is left.
#[test]
fn rescinded_under_load() {
    for seed in 0..15 {
        let rig = rig(2, Schedule::RANDOM, seed);
        rig.driver(|task, bus, driver| {
            settle(task);
            let disk = scan(task, driver.clone()).unwrap().disks.remove(0);
            let sink = Sink::new();
            rig.model(|host| host.faults.events = Script::none().at(20 + 2 * seed, Event::Reoffer(1)));
            let sent = flood(&disk, &sink);
            sink.wait(task, sent).into_iter().for_each(|(_, result, _)| outcome(result));
            let changes = bus.changes();
            drop((disk, driver));
            task.wait_until(|| !bus.offers().is_empty() || bus.changes() != changes);
        });
    }
}

fn flood(disk: &Arc<ScsiDisk>, sink: &Arc<Sink>) -> usize {
    let mut sent = 0;
    for at in 0..200 {
        match disk.submit(read(at, 8, sink, at)) {
            Ok(_) => sent += 1,
            Err(refused) => drop(refused.request),
        }
        if at % 7 == 0 {
            disk.commit();
        }
    }
    disk.commit();
    sent
}

/// The connection ends in the middle of a load, and begins again.
#[test]
fn unloaded_under_load() {
    for seed in 0..12 {
        let rig = rig(2, Schedule::RANDOM, 100 + seed);
        for _ in 0..2 {
            rig.driver(|task, bus, driver| {
                settle(task);
                let disk = scan(task, driver.clone()).unwrap().disks.remove(0);
                let sink = Sink::new();
                let sent = flood(&disk, &sink);
                assert!(bus.unload(task));
                sink.wait(task, sent).into_iter().for_each(|(_, result, _)| outcome(result));
            });
        }
    }
}
