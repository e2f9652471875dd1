//! The audit's hazards, each with a twin of the driver that has it.

use core::sync::atomic::{AtomicU64, Ordering};

use core::time::Duration;

use undercroft_block::queue::{self, BlockQueue};
use undercroft_block::scsi::{Direction, Host, HostEvent, HostWatcher, Response, Status, scan};
use undercroft_block::{BlockDevice, Error, Refusal};
use undercroft_hal::BottomHalf;
use undercroft_hosts::pvscsi::{Fault, FaultScript, Knobs};
use undercroft_hosts::virtio::Order;
use undercroft_hosts::{Config, Schedule};
use undercroft_timer::timers;

use super::*;
use crate::Pvscsi;
use crate::defect::{Defect, Defects};

/// Commands with no DMA memory to be had, and one that is sent again because the unit is busy.
fn works_without_memory(defects: Defects) {
    let rig = Rig::schedule(Schedule::Eager);
    rig.run(defects, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        let commands: Vec<_> =
            (0..50).map(|n| command(&collector, n, at(0, 0), read10(n as u16, 1), (Direction::In, 512))).collect();
        rig.machine.fail_dma_after(0);
        let refused: Vec<_> = commands.into_iter().filter_map(|c| driver.submit(c).err()).map(end).collect();
        assert_eq!(refused, [], "a command needs memory");
        driver.commit();
        assert!(collector.wait(task, 50).iter().all(|answer| answer.status == Status::GOOD));
    });
}

#[test]
fn a_pvs_01_a_pvs_04_a_command_allocates_nothing() {
    works_without_memory(GOOD);
}

#[test]
fn a_pvs_01_a_pvs_04_a_command_allocates_nothing_control() {
    let message = says(|| works_without_memory(Defects::one(Defect::AllocatesPerCommand)));
    assert!(message.contains("a command needs memory"), "{message}");
}

/// A-PVS-03, X08: completions submit while the task submits, with an interrupt possible at every step. Each command is answered once.
fn submitters_collide(defects: Defects) {
    for seed in 0..4 {
        let config = Config { schedule: Schedule::RANDOM, seed, ..Config::default() };
        let rig = Rig::new(config, undercroft_hosts::pvscsi::Layout::MsiX, Knobs::default());
        rig.run(defects, |task, driver| {
            let (collector, again) = (Collector::new(), Collector::new());
            ready(task, &*driver, &LUNS, &collector);
            let (other, driver_in_hook) = (again.clone(), driver.clone());
            collector.on_answer(move |cookie| {
                let next = command(&other, cookie, at(0, 0), TEST_UNIT_READY, NOTHING);
                driver_in_hook.submit(next).expect("room");
                driver_in_hook.commit();
            });
            for n in 0..100 {
                go(&*driver, command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)).expect("room");
            }
            for (from, answers) in [collector.wait(task, 100), again.wait(task, 100)].into_iter().enumerate() {
                let mut cookies: Vec<_> = answers.iter().map(|answer| answer.cookie).collect();
                cookies.sort_unstable();
                assert!(cookies.into_iter().eq(0..100), "commands were lost or doubled: {from}");
            }
            collector.forget_hook();
        });
    }
}

#[test]
fn a_pvs_03_x08_the_ring_has_one_producer() {
    submitters_collide(GOOD);
}

#[test]
fn a_pvs_03_x08_the_ring_has_one_producer_control() {
    let message = says(|| submitters_collide(Defects::one(Defect::ProducerUnlocked)));
    assert!(message.contains("never comes") || message.contains("never published"), "{message}");
}

/// Counts how often there was room.
#[derive(Default)]
struct Room(AtomicU64);

