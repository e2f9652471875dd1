//! A host that breaks its contract, at the level of the driver: every request ends once with an error, nothing is left, nothing panics.

use undercroft_block::Refusal;

use super::*;

#[test]
fn a_broken_contract_ends_every_request_once() {
    let lies = [
        Fault::Duplicate,
        Fault::BadId,
        Fault::IdleId,
        Fault::IndexJump(7),
        Fault::IndexJump(40_000),
        Fault::TooLong(9),
    ];
    for fault in lies.into_iter().chain([Fault::NoStatus]) {
        for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
            let rig = Rig::schedule(schedule).faults(FaultScript::none().at(10, fault).from(15, Fault::Never));
            rig.run(|task, driver| {
                let sink = Sink::new();
                driver.watch(sink.clone());
                let mut submitted = 0;
                for cookie in 0..30 {
                    match go(&driver, read(cookie, 1, 512, sink.to(cookie))) {
                        Ok(_) => submitted += 1,
                        Err(rejected) => assert!(matches!(rejected.why, Refusal::Gone(_)), "{fault:?}"),
                    }
                }
                let mut done = sink.wait(task, submitted);
                settle(task);
                assert_eq!(sink.count(), 0, "{fault:?}: completed twice");
                done.sort_by_key(|done| done.cookie);
                done.dedup_by_key(|done| done.cookie);
                assert_eq!(done.len(), submitted, "{fault:?}");
                assert!(done.iter().any(|done| done.result == Err(Error::Broken)), "{fault:?}");
                for done in &done {
                    match done.result {
                        Ok(()) => assert_eq!(bytes(&done.request), pattern(done.cookie, 1), "{fault:?}"),
                        error => assert_eq!(error, Err(Error::Broken), "{fault:?}"),
                    }
                }
                let late = go(&driver, read(1, 1, 512, sink.to(99))).unwrap_err();
                assert_eq!(late.why, Refusal::Gone(Error::Broken), "{fault:?}");
                assert_eq!(sink.events()[..], [Event::Removed], "{fault:?}");
            });
            assert!(rig.host.with(|host| host.resets()) >= 2, "the device was reset");
        }
    }
}

#[test]
fn faults_that_a_good_device_may_have_cost_nothing() {
    for fault in [Fault::Delay(1_000_000), Fault::Behind(3), Fault::Spurious, Fault::Short(1)] {
        let rig = Rig::schedule(Schedule::RANDOM).faults(FaultScript::none().every(3, fault));
        rig.run(|task, driver| {
            let sink = Sink::new();
            for cookie in 0..40 {
                go(&driver, read(cookie, 2, 512, sink.to(cookie))).unwrap();
            }
            for done in sink.wait(task, 40) {
                assert_eq!((done.result, bytes(&done.request)), (Ok(()), pattern(done.cookie, 2)), "{fault:?}");
            }
        });
    }
}

#[test]
fn a_reset_that_never_ends_is_reported() {
    let rig = Rig::new(BlkLimits::default());
    rig.host.with(|host| host.knobs.reset_reads = u32::MAX);
    // Some state to lose: a device fresh from power-on has none.
    rig.machine.run(|task| {
        let function = pci::devices(task).remove(0);
        let mut transport = PciTransport::new(task, function, DeviceId::BLOCK).unwrap();
        crate::transport::Transport::set_status(&mut transport, crate::wire::Status::ACKNOWLEDGE);
        assert_eq!(rig.probe(task, Defects::default()).err(), Some(ProbeError::ResetTimeout));
    });
    assert_eq!(rig.machine.live_dma_blocks(), 0);
}

#[test]
fn a_reset_is_waited_for() {
    let rig = Rig::new(BlkLimits::default());
    rig.host.with(|host| host.knobs.reset_reads = 5);
    rig.run(|task, driver| {
        let sink = Sink::new();
        go(&driver, read(1, 1, 512, sink.to(1))).unwrap();
        assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
    });
}

#[test]
fn a_device_that_says_nothing_is_not_waited_for_for_ever() {
    let rig = Rig::new(BlkLimits::default()).faults(FaultScript::none().at(0, Fault::Never));
    rig.machine.run(|task| {
        assert_eq!(rig.probe(task, Defects::default()).err(), Some(ProbeError::Silent));
        settle(task);
    });
    assert_eq!(rig.machine.live_dma_blocks(), 0);
    assert_eq!(rig.host.with(|host| host.breaches()), []);
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let good = BlkLimits::default();
    let bad = [
        (BlkLimits { block_size: 0, ..good }, "block size"),
        (BlkLimits { block_size: 1000, ..good }, "block size"),
        (BlkLimits { block_size: 1 << 20, ..good }, "block size"),
        (BlkLimits { size_max: 100, ..good }, "segment limits"),
    ];
    for (limits, what) in bad {
        let rig = Rig::new(limits);
        let error = rig.machine.run(|task| rig.probe(task, Defects::default()).err());
        assert_eq!(error, Some(ProbeError::BadConfig(what)), "{limits:?}");
    }
}
