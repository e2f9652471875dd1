//! Nothing allocates in a hard interrupt or under a lock (A-GEN-03).

use undercroft_hal::hosted::trap;

use super::*;

const FAULTS: [Fault; 12] = [
    Fault::Behind(2),
    Fault::Never,
    Fault::Error,
    Fault::Status(5),
    Fault::Sense(6, 0x29, 0),
    Fault::ScsiStatus(8),
    Fault::NoStatus,
    Fault::Duplicate,
    Fault::BadId,
    Fault::IndexJump(9),
    Fault::Spurious,
    Fault::NeedsReset,
];

/// As for virtio-blk: every fault, an event, the removal.
fn allocations_in_the_wrong_place(defects: Defects) -> (u64, u64) {
    trap::counting(|| {
        let before = trap::counts();
        for (fault, vectors) in
            FAULTS.iter().flat_map(|fault| [None, Some(2), Some(0)].map(|vectors| (*fault, vectors)))
        {
            let rig = Rig::schedule(Schedule::RANDOM).faults(FaultScript::none().at(2, fault));
            rig.host.with(|host| host.knobs.vectors = vectors);
            rig.machine.run(|task| {
                let driver = Arc::new(rig.probe(task, defects).expect("probes"));
                let collector = Arc::new(Collector::default());
                for cookie in 0..6 {
                    if let Err(refused) = go(&*driver, command(&collector, cookie, at(0, 0), TEST_UNIT_READY, NOTHING))
                    {
                        end(refused);
                    }
                }
                settle(task);
                drop(driver);
                settle(task);
                assert!(collector.count() >= 2, "{fault:?}");
            });
        }
        let after = trap::counts();
        (after.in_hard_irq - before.in_hard_irq, after.under_lock - before.under_lock)
    })
}

#[test]
fn a_gen_03_nothing_allocates_in_an_interrupt_or_under_a_lock() {
    assert_eq!(allocations_in_the_wrong_place(GOOD), (0, 0));
}

#[test]
fn a_gen_03_control_a_handler_that_allocates() {
    let (in_hard_irq, _) = allocations_in_the_wrong_place(Defects::one(Defect::AllocatesInInterrupt));
    assert!(in_hard_irq >= 3 * FAULTS.len() as u64, "a handler that allocates was not caught");
}
