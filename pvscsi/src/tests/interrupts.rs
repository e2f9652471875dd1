//! Interrupts by each means, shared and spurious ones.

use undercroft_hal::irq;
use undercroft_hosts::pvscsi::{Fault, FaultScript, Knobs, Layout, Pvscsi as Model};
use undercroft_hosts::scsi::Target;
use undercroft_hosts::{Config, Schedule};

use super::rig::unit;
use super::*;
use crate::Pvscsi;
use crate::defect::{Defect, Defects};

#[test]
fn each_means_carries_commands() {
    for layout in [Layout::MsiX, Layout::Msi, Layout::Line] {
        for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
            let rig = Rig::new(Config { schedule, ..Config::default() }, layout, Knobs::default());
            rig.run(GOOD, |task, driver| {
                let collector = Collector::new();
                for n in 0..300 {
                    go(&*driver, command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
                    if n % 100 == 99 {
                        collector.wait(task, 100);
                    }
                }
            });
            assert_eq!(rig.machine.stray_messages(), []);
        }
    }
}

/// Interrupts while nothing is in flight, in between, and twice.
fn nothing_to_serve(defects: Defects) {
    for layout in [Layout::MsiX, Layout::Msi, Layout::Line] {
        let script = FaultScript::none().every(2, Fault::Spurious);
        let rig = Rig::new(Config { schedule: Schedule::RANDOM, ..Config::default() }, layout, Knobs::default());
        let rig = rig.faults(script);
        rig.run(defects, |task, driver| {
            let collector = Collector::new();
            for n in 0..100 {
                rig.model(Model::interrupt_for_nothing);
                if n % 10 == 0 {
                    settle(task);
                }
                let sent = go(&*driver, command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)).map_err(end);
                assert!(sent.is_ok(), "an interrupt with nothing to serve did harm");
            }
            collector.wait(task, 100);
            rig.model(Model::interrupt_for_nothing);
            settle(task);
            assert_eq!(collector.count(), 0);
        });
    }
}

#[test]
fn p_19_interrupts_with_nothing_to_serve() {
    nothing_to_serve(GOOD);
}

#[test]
fn p_19_interrupts_with_nothing_to_serve_control() {
    let message = says(|| nothing_to_serve(Defects::one(Defect::ExpectsCompletion)));
    assert!(message.contains("an interrupt with nothing to serve did harm"), "{message}");
}

/// Two adapters on one line. The one's interrupts are not the other's: each handler claims its own, and no more.
fn shared_line(defects: Defects) {
    let rig = Rig::new(Config { schedule: Schedule::Eager, ..Config::default() }, Layout::Line, Knobs::default());
    // Four devices on, the line is the same again.
    let others: Vec<_> =
        (0..4).map(|_| rig.machine.add_pci(Model::new(Layout::Line, Target::new().with(0, unit(9, 512))))).collect();
    assert_eq!(others[3].line(), rig.host.line());
    rig.run(defects, |task, driver| {
        let functions = undercroft_hal::pci::devices(task);
        let function = *functions.iter().find(|f| f.address == others[3].address()).unwrap();
        let other = Pvscsi::with_defects(task, function, defects).unwrap();
        let (mine, theirs) = (Collector::new(), Collector::new());
        for n in 0..50 {
            go(&*driver, command(&mine, n, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
            go(&other, command(&theirs, n, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
        }
        mine.wait(task, 50);
        theirs.wait(task, 50);
        assert_eq!(irq::unclaimed(task), 0);
        drop(other);
        settle(task);
        // A device on the line that nobody drives: a handler that claims everything would keep that from being seen.
        let line = rig.host.line();
        rig.machine.hold_line(line.number, true);
        for _ in 0..2 * irq::STORM {
            task.run_pending();
            undercroft_hal::cpu::relax();
        }
        let storm = irq::storm(task);
        assert_eq!(storm.map(|storm| storm.line), Some(line), "a line that nobody clears goes unseen");
        rig.machine.hold_line(line.number, false);
    });
}

#[test]
fn p_13_a_shared_line_is_claimed_by_whose_it_is() {
    shared_line(GOOD);
}

#[test]
fn p_13_a_shared_line_is_claimed_by_whose_it_is_control() {
    let message = says(|| shared_line(Defects::one(Defect::ClaimsEverything)));
    assert!(message.contains("interrupt storm") || message.contains("goes unseen"), "{message}");
}

#[test]
fn an_interrupt_that_is_lost_is_made_up_for_by_the_next() {
    let script = FaultScript::none().at(3, Fault::NoInterrupt);
    let rig = Rig::schedule(Schedule::Eager).faults(script);
    rig.run(GOOD, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        go(&*driver, command(&collector, 1, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
        settle(task);
        assert_eq!(collector.count(), 0);
        go(&*driver, command(&collector, 2, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
        assert_eq!(collector.wait(task, 2).len(), 2);
    });
}
