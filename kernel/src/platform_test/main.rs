//! A second image: the platform's own test, on the machine itself.
//!
//! `check=all` (the default) runs every check that returns; any other `check=` provokes one fault, whose last screen and
//! exit value are the test.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod backed;
mod edu;
mod processors;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::firmware::command_line;
use undercroft_hal::irq::{self, Handled, IrqLine};
use undercroft_hal::mmio::{Mmio, Ports};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::x86_64::power::Exit;
use undercroft_hal::x86_64::{Heap, console, machine, provoke, stop, watchdog};
use undercroft_hal::{Duration, HardIrq, Instant, Task, executor, heap};

undercroft_hal::x86_64_main!(main);

#[global_allocator]
static HEAP: Heap = Heap::new();

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    stop::panic(info)
}

macro_rules! say {
    ($($text:tt)*) => { console::print(format_args!($($text)*)) };
}

fn main(task: &Task) -> Exit {
    let check =
        command_line::words(machine::command_line()).find(|word| word.0 == "check").map_or("all", |word| word.1);
    say!(
        "{} on {}, {} processors, {} MiB, clock {}, timer {}, {} virtio-mmio, up {} us\n",
        machine::hypervisor(),
        machine::firmware(),
        machine::processors(),
        machine::memory().0 >> 20,
        machine::clock(),
        machine::timer(),
        machine::virtio_mmio().len(),
        Instant::now().as_nanos() / 1000,
    );
    match check {
        "all" => {
            all(task);
            say!("all checks passed\n");
            return Exit::Success;
        }
        "processors" => {
            processors::check(task);
            return Exit::Success;
        }
        "backed" => {
            backed::check(task);
            return Exit::Success;
        }
        "failure" => return Exit::Failure,
        "breakpoint" => {
            provoke::breakpoint();
            say!("and on\n");
            return Exit::Success;
        }
        "panic" => panic!("on purpose"),
        "null" => provoke::null_read(),
        "text" => provoke::write_to_text(),
        "constants" => provoke::write_to_constants(),
        "execute" => provoke::execute_data(),
        "stack" => provoke::overflow_stack(),
        "undefined" => provoke::undefined_instruction(),
        "hang" => {
            watchdog::start(1);
            provoke::hang_with_interrupts_on();
        }
        "hang-off" => {
            watchdog::start(1);
            provoke::hang_with_interrupts_off();
        }
        "idle" => {
            watchdog::start(1);
            task.wait_until(|| false);
        }
        "ap-panic" => {
            let run = executor::run_on(task, 1, |_| -> u8 { panic!("on another processor") });
            task.block_on(run);
        }
        "ap-stack" => {
            let run = executor::run_on(task, 1, |_| provoke::overflow_stack());
            task.block_on(run);
        }
        "bottom-half-stack" => {
            let work = BottomHalfWork::new(0, |_| {
                provoke::overflow_stack();
                Turn::Done
            });
            work.schedule();
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(1) {}
        }
        "irq-panic" => {
            irq::set_alarm_handler(task, |_| panic!("in an interrupt"));
            irq::set_alarm(Some(Instant::now()));
            task.wait_until(|| false);
        }
        "heap-in-irq" => {
            irq::set_alarm_handler(task, |_| drop(core::hint::black_box(Box::new([1_u64; 8]))));
            irq::set_alarm(Some(Instant::now()));
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(1) {}
            say!("{} uses of the heap in interrupts\n", heap::stats().in_hard_irq);
        }
        _ => panic!("no such check: {check}"),
    }
    say!("nothing happened\n");
    Exit::Failure
}

fn all(task: &Task) {
    alarms(task);
    bottom_halves(task);
    line(task);
    clock_against_pit();
    dma();
    allocations();
    processors::check(task);
    processors::fairness(task);
    console_under_interrupts(task);
    watchdog_that_is_petted(task);
    if edu::check(task) {
        say!("pci: wired and message interrupts, a storm, dma\n");
    }
    backed::check(task);
    // Last, for its control leaves a wrong page behind.
    pages();
}

static FIRED: AtomicU64 = AtomicU64::new(0);

