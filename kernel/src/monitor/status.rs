//! Commands about the stack itself: queues, locks, heaps, CPUs, interrupts. Task context.

use core::fmt;

use undercroft_hal::context::Kind;
use undercroft_hal::work::{QueueStats, queue_stats};
use undercroft_hal::{cpu, dma, heap, irq as interrupts, sync};

use super::{Bad, Session, Words};
use crate::heaps::{Reserve, held};
use crate::latency as measuring;

pub(super) fn stats<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    for cpu in 0..cpu::count() {
        for (kind, name) in [(Kind::BottomHalf, "bottom halves"), (Kind::Task, "run queue")] {
            let Some(stats) = queue_stats(cpu, kind) else { continue };
            let QueueStats { depth, deepest, ran, exhausted, .. } = stats;
            session.say(format_args!(
                "CPU {cpu} {name}: {ran} ran, {depth} wait, at most {deepest} did, {exhausted} batches used up"
            ));
            if ran > 0 {
                session.say(format_args!("  waited, in ns: {}", Waited(&stats)));
            }
        }
        // Release builds do not time their locks.
        sync::longest_holds(cpu, |rank, nanos| {
            session.say(format_args!("CPU {cpu} lock of rank {rank}: held {nanos} ns at most"));
        });
    }
    Ok(())
}

/// A histogram, without what is empty.
struct Waited<'a>(&'a QueueStats);

impl fmt::Display for Waited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (at, count) in self.0.waited.iter().enumerate().filter(|(_, count)| **count > 0) {
            let comma = if core::mem::take(&mut first) { "" } else { ", " };
            write!(f, "{comma}{count} from {}", 1_u64 << at)?;
        }
        Ok(())
    }
}

pub(super) fn latency<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    if measuring::phase(session.cx, session.report) {
        Ok(())
    } else {
        Err(Bad::Absent("interrupt that it can raise itself"))
    }
}

pub(super) fn heaps<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    let memory = session.machine.baseline.memory();
    held(&memory).iter().for_each(|held| session.say(format_args!("{held}")));
    session.say(format_args!(
        "page frames: {} KiB free of {} KiB; {} KiB free in caches of the locked heap",
        memory.free >> 10,
        memory.total >> 10,
        memory.cached >> 10
    ));
    session.say(format_args!("{}", Reserve(&memory)));
    let (stats, (abandoned, _)) = (heap::stats(), dma::abandoned());
    session.say(format_args!(
        "{} allocations in hard interrupts, {abandoned} buffers dropped while a device had them",
        stats.in_hard_irq
    ));
    // Debug builds know more.
    heap::by_size(|size, count| match (size, count) {
        (_, 0) => {}
        (Some(size), count) => session.say(format_args!("  {count} allocations of up to {size} bytes")),
        (None, count) => session.say(format_args!("  {count} larger allocations")),
    });
    heap::by_site(|site| {
        session.say(format_args!("  {} blocks ({} bytes) alive of {}", site.live_blocks, site.live_bytes, site.site));
    });
    Ok(())
}

pub(super) fn cpus<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    session.say(format_args!("{}", session.machine.name));
    for cpu in 0..cpu::count() {
        let interrupts::Taken { device, alarm, kick } = interrupts::taken(cpu);
        let here = if cpu == cpu::current() { ", the monitor's" } else { "" };
        session
            .say(format_args!("CPU {cpu}: interrupts of devices {device}, of its timer {alarm}, kicks {kick}{here}"));
    }
    Ok(())
}

pub(super) fn irq<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    let (handlers, unclaimed) = (interrupts::handlers(), interrupts::unclaimed(session.cx));
    session.say(format_args!("{handlers} handlers, {unclaimed} interrupts that nobody claimed"));
    for disk in session.disks {
        session.say(format_args!("  {}: {}", disk.name, disk.device.identity().interrupts));
    }
    while let Some(storm) = interrupts::storm(session.cx) {
        session.report.problem(&format_args!("interrupt line {} was masked", storm.line.number), None);
    }
    Ok(())
}

pub(super) fn xen<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    match session.vbds {
        Some(vbds) => vbds.show(session.report),
        None => session.say(format_args!("this is no domain of Xen")),
    }
    Ok(())
}