impl HostWatcher for Room {
    fn event(&self, _cx: &BottomHalf, event: HostEvent) {
        if event == HostEvent::Room {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A-PVS-03: whoever is refused is told when there is room, whenever the last command in flight ended.
fn refused_and_told(defects: Defects) {
    for seed in 0..6 {
        let config = Config { schedule: Schedule::Random { work: 20, deliver: 60 }, seed, ..Config::default() };
        let rig = Rig::new(config, undercroft_hosts::pvscsi::Layout::MsiX, Knobs::default());
        rig.run(defects, |task, driver| {
            let (collector, room) = (Collector::new(), std::sync::Arc::new(Room::default()));
            ready(task, &*driver, &LUNS, &collector);
            driver.watch(room.clone());
            rig.model(|model| model.set_faults(FaultScript::none().every(1, Fault::Delay(2_000_000))));
            let mut answered = 0;
            for round in 0..10 {
                let mut submitted = 0;
                let told = room.0.load(Ordering::SeqCst);
                loop {
                    let next = command(&collector, submitted, at(0, 0), TEST_UNIT_READY, NOTHING);
                    match driver.submit(next) {
                        Ok(_) => submitted += 1,
                        Err(refused) => {
                            assert_eq!(end(refused), Refusal::Full);
                            break;
                        }
                    }
                    if submitted == u64::from(driver.info().depth) {
                        driver.commit();
                        // The device answers now, or in the middle of the next submit.
                        rig.machine.advance(2_000_000 + round);
                    }
                }
                driver.commit();
                answered += submitted;
                task.wait_until(|| room.0.load(Ordering::SeqCst) > told);
            }
            collector.wait(task, answered as usize);
        });
    }
}

#[test]
fn a_pvs_03_p_12_no_wake_up_is_lost() {
    refused_and_told(GOOD);
}

#[test]
fn a_pvs_03_p_12_no_wake_up_is_lost_control() {
    let message = says(|| refused_and_told(Defects::one(Defect::NotesRefusalLate)));
    assert!(message.contains("never comes"), "{message}");
}

/// A-PVS-02: interrupts strike while completions are taken off the ring; each is acted on once, in the order of the ring.
fn drained_under_interrupts(defects: Defects) {
    for seed in 0..4 {
        let config = Config { schedule: Schedule::RANDOM, seed, ..Config::default() };
        let rig = Rig::new(config, undercroft_hosts::pvscsi::Layout::MsiX, Knobs::default());
        rig.run(defects, |task, driver| {
            let collector = Collector::new();
            ready(task, &*driver, &LUNS, &collector);
            for n in 0..400 {
                loop {
                    match go(&*driver, command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)) {
                        Ok(_) => break,
                        Err(refused) => {
                            assert_eq!(end(refused), Refusal::Full);
                            task.run_pending();
                            undercroft_hal::cpu::relax();
                        }
                    }
                }
            }
            let answers = collector.wait(task, 400);
            let order: Vec<_> = answers.iter().map(|answer| answer.cookie).collect();
            assert!(order.iter().copied().eq(0..400), "out of order: {order:?}");
            settle(task);
            assert_eq!(collector.count(), 0, "twice");
        });
    }
}

#[test]
fn a_pvs_02_completions_are_drained_in_order() {
    drained_under_interrupts(GOOD);
}

#[test]
fn a_pvs_02_completions_are_drained_in_order_control() {
    let message = says(|| drained_under_interrupts(Defects::one(Defect::DrainsBackwards)));
    assert!(message.contains("out of order") || message.contains("never comes"), "{message}");
}

/// Reads through a queue from a unit that is busy as often as said: what came of it, and when it answered.
fn busy(defects: Defects, answers: Option<u64>) -> (Result<(), Error>, Vec<u64>) {
    let rig = Rig::schedule(Schedule::Lazy);
    rig.run(defects, |task, driver| {
        timers::start_service(task);
        let disk = scan(task, driver).unwrap().disks.remove(0);
        let config = queue::Config { timeout: Duration::from_millis(300), ..queue::Config::default() };
        let disk = BlockQueue::new(disk, config);
        let sink = Sink::new();
        let script = FaultScript::none();
        let script = match answers {
            Some(answers) => (0..answers).fold(script, |script, n| script.at(n, Fault::ScsiStatus(8))),
            None => script.from(0, Fault::ScsiStatus(8)),
        };
        let before = rig.model(|model| {
            model.set_faults(script);
            model.completed()
        });
        disk.submit(read(1, 1, 512, sink.to(1))).unwrap();
        disk.commit();
        while sink.count() == 0 {
            task.run_pending();
            undercroft_hal::cpu::relax();
            rig.machine.advance(2000);
            assert!(rig.model(|model| model.completed()) - before < 200, "sent again without end");
        }
        let done = sink.wait(task, 1).remove(0);
        settle(task);
        assert_eq!(sink.count(), 0, "completed twice");
        (done.result, rig.model(|model| model.times()[before as usize..].to_vec()))
    })
}

/// A-PVS-05, X08: a unit that is busy for a while, and one that stays busy.
fn busy_units(defects: Defects) {
    let (result, times) = busy(defects, Some(5));
    assert_eq!((result, times.len()), (Ok(()), 6));
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| *pause >= 100_000), "sent again at once: {pauses:?}");
    assert!(pauses.is_sorted() && pauses[4] >= 8 * pauses[0], "no growing delay: {pauses:?}");
    let (result, times) = busy(defects, None);
    assert_eq!(result, Err(Error::Busy));
    assert!((10..=61).contains(&times.len()), "{}", times.len());
}