/// An alarm is never early, and comes even for a time that has passed.
fn alarms(task: &Task) {
    fn fired(_: &HardIrq) {
        FIRED.store(Instant::now().as_nanos(), Ordering::Release);
    }
    irq::set_alarm_handler(task, fired);
    let mut latest = 0;
    for delay in [0, 1, 1_000, 50_000, 1_000_000, 5_000_000, 20_000_000] {
        FIRED.store(0, Ordering::Relaxed);
        let at = Instant::now() + Duration::from_nanos(delay);
        irq::set_alarm(Some(at));
        task.wait_until(|| FIRED.load(Ordering::Acquire) != 0);
        let fired = FIRED.load(Ordering::Relaxed);
        assert!(fired >= at.as_nanos(), "early by {} ns", at.as_nanos() - fired);
        latest = latest.max(fired - at.as_nanos());
    }
    // A disarmed alarm stays silent.
    FIRED.store(0, Ordering::Relaxed);
    irq::set_alarm(Some(Instant::now() + Duration::from_millis(1)));
    irq::set_alarm(None);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(3) {}
    assert_eq!(FIRED.load(Ordering::Relaxed), 0, "a disarmed alarm fired");
    say!("alarms: latest {latest} ns late\n");
}

/// Work that is scheduled runs, by a kick if need be.
fn bottom_halves(task: &Task) {
    const ROUNDS: u32 = 1000;
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    let work = BottomHalfWork::new(0, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Turn::Done
    });
    for round in 0..ROUNDS {
        work.schedule();
        // No call that looks at the queue: the kick alone must run it.
        while count.load(Ordering::Relaxed) <= round {}
    }
    work.remove(task);
    say!("bottom halves: {ROUNDS} kicks\n");
}

/// A wired line reaches its handler, and no more once the handler is gone.
fn line(task: &Task) {
    const PIT: Ports = Ports::new(0x40, 4);
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    // The PIT's output is ISA interrupt 0, which QEMU's machines wire to pin 2.
    let line = IrqLine { number: 2, level: false, low: false };
    let handler = irq::line(task, line, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Handled::Yes
    });
    let handler = handler.expect("the PIT's line");
    // Channel 0, rate generator, 1 kHz.
    PIT.write::<u8>(3, 0x34);
    PIT.write::<u8>(0, (1193_u16 & 0xFF) as u8);
    PIT.write::<u8>(0, (1193_u16 >> 8) as u8);
    let start = Instant::now();
    task.wait_until(|| count.load(Ordering::Relaxed) >= 20);
    let took = start.elapsed();
    drop(handler);
    let seen = count.load(Ordering::Relaxed);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5) {}
    assert_eq!(count.load(Ordering::Relaxed), seen, "a removed handler ran");
    let absent = IrqLine { number: 5000, level: true, low: false };
    assert!(irq::line(task, absent, |_| Handled::No).is_err());
    say!("line: {seen} interrupts in {} us\n", took.as_micros());
}

/// The clock agrees with the PIT within 2 per cent over 30 ms.
fn clock_against_pit() {
    const PORTS: Ports = Ports::new(0x40, 4);
    const GATE: Ports = Ports::new(0x61, 1);
    let read = || {
        PORTS.write::<u8>(3, 0x80);
        let low: u8 = PORTS.read(2);
        let high: u8 = PORTS.read(2);
        u16::from_le_bytes([low, high])
    };
    GATE.write::<u8>(0, GATE.read::<u8>(0) & 0xFC | 1);
    PORTS.write::<u8>(3, 0xB0);
    PORTS.write::<u8>(2, 0xFF);
    PORTS.write::<u8>(2, 0xFF);
    let (first, start) = (read(), Instant::now());
    let mut before = start;
    while start.elapsed() < Duration::from_millis(30) {
        let now = Instant::now();
        assert!(now >= before, "the clock went back");
        before = now;
    }
    let (last, took) = (read(), start.elapsed());
    let pit = u64::from(first.wrapping_sub(last)) * 1_000_000_000 / 1_193_182;
    let clock = took.as_nanos() as u64;
    let parts = clock.abs_diff(pit) * 1_000_000 / pit;
    say!("clock: {clock} ns, pit {pit} ns, {parts} ppm apart\n");
    assert!(parts < 20_000, "the clock is {parts} ppm off");
}

