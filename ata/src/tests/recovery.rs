//! What goes wrong on the way, and how the driver comes back: lost interrupts, busy drives, resets, removal.

use undercroft_block::scsi::Managed;
use undercroft_block::{Recovery, Refusal};

use super::*;

const LONG: Duration = Duration::from_secs(300);

fn pio() -> Settings {
    Settings { dma: false, fua: false, trim_blocks: 0, ..Settings::default() }
}

/// A fault that strikes once, by DMA and by programmed I/O: every request is done all the same, with its data.
fn once(fault: Fault, resets: bool) {
    for settings in [Settings::default(), pio()] {
        for schedule in SCHEDULES {
            let dma = settings.dma;
            let rig = Rig::with(Config { schedule, ..Config::default() }, settings.clone());
            let rig = rig.faults(FaultScript::none().at(1, fault));
            rig.disk(GOOD, |task, disk| {
                let sink = Sink::new();
                for n in 0..4 {
                    disk.submit(read(n * 50, 40, sink.to(n))).unwrap();
                }
                disk.submit(write(300, &fill(5, 5), sink.to(4))).unwrap();
                disk.submit(Request::flush(sink.to(5))).unwrap();
                disk.commit();
                let done = sink.watch(task, &rig.machine, &disk, 6, LONG);
                assert!(done.iter().map(|done| done.cookie).eq(0..6), "in order");
                for done in done {
                    assert_eq!(done.result, Ok(()), "{fault:?} {dma} {schedule:?}");
                    if done.cookie < 4 {
                        assert!(bytes(&done.request) == pattern(0, done.cookie * 50, 40));
                    }
                }
                assert_eq!(rig.disk.durable_sector(302)[..], fill(5, 5)[1024..1536]);
                let counters = disk.counters();
                assert_eq!(counters.resets > 0, resets, "{fault:?} {dma} {schedule:?}: {counters:?}");
            });
        }
    }
}

#[test]
fn an_interrupt_that_is_lost() {
    once(Fault::InterruptLost, false);
}

#[test]
fn a_drive_that_stays_busy_until_it_is_reset() {
    once(Fault::StuckBusy, true);
}

#[test]
fn a_drive_that_still_wants_data() {
    once(Fault::DrqStuck, true);
}

#[test]
fn a_slow_drive_is_waited_for() {
    once(Fault::Delay(3_000_000_000), false);
}

/// By DMA, a drive that never asked for an interrupt has not finished; by programmed I/O its status is enough.
#[test]
fn an_interrupt_that_was_never_asked_for() {
    for (settings, resets) in [(Settings::default(), 1), (pio(), 0)] {
        let rig = Rig::settings(settings).faults(FaultScript::none().at(0, Fault::NoInterrupt));
        rig.disk(GOOD, |task, disk| {
            let sink = Sink::new();
            go(&disk, read(50, 40, sink.to(0))).unwrap();
            let done = sink.watch(task, &rig.machine, &disk, 1, LONG).remove(0);
            assert_eq!((done.result, disk.counters().resets), (Ok(()), resets));
            assert!(bytes(&done.request) == pattern(0, 50, 40));
        });
    }
}

/// The engine stops half way, in silence, with the drive at rest: not what is half done, but all of it, again.
fn stalls(defects: Defects) {
    let rig = Rig::new().faults(FaultScript::none().at(0, Fault::Stalls(4096)));
    rig.disk(defects, |task, disk| {
        let sink = Sink::new();
        go(&disk, read(50, 40, sink.to(0))).unwrap();
        let done = sink.watch(task, &rig.machine, &disk, 1, LONG).remove(0);
        assert!(bytes(&done.request) == pattern(0, 50, 40), "half a transfer taken for a whole one");
        assert_eq!((done.result, disk.counters().resets), (Ok(()), 1));
    });
}

#[test]
fn a_transfer_that_stalls_is_not_finished() {
    stalls(GOOD);
}

#[test]
fn a_transfer_that_stalls_is_not_finished_control() {
    let broken = Defects::one(Defect::TrustsIdle);
    assert!(caught("half a transfer", || stalls(broken)));
}

