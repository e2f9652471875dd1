//! The trapping allocator, as this program's own: what allocates in the wrong place is caught.

use std::cell::Cell;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use undercroft_hal::Task;
use undercroft_hal::heap::each_failure;
use undercroft_hal::hosted::{Cpus, TrapAlloc, trap};
use undercroft_hal::irq::{self, Handled, Slot};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, Turn};

#[global_allocator]
static ALLOC: TrapAlloc = TrapAlloc::new();

/// Runs `handler` in a hard interrupt of a machine with one CPU.
fn in_hard_irq(handler: impl Fn() + Send + Sync + 'static) {
    let cpus = Cpus::new(1);
    cpus.run(0, |task| {
        static DONE: AtomicBool = AtomicBool::new(false);
        let (_interrupt, message) = irq::message(task, 0, move |_| {
            handler();
            DONE.store(true, Ordering::Relaxed);
            Handled::Yes
        })
        .unwrap();
        cpus.raise(0, Slot(message.data as u16));
        task.wait_until(|| DONE.swap(false, Ordering::Relaxed));
    });
}

fn in_task(f: impl FnOnce(&Task)) {
    Cpus::new(1).run(0, f);
}

/// A-GEN-03: a box in a hard interrupt, allocated and freed. The same in a bottom half and in a task is fine (the control).
#[test]
fn a_gen_03_an_allocation_in_a_hard_interrupt_is_trapped() {
    thread_local! {
        static SEEN: Cell<u64> = const { Cell::new(u64::MAX) };
    }
    fn boxes() {
        let before = trap::counts().in_hard_irq;
        drop(black_box(Box::new(1)));
        SEEN.set(trap::counts().in_hard_irq - before);
    }
    trap::counting(|| {
        in_hard_irq(boxes);
        assert_eq!(SEEN.get(), 2, "one allocation and one free");
        in_hard_irq(|| trap::outside(boxes));
        assert_eq!(SEEN.get(), 0, "the machine's side may");
        in_task(|task| {
            boxes();
            assert_eq!(SEEN.get(), 0);
            SEEN.set(u64::MAX);
            let bottom_half = BottomHalfWork::new(0, |_| {
                boxes();
                Turn::Done
            });
            bottom_half.schedule();
            task.run_pending();
            assert_eq!(SEEN.get(), 0);
        });
    });
}

/// A-PC-07: an allocation inside a spinlock, in strict mode; the same before the lock is taken is fine (the control).
#[test]
fn a_pc_07_an_allocation_under_a_spinlock_is_trapped() {
    let lock = IrqSpinLock::new(Rank::BLOCK, Vec::<u32>::new());
    in_task(|_| {
        let install = |early: bool| {
            let before = trap::counts().under_lock;
            let new = early.then(|| Vec::with_capacity(10));
            let mut pages = lock.lock();
            let old = std::mem::replace(&mut *pages, new.unwrap_or_else(|| Vec::with_capacity(10)));
            drop(pages);
            drop(old);
            trap::counts().under_lock - before
        };
        trap::counting(|| {
            assert_eq!(trap::strict(|| install(false)), u64::from(cfg!(debug_assertions)));
            assert_eq!(trap::strict(|| install(true)), 0);
            assert_eq!(install(false), 0, "only strict tests forbid it");
        });
    });
}

/// Outside of `counting` the program ends, with a message that names the crime; without the crime it does not (the control).
#[test]
fn a_program_that_allocates_in_a_hard_interrupt_ends() {
    const CRIME: &str = "UNDERCROFT_TRAP_CRIME";
    match std::env::var(CRIME).as_deref() {
        Ok("yes") => return in_hard_irq(|| drop(black_box(Box::new(1)))),
        Ok(_) => return in_hard_irq(|| ()),
        Err(_) => {}
    }
    let run = |crime: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "--nocapture", "a_program_that_allocates_in_a_hard_interrupt_ends"]).env(CRIME, crime);
        let output = child.stdin(Stdio::null()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (ended_well, message) = run("yes");
    assert!(!ended_well && message.contains("an allocation in a hard interrupt"), "{message}");
    let (ended_well, message) = run("no");
    assert!(ended_well, "{message}");
}

#[test]
fn a_leak_is_noticed() {
    assert_eq!(trap::assert_no_leak(|| vec![1, 2, 3].len()), 3);
    let leak = || trap::assert_no_leak(|| std::mem::forget(black_box(Box::new([0_u8; 100]))));
    let caught = std::panic::catch_unwind(leak).unwrap_err();
    let message = caught.downcast_ref::<String>().unwrap();
    assert!(message.contains("1 blocks with 100 bytes leaked"), "{message}");
}

/// T-FAILN together with the leak check: a driver's set-up that fails at any of its allocations leaves nothing behind, of either kind of memory.
#[test]
fn each_failure_of_a_set_up_leaks_nothing() {
    use undercroft_hal::dma::{Coherent, DmaBuf, DmaConstraints, DmaError};
    fn set_up() -> Result<(Coherent, Vec<DmaBuf>), DmaError> {
        let ring = Coherent::new(4096, DmaConstraints::ANY)?;
        let buffers = (0..4).map(|_| DmaBuf::new(512, DmaConstraints::ANY)).collect::<Result<_, _>>()?;
        Ok((ring, buffers))
    }
    let failures = trap::assert_no_leak(|| {
        let cpus = Cpus::new(1);
        cpus.run(0, |_| {
            let (done, failures) = each_failure(set_up, |n, result| {
                assert_eq!(result.err(), Some(DmaError::NoMemory));
                assert_eq!(cpus.ram().live_blocks(), 0, "allocation {n} failed, and something stayed");
            });
            drop(done);
            assert_eq!(cpus.ram().live_blocks(), 0);
            failures
        })
    });
    assert_eq!(failures, 5);
}
