//! Requests that the host never answers, behind a queue with deadlines: what is done about them, in which order, and within what time.

use core::time::Duration;

use undercroft_block::queue::{BlockQueue, Config as QueueConfig, QueueStats, Rung};
use undercroft_block::scsi::{Host, Managed, Management, scan};
use undercroft_block::{BlockDevice, Error, Refusal};
use undercroft_hal::Instant;
use undercroft_hosts::hyperv::{Breach, Fault, SignalFault};
use undercroft_hosts::{Disk, Schedule, Script};
use undercroft_timer::timers;

use super::*;
use crate::defect::{Defect, Defects};

/// Longer than the 100 ms after which some hosts look by themselves.
const TIMEOUT: Duration = Duration::from_millis(150);
const RUNGS: [Duration; 4] =
    [Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(20), Duration::from_millis(500)];

fn millis(from: Instant) -> u64 {
    from.elapsed().as_millis() as u64
}

/// Runs `f` with the first disk behind a queue.
fn queued<R>(rig: &Rig, defects: Defects, f: impl FnOnce(&Task, &Arc<Storvsc>, &BlockQueue) -> R) -> R {
    rig.run(defects, |task, driver| {
        timers::start_service(task);
        let disk = scan(task, driver.clone()).unwrap().disks.remove(0);
        let config = QueueConfig { timeout: TIMEOUT, rungs: RUNGS, ..QueueConfig::default() };
        let queue = BlockQueue::new(disk, config);
        settle(task);
        f(task, &driver, &queue)
    })
}

/// Reads blocks 0 to `count` - 1, one request each, and gives what became of each.
fn read_all(task: &Task, device: &dyn BlockDevice, count: u64) -> Vec<(u64, Result<(), Error>)> {
    let sink = Sink::new();
    for lba in 0..count {
        device.submit(read(lba, 1, 512, sink.to(lba))).expect("is taken");
    }
    device.commit();
    let mut all: Vec<_> = sink
        .wait(task, count as usize)
        .into_iter()
        .map(|done| {
            let right = done.result.is_err() || bytes(&done.request)[..] == Disk::pattern(0, done.cookie)[..];
            assert!(right, "other data than what is on the disk");
            (done.cookie, done.result)
        })
        .collect();
    all.sort_unstable_by_key(|(lba, _)| *lba);
    assert!(all.iter().map(|(lba, _)| *lba).eq(0..count), "each once");
    all
}

fn helped(stats: &QueueStats) -> Vec<Rung> {
    Rung::ALL.into_iter().zip(stats.rungs).filter(|(_, rung)| rung.helped > 0).map(|(rung, _)| rung).collect()
}

/// A signal is lost, the host's or the guest's: it is found when the deadline of what waits for it has passed, and costs no reset.
fn lost_signal(of_host: bool, schedule: Schedule, defects: Defects) {
    let rig = Rig::cpus(1, schedule, 3);
    queued(&rig, defects, |task, driver, queue| {
        rig.model(|host| match of_host {
            true => host.set_packet_faults(Script::none().at(0, Fault::NoSignal)),
            false => host.faults.signals = Script::none().at(0, SignalFault::Lost),
        });
        let begun = Instant::now();
        let all = read_all(task, queue, 1);
        let took = millis(begun);
        assert!((100..=160).contains(&took), "the lost signal was found after {took} ms");
        assert_eq!((all[0].1, helped(&queue.stats())), (Ok(()), vec![Rung::Abort]));
        assert_eq!(driver.counts().resets, 0);
        rig.model(|host| host.set_packet_faults(Script::none()));
        let all = read_all(task, queue, 64);
        assert!(all.iter().all(|(_, result)| *result == Ok(())));
    });
}

#[test]
fn a_lost_signal_is_found_at_the_deadline() {
    for schedule in [Schedule::Eager, Schedule::Lazy] {
        lost_signal(true, schedule, GOOD);
        lost_signal(false, schedule, GOOD);
    }
}

#[test]
#[should_panic(expected = "the lost signal was found after")]
fn a_lost_signal_is_found_at_the_deadline_control() {
    lost_signal(false, Schedule::Lazy, Defects::one(Defect::LooksOnce));
}

