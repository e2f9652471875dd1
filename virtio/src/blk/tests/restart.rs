//! Resets with requests in flight, asked for by the device or by recovery: each request ends once, and the device goes on.

use undercroft_block::scsi::Managed;
use undercroft_block::{Recovery, Refusal, Reset};

use super::*;
use undercroft_hosts::rig::Done;

fn results(mut done: Vec<Done>) -> Vec<(u64, Result<(), Error>)> {
    done.sort_by_key(|done| done.cookie);
    done.iter().map(|done| (done.cookie, done.result)).collect()
}

/// One that has been answered without an interrupt, one that never will be, and one that the device was not told of.
fn told_apart(defects: Defects, by: impl Fn(&VirtioBlk, &Rig)) {
    let script = FaultScript::none().at(1, Fault::NoInterrupt).at(2, Fault::Never);
    let rig = Rig::schedule(Schedule::Lazy).faults(script);
    rig.run_with(defects, |task, driver| {
        let sink = Sink::new();
        driver.watch(sink.clone());
        driver.submit(read(1, 1, 512, sink.to(1))).unwrap();
        driver.submit(write(2, &[9; 512], 512, sink.to(2))).unwrap();
        driver.commit();
        settle(task);
        assert_eq!((sink.count(), rig.host.with(|host| host.in_flight())), (0, 1));
        driver.submit(write(3, &[9; 512], 512, sink.to(3))).unwrap();
        by(&driver, &rig);
        let refused = driver.submit(read(4, 1, 512, sink.to(4)));
        let refused = refused.err().map(|rejected| rejected.why);
        let mut ends = sink.wait(task, 3 + usize::from(refused.is_none()));
        // Where the reset had not begun yet.
        ends.retain(|done| done.cookie != 4 || done.result != Err(Error::NotStarted));
        assert_eq!(bytes(&ends.iter().find(|done| done.cookie == 1).unwrap().request), pattern(1, 1));
        let expected = [(1, Ok(())), (2, Err(Error::Reset)), (3, Err(Error::NotStarted))];
        assert_eq!(results(ends), expected, "an answer, an unknown end and one that never began");
        settle(task);
        assert_eq!(sink.events().contains(&Event::Room), refused == Some(Refusal::Full));
        // It goes on.
        for cookie in 10..400 {
            go(&driver, read(cookie, 1, 512, sink.to(cookie))).unwrap();
            let done = sink.wait(task, 1).remove(0);
            assert_eq!((done.result, bytes(&done.request)), (Ok(()), pattern(cookie, 1)));
        }
    });
    assert_eq!(rig.disk.read_sector(3)[..], pattern(3, 1)[..], "what never began left no trace");
}

fn asked(driver: &VirtioBlk, _: &Rig) {
    assert!(driver.reset(Reset::Device));
    assert!(driver.reset(Reset::Device), "one that is under way counts");
}

#[test]
fn a_reset_tells_what_was_answered_what_is_unknown_and_what_never_began() {
    told_apart(GOOD, asked);
    told_apart(GOOD, |driver, _| assert!(driver.reset(Reset::Queue(Tag::from_bits(0)))));
    told_apart(GOOD, |_, rig| rig.host.with(|host| host.needs_reset()));
}

#[test]
#[should_panic(expected = "an answer, an unknown end and one that never began")]
fn a_reset_tells_what_was_answered_what_is_unknown_and_what_never_began_control() {
    told_apart(Defects::one(Defect::ResetSaysNothingDone), asked);
}

/// Resets of all kinds at all times, under load: nothing is lost, nothing comes twice, nothing hangs.
#[test]
fn resets_under_load_lose_nothing() {
    for seed in 0..12 {
        let config = Config { schedule: Schedule::RANDOM, seed, cpus: 2, ..Config::default() };
        let rig = Rig::with(config, BlkLimits { queues: 2, ..BlkLimits::default() });
        rig.host.with(|host| host.knobs.queue_reset_reads = seed as u32 % 3);
        rig.run(|task, driver| {
            let sink = Sink::new();
            let (mut taken, mut random) = (0, undercroft_hosts::Random::new(seed));
            for cookie in 0..600 {
                match go(&driver, read(cookie, 1, 512, sink.to(cookie))) {
                    Ok(tag) => {
                        taken += 1;
                        match random.below(60) {
                            0 => assert!(driver.reset(Reset::Device)),
                            1 | 2 => {
                                let _ = driver.reset(Reset::Queue(tag));
                            }
                            3 => rig.host.with(|host| host.needs_reset()),
                            _ => {}
                        }
                    }
                    Err(rejected) => assert_eq!(rejected.why, Refusal::Full),
                }
                if random.below(4) == 0 {
                    task.run_pending();
                }
            }
            let done = sink.wait(task, taken);
            settle(task);
            assert_eq!(sink.count(), 0, "completed twice");
            let mut cookies: Vec<_> = done.iter().map(|done| done.cookie).collect();
            cookies.sort_unstable();
            cookies.dedup();
            assert_eq!(cookies.len(), taken, "completed twice");
            for done in &done {
                match done.result {
                    Ok(()) => assert_eq!(bytes(&done.request), pattern(done.cookie, 1)),
                    error => assert!(matches!(error, Err(Error::Reset | Error::NotStarted)), "{error:?}"),
                }
            }
            assert!(done.iter().any(|done| done.result.is_err()));
            go(&driver, read(1, 1, 512, sink.to(1))).unwrap();
            assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
        });
    }
}

