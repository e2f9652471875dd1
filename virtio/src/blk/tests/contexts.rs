//! What runs where: nothing allocates in a hard interrupt or under a lock (A-GEN-03), and what a completion sets off runs in the context
//! that it asked for (A-GEN-04).

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::Mutex;
use std::task::Wake;

use undercroft_block::adapter::Disk as AsyncDisk;
use undercroft_hal::context::{self, Kind};
use undercroft_hal::hosted::trap;
use undercroft_hal::{executor, sync};

use super::*;

const FAULTS: [Fault; 14] = [
    Fault::Delay(1000),
    Fault::Behind(3),
    Fault::Never,
    Fault::Error,
    Fault::Status(2),
    Fault::NoStatus,
    Fault::Short(600),
    Fault::TooLong(9),
    Fault::Duplicate,
    Fault::BadId,
    Fault::IdleId,
    Fault::IndexJump(9),
    Fault::Spurious,
    Fault::NeedsReset,
];

/// Runs the driver by every means of interrupts through every fault and its removal. How often the guest allocated or freed in a hard
/// interrupt, and with a lock held.
fn allocations_in_the_wrong_place(defects: Defects) -> (u64, u64) {
    trap::counting(|| {
        let before = trap::counts();
        for (fault, vectors) in
            FAULTS.iter().flat_map(|fault| [None, Some(2), Some(0)].map(|vectors| (*fault, vectors)))
        {
            // The serial number first; then two good ones before the fault.
            let rig = Rig::schedule(Schedule::RANDOM).faults(FaultScript::none().at(3, fault));
            rig.host.with(|host| host.knobs.vectors = vectors);
            rig.machine.run(|task| {
                let driver = rig.probe(task, defects).expect("probes");
                let sink = Sink::new();
                for cookie in 0..12 {
                    let _ = go(&driver, read(cookie, 1, 512, sink.to(cookie)));
                }
                settle(task);
                drop(driver);
                settle(task);
                // What came back holds its completion, which holds what came back.
                assert!(sink.take().len() >= 3, "{fault:?}");
            });
        }
        let after = trap::counts();
        (after.in_hard_irq - before.in_hard_irq, after.under_lock - before.under_lock)
    })
}

#[test]
fn a_gen_03_nothing_allocates_in_an_interrupt_or_under_a_lock() {
    assert_eq!(allocations_in_the_wrong_place(Defects::none()), (0, 0));
}

#[test]
fn a_gen_03_control_a_handler_that_allocates() {
    let (in_hard_irq, _) = allocations_in_the_wrong_place(Defects::one(Defect::AllocatesInInterrupt));
    assert!(in_hard_irq >= 3 * FAULTS.len() as u64, "a handler that allocates was not caught");
}

/// Notes where the future inside is polled.
struct Watched<F> {
    inner: F,
    polls: Arc<Mutex<Vec<(Kind, bool)>>>,
}

impl<F: Future + Unpin> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let held = sync::any_held();
        trap::outside(|| self.polls.lock().unwrap().push((context::current(), held)));
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// The hazard: a waker that goes on with the task at once, where it is called.
struct Inline {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let Some(mut future) = self.future.lock().unwrap().take() else { return };
        let waker = Waker::from(Arc::clone(&self));
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            *self.future.lock().unwrap() = Some(future);
        }
    }
}

/// Reads by futures; the completion, in a bottom half, wakes the task, and what follows runs in task context with no lock held.
fn continuations_run_in_their_context(inline: bool) {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule);
        let polls = Arc::new(Mutex::new(Vec::new()));
        rig.run(|task, driver| {
            let disk = Arc::new(AsyncDisk::new(Arc::new(driver), 4));
            for lba in 0..8 {
                let (theirs, reader) = (Arc::clone(&polls), Arc::clone(&disk));
                let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
                let says = Arc::clone(&done);
                let future = Watched {
                    inner: Box::pin(async move {
                        assert_eq!(
                            reader.read(lba, buffer(512)).await.map(drop).map_err(|failed| failed.error),
                            Ok(())
                        );
                        says.store(true, std::sync::atomic::Ordering::SeqCst);
                    }),
                    polls: theirs,
                };
                if inline {
                    Arc::new(Inline { future: Mutex::new(Some(Box::pin(future))) }).wake();
                } else {
                    drop(executor::spawn(task, future).expect("a slot"));
                }
                task.wait_until(|| done.load(std::sync::atomic::Ordering::SeqCst));
            }
        });
        let polls = polls.lock().unwrap();
        // A device that answers at once leaves nothing to wait for.
        let least = if schedule == Schedule::Lazy { 16 } else { 8 };
        assert!(polls.len() >= least, "each waited");
        assert!(
            polls.iter().all(|poll| *poll == (Kind::Task, false)),
            "a continuation ran in the wrong context: {polls:?}"
        );
    }
}

#[test]
fn a_gen_04_a_completion_wakes_a_task_which_goes_on_in_its_own_context() {
    continuations_run_in_their_context(false);
}

#[test]
#[should_panic(expected = "a continuation ran in the wrong context")]
fn a_gen_04_control_a_waker_that_polls_at_once() {
    continuations_run_in_their_context(true);
}
