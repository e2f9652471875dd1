//! The audit's hazards, each with a twin of the driver that has it.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use undercroft_block::Refusal;
use undercroft_block::scsi::{Direction, Host, HostEvent, HostWatcher, Response, Status};
use undercroft_hal::BottomHalf;
use undercroft_hosts::Schedule;

use super::*;
use crate::defect::{Defect, Defects};

const SECTOR: usize = 512;

/// A-SVSC-02, A-SVSC-05, A-SVSC-07: commands with no DMA memory to be had.
fn works_without_memory(defects: Defects) {
    let rig = Rig::schedule(Schedule::Eager);
    rig.run(defects, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        let commands: Vec<_> =
            (0..50).map(|n| command(&collector, n, at(0, 0), read10(n as u16, 1), (Direction::In, SECTOR))).collect();
        rig.machine.fail_dma_after(0);
        let refused: Vec<_> = commands.into_iter().filter_map(|c| driver.submit(c).err()).map(end).collect();
        assert_eq!(refused, [], "a command needs memory");
        driver.commit();
        assert!(collector.wait(task, 50).iter().all(|answer| answer.status == Status::GOOD));
    });
}

#[test]
fn a_svsc_02_a_svsc_05_a_svsc_07_a_command_allocates_nothing() {
    works_without_memory(GOOD);
}

#[test]
fn a_svsc_02_a_svsc_05_a_svsc_07_a_command_allocates_nothing_control() {
    let message = says(|| works_without_memory(Defects::one(Defect::AllocatesPerCommand)));
    assert!(message.contains("a command needs memory"), "{message}");
}

/// A-SVSC-03: with the queue full, each completion submits the next command at once: it is taken, for the slot is free.
fn resubmits(defects: Defects) {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule).settings(|settings| settings.depth = 8);
        rig.run(defects, |task, driver| {
            let (collector, again) = (Collector::new(), Collector::new());
            ready(task, &*driver, &LUNS, &collector);
            let (other, driver_in_hook) = (again.clone(), driver.clone());
            let refused = Arc::new(AtomicUsize::new(0));
            let counted = refused.clone();
            collector.on_answer(move |cookie| {
                let next = command(&other, cookie, at(0, 0), TEST_UNIT_READY, NOTHING);
                if let Err(refused) = driver_in_hook.submit(next) {
                    end(refused);
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                driver_in_hook.commit();
            });
            for n in 0..8 {
                driver.submit(command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
            }
            let full = driver.submit(command(&collector, 9, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap_err();
            assert_eq!(end(full), Refusal::Full);
            driver.commit();
            collector.wait(task, 8);
            collector.forget_hook();
            assert_eq!(refused.load(Ordering::SeqCst), 0, "no room for the command that follows a completion");
            again.wait(task, 8);
        });
    }
}

#[test]
fn a_svsc_03_a_completion_finds_its_slot_free() {
    resubmits(GOOD);
}

#[test]
fn a_svsc_03_a_completion_finds_its_slot_free_control() {
    let message = says(|| resubmits(Defects::one(Defect::FreesSlotLate)));
    assert!(message.contains("no room for the command"), "{message}");
}

#[test]
fn a_svsc_03_no_lock_is_held_control() {
    let message = says(|| resubmits(Defects::one(Defect::CompletesUnderLock)));
    assert!(message.contains("a command is finished while a lock"), "{message}");
}

/// A-SVSC-01, A-SVSC-04: completions submit while the task submits, with an interrupt possible at every step, on several CPUs: each command is
/// answered once, and no two completions of one channel run at a time.
fn submitters_collide(defects: Defects) {
    for (seed, cpus) in [(0, 1), (1, 2), (2, 4)] {
        let rig = Rig::cpus(cpus, Schedule::RANDOM, seed);
        rig.run(defects, |task, driver| {
            let (collector, again) = (Collector::new(), Collector::new());
            ready(task, &*driver, &LUNS, &collector);
            let (other, driver_in_hook) = (again.clone(), driver.clone());
            let inside = AtomicUsize::new(0);
            collector.on_answer(move |cookie| {
                // On this CPU's channel: its work is not entered again.
                assert!(
                    inside.fetch_or(1 << cpu::current(), Ordering::SeqCst) & 1 << cpu::current() == 0,
                    "entered twice"
                );
                let next = command(&other, cookie, at(0, 0), TEST_UNIT_READY, NOTHING);
                driver_in_hook.submit(next).expect("room");
                driver_in_hook.commit();
                inside.fetch_and(!(1 << cpu::current()), Ordering::SeqCst);
            });
            for n in 0..100 {
                go(&*driver, command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)).expect("room");
            }
            for (from, answers) in [collector.wait(task, 100), again.wait(task, 100)].into_iter().enumerate() {
                let mut cookies: Vec<_> = answers.iter().map(|answer| answer.cookie).collect();
                assert!(answers.iter().all(|answer| answer.response == Response::Complete), "{from}");
                cookies.sort_unstable();
                assert!(cookies.into_iter().eq(0..100), "commands were lost or doubled: {from}");
            }
            collector.forget_hook();
        });
    }
}

#[test]
fn a_svsc_01_a_svsc_04_submitters_and_completions_collide() {
    submitters_collide(GOOD);
}

#[test]
fn a_svsc_01_a_svsc_04_submitters_and_completions_collide_control() {
    let message = says(|| submitters_collide(Defects::one(Defect::SameTransaction)));
    assert!(message.contains("Gone(Broken)"), "{message}");
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

/// X06, A-SVSC-06, A-SVSC-08: whoever is refused is told when there is room, whether commands are in flight or only the ring is full; and
/// commands are carried out in the order in which they were taken.
fn refused_and_told(defects: Defects) {
    for (seed, depth) in [(1, 8), (2, 256)] {
        let schedule = Schedule::Random { work: 20, deliver: 60 };
        let rig = Rig::cpus(1, schedule, seed).settings(|settings| {
            settings.depth = depth;
            (settings.pages_up, settings.pages_down) = (1, 1);
        });
        rig.run(defects, |task, driver| {
            let (collector, room) = (Collector::new(), Arc::new(Room::default()));
            ready(task, &*driver, &LUNS, &collector);
            driver.watch(room.clone());
            let mut cookie = 0;
            for _ in 0..30 {
                let told = room.0.load(Ordering::SeqCst);
                loop {
                    match driver.submit(command(&collector, cookie, at(0, 0), TEST_UNIT_READY, NOTHING)) {
                        Ok(_) => cookie += 1,
                        Err(refused) => {
                            assert_eq!(end(refused), Refusal::Full);
                            break;
                        }
                    }
                }
                driver.commit();
                task.wait_until(|| room.0.load(Ordering::SeqCst) > told);
            }
            let answers = collector.wait(task, cookie as usize);
            assert!(answers.iter().map(|answer| answer.cookie).eq(0..cookie), "out of order");
        });
    }
}

#[test]
fn x06_a_svsc_06_a_svsc_08_no_wake_up_is_lost() {
    refused_and_told(GOOD);
}

#[test]
fn x06_a_svsc_06_a_svsc_08_no_wake_up_is_lost_control() {
    let message = says(|| refused_and_told(Defects::one(Defect::ForgetsRefusal)));
    assert!(message.contains("never comes"), "{message}");
}