/// What the drive calls a success, the controller may not.
fn believes_the_controller(defects: Defects) {
    for (fault, error) in [(Fault::Short(1024), Error::ShortTransfer), (Fault::BusError, Error::Transport)] {
        let rig = Rig::new().faults(FaultScript::none().at(0, fault));
        rig.disk(defects, |task, disk| {
            let sink = Sink::new();
            go(&disk, read(50, 40, sink.to(0))).unwrap();
            assert_eq!(sink.one(task).result, Err(error), "a transfer that was not whole");
            go(&disk, read(50, 40, sink.to(0))).unwrap();
            assert_eq!(sink.one(task).result, Ok(()));
        });
    }
}

#[test]
fn the_controllers_bits_count() {
    believes_the_controller(GOOD);
}

#[test]
fn the_controllers_bits_count_control() {
    let broken = Defects::one(Defect::TrustsDrive);
    assert!(caught("a transfer that was not whole", || believes_the_controller(broken)));
}

/// An error on the cable is worth another try; three in a row are not.
#[test]
fn errors_on_the_cable() {
    let script = FaultScript::none().at(0, Fault::Error(0x84)).at(1, Fault::Error(0x84));
    let rig = Rig::new().faults(script.at(3, Fault::Error(0x84)).at(4, Fault::Error(0x84)).at(5, Fault::Error(0x84)));
    rig.disk(GOOD, |task, disk| {
        let sink = Sink::new();
        for (cookie, result) in [(0, Ok(())), (1, Err(Error::Transport)), (2, Ok(()))] {
            go(&disk, read(50, 40, sink.to(cookie))).unwrap();
            assert_eq!(sink.one(task).result, result);
        }
        assert_eq!((rig.log(0).len(), disk.counters().issued_again, disk.counters().resets), (7, 4, 0));
    });
}

/// A drive that no reset brings back takes its channel with it, and nothing else; whoever waits is told.
#[test]
fn a_drive_that_never_comes_back() {
    for schedule in SCHEDULES {
        let rig = Rig::three(Config { schedule, ..Config::default() });
        let rig = rig.faults(FaultScript::none().from(3, Fault::Wedged));
        rig.run(|task, found| {
            let sink = Sink::new();
            found.disks[0].watch(sink.clone());
            for n in 0..30u64 {
                found.disks[n as usize % 3].submit(read(n, 1, sink.to(n))).unwrap();
            }
            found.disks.iter().for_each(|disk| disk.commit());
            let mut done = sink.watch(task, &rig.machine, &found.disks[0], 30, LONG);
            done.sort_by_key(|done| done.cookie);
            assert!(done.iter().map(|done| done.cookie).eq(0..30), "each once");
            for done in &done {
                let fine = matches!(done.result, Ok(()) | Err(Error::TimedOut | Error::Broken));
                assert!(fine && (done.cookie % 3 != 2 || done.result.is_ok()), "{done:?}");
            }
            assert!(done.iter().filter(|done| done.result.is_err()).count() >= 16);
            assert_eq!(sink.events.lock().unwrap().iter().filter(|event| **event == Event::Removed).count(), 1);
            let refused = go(&found.disks[1], read(0, 1, sink.to(0))).unwrap_err();
            assert_eq!(refused.why, Refusal::Gone(Error::Broken));
            go(&found.disks[2], read(0, 1, sink.to(0))).unwrap();
            assert_eq!(sink.one(task).result, Ok(()));
        });
    }
}