/// The other queue's requests stay where they are.
#[test]
fn the_reset_of_a_queue_leaves_the_others_alone() {
    let rig = Rig::with(
        Config { cpus: 2, schedule: Schedule::Lazy, ..Config::default() },
        BlkLimits { queues: 2, ..BlkLimits::default() },
    )
    .faults(FaultScript::none().from(1, Fault::Never));
    rig.run(|task, driver| {
        let sink = Sink::new();
        let tag = go(&driver, read(1, 1, 512, sink.to(1))).unwrap();
        let other = Tag::from_bits(u64::from(1 - tag.queue()) << 48);
        settle(task);
        assert!(driver.reset(Reset::Queue(other)));
        settle(task);
        assert_eq!(sink.count(), 0);
        assert!(!driver.reset(Reset::Queue(Tag::from_bits(7 << 48))), "no such queue");
        assert!(driver.reset(Reset::Queue(tag)));
        assert_eq!(results(sink.wait(task, 1)), [(1, Err(Error::Reset))]);
        assert_eq!(rig.host.with(|host| host.resets()), 1, "the device itself was reset at its start only");
    });
}

#[test]
fn without_ring_reset_only_the_device_can_be_reset() {
    let rig = Rig::schedule(Schedule::Eager);
    rig.host.with(|host| host.knobs.without = 1 << 40);
    rig.run(|task, driver| {
        let sink = Sink::new();
        assert!(!driver.reset(Reset::Queue(Tag::from_bits(0))));
        assert!(driver.reset(Reset::Device));
        settle(task);
        go(&driver, read(1, 1, 512, sink.to(1))).unwrap();
        assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
    });
}

/// What can go wrong on the way: the device is given up, and everything ends.
#[test]
fn a_device_that_does_not_come_back_is_given_up() {
    type Spoil = fn(&mut VirtioPci<Model>);
    let spoils: [Spoil; 5] = [
        |host| host.knobs.reset_reads = u32::MAX,
        |host| host.knobs.refuse_features = true,
        |host| host.knobs.without = 1 << 29,
        |host| host.knobs.vectors = Some(0),
        |host| host.model().limits.queue_size = 8,
    ];
    for (n, spoil) in spoils.into_iter().enumerate() {
        let rig = Rig::schedule(Schedule::RANDOM).faults(FaultScript::none().from(1, Fault::Never));
        rig.run(|task, driver| {
            let sink = Sink::new();
            driver.watch(sink.clone());
            go(&driver, read(1, 1, 512, sink.to(1))).unwrap();
            driver.submit(read(2, 1, 512, sink.to(2))).unwrap();
            rig.host.with(spoil);
            assert!(driver.reset(Reset::Device));
            let done = sink.wait(task, 2);
            assert!(done.iter().all(|done| done.result.is_err()), "{n}");
            settle(task);
            assert_eq!(sink.events().last(), Some(&Event::Removed), "{n}");
            let late = go(&driver, read(1, 1, 512, sink.to(99))).unwrap_err();
            assert_eq!(late.why, Refusal::Gone(Error::Broken), "{n}");
            assert!(!driver.reset(Reset::Device), "{n}");
        });
    }
}

/// A queue that does not finish its reset takes the whole device's with it.
#[test]
fn a_queue_that_does_not_reset_has_the_device_reset() {
    let rig = Rig::schedule(Schedule::Eager).faults(FaultScript::none().at(1, Fault::Never));
    rig.host.with(|host| host.knobs.queue_reset_reads = u32::MAX);
    rig.run(|task, driver| {
        let sink = Sink::new();
        let tag = go(&driver, read(1, 1, 512, sink.to(1))).unwrap();
        assert!(driver.reset(Reset::Queue(tag)));
        assert_eq!(results(sink.wait(task, 1)), [(1, Err(Error::Reset))]);
        settle(task);
        go(&driver, read(2, 1, 512, sink.to(2))).unwrap();
        assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
        assert_eq!(rig.host.with(|host| host.resets()), 3);
    });
}

/// A device that needs a reset whatever it is asked gets a few, and no more.
#[test]
fn a_device_that_only_ever_needs_a_reset_is_given_up() {
    let rig = Rig::schedule(Schedule::Eager).faults(FaultScript::none().from(1, Fault::NeedsReset));
    rig.run(|task, driver| {
        let sink = Sink::new();
        let mut resets = 0;
        loop {
            match go(&driver, read(1, 1, 512, sink.to(1))) {
                Ok(_) => {
                    resets += 1;
                    assert!(resets < 20, "it goes on for ever");
                    assert!(sink.wait(task, 1)[0].result.is_err());
                    settle(task);
                }
                Err(rejected) => {
                    assert_eq!(rejected.why, Refusal::Gone(Error::Broken));
                    break;
                }
            }
        }
    });
}

