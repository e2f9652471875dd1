//! From submit to completion the driver takes nothing from the heap: not for requests, not for errors, not for messages, not in the
//! interrupt. Every allocation of the guest's is counted; what the model and the tests allocate is theirs.

use core::fmt::{self, Write};
use std::sync::Once;

use super::*;

/// A logger with a fixed line, as the image's is, at the highest level.
struct Line;

struct Fixed([u8; 256], usize);

impl Write for Fixed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let len = text.len().min(self.0.len() - self.1);
        self.0[self.1..self.1 + len].copy_from_slice(&text.as_bytes()[..len]);
        self.1 += len;
        Ok(())
    }
}

impl log::Log for Line {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let mut line = Fixed([0; 256], 0);
        let _ = write!(line, "{} {}", record.level(), record.args());
        core::hint::black_box(line.0);
    }
    fn flush(&self) {}
}

fn log_everything() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Line).expect("the only logger");
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// What the guest's code allocated and freed while `f` ran, and in hard interrupts of that.
fn counted<R>(f: impl FnOnce() -> R) -> (R, u64, u64) {
    let before = trap::counts();
    let result = trap::counting(|| trap::strict(f));
    let after = trap::counts();
    (result, after.by_guest - before.by_guest, after.in_hard_irq - before.in_hard_irq)
}

/// Submits `requests` and waits for them; what was allocated meanwhile.
fn spent(task: &Task, rig: &Rig, disk: &AtaDisk, sink: &Sink, requests: Vec<Request>) -> (Vec<Done>, u64, u64) {
    let count = requests.len();
    let mut requests = requests;
    let ((), by_guest, in_irq) = counted(|| {
        for request in requests.drain(..) {
            disk.submit(request).map_err(|rejected| rejected.why).expect("room");
        }
        disk.commit();
        let mut passed = 0;
        while sink.count() < count {
            settle(task, 50);
            let now = Instant::now();
            let next = disk.expire(now).filter(|at| *at > now);
            rig.machine.advance(next.map_or(1_000_000, |at| at.since(now).as_nanos() as u64 / 2 + 1000));
            passed += 1;
            assert!(passed < 10_000, "hangs");
        }
    });
    (sink.take(), by_guest, in_irq)
}

/// A mix of operations that succeed, by DMA, by programmed I/O, and through the bounce buffer, in several parts, issued again after a reset.
fn successes(defects: Defects) {
    log_everything();
    let high = Config { ram_base: 1 << 32, ..Config::default() };
    for (dma, config) in [(true, Config::default()), (false, Config::default()), (false, high)] {
        for schedule in SCHEDULES {
            let settings = Settings { dma, fua: dma, trim_blocks: u16::from(dma), ..Settings::default() };
            let rig = Rig::with(Config { schedule, ..config }, settings);
            let rig = rig.faults(FaultScript::none().at(3, Fault::StuckBusy).at(5, Fault::InterruptLost));
            rig.disk(defects, |task, disk| {
                let sink = Sink::new();
                let mut requests = Vec::from([
                    read(0, 300, sink.to(0)),
                    write(9, &fill(17, 3), sink.to(1)),
                    scattered(40, &[512; 300], sink.to(2)),
                    Request::flush(sink.to(3)),
                ]);
                if dma {
                    requests.push(Request::new(Op::Discard, 1, 70_000 / 2, Data::None, sink.to(4)));
                }
                let (done, by_guest, _) = spent(task, &rig, &disk, &sink, requests);
                assert!(done.iter().all(|done| done.result == Ok(())), "{done:?}");
                assert!(disk.counters().resets > 0);
                assert_eq!(by_guest, 0, "{by_guest} allocations and frees");
            });
        }
    }
}

#[test]
fn a_ata_02_messages_take_no_memory() {
    successes(GOOD);
}

#[test]
fn a_ata_02_messages_take_no_memory_control() {
    assert!(caught("allocations and frees", || successes(Defects::one(Defect::FormatsOnHeap))));
}

#[test]
fn a_ata_09_requests_are_kept_in_places_made_before() {
    successes(GOOD);
}

#[test]
fn a_ata_09_requests_are_kept_in_places_made_before_control() {
    assert!(caught("allocations and frees", || successes(Defects::one(Defect::BoxesRequests))));
}