/// Resets asked for in the middle of everything: each request is done once, with its data, on both drives.
#[test]
fn resets_in_mid_flight() {
    for schedule in SCHEDULES {
        for dma in [true, false] {
            let each = || Some(if dma { Settings::default() } else { pio() });
            let drives = [each(), each(), None, None];
            let rig = Rig::full(Config { schedule, ..Config::default() }, drives, Mode::Compatible, true);
            rig.run(|task, found| {
                let sink = Sink::new();
                for round in 0..6u64 {
                    for n in 0..10u64 {
                        let request = if n % 4 == 3 {
                            write(10_000 + n * 32 + round, &fill(20, n as u8), sink.to(n))
                        } else {
                            read(n * 30, 25, sink.to(n))
                        };
                        found.disks[n as usize % 2].submit(request).unwrap();
                    }
                    found.disks[0].commit();
                    settle(task, round as usize);
                    found.disks[1].reset_channel();
                    let mut done = sink.watch(task, &rig.machine, &found.disks[0], 10, LONG);
                    done.sort_by_key(|done| done.cookie);
                    assert!(done.iter().map(|done| done.cookie).eq(0..10), "each once");
                    for done in done {
                        assert_eq!(done.result, Ok(()));
                        if done.cookie % 4 != 3 {
                            let place = done.cookie as usize % 2;
                            assert!(bytes(&done.request) == pattern(place, done.cookie * 30, 25));
                        }
                    }
                }
                settle(task, 100_000);
                assert_eq!(found.disks[0].counters().resets, 6);
                assert_eq!(found.disks[0].counters().timeouts, 0);
            });
        }
    }
}

/// A disk is dropped with requests waiting and one out that never ends; its neighbour goes on.
#[test]
fn removal_with_requests_in_flight() {
    for schedule in SCHEDULES {
        let rig = Rig::three(Config { schedule, ..Config::default() });
        let rig = rig.faults(FaultScript::none().at(2, Fault::StuckBusy));
        rig.run(|task, mut found| {
            let sink = Sink::new();
            let first = found.disks.remove(0);
            for n in 0..20u64 {
                let disk = if n % 2 == 0 { &first } else { &found.disks[0] };
                disk.submit(read(n, 1, sink.to(n))).unwrap();
            }
            first.commit();
            settle(task, 200);
            drop(first);
            let mut done = sink.wait(task, 20);
            done.sort_by_key(|done| done.cookie);
            assert!(done.iter().map(|done| done.cookie).eq(0..20), "each once");
            for done in &done {
                let removed = done.result == Err(Error::Removed) && done.cookie % 2 == 0;
                assert!(removed || done.result == Ok(()), "{done:?}");
                assert!(done.context == Kind::BottomHalf && !done.request.data.is_empty());
            }
            assert!(done.iter().filter(|done| done.result.is_err()).count() >= 9);
            go(&found.disks[0], read(3, 1, sink.to(0))).unwrap();
            assert_eq!(bytes(&sink.one(task).request), pattern(1, 3, 1));
        });
    }
}

#[test]
fn a_request_that_waits_is_cancelled_or_late() {
    let rig = Rig::schedule(Schedule::Lazy).faults(FaultScript::none().at(0, Fault::Delay(1_000_000_000)));
    rig.disk(GOOD, |task, disk| {
        let sink = Sink::new();
        let out = disk.submit(read(0, 1, sink.to(0))).unwrap();
        let waits = disk.submit(read(1, 1, sink.to(1))).unwrap();
        let mut late = read(2, 1, sink.to(2));
        late.deadline = Some(Instant::now() + Duration::from_millis(5));
        disk.submit(late).unwrap();
        disk.submit(read(3, 1, sink.to(3))).unwrap();
        disk.commit();
        task.run_pending();
        assert!(disk.cancel(waits));
        task.run_pending();
        let done = sink.take();
        assert_eq!((done.len(), done[0].cookie, done[0].result), (1, 1, Err(Error::Cancelled)));
        assert!(!disk.cancel(waits), "it is over");
        let next = disk.expire(Instant::now()).unwrap();
        assert!(next.since(Instant::now()) <= Duration::from_millis(5));
        rig.machine.advance(5_000_000);
        disk.expire(Instant::now());
        task.run_pending();
        let done = sink.take();
        assert_eq!((done.len(), done[0].cookie, done[0].result), (1, 2, Err(Error::TimedOut)));
        // What is out cannot be called back; it ends as it ends.
        assert!(disk.cancel(out));
        let done = sink.wait(task, 2);
        assert_eq!((done[0].cookie, done[0].result, done[1].cookie), (0, Ok(()), 3));
        assert_eq!(disk.counters().resets, 0);
    });
}

