//! The audit's hazards, each with a twin of the driver that has it: the same check that passes on the driver catches the twin.
//!
//! Those about memory are in `trapped`, those about owners in `channel::loom_tests`.

use core::cell::{Cell, RefCell};

use undercroft_hal::work::{BottomHalfWork, Turn};

use super::*;

std::thread_local! {
    static MACHINE: RefCell<Option<Rc<Machine>>> = const { RefCell::new(None) };
    /// Registers accessed, and the time, at the last tick; and the most of either between two.
    static LAST: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static MOST: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Commits, and runs a bottom half that takes its turn between any two of the driver's and notes how long each was, until `count` requests
/// are done.
fn ticker(machine: &Rc<Machine>, disk: &AtaDisk, sink: &Arc<Sink>, count: usize) -> BottomHalfWork {
    let look = || {
        let accesses = MACHINE.with_borrow(|machine| machine.as_ref().map_or(0, |machine| machine.register_accesses()));
        (accesses, Instant::now().as_nanos())
    };
    MACHINE.with_borrow_mut(|place| *place = Some(Rc::clone(machine)));
    LAST.set(look());
    MOST.set((0, 0));
    let sink = Arc::clone(sink);
    let work = BottomHalfWork::new(0, move |_: &BottomHalf| {
        let (now, last, most) = (look(), LAST.get(), MOST.get());
        MOST.set((most.0.max(now.0 - last.0), most.1.max(now.1 - last.1)));
        cpu::relax();
        LAST.set(look());
        if sink.count() < count { Turn::Again } else { Turn::Done }
    });
    // Together: once it ticks, the eager machine lets a task do nothing.
    cpu::without_interrupts(|| {
        work.schedule();
        disk.commit();
    });
    work
}

/// A drive that takes 20 ms for a command: no turn of the bottom half takes a fraction of that, and a drive that stays busy for ever ends
/// its request within a time that is known.
fn waits_bounded(defects: Defects) {
    let script = FaultScript::none().at(0, Fault::Delay(20_000_000)).from(1, Fault::StuckBusy);
    let rig = Rig::schedule(Schedule::Lazy).faults(script);
    rig.disk(defects, |task, disk| {
        let sink = Sink::new();
        disk.submit(read(0, 8, sink.to(0))).unwrap();
        let ticker = ticker(&rig.machine, &disk, &sink, 1);
        assert_eq!(sink.one(task).result, Ok(()));
        let most = MOST.get().1;
        assert!(most < 100_000, "a turn of {most} ns");
        ticker.remove(task);
        go(&disk, read(0, 8, sink.to(1))).unwrap();
        let done = sink.watch(task, &rig.machine, &disk, 1, Duration::from_secs(100)).remove(0);
        assert_eq!(done.result, Err(Error::TimedOut));
        assert_eq!((disk.counters().timeouts, disk.counters().resets), (3, 3));
    });
}

#[test]
fn a_ata_03_waiting_is_bounded() {
    waits_bounded(GOOD);
}

#[test]
fn a_ata_03_waiting_is_bounded_control() {
    assert!(caught("a turn of", || waits_bounded(Defects::one(Defect::WaitsInPlace))));
}

/// 128 KiB by programmed I/O: a turn of the bottom half moves a block of 8 KiB and no more.
fn moves_in_blocks(defects: Defects) {
    for schedule in SCHEDULES {
        let rig = Rig::pio(schedule, 16);
        rig.disk(defects, |task, disk| {
            let sink = Sink::new();
            disk.submit(read(64, 256, sink.to(0))).unwrap();
            disk.submit(write(64, &fill(256, 1), sink.to(1))).unwrap();
            let ticker = ticker(&rig.machine, &disk, &sink, 2);
            let done = sink.wait(task, 2);
            assert!(bytes(&done[0].request) == pattern(0, 64, 256));
            assert_eq!(done[1].result, Ok(()));
            let most = MOST.get().0;
            assert!((4096..2 * 4096 + 200).contains(&most), "a turn of {most} accesses");
            ticker.remove(task);
        });
    }
}

#[test]
fn a_ata_06_programmed_io_is_done_in_blocks() {
    moves_in_blocks(GOOD);
}

#[test]
fn a_ata_06_programmed_io_is_done_in_blocks_control() {
    assert!(caught("a turn of", || moves_in_blocks(Defects::one(Defect::MovesAllBlocks))));
}

/// Submits the next read in each completion.
struct Chained {
    sink: Arc<Sink>,
    disk: Mutex<Option<Arc<AtaDisk>>>,
    me: Mutex<Option<Arc<Chained>>>,
    depth: Mutex<(u32, u32)>,
}

impl Complete for Chained {
    fn complete(&self, cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        {
            let mut depth = self.depth.lock().unwrap();
            depth.0 += 1;
            depth.1 = depth.1.max(depth.0);
        }
        self.sink.complete(cx, cookie, request, result);
        let me = self.me.lock().unwrap().clone();
        if let (true, Some(me)) = (cookie < 10, me) {
            let disk = self.disk.lock().unwrap().clone().unwrap();
            let request = trap::outside(|| read(cookie + 1, 2, Completion::new(me, cookie + 1)));
            go(&disk, request).unwrap();
        }
        self.depth.lock().unwrap().0 -= 1;
    }
}

/// Completions out of programmed I/O that submit again: each once, in order, with its data, never one inside another.
fn completes_again(defects: Defects) {
    for schedule in SCHEDULES {
        let rig = Rig::pio(schedule, 1);
        rig.disk(defects, |task, disk| {
            let sink = Sink::new();
            let (kept, me, depth) = (Mutex::new(Some(disk.clone())), Mutex::default(), Mutex::default());
            let chained = Arc::new(Chained { sink: sink.clone(), disk: kept, me, depth });
            *chained.me.lock().unwrap() = Some(chained.clone());
            go(&disk, read(0, 2, Completion::new(chained.clone(), 0))).unwrap();
            let done = sink.wait(task, 11);
            *chained.me.lock().unwrap() = None;
            assert!(done.iter().map(|done| done.cookie).eq(0..=10), "in order");
            assert!(done.iter().all(|done| bytes(&done.request) == pattern(0, done.cookie, 2)), "each with its data");
            assert_eq!(chained.depth.lock().unwrap().1, 1, "completions nest");
            let kept = chained.disk.lock().unwrap().take();
            drop(kept);
        });
    }
}

#[test]
fn a_ata_07_completions_submit_again() {
    completes_again(GOOD);
}

#[test]
fn a_ata_07_completions_submit_again_control() {
    assert!(caught("each with its data", || completes_again(Defects::one(Defect::CompletesAtFront))));
}

/// A request of many commands of which the third fails: one completion, no fourth command, and the next request is performed.
fn ends_at_the_failed_part(defects: Defects) {
    for (schedule, fault) in
        SCHEDULES.into_iter().zip([Fault::Error(0x40), Fault::ErrorAfter(3, 0x40), Fault::DeviceFault])
    {
        let settings = Settings { lba48: false, fua: false, trim_blocks: 0, ..Settings::default() };
        let rig = Rig::with(Config { schedule, ..Config::default() }, settings);
        let rig = rig.faults(FaultScript::none().at(2, fault));
        rig.disk(defects, |task, disk| {
            let sink = Sink::new();
            disk.submit(read(0, 256 * 6, sink.to(1))).unwrap();
            disk.submit(read(5000, 1, sink.to(2))).unwrap();
            disk.commit();
            let done = sink.wait(task, 2);
            let results: Vec<_> = done.iter().map(|done| (done.cookie, done.result)).collect();
            let error = if fault == Fault::DeviceFault { Error::Hardware } else { Error::Medium };
            let commands: Vec<_> = rig.log(0).iter().map(|(_, sector, _)| *sector).collect();
            assert_eq!(commands, [0, 256, 512, 5000], "commands issued");
            assert_eq!(results, [(1, Err(error)), (2, Ok(()))]);
            assert_eq!(bytes(&done[1].request), pattern(0, 5000, 1));
            settle(task, 1000);
            assert_eq!(sink.count(), 0, "once");
        });
    }
}

#[test]
fn a_ata_08_nothing_follows_a_part_that_failed() {
    ends_at_the_failed_part(GOOD);
}

#[test]
fn a_ata_08_nothing_follows_a_part_that_failed_control() {
    assert!(caught("commands issued", || ends_at_the_failed_part(Defects::one(Defect::GoesOnAfterError))));
}

/// Interrupts in the middle of a transfer: another device's, and one that the controller itself believes in.
fn spurious(defects: Defects) {
    for fault in [Fault::Spurious, Fault::Glitch, Fault::Extra] {
        // With the lazy schedule first: the others may let the transfer end before anybody has looked.
        let schedules = [Schedule::Lazy, Schedule::Eager, Schedule::RANDOM];
        for (dma, schedule) in schedules.into_iter().flat_map(|schedule| [(true, schedule), (false, schedule)]) {
            let settings = Settings { dma, fua: dma, trim_blocks: u16::from(dma), ..Settings::default() };
            let rig = Rig::with(Config { schedule, ..Config::default() }, settings);
            let rig = rig.faults(FaultScript::none().from(0, fault));
            rig.disk(defects, |task, disk| {
                let sink = Sink::new();
                for n in 0..6u64 {
                    disk.submit(read(n * 64, 64, sink.to(n))).unwrap();
                }
                disk.commit();
                let done = sink.wait(task, 6);
                assert!(done.iter().map(|done| done.cookie).eq(0..6), "each once, in order");
                for done in done {
                    let whole = bytes(&done.request) == pattern(0, done.cookie * 64, 64);
                    assert!(done.result == Ok(()) && whole, "{fault:?} {dma}: a transfer was cut short");
                }
                assert_eq!(rig.log(0).len(), 6, "each issued once");
                settle(task, 100);
                let counters = disk.counters();
                assert_eq!((counters.resets, counters.issued_again), (0, 0));
                match fault {
                    Fault::Spurious if dma => assert!(counters.foreign_interrupts > 0, "{schedule:?}"),
                    Fault::Glitch if dma && schedule == Schedule::Lazy => assert!(counters.early_interrupts > 0),
                    _ => {}
                }
            });
        }
    }
}

#[test]
fn x04_a_spurious_interrupt_during_a_transfer() {
    spurious(GOOD);
}

#[test]
fn x04_a_spurious_interrupt_during_a_transfer_control() {
    assert!(caught("a transfer was cut short", || spurious(Defects::one(Defect::TrustsInterrupts))));
}

/// A flush is the drive's to perform, and its failure is the flush's.
fn flushes(defects: Defects) {
    let rig = Rig::new().faults(FaultScript::none().at(2, Fault::Error(0x04)));
    rig.disk(defects, |task, disk| {
        let sink = Sink::new();
        go(&disk, write(3, &fill(1, 1), sink.to(0))).unwrap();
        sink.one(task);
        go(&disk, Request::flush(sink.to(1))).unwrap();
        assert_eq!(sink.one(task).result, Ok(()));
        assert_eq!(rig.disk.volatile_sectors(), 0, "flushed without a flush");
        go(&disk, Request::flush(sink.to(2))).unwrap();
        assert_eq!(sink.one(task).result, Err(Error::Hardware));
    });
}

#[test]
fn p_21_a_flush_is_performed() {
    flushes(GOOD);
}

#[test]
fn p_21_a_flush_is_performed_control() {
    assert!(caught("flushed without a flush", || flushes(Defects::one(Defect::FakesFlush))));
}

/// Drives that come out of their reset slowly are asked what they are only then.
fn asks_in_time(defects: Defects) {
    let slow = Some(Settings { reset_nanos: 2_500_000, ..Settings::default() });
    let rig = Rig::full(Config::default(), [slow.clone(), slow, None, None], Mode::Compatible, true);
    rig.machine.run(|task| {
        let found = rig.probe(task, defects).expect("probes");
        assert_eq!(rig.host.with(|host| host.breaches()), [], "asked too early");
        assert_eq!((found.disks.len(), &found.failures[..]), (2, &[][..]));
    });
}

#[test]
fn p_09_a_drive_is_asked_once_it_is_not_busy() {
    asks_in_time(GOOD);
}

#[test]
fn p_09_a_drive_is_asked_once_it_is_not_busy_control() {
    assert!(caught("asked too early", || asks_in_time(Defects::one(Defect::AsksTooEarly))));
}

/// A reset that leaves the second place selected, where nobody is, as firmware did: the first drive is found all the same, however slow.
fn finds_the_first(defects: Defects) {
    let slow = Some(Settings { reset_nanos: 5_000_000, ..Settings::default() });
    let rig = Rig::full(Config::default(), [slow, None, None, None], Mode::Compatible, true);
    rig.host.with(|host| host.channels[0].keep_selection(1));
    rig.machine.run(|task| {
        let found = rig.probe(task, defects).expect("probes");
        assert_eq!(found.disks.len(), 1, "the first drive was overlooked");
    });
    assert_eq!(rig.host.with(|host| host.breaches()), []);
}

#[test]
fn the_first_drive_is_found_whoever_was_selected() {
    finds_the_first(GOOD);
}

#[test]
fn the_first_drive_is_found_whoever_was_selected_control() {
    assert!(caught("the first drive was overlooked", || finds_the_first(Defects::one(Defect::TrustsSelection))));
}

/// Two drives with full queues take turns.
fn takes_turns(defects: Defects) {
    for schedule in SCHEDULES {
        let rig = Rig::three(Config { schedule, ..Config::default() });
        rig.run_with(defects, |task, found| {
            let sink = Sink::new();
            for n in 0..40u64 {
                found.disks[n as usize / 20].submit(read(n, 1, sink.to(n))).unwrap();
            }
            found.disks[0].commit();
            let order: Vec<_> = sink.wait(task, 40).iter().map(|done| done.cookie / 20).collect();
            assert!(order[..38].chunks(2).all(|pair| pair[0] != pair[1]), "no turns: {order:?}");
        });
    }
}

#[test]
fn two_drives_take_turns() {
    takes_turns(GOOD);
}

#[test]
fn two_drives_take_turns_control() {
    assert!(caught("no turns", || takes_turns(Defects::one(Defect::FirstDriveFirst))));
}

/// Reads and writes on both sides of what 28 and 32 bits of address reach: each in its own place.
fn far_sectors(defects: Defects) {
    let pio = Settings { dma: false, fua: false, trim_blocks: 0, ..Settings::default() };
    for settings in [Settings::default(), pio] {
        let dma = settings.dma;
        let rig = Rig::settings(settings);
        rig.disk.resize(1 << 33);
        rig.disk(defects, |task, disk| {
            assert_eq!(disk.info().capacity, 1 << 33);
            let sink = Sink::new();
            let edges = [1 << 28, 1 << 32].map(|edge: u64| [edge - 8, edge - 2, edge - 1, edge, edge + 77]);
            for lba in edges.into_iter().flatten().chain([(1 << 33) - 4]) {
                go(&disk, read(lba, 4, sink.to(lba))).unwrap();
                let done = sink.one(task);
                assert_eq!(done.result, Ok(()));
                assert!(bytes(&done.request) == pattern(0, lba, 4), "{lba:#x}: another sector was read");
                go(&disk, write(lba + 3, &fill(1, lba as u8), sink.to(lba))).unwrap();
                assert_eq!(sink.one(task).result, Ok(()));
                assert!(
                    rig.disk.read_sector(lba + 3)[..] == fill(1, lba as u8),
                    "{lba:#x}: another sector was written"
                );
                rig.disk.write(lba + 3, &Disk::pattern(seed(0), lba + 3)).unwrap();
            }
            if dma {
                let (near, far) = (5, (1 << 32) + 5);
                go(&disk, Request::new(Op::Discard, far, 3, Data::None, sink.to(0))).unwrap();
                assert_eq!(sink.one(task).result, Ok(()));
                assert_eq!(rig.disk.read_sector(far + 2), [0; 512], "another sector was trimmed");
                assert_eq!(rig.disk.read_sector(near), Disk::pattern(seed(0), near));
            }
        });
    }
}

#[test]
fn x27_sectors_beyond_32_bits() {
    far_sectors(GOOD);
}

#[test]
fn x27_sectors_beyond_32_bits_control() {
    assert!(caught("another sector was", || far_sectors(Defects::one(Defect::CutsSectors))));
}

/// A drive of no sectors is no disk, and the one beside it is.
fn no_sectors(defects: Defects) {
    let some = || Some(Settings::default());
    let rig = Rig::full(Config::default(), [some(), some(), None, None], Mode::Compatible, true);
    rig.disk.resize(0);
    rig.run_with(defects, |_, found| {
        assert_eq!(found.disks.len(), 1, "a drive without sectors is a disk");
        let errors: Vec<_> = found.failures.iter().map(|(_, error)| *error).collect();
        assert_eq!(errors, [ProbeError::BadIdentify("capacity")]);
    });
}

#[test]
fn p_19_a_drive_without_sectors_is_refused() {
    no_sectors(GOOD);
}

#[test]
fn p_19_a_drive_without_sectors_is_refused_control() {
    assert!(caught("a drive without sectors is a disk", || no_sectors(Defects::one(Defect::AcceptsEmpty))));
}
