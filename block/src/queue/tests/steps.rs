//! A failure at each step of a request, one at a time (T-FAILN): each refusal, each error, each rung that does not help, and each allocation.
//! Whatever it is, the request completes once, as it was submitted, nothing stays behind, and what waits behind it completes too.

use std::sync::Arc;
use std::time::Duration;

use undercroft_hal::Task;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::heap::each_failure;
use undercroft_hal::hosted::LeakCheck;
use undercroft_hosts::{Config as MachineConfig, Machine};
use undercroft_timer::timers;

use super::model::*;
use super::{Hazard, with};
use crate::adapter::{Disk, Stream};
use crate::queue::BlockQueue;
use crate::scsi::Managed;
use crate::*;

const MS: Duration = Duration::from_millis(1);

/// What happens at the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Act(Act),
    /// The device keeps it. The first rung that brings it back, if one does; before that, whether rungs answer that they were asked.
    Stuck(Option<usize>, Managed),
}

/// What is submitted: the operation, its blocks, whether it is to be durable.
const REQUESTS: [(Op, u32, bool); 7] = [
    (Op::Read, 1, false),
    (Op::Read, 20, false),
    (Op::Write, 20, false),
    (Op::Write, 12, true),
    (Op::Flush, 0, false),
    (Op::Discard, 40, false),
    (Op::WriteZeroes, 7, false),
];

fn faults() -> Vec<Fault> {
    let mut faults: Vec<_> = Error::ALL.map(|error| Fault::Act(Act::Fail(error))).into();
    faults.push(Fault::Act(Act::Refuse(Refusal::Full)));
    for error in [Error::Removed, Error::Broken] {
        faults.push(Fault::Act(Act::Refuse(Refusal::Gone(error))));
    }
    for error in [Error::OutOfRange, Error::Unsupported, Error::TooLarge] {
        faults.push(Fault::Act(Act::Refuse(Refusal::Invalid(error))));
    }
    for answer in [Managed::Asked, Managed::Refused] {
        faults.extend((0..4).map(|rung| Fault::Stuck(Some(rung), answer)));
        faults.push(Fault::Stuck(None, answer));
    }
    faults
}

/// Whether the submitter sees nothing of a fault that strikes so often; `None` if that depends on the step.
fn is_mended(fault: Fault, times: usize, op: Op, flushing: bool) -> Option<bool> {
    Some(match fault {
        Fault::Act(Act::Refuse(Refusal::Full) | Act::Fail(Error::Busy)) => true,
        Fault::Act(Act::Fail(Error::NotStarted)) => times <= 3,
        Fault::Act(Act::Fail(Error::Reset | Error::Cancelled)) => times <= 3 && op != Op::Flush && !flushing,
        // The first time it is looked at again, and taken.
        Fault::Act(Act::Refuse(Refusal::Invalid(Error::TooLarge))) => return None,
        _ => false,
    })
}

/// One request, whose step `step` meets `fault`, `times` times in a row. `false`: it has no such step.
fn strike(request: (Op, u32, bool), step: usize, fault: Fault, times: usize) -> Result<bool, String> {
    let case = format!("{request:?} step {step} {fault:?} x{times}");
    let (op, blocks, fua) = request;
    let mut reached = false;
    try_with(1, Features::VOLATILE_CACHE, TIMES, |rig| {
        let _check = LeakCheck::new(rig.cx);
        {
            let mut state = rig.model.lock();
            state.script.extend(vec![Act::Do; step]);
            match fault {
                Fault::Act(act) => state.script.extend(vec![act; times]),
                Fault::Stuck(rung, answer) => {
                    state.script.push_back(Act::Stall);
                    for at in 0..4 {
                        state.rungs[at] = if rung == Some(at) { (Managed::Asked, true) } else { (answer, false) };
                    }
                }
            }
        }
        let mut first = rig.request(1, op, 8, blocks);
        first.fua = fua;
        let bytes = first.data.len();
        let mut given_back = None;
        match rig.queue.submit(first) {
            Ok(_) => {}
            Err(Rejected { request, why }) => {
                assert_ne!(why, Refusal::Full, "{case}: there is room in the queue");
                given_back = Some(request);
            }
        }
        rig.queue.commit();
        // Pauses after BUSY included.
        (0..4).for_each(|_| rig.pass(MS * 4));
        let flushing = {
            let mut state = rig.model.lock();
            reached = state.script.len() < times;
            state.script.clear();
            // Sent again, it is the same.
            state.seen.get(step).is_some_and(|seen| seen.op == Op::Flush)
        };
        // What waits behind it, if it is stuck.
        let second = match rig.queue.submit(rig.request(2, Op::Read, 100, 12)) {
            Ok(_) => true,
            Err(rejected) => {
                assert!(matches!(rejected.why, Refusal::Gone(_)), "{case}: {:?}", rejected.why);
                false
            }
        };
        rig.queue.commit();
        let submitted = usize::from(given_back.is_none()) + usize::from(second);
        for _ in 0..60 {
            if rig.sink.order.lock().unwrap().len() < submitted {
                rig.pass(MS * 5);
            }
        }
        rig.model.end_stalled(Ok(()));
        rig.settle();
        let refused = given_back.is_some();
        let order = rig.sink.order.lock().unwrap().clone();
        let count = |cookie| order.iter().filter(|ended| **ended == cookie).count();
        assert_eq!(count(1), usize::from(!refused), "{case}: completions of the request");
        assert_eq!(count(2), usize::from(second), "{case}: completions of what waits");
        if let Some(result) = rig.result(1) {
            let done = rig.sink.done.lock().unwrap();
            let request = &done[&1].0;
            assert_eq!((request.op, request.lba, request.blocks, request.fua), (op, 8, blocks, fua), "{case}");
            // While its flush is there, the device does not have its data.
            let orphaned = matches!(fault, Fault::Stuck(None, _)) && reached && !(fua && flushing);
            assert_eq!(request.data.len(), if orphaned { 0 } else { bytes }, "{case}: its data");
            let mended = if reached { is_mended(fault, times, op, flushing) } else { Some(true) };
            assert_eq!(result.is_ok(), mended.unwrap_or(result.is_ok()), "{case}: {result:?}");
        }
        if let Some(request) = given_back {
            assert_eq!((request.op, request.lba, request.blocks, request.fua), (op, 8, blocks, fua), "{case}");
            assert_eq!(request.data.len(), bytes, "{case}");
        }
        let stats = rig.queue.stats();
        assert_eq!((stats.accepted, stats.at_device, stats.waiting), (stats.completed, 0, 0), "{case}");
        assert_eq!(stats.orphans, stats.orphans_returned, "{case}");
        rig.sink.done.lock().unwrap().clear();
    })
    .map_err(|error| format!("{case}: {error}"))?;
    Ok(reached)
}

