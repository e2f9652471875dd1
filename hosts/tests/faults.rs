//! Every fault of a script, seen from the driver's side; and the lies that stand.

mod mini;

use std::rc::Rc;

use mini::{F_EVENT_IDX, Mini, Registers};
use undercroft_hal::{Instant, Task, cpu};
use undercroft_hosts::virtio::{Blk, BlkLimits, Fault, FaultScript, Knobs, Order, VirtioPci, status};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};

const SEED: u64 = 11;

fn with(script: FaultScript, knobs: Knobs, f: impl FnOnce(&Task, &mut Mini)) -> (Rc<Machine>, Handle<VirtioPci<Blk>>) {
    let machine = Machine::new(Config::default());
    let blk = machine.add_virtio_pci(Blk::new(Disk::patterned(1 << 20, SEED)));
    blk.with(|d| {
        d.set_faults(script);
        d.knobs = knobs;
    });
    machine.run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        let features = mini.negotiate(F_EVENT_IDX);
        assert_eq!(mini.status(), 11);
        mini.use_msix(task, 1);
        mini.bring_up_queues(features, 1, 16);
        f(task, &mut mini);
    });
    assert_eq!(blk.with(|d| d.breaches()), []);
    (machine, blk)
}

/// Reads sectors 0 to `count` - 1 in one batch, from heads 0, 3, 6 and so on.
fn batch(mini: &mut Mini, count: u16) {
    let queue = &mut mini.queues[0];
    queue.arm(queue.seen_used);
    for at in 0..count {
        queue.blk(3 * at, 0, u64::from(at), queue.page.addr(4096 + 512 * usize::from(at)), 512);
        queue.offer(3 * at);
    }
    mini.notify(0);
}

fn popped(mini: &mut Mini) -> Vec<(u32, u32)> {
    std::iter::from_fn(|| mini.queues[0].pop()).collect()
}

fn good(mini: &Mini, at: u16) -> bool {
    let got: [u8; 512] = mini.queues[0].page.read(4096 + 512 * usize::from(at));
    mini.queues[0].status(3 * at) == 0 && got == Disk::pattern(SEED, u64::from(at))
}

fn plain(script: FaultScript, f: impl FnOnce(&Task, &mut Mini)) {
    with(script, Knobs::default(), f);
}

#[test]
fn none() {
    plain(FaultScript::none(), |_, mini| {
        batch(mini, 3);
        assert_eq!(popped(mini), [(0, 513), (3, 513), (6, 513)]);
        assert!((0..3).all(|at| good(mini, at)));
        assert_eq!(mini.irq_count(1), 1);
    });
}

#[test]
fn delay() {
    plain(FaultScript::none().at(0, Fault::Delay(10_000)), |task, mini| {
        batch(mini, 2);
        assert_eq!(popped(mini), [(3, 513)]);
        assert!(!good(mini, 0) && good(mini, 1));
        mini.queues[0].arm(1);
        task.wait_until(|| mini.queues[0].used_idx() == 2);
        assert!(Instant::now() >= Instant::from_nanos(10_000));
        assert!(good(mini, 0));
    });
}

#[test]
fn behind() {
    plain(FaultScript::none().at(0, Fault::Behind(2)), |task, mini| {
        batch(mini, 4);
        assert_eq!(popped(mini), [(3, 513), (6, 513), (0, 513), (9, 513)]);
        // With nobody to overtake it, it comes in the end.
        mini.queues[0].arm(4);
        task.run_pending();
    });
    plain(FaultScript::none().at(0, Fault::Behind(2)), |task, mini| {
        batch(mini, 1);
        assert_eq!(popped(mini), []);
        task.wait_until(|| mini.queues[0].used_idx() == 1);
    });
}

#[test]
fn orders() {
    let heads = |order| {
        let mut heads = Vec::new();
        with(FaultScript::none(), Knobs { order, ..Knobs::default() }, |_, mini| {
            batch(mini, 5);
            heads = popped(mini).into_iter().map(|(id, _)| id / 3).collect();
        });
        heads
    };
    assert_eq!(heads(Order::Fifo), [0, 1, 2, 3, 4]);
    assert_eq!(heads(Order::Lifo), [4, 3, 2, 1, 0]);
    let mut random = heads(Order::Random);
    assert_ne!(random, [0, 1, 2, 3, 4]);
    random.sort_unstable();
    assert_eq!(random, [0, 1, 2, 3, 4]);
}

#[test]
fn never_until_reset() {
    let (machine, blk) = with(FaultScript::none().at(1, Fault::Never), Knobs::default(), |_, mini| {
        batch(mini, 3);
        assert_eq!(popped(mini), [(0, 513), (6, 513)]);
    });
    assert_eq!(blk.with(|d| d.in_flight()), 1);
    machine.run(|task| Mini::pci(task, blk.address()).reset());
    assert_eq!(blk.with(|d| d.in_flight()), 0);
}

