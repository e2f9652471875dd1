//! The bootable image: what [`undercroft_image`] does, on the x86_64 platform.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::any::Any;
use core::panic::PanicInfo;

use undercroft_hal::irq::IrqLine;
use undercroft_hal::x86_64::power::Exit;
use undercroft_hal::x86_64::{Heap, backed, console, machine, stop, watchdog};
use undercroft_hal::xen::StartError;
use undercroft_hal::{Instant, Task, cpu, executor};
use undercroft_image::disks::MmioWindow;
use undercroft_image::heaps::{Baseline, Memory};
use undercroft_image::monitor::{Came, Port};
use undercroft_image::options::Options;
use undercroft_image::run::{self, Machine};
use undercroft_image::xen::Xen;
use undercroft_image::{Report, options};
use undercroft_timer::timers;

undercroft_hal::x86_64_main!(main);

#[global_allocator]
static HEAP: Heap = Heap::new();

/// Seconds without progress that end the image.
const PATIENCE: u32 = 30;

fn main(task: &Task) -> Exit {
    let entry = Instant::now();
    watchdog::start(PATIENCE);
    let parsed = options::parse(machine::command_line());
    let report = Report::new(parsed.0.json, console::print, watchdog::pet);
    keep_reserve(&report);
    prepare(task);
    let windows: Vec<_> = machine::virtio_mmio()
        .iter()
        .map(|device| MmioWindow {
            base: device.base,
            bytes: device.bytes as usize,
            line: IrqLine { number: device.interrupt, level: false, low: false },
        })
        .collect();
    let xen = xen(task, &parsed.0, &report);
    let name = format!("{} ({}{LeftOut})", machine::hypervisor(), machine::firmware());
    let machine = Machine {
        name: &name,
        cpus: cpu::count() as u64,
        memory: machine::memory().0,
        clock: machine::clock(),
        timer: machine::timer(),
        windows: &windows,
        xen: xen.as_ref(),
        hyperv: undercroft_hal::x86_64::hyperv::start,
        baseline: Baseline::take(memory),
        port: Some(Port { listen, read: console::read, print: console::print, waits }),
    };
    let held = run::run(task, &machine, &parsed, entry, &report);
    watchdog::stop();
    match held {
        false => Exit::Failure,
        true if xen.as_ref().is_some_and(Xen::restarts) => Exit::Restart,
        true => Exit::Success,
    }
}

/// Tasks of one CPU at once, for which there is room from the beginning.
const TASKS: usize = 64;

/// What is allocated once and stays: before the heaps' baseline is taken.
fn prepare(task: &Task) {
    timers::start_service(task);
    for cpu in 0..cpu::count() {
        // A CPU's executor makes its table longer when more tasks come than ever before.
        let tasks: Vec<_> = (0..TASKS).filter_map(|_| executor::spawn_on(task, cpu, async {}).ok()).collect();
        tasks.into_iter().for_each(|running| task.block_on(running));
    }
}

/// Bytes that are kept for write-back, of page frames and of the locked heap: parts of all memory, within bounds.
fn reserves() -> [u64; 2] {
    let all = machine::memory().0;
    [(all / 64).clamp(512 << 10, 16 << 20), (all / 512).clamp(64 << 10, 1 << 20)]
}

fn keep_reserve(report: &Report) {
    let [frames, heap] = reserves();
    if !HEAP.keep_reserve(heap as usize) {
        report.problem(&"there is no memory for the heap's reserve", None);
    }
    machine::keep_reserve(frames);
}

/// Xen's interface, where there is one.
fn xen(task: &Task, options: &Options, report: &Report) -> Option<Xen> {
    let domain = match undercroft_hal::x86_64::xen::start(task) {
        Ok(domain) => domain,
        Err(StartError::Unsupported) => return None,
        Err(error) => {
            report.problem(&format_args!("Xen: {error}"), None);
            return None;
        }
    };
    Xen::new(task, domain, options.rings).inspect_err(|error| report.problem(&format_args!("Xen: {error}"), None)).ok()
}

fn listen(task: &Task, xen: Option<&Xen>, came: Came) -> Option<Box<dyn Any>> {
    Some(Box::new(console::listen(task, xen.map(Xen::domain), came).ok()?))
}

/// People may take their time.
fn waits(begins: bool) {
    if begins {
        watchdog::stop();
    } else {
        watchdog::start(PATIENCE);
    }
}

fn memory() -> Memory {
    let (total, free) = machine::memory();
    let [frames_reserve, heap_reserve] = reserves();
    Memory { total, free, backed: backed::bytes(), frames_reserve, heap_reserve, cached: HEAP.cached_bytes() as u64 }
}

/// What the machine's name says of processors that did not come up.
struct LeftOut;

impl core::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match machine::processors_left_out() {
            0 => Ok(()),
            count => write!(f, "; {count} of {} processors did not come up", machine::processors()),
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    stop::panic(info)
}