#[test]
fn a_pvs_05_x08_p_11_a_busy_unit_is_asked_again_later_and_not_for_ever() {
    busy_units(GOOD);
}

#[test]
fn a_pvs_05_x08_p_11_a_busy_unit_is_asked_again_later_and_not_for_ever_control() {
    let message = says(|| busy_units(Defects::one(Defect::ResendsBusy)));
    assert!(message.contains("sent again at once") || message.contains("without end"), "{message}");
}

/// Completions run with no lock held.
fn completions_unlocked(defects: Defects) {
    Rig::schedule(Schedule::Eager).run(defects, |task, driver| ready_twice(task, &driver));
}

fn ready_twice(task: &undercroft_hal::Task, driver: &Pvscsi) {
    let collector = Collector::new();
    ready(task, driver, &LUNS, &collector);
    go(driver, command(&collector, 1, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
    collector.wait(task, 1);
}

#[test]
fn completions_run_with_no_lock_held() {
    completions_unlocked(GOOD);
}

#[test]
fn completions_run_with_no_lock_held_control() {
    let message = says(|| completions_unlocked(Defects::one(Defect::CompletesUnderLock)));
    assert!(message.contains("a command is finished while a lock"), "{message}");
}

/// A bottom half with a lot to do lets others have their turn.
fn batches(defects: Defects) {
    let rig = Rig::knobs(Schedule::Lazy, Knobs { order: Order::Lifo, ..Knobs::default() });
    rig.run(defects, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        let turns = std::sync::Arc::new(AtomicU64::new(0));
        let counted = turns.clone();
        let other = std::sync::Arc::new(undercroft_hal::work::BottomHalfWork::new(0, move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            undercroft_hal::work::Turn::Done
        }));
        let scheduled = other.clone();
        collector.on_answer(move |_| scheduled.schedule());
        for n in 0..256 {
            driver.submit(command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
        }
        driver.commit();
        collector.wait(task, 256);
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns >= 3, "the others had {turns} turns");
        collector.forget_hook();
    });
}

#[test]
fn a_bottom_half_works_in_batches() {
    batches(GOOD);
}

#[test]
fn a_bottom_half_works_in_batches_control() {
    let message = says(|| batches(Defects::one(Defect::NoBudget)));
    assert!(message.contains("the others had"), "{message}");
}

/// Below the device's threshold reads and writes need no kick; other commands do.
fn threshold(defects: Defects) {
    for (value, most) in [(None, [40, 1]), (Some(16), [0, 1])] {
        let rig = Rig::knobs(Schedule::Eager, Knobs { threshold: value, ..Knobs::default() });
        rig.run(defects, |task, driver| {
            let collector = Collector::new();
            ready(task, &*driver, &LUNS, &collector);
            let before = rig.model(|model| model.kicks());
            let into = (Direction::In, 512);
            for n in 0..40 {
                go(&*driver, command(&collector, n, at(0, 0), read10(1, 1), into)).unwrap();
                collector.wait(task, 1);
            }
            go(&*driver, command(&collector, 0, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
            collector.wait(task, 1);
            let after = rig.model(|model| model.kicks());
            let kicks = [after[0] - before[0], after[1] - before[1]];
            assert_eq!(kicks, most, "kicks that the device did not want");
        });
    }
}

#[test]
fn no_kick_below_the_threshold() {
    threshold(GOOD);
}

#[test]
fn no_kick_below_the_threshold_control() {
    let message = says(|| threshold(Defects::one(Defect::IgnoresThreshold)));
    assert!(message.contains("did not want"), "{message}");
}

#[test]
fn above_the_threshold_there_are_kicks() {
    let rig = Rig::knobs(Schedule::Lazy, Knobs { threshold: Some(16), ..Knobs::default() });
    rig.run(GOOD, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        let before = rig.model(|model| model.kicks());
        for n in 0..40 {
            go(&*driver, command(&collector, n, at(0, 0), read10(1, 1), (Direction::In, 512))).unwrap();
        }
        let after = rig.model(|model| model.kicks());
        assert!(after[0] > before[0], "{after:?}");
        assert!(collector.wait(task, 40).iter().all(|answer| answer.response == Response::Complete));
    });
}