#[test]
fn a_guest_that_waits_for_never_hangs() {
    let machine = Machine::new(Config::default());
    let blk = machine.add_virtio_pci(Blk::new(Disk::new(64)));
    blk.with(|d| d.set_faults(FaultScript::none().from(0, Fault::Never)));
    let said = machine.try_run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        mini.bring_up(0, 1, 16);
        batch(&mut mini, 1);
        task.wait_until(|| mini.queues[0].used_idx() == 1);
    });
    assert!(said.unwrap_err().contains("1 in flight (1 never to be answered)"));
}

#[test]
fn statuses() {
    let script = FaultScript::none().at(0, Fault::Error).at(1, Fault::Status(7)).at(2, Fault::NoStatus);
    plain(script, |_, mini| {
        batch(mini, 3);
        assert_eq!(popped(mini), [(0, 1), (3, 1), (6, 513)]);
        let statuses: Vec<_> = (0..3).map(|at| mini.queues[0].status(3 * at)).collect();
        assert_eq!(statuses, [1, 7, 0xff]);
    });
}

#[test]
fn lengths() {
    let script = FaultScript::none().at(0, Fault::Short(500)).at(1, Fault::TooLong(1));
    plain(script, |_, mini| {
        batch(mini, 2);
        assert_eq!(popped(mini), [(0, 13), (3, 514)]);
    });
}

#[test]
fn ids() {
    plain(FaultScript::none().at(0, Fault::Duplicate), |_, mini| {
        batch(mini, 2);
        assert_eq!(popped(mini), [(0, 513), (0, 513), (3, 513)]);
    });
    plain(FaultScript::none().at(0, Fault::BadId), |_, mini| {
        batch(mini, 1);
        assert_eq!(popped(mini), [(16, 513)]);
    });
    plain(FaultScript::none().at(0, Fault::IdleId), |_, mini| {
        batch(mini, 2);
        assert_eq!(popped(mini), [(6, 513), (3, 513)]);
    });
}

#[test]
fn index_jump() {
    plain(FaultScript::none().at(0, Fault::IndexJump(40)), |_, mini| {
        batch(mini, 1);
        assert_eq!(mini.queues[0].used_idx(), 41);
    });
}

#[test]
fn interrupts_lost_and_spurious() {
    plain(FaultScript::none().at(0, Fault::NoInterrupt), |_, mini| {
        batch(mini, 1);
        cpu::relax();
        assert_eq!((mini.queues[0].used_idx(), mini.irq_count(1)), (1, 0));
    });
    plain(FaultScript::none().at(0, Fault::Spurious).at(0, Fault::Never), |_, mini| {
        batch(mini, 1);
        cpu::relax();
        assert_eq!((mini.queues[0].used_idx(), mini.irq_count(1)), (0, 1));
    });
}

#[test]
fn needs_reset() {
    plain(FaultScript::none().at(1, Fault::NeedsReset), |_, mini| {
        batch(mini, 3);
        assert_eq!(popped(mini), [(0, 513)]);
        assert_eq!(mini.status(), 15 | status::NEEDS_RESET);
        // The configuration interrupt tells.
        assert_eq!(mini.irq_count(0), 1);
    });
}

#[test]
fn vectors_refused() {
    for (granted, expected) in [(0, [0xffff, 0xffff, 0xffff]), (1, [0, 0xffff, 0xffff]), (2, [0, 1, 0xffff])] {
        let machine = Machine::new(Config::default());
        let limits = BlkLimits { queues: 2, ..BlkLimits::default() };
        let blk = machine.add_virtio_pci(Blk::with_limits(Disk::new(64), limits));
        blk.with(|d| d.knobs.vectors = Some(granted));
        machine.run(|task| {
            let mut mini = Mini::pci(task, blk.address());
            mini.negotiate(0);
            assert_eq!(mini.use_msix(task, 2), expected);
        });
    }
}

#[test]
fn configuration_changes() {
    let (_, blk) = with(FaultScript::none(), Knobs::default(), |_, mini| {
        assert_eq!(mini.config::<u32>(0), 1 << 20);
        assert_eq!(mini.generation(), 0);
    });
    // The device stays as the driver left it, in a machine that is gone: nothing is running now.
    blk.with(|d| d.change_config(|model| model.disk.resize(9)));
    let machine = Machine::new(Config::default());
    let blk = machine.add_virtio_pci(Blk::new(Disk::new(64)));
    machine.run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        let features = mini.negotiate(0);
        mini.status();
        mini.use_msix(task, 1);
        mini.bring_up_queues(features, 1, 8);
        blk.with(|d| d.change_config(|model| model.disk.resize(128)));
        task.wait_until(|| mini.irq_count(0) == 1);
        assert_eq!((mini.config::<u32>(0), mini.generation()), (128, 1));
    });
}

