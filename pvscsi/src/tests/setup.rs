//! Taking adapters into use: what they are, what they lack, and what goes wrong.

use undercroft_block::scsi::Host;
use undercroft_block::{Error, Refusal};
use undercroft_hosts::pvscsi::{Knobs, Layout};
use undercroft_hosts::{Config, Schedule};

use super::*;
use crate::ProbeError;
use crate::defect::{Defect, Defects};

#[test]
fn says_who_it_is_and_refuses_what_it_cannot_address() {
    for (layout, interrupts) in [(Layout::MsiX, "msi-x:1"), (Layout::Msi, "msi"), (Layout::Line, "intx")] {
        let rig = Rig::new(Config::default(), layout, Knobs { max_targets: Some(65), ..Knobs::default() });
        rig.run(GOOD, |_, driver| {
            let identity = driver.identity();
            assert_eq!((identity.driver, &identity.interrupts[..]), ("pvscsi", interrupts));
            assert_eq!(&identity.transport[..], "messages");
            let info = *driver.info();
            assert_eq!((info.max_target, info.max_lun, info.queues, info.depth), (64, 0x3fff, 1, 256));
            assert_eq!(info.limits.max_segments, 255);
            let collector = Collector::new();
            for to in [at(65, 0), at(0, 0x4000)] {
                let refused = go(&*driver, command(&collector, 0, to, TEST_UNIT_READY, NOTHING)).unwrap_err();
                assert_eq!(end(refused), Refusal::Invalid(Error::OutOfRange));
            }
            let refused = go(&*driver, with_pieces(&collector, 0, read10(0, 256), READ.0, pieces(256))).unwrap_err();
            assert_eq!(end(refused), Refusal::Invalid(Error::TooLarge));
        });
    }
}

const READ: (undercroft_block::scsi::Direction, usize) = (undercroft_block::scsi::Direction::In, 512);

#[test]
fn early_revisions_lack_what_they_lack() {
    let knobs = Knobs { no_messages: true, ..Knobs::default() };
    Rig::knobs(Schedule::Eager, knobs).run(GOOD, |task, driver| {
        assert_eq!(driver.identity().transport, "");
        ready(task, &*driver, &LUNS, &Collector::new());
    });
    // The command that tells the number of targets fails too: as many as can be addressed.
    let knobs = Knobs { refuses: 1 << 11, threshold: Some(4), ..Knobs::default() };
    Rig::knobs(Schedule::Eager, knobs).run(GOOD, |_, driver| {
        assert_eq!((driver.info().max_target, &driver.identity().transport[..]), (63, "messages request-call"));
    });
}

#[test]
fn an_adapter_that_refuses_is_left_reset() {
    let expectations = [
        (Knobs { refuses: 1 << 1, ..Knobs::default() }, ProbeError::ResetRefused),
        (Knobs { refuses: 1 << 3, ..Knobs::default() }, ProbeError::RingsRefused),
        (Knobs { wrong_sizes: true, ..Knobs::default() }, ProbeError::RingsRefused),
    ];
    for (knobs, error) in expectations {
        let rig = Rig::knobs(Schedule::RANDOM, knobs);
        let got = rig.machine.run(|task| rig.probe(task, GOOD).err());
        assert_eq!(got, Some(error));
        assert_eq!(rig.machine.live_dma_blocks(), 0);
        assert_eq!(rig.model(|model| model.breaches()), []);
    }
    // Without its message ring an adapter is as good as one of the first revision.
    Rig::knobs(Schedule::Eager, Knobs { refuses: 1 << 8, ..Knobs::default() }).run(GOOD, |_, driver| {
        assert_eq!(driver.identity().transport, "");
    });
}

/// A-PVS-01: memory that runs out while the adapter is set up. It makes do with less, or fails and leaves nothing.
fn memory_fails(defects: Defects) {
    let mut failures = 0;
    for after in (0..40).chain([100, 200, 290]) {
        let rig = Rig::schedule(Schedule::Eager);
        rig.machine.run(|task| {
            rig.machine.fail_dma_after(after);
            match rig.probe(task, defects) {
                Ok(driver) => {
                    assert!(driver.info().depth == 128 || (after > 270 && driver.info().depth == 256), "{after}");
                    ready(task, &driver, &LUNS, &Collector::new());
                }
                Err(error) => {
                    assert!(matches!(error, ProbeError::Memory(_)), "{error:?}");
                    failures += 1;
                }
            }
            settle(task);
        });
        assert_eq!(rig.machine.live_dma_blocks(), 0, "the {after}th allocation leaves memory behind");
    }
    assert_eq!(failures, 0, "one failure leaves enough for less");
}

#[test]
fn a_pvs_01_memory_that_runs_out_in_setup() {
    memory_fails(GOOD);
}

#[test]
fn a_pvs_01_memory_that_runs_out_in_setup_control() {
    let message = says(|| memory_fails(Defects::one(Defect::LeaksOnFailure)));
    // Seen by the test itself, or at the end of the machine.
    assert!(message.contains("leaked:") || message.contains("leaves memory behind"), "{message}");
}

#[test]
fn no_memory_at_all_is_an_error() {
    let rig = Rig::new(Config { ram: 40 << 10, ..Config::default() }, Layout::MsiX, Knobs::default());
    let error = rig.machine.run(|task| rig.probe(task, GOOD).err());
    assert!(matches!(error, Some(ProbeError::Memory(_))), "{error:?}");
    assert_eq!(rig.machine.live_dma_blocks(), 0);
}