/// A cancelled request of many commands ends after the one that is out.
#[test]
fn a_request_of_many_commands_is_cancelled_half_way() {
    let settings = Settings { lba48: false, fua: false, trim_blocks: 0, ..Settings::default() };
    let rig = Rig::with(Config { schedule: Schedule::Lazy, ..Config::default() }, settings);
    rig.disk(GOOD, |task, disk| {
        let sink = Sink::new();
        let tag = go(&disk, read(0, 2000, sink.to(0))).unwrap();
        task.run_pending();
        assert!(disk.cancel(tag));
        assert_eq!(sink.one(task).result, Err(Error::Cancelled));
        assert_eq!(rig.log(0).len(), 1);
    });
}

/// A deadline that passes while the command is out cuts it off, and it is not issued again.
#[test]
fn a_deadline_cuts_off_what_is_out() {
    let rig = Rig::new().faults(FaultScript::none().at(0, Fault::StuckBusy));
    rig.disk(GOOD, |task, disk| {
        let sink = Sink::new();
        let mut request = read(0, 1, sink.to(0));
        request.deadline = Some(Instant::now() + Duration::from_millis(50));
        go(&disk, request).unwrap();
        let done = sink.watch(task, &rig.machine, &disk, 1, Duration::from_millis(70)).remove(0);
        assert_eq!((done.result, rig.log(0).len()), (Err(Error::TimedOut), 1));
        go(&disk, read(5, 1, sink.to(0))).unwrap();
        assert_eq!(sink.one(task).result, Ok(()));
    });
}

/// The controller is pulled out: everything ends, in time, and nothing panics.
#[test]
fn an_unplugged_controller() {
    for schedule in SCHEDULES {
        let rig = Rig::three(Config { schedule, ..Config::default() });
        let rig = rig.faults(FaultScript::none().from(4, Fault::StuckBusy));
        rig.machine.run(|task| {
            let found = rig.probe(task, GOOD).unwrap();
            let sink = Sink::new();
            for n in 0..20u64 {
                found.disks[n as usize % 2].submit(read(n, 1, sink.to(n))).unwrap();
            }
            found.disks[0].commit();
            settle(task, 500);
            rig.machine.unplug(&rig.host);
            let done = sink.watch(task, &rig.machine, &found.disks[0], 20, LONG);
            assert!(done.iter().filter(|done| done.result.is_err()).count() >= 16);
            drop(found);
            settle(task, 1000);
        });
        assert_eq!(rig.machine.live_dma_blocks(), 0);
    }
}

/// Faults of all kinds at random: every request ends once; what ends well has its data.
#[test]
fn faults_at_random() {
    let faults = [
        Fault::Delay(700_000),
        Fault::Error(0x40),
        Fault::Error(0x84),
        Fault::ErrorAfter(2, 0x10),
        Fault::DeviceFault,
        Fault::InterruptLost,
        Fault::NoInterrupt,
        Fault::Spurious,
        Fault::Glitch,
        Fault::Extra,
        Fault::StuckBusy,
        Fault::Short(512),
        Fault::Stalls(512),
        Fault::BusError,
        Fault::DrqStuck,
    ];
    for seed in 0..8 {
        let each = |dma: bool| Some(if dma { Settings::default() } else { pio() });
        let schedule = SCHEDULES[seed as usize % 3];
        let rig = Rig::full(
            Config { seed, schedule, ..Config::default() },
            [each(true), each(seed % 2 == 0), None, None],
            Mode::Compatible,
            true,
        );
        let rig = rig.faults(FaultScript::none().sometimes(seed, 40, &faults));
        rig.run(|task, found| {
            let sink = Sink::new();
            for n in 0..40u64 {
                let request = match n % 5 {
                    4 => write(30_000 + n * 64, &fill(24, n as u8), sink.to(n)),
                    3 => Request::flush(sink.to(n)),
                    _ => read(n * 30, 1 + n as u32 % 29, sink.to(n)),
                };
                found.disks[n as usize % 2].submit(request).unwrap();
            }
            found.disks[0].commit();
            let mut done = sink.watch(task, &rig.machine, &found.disks[0], 40, Duration::from_secs(10_000));
            done.sort_by_key(|done| done.cookie);
            assert!(done.iter().map(|done| done.cookie).eq(0..40), "each once");
            for done in done.iter().filter(|done| done.result.is_ok() && done.request.op == Op::Read) {
                let (place, data) = (done.cookie as usize % 2, bytes(&done.request));
                assert!(
                    data == pattern(place, done.cookie * 30, data.len() as u64 / 512),
                    "seed {seed}: {}",
                    done.cookie
                );
            }
            assert!(done.iter().any(|done| done.result.is_ok()));
        });
    }
}