/// Removed in the middle of a restart, by its own completion.
#[test]
fn a_device_may_be_removed_during_its_restart() {
    for seed in 0..8 {
        let config = Config { schedule: Schedule::RANDOM, seed, ..Config::default() };
        let rig = Rig::with(config, BlkLimits::default()).faults(FaultScript::none().from(1, Fault::Never));
        rig.host.with(|host| host.knobs.reset_reads = seed as u32);
        rig.run(|task, driver| {
            let sink = Sink::new();
            for cookie in 0..100 {
                go(&driver, read(cookie, 1, 512, sink.to(cookie))).unwrap();
            }
            assert!(driver.reset(Reset::Device));
            for _ in 0..seed / 2 {
                task.run_pending();
            }
            drop(driver);
            assert_eq!(results(sink.wait(task, 100)).len(), 100);
        });
    }
}

/// Whoever is told of a resize may let the device go.
#[test]
fn a_device_may_be_removed_by_who_is_told_of_its_change() {
    struct Remover(std::sync::Mutex<Option<VirtioBlk>>);
    impl undercroft_block::Watcher for Remover {
        fn event(&self, _cx: &undercroft_hal::BottomHalf, _event: Event) {
            let driver = self.0.lock().unwrap().take();
            drop(driver);
        }
    }
    let rig = Rig::schedule(Schedule::Eager);
    rig.run(|task, driver| {
        let remover = Arc::new(Remover(std::sync::Mutex::default()));
        driver.watch(remover.clone());
        *remover.0.lock().unwrap() = Some(driver);
        rig.host.with(|host| host.change_config(|model| model.claimed_capacity = Some(77)));
        settle(task);
        assert!(remover.0.lock().unwrap().is_none(), "nobody was told");
    });
}

/// QEMU's disks go on with what was in flight when a queue is reset. Whether a read finds its own bytes after one that is late was ended so.
fn a_late_read_and_another(end: impl Fn(&VirtioBlk, Tag)) -> bool {
    let late = FaultScript::none().at(1, Fault::Delay(1_000_000_000)).at(2, Fault::Delay(3_000_000_000));
    let rig = Rig::schedule(Schedule::Eager).faults(late);
    rig.host.with(|host| host.knobs.queue_reset_goes_on = true);
    let mut right = false;
    rig.run(|task, driver| {
        let sink = Sink::new();
        let tag = go(&driver, read(1, 1, 512, sink.to(1))).unwrap();
        end(&driver, tag);
        // Kept: another buffer has another address.
        let ended = sink.wait(task, 1).remove(0);
        assert_eq!(ended.result, Err(Error::Reset));
        settle(task);
        go(&driver, read(2, 1, 512, sink.to(2))).unwrap();
        let done = sink.wait(task, 1).remove(0);
        right = (done.result, bytes(&done.request)) == (Ok(()), pattern(2, 1));
        drop(ended);
    });
    right
}

#[test]
fn what_recovery_ends_is_never_answered_later() {
    let ladder = |driver: &VirtioBlk, tag| {
        let rungs =
            [Recovery::Abort(tag), Recovery::ResetUnit, Recovery::ResetBus(Some(tag)), Recovery::ResetController];
        let asked: Vec<_> = rungs.into_iter().filter(|rung| driver.recover(*rung) == Managed::Asked).collect();
        assert!(matches!(asked[..], [Recovery::ResetController]), "{asked:?}");
    };
    assert!(a_late_read_and_another(ladder));
}

#[test]
fn what_recovery_ends_is_never_answered_later_control() {
    let queue = |driver: &VirtioBlk, tag| assert!(driver.reset(Reset::Queue(tag)));
    assert!(!a_late_read_and_another(queue), "the check would see an answer that comes late");
}

/// A reset from outside takes all that was agreed on: a queue alone is not given to such a device.
#[test]
fn a_queue_of_a_device_that_somebody_has_reset_has_the_device_reset() {
    let rig = Rig::schedule(Schedule::Eager).faults(FaultScript::none().at(1, Fault::Never));
    rig.run(|task, driver| {
        let sink = Sink::new();
        let tag = go(&driver, read(1, 1, 512, sink.to(1))).unwrap();
        settle(task);
        rig.host.with(|host| host.reset_from_outside());
        assert!(driver.reset(Reset::Queue(tag)));
        assert_eq!(results(sink.wait(task, 1)), [(1, Err(Error::Reset))]);
        settle(task);
        go(&driver, read(2, 1, 512, sink.to(2))).unwrap();
        let done = sink.wait(task, 1).remove(0);
        assert_eq!((done.result, bytes(&done.request)), (Ok(()), pattern(2, 1)));
    });
}
