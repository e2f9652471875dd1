//! Starting the other processors.
//!
//! Source: Intel SDM volume 3, 10.4.4 (INIT, start-up, start-up). All are started together and come up side by side, so
//! that the boot waits for the slowest and not for the sum; the boot processor meanwhile compares its time-stamps with
//! theirs. What is not up in time is left out: it finds no ticket, or its number refused, and halts.
//!
//! Contexts: the boot code, on each processor.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::stacks::{self, NoMemory};
use super::{apic, clock, descriptors, interrupts, paging, percpu, registers, trampoline, vectors};
use crate::context::Task;
use crate::cpu::{self, MAX_CPUS};
use crate::dispatch;
use crate::firmware::acpi::Madt;

/// How long a processor may take until it runs our code; it is started a second time after a part of it.
const PATIENCE: u64 = 500_000_000;
const SECOND_START: u64 = 10_000_000;
/// What a processor that is no virtual one wants between INIT and the start.
const AFTER_INIT: u64 = 10_000_000;

/// How far a processor is.
mod stage {
    /// Not here, or on its way.
    pub(super) const COMING: u32 = 0;
    /// Set up, and waiting for its word.
    pub(super) const READY: u32 = 1;
    /// Takes part.
    pub(super) const IN: u32 = 2;
    /// Does not.
    pub(super) const OUT: u32 = 3;
}

static STAGES: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(stage::COMING) }; MAX_CPUS];
/// Ends of each processor's fault stacks.
static FAULT_STACKS: [[AtomicU64; descriptors::FAULT_STACKS]; MAX_CPUS] =
    [const { [const { AtomicU64::new(0) }; descriptors::FAULT_STACKS] }; MAX_CPUS];
static LEFT_OUT: AtomicUsize = AtomicUsize::new(0);

/// How many processors the firmware named that do not take part.
pub(super) fn left_out() -> usize {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Starts all that the table names. `page` is a free page frame below 1 MiB. The clock runs; interrupts are off.
pub(super) fn start_all(madt: Option<&Madt>, page: Option<u64>) {
    #[cfg(feature = "provoke")]
    super::provoke::prepare();
    let me = apic::id();
    let Some(madt) = madt else { return };
    let wanted = madt.cpus.iter().filter(|id| **id != me).count();
    if wanted == 0 {
        return;
    }
    let others = || madt.cpus.iter().copied().filter(move |id| *id != me && apic::reaches(*id) && !is_dud(*id));
    let room = others().count().min(MAX_CPUS - 1);
    let prepared = page.and_then(|page| prepare(page, room));
    if let (Some(page), Some(last)) = (page, prepared.filter(|last| *last > 0)) {
        trampoline::open(last);
        call(others, page, last);
        let count = admit(trampoline::close());
        percpu::set_count(count);
    }
    LEFT_OUT.store(wanted + 1 - percpu::count(), Ordering::Relaxed);
}

/// Makes the low page and stacks for `room` processors, or for as many as there is memory for. Returns the last number.
fn prepare(page: u64, room: usize) -> Option<usize> {
    let tables = u32::try_from(paging::root()).ok()?;
    let seen = paging::map_beside(page)?;
    // SAFETY: the page is free RAM below 1 MiB by the caller, and was mapped just now; the tables are in use.
    unsafe { trampoline::lay(seen.as_ptr(), tables) };
    let made = (1..=room).take_while(|&number| prepare_one(number).is_ok());
    Some(made.last().unwrap_or(0))
}

fn prepare_one(number: usize) -> Result<(), NoMemory> {
    let set = stacks::make_set(number)?;
    for (kept, top) in FAULT_STACKS[number].iter().zip(set.faults) {
        kept.store(top, Ordering::Relaxed);
    }
    percpu::set_bottom_half_stack(number, set.bottom_half);
    trampoline::stack(number, set.task);
    Ok(())
}

/// INIT, start-up and, for those who do not answer, start-up again; returns when all are set up or time is over.
fn call<I: Iterator<Item = u32>>(others: impl Fn() -> I, page: u64, last: usize) {
    others().for_each(apic::send_init);
    let start = clock::nanoseconds();
    if !registers::is_virtual() {
        while clock::nanoseconds() < start + AFTER_INIT {
            core::hint::spin_loop();
        }
    }
    let starting = clock::nanoseconds();
    others().for_each(|id| apic::send_startup(id, page));
    let mut again = false;
    loop {
        clock::compare_stamps();
        let waited = clock::nanoseconds().saturating_sub(starting);
        if (1..=last).all(|number| STAGES[number].load(Ordering::Acquire) == stage::READY) || waited > PATIENCE {
            return;
        }
        if waited > SECOND_START && trampoline::given() <= last && !core::mem::replace(&mut again, true) {
            // Those that run already do not take notice.
            others().for_each(|id| apic::send_startup(id, page));
        }
        core::hint::spin_loop();
    }
}

/// Gives each of the `given` numbers its word: in, up to the first that is not ready. Returns how many are in, the boot
/// processor with them.
fn admit(given: usize) -> usize {
    let ready = |number: usize| STAGES[number].load(Ordering::Acquire) == stage::READY;
    let count = (1..given).find(|&number| !ready(number)).unwrap_or(given);
    // Numbers are known before anybody can be asked to use them.
    percpu::set_count(count);
    for (number, stage) in STAGES.iter().enumerate().skip(1) {
        let before = stage.swap(if number < count { stage::IN } else { stage::OUT }, Ordering::AcqRel);
        if before == stage::READY {
            apic::send(percpu::apic_id(number), interrupts::KICK);
        }
    }
    count
}

/// Where a processor comes out of the trampoline, on its own stack, with the final page tables.
pub(super) extern "C" fn start(number: u32) -> ! {
    let number = number as usize;
    percpu::adopt(number);
    let tops = FAULT_STACKS[number].each_ref().map(|top| top.load(Ordering::Relaxed));
    // SAFETY: the number is this processor's, and the stacks were made for it.
    unsafe { descriptors::load(number, tops) };
    vectors::load();
    registers::enable_machine_checks();
    apic::init_here();
    percpu::set_apic_id(apic::id());
    clock::init_here();
    for _ in 0..clock::COMPARISONS {
        clock::compare_stamps();
    }
    // Out already, if this took too long.
    let _ = STAGES[number].compare_exchange(stage::COMING, stage::READY, Ordering::AcqRel, Ordering::Acquire);
    loop {
        match STAGES[number].load(Ordering::Acquire) {
            stage::IN => break,
            stage::OUT => registers::halt_forever(),
            // The boot processor kicks when it has decided. One that spun instead would take a virtual machine's processors
            // from those that are still coming.
            _ => registers::enable_and_halt(),
        }
        registers::interrupts_disable();
    }
    registers::interrupts_enable();
    // SAFETY: this processor is in no interrupt, comes here once, and interrupts are on.
    unsafe { dispatch::enter_task(idle) }
}

/// What the others do: bottom halves and the run queue, and nothing when there is nothing.
fn idle(task: &Task) -> ! {
    debug_assert!(cpu::current() != 0);
    loop {
        task.wait_until(|| false);
    }
}

/// For tests: a processor that is never started.
fn is_dud(_id: u32) -> bool {
    #[cfg(feature = "provoke")]
    return super::provoke::is_dud(_id);
    #[cfg(not(feature = "provoke"))]
    false
}