/// Reads the capacity in two halves while it changes: only the generation tells.
#[test]
fn configuration_torn() {
    let machine = Machine::new(Config::default());
    let blk = machine.add_virtio_pci(Blk::new(Disk::new(0)));
    let (small, large) = (0x0000_0001_0000_0000_u64, 0x0000_0002_ffff_ffff_u64);
    blk.with(|d| {
        d.model().claimed_capacity = Some(small);
        d.tear_config(1, move |model| model.claimed_capacity = Some(large));
    });
    machine.run(|task| {
        let mini = Mini::pci(task, blk.address());
        let read = || {
            let before = mini.generation();
            let low = u64::from(mini.config::<u32>(0));
            let high = u64::from(mini.config::<u32>(4));
            (high << 32 | low, before == mini.generation())
        };
        assert_eq!(read(), (0x0000_0002_0000_0000, false));
        assert_eq!(read(), (large, true));
    });
}

#[test]
fn features_withheld_and_invented() {
    let machine = Machine::new(Config::default());
    let blk = machine.add_virtio_pci(Blk::new(Disk::new(64)));
    machine.run(|task| {
        let mini = Mini::pci(task, blk.address());
        let before = mini.offered();
        blk.with(|d| d.knobs = Knobs { without: F_EVENT_IDX, with: 1 << 60, ..Knobs::default() });
        assert_eq!(mini.offered(), before & !F_EVENT_IDX | 1 << 60);
    });
}

/// The window into configuration space reaches the same registers.
#[test]
fn access_through_configuration_space() {
    let machine = Machine::new(Config::default());
    let blk = machine.add_virtio_pci(Blk::new(Disk::new(64)));
    machine.run(|task| {
        let mini = Mini::pci(task, blk.address());
        let Registers::Pci { function, .. } = &mini.registers else { return };
        let window = function
            .capabilities()
            .find(|c| c.id == 9 && function.read_u8(u16::from(c.offset) + 3) == 5)
            .map(|c| u16::from(c.offset))
            .unwrap();
        function.write(window + 4, 4);
        function.write(window + 8, 0x14);
        function.write(window + 12, 1);
        function.write(window + 16, 1);
        assert_eq!(mini.status(), 1);
        assert_eq!(function.read(window + 16), 1);
    });
    assert_eq!(blk.with(|d| d.breaches()), []);
}

/// Without EVENT_IDX the flags decide: NO_INTERRUPT is honoured, and the device says NO_NOTIFY only while it looks.
#[test]
fn flags_without_event_idx() {
    let machine = Machine::new(Config { schedule: Schedule::Eager, ..Config::default() });
    let blk = machine.add_virtio_pci(Blk::new(Disk::patterned(64, SEED)));
    machine.run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        let features = mini.negotiate(0);
        mini.status();
        mini.use_msix(task, 1);
        mini.bring_up_queues(features, 1, 16);
        let flags = mini.queues[0].avail_at();
        for (suppress, expected) in [(1u16, 0), (0, 1)] {
            mini.queues[0].ring.write(flags, suppress);
            batch(&mut mini, 2);
            assert_eq!(popped(&mut mini).len(), 2);
            assert_eq!(mini.irq_count(1), expected);
            assert_eq!(mini.queues[0].ring.read::<u16>(mini.queues[0].used_at()), 0);
        }
    });
}

/// X03, from the device's side: over 70,000 requests in batches of 1 to 7, an interrupt comes exactly when the used index passes
/// used_event, and avail_event always asks for the next kick.
#[test]
fn x03_event_idx_window_over_the_wrap() {
    let machine = Machine::new(Config::default());
    let blk = machine.add_virtio_pci(Blk::new(Disk::patterned(64, SEED)));
    machine.run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        const FLUSH: u64 = 1 << 9;
        let features = mini.negotiate(F_EVENT_IDX | FLUSH);
        mini.status();
        mini.use_msix(task, 1);
        mini.bring_up_queues(features, 1, 32);
        let mut expected = 0;
        for round in 0..18_000u32 {
            let count = (round % 7 + 1) as u16;
            let queue = &mut mini.queues[0];
            let old = queue.seen_used;
            // Anywhere from three before to ten after: inside the batch or not.
            let event = old.wrapping_add((round % 13) as u16).wrapping_sub(3);
            queue.arm(event);
            expected += u32::from((0..count).any(|at| old.wrapping_add(at) == event));
            for at in 0..count {
                queue.blk(3 * at, 4, 0, 0, 0);
                queue.offer(3 * at);
            }
            mini.notify(0);
            assert_eq!(popped(&mut mini).len(), usize::from(count));
            assert_eq!(mini.irq_count(1), expected, "round {round}");
            let queue = &mini.queues[0];
            assert_eq!(queue.ring.read::<u16>(queue.avail_event()), queue.avail_idx);
        }
    });
    assert_eq!(blk.with(|d| (d.breaches().is_empty(), d.completed() > 65_536)), (true, true));
}