/// Every request, step and fault; how many steps there were.
fn every_step() -> Result<usize, String> {
    let mut steps = 0;
    for request in REQUESTS {
        for fault in faults() {
            for times in [1, 2, 6] {
                // What ends the request at once strikes once.
                if times > 1 && is_mended(fault, 1, Op::Read, false) == Some(false) {
                    continue;
                }
                for step in 0.. {
                    if !strike(request, step, fault, times)? {
                        break;
                    }
                    steps += 1;
                }
            }
        }
    }
    Ok(steps)
}

#[test]
fn a_failure_at_each_step_ends_a_request_once() {
    let steps = every_step().unwrap();
    assert!(steps > 500, "{steps}");
}

#[test]
fn a_failure_at_each_step_ends_a_request_once_control() {
    for (hazard, caught) in [
        (Hazard::ForgottenHalfWay, "its data"),
        (Hazard::LateAnswerCounts, "a request came back twice"),
        (Hazard::StashKept, "its data"),
        (Hazard::OrphanKept, "leaked: "),
        (Hazard::NotRestored, "left: "),
    ] {
        let error = with(hazard, every_step).unwrap_err();
        assert!(error.contains(caught), "{hazard:?}: {error}");
    }
}

/// A queue over a new device, a second submitter, and a request of several buffers from each.
fn allocating(cx: &Task, forgets: bool) -> Result<(), Error> {
    let model = Model::new(2, Features::VOLATILE_CACHE);
    let queue = BlockQueue::new(model, TIMES);
    let disks = [queue.handle().expect("a place"), queue].map(|queue| Disk::new(Arc::new(queue), 2));
    for disk in &disks {
        let mut pieces = Vec::new();
        for blocks in [1, 9, 3] {
            match DmaBuf::new(blocks * BLOCK, DmaConstraints::ANY) {
                Ok(buf) => pieces.push(Piece::from(buf)),
                Err(_) => {
                    if forgets {
                        std::mem::forget(pieces);
                    }
                    return Err(Error::NoMemory);
                }
            }
        }
        let data = disk.write_blocking(cx, 3, Data::List(pieces))?;
        disk.read_blocking(cx, 20, data)?;
        disk.flush_blocking(cx)?;
        let mut bytes = [0; 700];
        embedded_io::Read::read(&mut Stream::new(cx, disk), &mut bytes)?;
        crate::partition::read(cx, disk).map_err(|_| Error::NoMemory)?;
    }
    Ok(())
}

/// T-FAILN.
fn every_allocation(forgets: bool) -> Result<u64, String> {
    let machine = Machine::new(MachineConfig::default());
    let mut failures = 0;
    machine.try_run(|cx| {
        timers::start_service(cx);
        let _check = LeakCheck::new(cx);
        let (last, failed) = each_failure(
            || {
                let _check = LeakCheck::new(cx);
                allocating(cx, forgets)
            },
            |n, result| assert_eq!(result, Err(Error::NoMemory), "allocation {n}"),
        );
        assert_eq!(last, Ok(()));
        failures = failed;
    })?;
    Ok(failures)
}

#[test]
fn a_failure_of_each_allocation_is_an_error() {
    // Three buffers of each submitter, one of its stream, one of its reading the table. What a queue is made of cannot fail, and a request
    // makes nothing: tests/no_allocation.rs.
    assert_eq!(every_allocation(false), Ok(10));
}

#[test]
fn a_failure_of_each_allocation_is_an_error_control() {
    let error = every_allocation(true).unwrap_err();
    assert!(error.contains("leaked: "), "{error}");
}