/// A reset as the block layer asks for it: everything in flight on the cable ends, of both drives, once; then requests are taken again.
#[test]
fn a_reset_that_ends_everything() {
    for schedule in SCHEDULES {
        let rig = Rig::three(Config { schedule, ..Config::default() });
        let rig = rig.faults(FaultScript::none().at(5, Fault::StuckBusy));
        rig.run(|task, found| {
            let sink = Sink::new();
            found.disks[0].watch(sink.clone());
            for n in 0..20u64 {
                found.disks[n as usize % 2].submit(read(n, 1, sink.to(n))).unwrap();
            }
            found.disks[0].commit();
            settle(task, 500);
            let before = sink.count();
            assert_eq!(found.disks[0].recover(Recovery::ResetUnit), Managed::Unsupported);
            assert_eq!(found.disks[0].recover(Recovery::ResetBus(None)), Managed::Asked);
            let refused = found.disks[0].submit(read(0, 1, sink.to(99))).err();
            let mut done = sink.wait(task, 20);
            done.sort_by_key(|done| done.cookie);
            assert!(done.iter().map(|done| done.cookie).eq(0..20), "each once");
            let ended = [Err(Error::Reset), Err(Error::NotStarted)];
            assert_eq!(done.iter().filter(|done| ended.contains(&done.result)).count(), 20 - before);
            assert!(done.iter().filter(|done| done.result == Err(Error::Reset)).count() <= 2);
            if let Some(refused) = refused {
                assert_eq!(refused.why, Refusal::Full);
                task.wait_until(|| sink.events.lock().unwrap().contains(&Event::Room));
                go(&found.disks[0], refused.request).unwrap();
            } else {
                // The whole reset was over before the caller went on.
                found.disks[0].commit();
            }
            assert_eq!(sink.one(task).result, Ok(()));
            settle(task, 100_000);
            for place in 0..2 {
                go(&found.disks[place], read(7, 1, sink.to(0))).unwrap();
                assert_eq!(bytes(&sink.one(task).request), pattern(place, 7, 1));
            }
        });
    }
}

/// The mildest rung: what waits is cancelled; what is out and was done without its interrupt arriving is found to be done.
#[test]
fn an_abort_looks_once_more() {
    for settings in [Settings::default(), pio()] {
        let rig = Rig::settings(settings).faults(FaultScript::none().at(0, Fault::InterruptLost));
        rig.disk(GOOD, |task, disk| {
            let sink = Sink::new();
            let out = disk.submit(write(9, &fill(1, 1), sink.to(0))).unwrap();
            let waits = go(&disk, read(1, 1, sink.to(1))).unwrap();
            settle(task, 200);
            assert_eq!(sink.count(), 0);
            assert_eq!(disk.recover(Recovery::Abort(waits)), Managed::Asked);
            assert_eq!(sink.one(task).result, Err(Error::Cancelled));
            assert_eq!(disk.recover(Recovery::Abort(out)), Managed::Asked);
            assert_eq!(sink.one(task).result, Ok(()));
            assert_eq!(disk.recover(Recovery::Abort(out)), Managed::NoCommand);
            assert_eq!((disk.counters().lost_interrupts, disk.counters().resets), (1, 0));
        });
    }
}