/// Each way of failing, with the error that it comes to.
const FAILURES: [(Fault, Error); 12] = [
    (Fault::Error(0x40), Error::Medium),
    (Fault::Error(0x10), Error::Medium),
    (Fault::Error(0x04), Error::Hardware),
    (Fault::Error(0x84), Error::Transport),
    (Fault::Error(0x20), Error::NotReady),
    (Fault::Error(0x08), Error::NotReady),
    (Fault::Error(0x02), Error::NotReady),
    (Fault::Error(0x00), Error::Medium),
    (Fault::Error(0x01), Error::Medium),
    (Fault::ErrorAfter(1, 0x40), Error::Medium),
    (Fault::DeviceFault, Error::Hardware),
    (Fault::StuckBusy, Error::TimedOut),
];

fn failures(dma: bool, config: Config, also: &[(Fault, Error)], defects: Defects) {
    log_everything();
    const { assert!(size_of::<Error>() <= 2 && !core::mem::needs_drop::<Error>()) };
    for &(fault, error) in FAILURES.iter().chain(also) {
        for schedule in SCHEDULES {
            let settings = Settings { dma, fua: dma, trim_blocks: u16::from(dma), ..Settings::default() };
            let rig = Rig::with(Config { schedule, ..config }, settings).faults(FaultScript::none().from(0, fault));
            rig.disk(defects, |task, disk| {
                let sink = Sink::new();
                let (done, by_guest, _) = spent(task, &rig, &disk, &sink, Vec::from([read(0, 20, sink.to(0))]));
                assert_eq!((done.len(), done[0].result), (1, Err(error)), "{fault:?}");
                assert_eq!(by_guest, 0, "{fault:?}: {by_guest} allocations and frees");
            });
        }
    }
}

const DMA_ONLY: [(Fault, Error); 4] = [
    (Fault::Short(512), Error::ShortTransfer),
    (Fault::BusError, Error::Transport),
    (Fault::Stalls(1024), Error::TimedOut),
    (Fault::DrqStuck, Error::TimedOut),
];

#[test]
fn a_ata_04_an_error_takes_no_memory() {
    failures(true, Config::default(), &DMA_ONLY, GOOD);
}

#[test]
fn a_ata_04_an_error_takes_no_memory_control() {
    let broken = Defects::one(Defect::BoxesErrors);
    assert!(caught("allocations and frees", || failures(true, Config::default(), &DMA_ONLY, broken)));
}

/// The memory is beyond 4 GiB, all of it: there is none for a table, so the CPU moves the data.
fn high() -> Config {
    Config { ram_base: 1 << 32, ..Config::default() }
}

#[test]
fn a_ata_05_an_error_of_programmed_io_takes_no_memory() {
    failures(true, high(), &[(Fault::DrqStuck, Error::Transport)], GOOD);
    failures(false, Config::default(), &[(Fault::DrqStuck, Error::Transport)], GOOD);
}

#[test]
fn a_ata_05_an_error_of_programmed_io_takes_no_memory_control() {
    assert!(caught("allocations and frees", || failures(true, high(), &[], Defects::one(Defect::BoxesErrors))));
}

/// Errors that the interrupt handler sees in the drive's status and the controller's.
fn errors_in_the_interrupt(defects: Defects) {
    for fault in [Fault::Error(0x40), Fault::BusError, Fault::DeviceFault] {
        for schedule in SCHEDULES {
            let rig = Rig::schedule(schedule).faults(FaultScript::none().from(0, fault));
            rig.disk(defects, |task, disk| {
                let sink = Sink::new();
                let (done, _, in_irq) = spent(task, &rig, &disk, &sink, Vec::from([read(0, 20, sink.to(0))]));
                assert!(done[0].result.is_err() && done[0].context == Kind::BottomHalf);
                assert_eq!(in_irq, 0, "{in_irq} allocations in the interrupt");
            });
        }
    }
}

#[test]
fn a_ata_10_an_error_in_the_hard_interrupt_takes_no_memory() {
    errors_in_the_interrupt(GOOD);
}

#[test]
fn a_ata_10_an_error_in_the_hard_interrupt_takes_no_memory_control() {
    let broken = Defects::one(Defect::BoxesInInterrupt);
    assert!(caught("allocations in the interrupt", || errors_in_the_interrupt(broken)));
}