/// What is never answered climbs as high as this host needs, and ends within the time of the rungs below; all else is done.
#[test]
fn the_ladder_ends_what_is_never_answered() {
    let cases = [
        (Fault::Never, true, Rung::Unit),
        (Fault::Never, false, Rung::Controller),
        (Fault::Stop, true, Rung::Controller),
    ];
    for (fault, resets_abort, rung) in cases {
        for (cpus, schedule) in [(1, Schedule::Eager), (1, Schedule::Lazy), (2, Schedule::RANDOM)] {
            let mut rig = Rig::cpus(cpus, schedule, 21).with(|host| host.knobs.resets_abort = resets_abort);
            // A channel that is closed because of its host is closed in the middle of what that had in hand.
            rig.allowed = |breach| matches!(breach, Breach::Memory(_));
            queued(&rig, GOOD, |task, driver, queue| {
                rig.model(|host| host.set_packet_faults(Script::none().at(5, fault)));
                let begun = Instant::now();
                let all = read_all(task, queue, 40);
                let bound = TIMEOUT + RUNGS.iter().take(rung as usize + 1).sum::<Duration>();
                assert!(begun.elapsed() < bound, "{fault:?}: {} ms", millis(begun));
                assert!(begun.elapsed() >= TIMEOUT);
                // What a reset has ended is sent again, unless the queue takes it for one that keeps others from ending.
                let failed: Vec<_> = all.iter().filter(|(_, result)| result.is_err()).collect();
                assert!(failed.iter().all(|(_, result)| *result == Err(Error::TimedOut)), "{fault:?}: {failed:?}");
                assert_eq!(helped(&queue.stats()), [rung], "{fault:?}");
                assert_eq!(driver.counts().resets, u64::from(rung == Rung::Controller));
                let all = read_all(task, queue, 64);
                assert!(all.iter().all(|(_, result)| *result == Ok(())), "{fault:?}: {all:?}");
            });
        }
    }
}

/// A disk without a queue, none of whose commands is answered, and a reset of the host: every command is sent again, and done.
fn reset_by_hand(answers_later: bool) {
    for (cpus, schedule) in [(1, Schedule::Eager), (1, Schedule::Lazy), (1, Schedule::RANDOM), (2, Schedule::RANDOM)] {
        let rig = Rig::cpus(cpus, schedule, 8);
        rig.run(GOOD, |task, driver| {
            let disk = scan(task, driver.clone()).unwrap().disks.remove(0);
            rig.model(|host| host.set_packet_faults(Script::none().every(1, Fault::Never)));
            let sink = Sink::new();
            for lba in 0..20 {
                disk.submit(read(lba, 1, 512, sink.to(lba))).unwrap();
            }
            disk.commit();
            settle(task);
            assert_eq!(sink.count(), 0);
            rig.model(|host| host.set_packet_faults(Script::none()));
            if answers_later {
                assert_eq!(driver.manage(Management::ResetHost), Managed::Asked);
                for done in sink.wait(task, 20) {
                    assert_eq!(done.result, Ok(()));
                    assert!(bytes(&done.request)[..] == Disk::pattern(0, done.cookie)[..]);
                }
                assert_eq!(driver.counts().resets, 1);
                return;
            }
            // The host dies of it.
            rig.model(|host| host.knobs.refuses_open = 0xc000_0001);
            assert_eq!(driver.manage(Management::ResetHost), Managed::Asked);
            assert!(sink.wait(task, 20).iter().all(|done| done.result.is_err()));
            assert!(matches!(disk.submit(read(0, 1, 512, sink.to(0))).unwrap_err().why, Refusal::Gone(_)));
        });
    }
}

#[test]
fn never_answered_then_the_host_is_reset() {
    reset_by_hand(true);
    reset_by_hand(false);
}

/// The host sends what cannot be: the controller is given up, and can be taken into use again at once.
#[test]
fn a_malformed_packet_then_the_channel_is_opened_again() {
    for fault in
        [Fault::Truncate(0), Fault::SaysLength(u16::MAX), Fault::BadTransaction(7), Fault::Index(4), Fault::Kind(7)]
    {
        for schedule in [Schedule::Eager, Schedule::RANDOM] {
            let mut rig = Rig::schedule(schedule);
            rig.allowed = |breach| matches!(breach, Breach::Memory(_));
            rig.on_bus(GOOD, |task, bus| {
                let driver = Arc::new(rig.probe(task, bus, GOOD).unwrap());
                let disk = scan(task, driver.clone()).unwrap().disks.remove(0);
                rig.model(|host| host.set_packet_faults(Script::none().at(3, fault)));
                let sink = Sink::new();
                let taken = (0..10).filter(|lba| disk.submit(read(*lba, 1, 512, sink.to(*lba))).is_ok()).count();
                disk.commit();
                let ended = sink.wait(task, taken);
                assert!(ended.iter().any(|done| done.result.is_err()), "{fault:?} is believed");
                drop((ended, disk, driver));
                rig.model(|host| host.set_packet_faults(Script::none()));
                task.wait_until(|| !bus.offers().is_empty());
                let driver = Arc::new(rig.probe(task, bus, GOOD).unwrap());
                let disk = scan(task, driver).unwrap().disks.remove(0);
                assert!(read_all(task, &*disk, 20).iter().all(|(_, result)| *result == Ok(())), "{fault:?}");
            });
        }
    }
}