/// DMA blocks lie where they were asked to, are zeroed, and come back.
fn dma() {
    let (_, free) = machine::memory();
    let mut kept = Vec::new();
    for round in 0..200_usize {
        let len = 1 + round * 977 % 20_000;
        let align = 1 << (round % 17);
        let boundary = if round % 3 == 0 { len.next_power_of_two() as u64 } else { 0 };
        let max_addr = if round % 2 == 0 { u64::from(u32::MAX) } else { u64::MAX };
        let mut buffer = DmaBuf::new(len, DmaConstraints { max_addr, align, boundary }).expect("DMA memory");
        let segment = buffer.segment();
        let last = segment.addr + u64::from(segment.len) - 1;
        assert!(segment.addr.is_multiple_of(align as u64) && last <= max_addr);
        assert!(boundary == 0 || segment.addr / boundary == last / boundary);
        assert!(buffer.iter().all(|&byte| byte == 0));
        buffer.fill(0xA5);
        kept.push(buffer);
        if round % 3 == 2 {
            kept.swap_remove(round / 3);
        }
    }
    assert!(kept.iter().all(|buffer| buffer.iter().all(|&byte| byte == 0xA5)), "DMA blocks overlap");
    assert!(DmaBuf::new(4096, DmaConstraints { max_addr: 0xFFFF, align: 4096, boundary: 0 }).is_err());
    assert!(DmaBuf::new(1 << 40, DmaConstraints::ANY).is_err());
    drop(kept);
    // The heap may have grown for the vector.
    let left = machine::memory().1;
    assert!(free - left <= 2 << 20, "{free} bytes free before, {left} after");
    assert!(Mmio::map(0x20_0000, 4096).is_err(), "RAM was mapped as device registers");
    say!("dma: 200 blocks\n");
}

/// The heap gives disjoint blocks, takes them back and counts.
fn allocations() {
    let before = heap::stats();
    let mut blocks: Vec<Box<[u8]>> = Vec::with_capacity(300);
    for round in 0..300_usize {
        blocks.push(vec![round as u8; 1 + round * round % 5000].into_boxed_slice());
    }
    let big = vec![7_u8; 3 << 20];
    for (round, block) in blocks.iter().enumerate() {
        assert!(block.iter().all(|&byte| byte == round as u8), "heap blocks overlap");
    }
    drop((blocks, big));
    let after = heap::stats();
    assert_eq!(after.allocations - before.allocations, 302);
    assert_eq!(after.frees - before.frees, 302);
    assert_eq!(after.live_bytes, before.live_bytes);
    assert_eq!(after.in_hard_irq, 0);
    let mut huge: Vec<u8> = Vec::new();
    assert!(huge.try_reserve_exact(1 << 40).is_err());
    assert_eq!(heap::stats().failures, before.failures + 1);
    say!("heap: {} allocations\n", after.allocations);
}

/// Lines from task and from interrupts, whole and all there: the reader counts them.
fn console_under_interrupts(task: &Task) {
    static LINES: AtomicU32 = AtomicU32::new(0);
    const EACH: u32 = 200;
    fn fired(_: &HardIrq) {
        let line = LINES.fetch_add(1, Ordering::Relaxed);
        if line < EACH {
            say!("<interrupt {line} {:>64}>\n", "i");
            irq::set_alarm(Some(Instant::now() + Duration::from_micros(20)));
        }
    }
    irq::set_alarm_handler(task, fired);
    irq::set_alarm(Some(Instant::now()));
    for line in 0..EACH {
        say!("<task {line} {:>64}>\n", "t");
    }
    task.wait_until(|| LINES.load(Ordering::Relaxed) > EACH);
}

/// Nothing can be both written and executed, by any name.
fn pages() {
    let pages = provoke::pages();
    assert!(pages.executable > 0 && pages.mapped > pages.executable, "{pages:?}");
    assert_eq!((pages.writable_and_executable, pages.executable_with_writable_alias), (0, 0), "{pages:?}");
    // The control: a wrong page is noticed.
    assert!(provoke::map_wrongly());
    let wrong = provoke::pages();
    assert_eq!((wrong.writable_and_executable, wrong.executable_with_writable_alias), (1, 1), "{wrong:?}");
    say!("pages: {} mapped, {} executable\n", pages.mapped, pages.executable);
}

/// A watchdog that is petted lets the program live.
fn watchdog_that_is_petted(task: &Task) {
    static WOKEN: AtomicU32 = AtomicU32::new(0);
    fn fired(_: &HardIrq) {
        WOKEN.fetch_add(1, Ordering::Relaxed);
    }
    irq::set_alarm_handler(task, fired);
    watchdog::start(1);
    for round in 0..6 {
        watchdog::pet();
        irq::set_alarm(Some(Instant::now() + Duration::from_millis(250)));
        task.wait_until(|| WOKEN.load(Ordering::Relaxed) > round);
    }
    watchdog::stop();
    say!("watchdog: petted, quiet\n");
}
