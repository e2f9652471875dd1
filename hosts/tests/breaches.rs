//! Every breach of the specification that the virtio model names, committed by hand and noticed.

mod mini;

use mini::{F_EVENT_IDX, F_INDIRECT, F_RING_RESET, F_VERSION_1, INDIRECT, Mini, NEXT, Queue, Registers, WRITE};
use undercroft_hal::dma::{Coherent, DmaConstraints};
use undercroft_hal::{Task, cpu};
use undercroft_hosts::virtio::{Blk, BlkLimits, Breach, Knobs, status};
use undercroft_hosts::{Config, Disk, Machine};

/// Runs `f` with a device that was only found, and says what it did wrong.
fn raw(knobs: Knobs, f: impl FnOnce(&Task, &mut Mini)) -> Vec<Breach> {
    let machine = Machine::new(Config::default());
    let limits = BlkLimits { queues: 2, queue_size: 16, ..BlkLimits::default() };
    let blk = machine.add_virtio_pci(Blk::with_limits(Disk::new(64), limits));
    blk.with(|d| d.knobs = knobs);
    machine.run(|task| f(task, &mut Mini::pci(task, blk.address())));
    blk.with(|d| d.breaches())
}

/// The same with two queues of 8 up and running.
fn up(f: impl FnOnce(&mut Mini)) -> Vec<Breach> {
    raw(Knobs::default(), |_, mini| {
        mini.bring_up(F_EVENT_IDX | F_INDIRECT | F_RING_RESET, 2, 8);
        f(mini);
        cpu::relax();
    })
}

/// What is offered and notified on queue 0 breaks the device with this breach, alone.
#[track_caller]
fn breaks(expected: Breach, f: impl FnOnce(&mut Queue)) {
    let breaches = raw(Knobs::default(), |_, mini| {
        mini.bring_up(F_EVENT_IDX | F_INDIRECT, 2, 8);
        f(&mut mini.queues[0]);
        mini.notify(0);
        assert_ne!(mini.status() & status::NEEDS_RESET, 0);
        assert_eq!(mini.queues[0].used_idx(), 0);
        // Only a reset brings it back.
        mini.reset();
        assert_eq!(mini.status(), 0);
    });
    assert_eq!(breaches, [expected]);
}

fn common(mini: &Mini) -> undercroft_hal::mmio::Mmio {
    match &mini.registers {
        Registers::Pci { common, .. } => *common,
        Registers::Mmio(mmio) => *mmio,
    }
}

#[test]
fn a_good_driver_has_none() {
    let breaches = up(|mini| {
        let queue = &mut mini.queues[1];
        queue.blk(0, 0, 1, queue.page.addr(4096), 512);
        queue.offer(0);
        mini.notify(1);
        assert_eq!(mini.queues[1].pop(), Some((0, 513)));
    });
    assert_eq!(breaches, []);
}

#[test]
fn reset_not_awaited() {
    let slow = Knobs { reset_reads: 3, ..Knobs::default() };
    for knobs in [Knobs::default(), slow] {
        let breaches = raw(knobs, |_, mini| {
            mini.set_status(0);
            mini.set_status(1);
        });
        assert_eq!(breaches, [Breach::ResetNotAwaited]);
    }
    // A slow reset keeps the device at work until it is done.
    raw(slow, |_, mini| {
        mini.bring_up(0, 1, 8);
        mini.set_status(0);
        assert_eq!([mini.status(), mini.status(), mini.status(), mini.status()], [15, 15, 15, 0]);
    });
}

#[test]
fn status_out_of_order() {
    assert_eq!(raw(Knobs::default(), |_, mini| mini.set_status(2)), [Breach::StatusOrder(2)]);
    let cleared = up(|mini| mini.set_status(7));
    assert_eq!(cleared, [Breach::StatusBitsCleared(8)]);
    let early = raw(Knobs::default(), |_, mini| {
        mini.reset();
        mini.set_status(3);
        mini.set_status(7);
    });
    assert_eq!(early, [Breach::StatusOrder(7)]);
}

#[test]
fn features_ok_not_read_back() {
    let breaches = raw(Knobs::default(), |_, mini| {
        mini.negotiate(0);
        mini.set_status(15);
    });
    assert_eq!(breaches, [Breach::FeaturesOkNotReadBack]);
}

/// X24: the device refuses FEATURES_OK; a driver that goes on regardless is told, and drives nothing.
#[test]
fn x24_refusal_of_features_ok() {
    let knobs = Knobs { refuse_features: true, ..Knobs::default() };
    let honest = raw(knobs, |_, mini| {
        mini.negotiate(0);
        assert_eq!(mini.status(), 3);
        mini.set_status(3 | status::FAILED);
    });
    assert_eq!(honest, []);
    let blind = raw(knobs, |_, mini| {
        mini.negotiate(0);
        mini.set_status(15);
        assert_eq!(mini.status() & status::DRIVER_OK, 0);
    });
    assert_eq!(blind, [Breach::RefusalIgnored]);
}

#[test]
fn wrong_features() {
    let accept = |features: u64| {
        raw(Knobs::default(), move |_, mini| {
            mini.negotiate(0);
            mini.reset();
            mini.set_status(3);
            mini.accept(features);
            mini.set_status(11);
            assert_eq!(mini.status(), 3);
        })
    };
    assert_eq!(accept(F_VERSION_1 | 1 << 50), [Breach::FeaturesNotOffered(1 << 50)]);
    assert_eq!(accept(F_EVENT_IDX), [Breach::NoVersion1]);
    let late = raw(Knobs::default(), |_, mini| {
        mini.negotiate(0);
        mini.accept(F_VERSION_1);
    });
    assert_eq!(late, [Breach::FeaturesAfterOk; 2]);
}

#[test]
fn queues_configured_wrongly() {
    let early = raw(Knobs::default(), |_, mini| {
        mini.reset();
        mini.set_status(3);
        mini.enable_queue(0);
    });
    assert_eq!(early[0], Breach::QueueConfigOrder(0));
    let twice = up(|mini| mini.enable_queue(0));
    assert_eq!(twice, [Breach::QueueConfigOrder(0)]);
    for size in [0u16, 3, 32] {
        let breaches = raw(Knobs::default(), |_, mini| {
            mini.negotiate(0);
            mini.select(1);
            common(mini).write(0x18, size);
        });
        assert_eq!(breaches, [Breach::QueueSize(1, size)]);
    }
    let disabled = up(|mini| {
        mini.select(1);
        common(mini).write(0x1c, 0u16);
    });
    assert_eq!(disabled, [Breach::QueueEnableValue(1)]);
    let crooked = raw(Knobs::default(), |_, mini| {
        mini.negotiate(0);
        let queue = Queue::new(0, 8, false);
        mini.place(&queue);
        common(mini).write(0x20, queue.ring.addr(0) as u32 + 8);
        mini.enable_queue(0);
    });
    assert_eq!(crooked, [Breach::RingAlignment(0)]);
}

#[test]
fn notifications_that_should_not_be() {
    let early = raw(Knobs::default(), |_, mini| {
        mini.negotiate(0);
        mini.notify(1);
    });
    assert_eq!(early, [Breach::NotifyBeforeDriverOk(1)]);
    let crossed = up(|mini| {
        let Registers::Pci { notify, step, .. } = &mini.registers else { return };
        // Queue 0's address is the second of two.
        notify.write(*step, 1u16);
    });
    assert_eq!(crossed, [Breach::NotifyWrongQueue(0, 1)]);
    let nobody = up(|mini| mini.notify(5));
    assert_eq!(nobody[1], Breach::NotifyNoQueue(5));
    let idle = raw(Knobs::default(), |_, mini| {
        mini.bring_up(0, 1, 8);
        mini.notify(1);
    });
    assert_eq!(idle, [Breach::NotifyNoQueue(1)]);
}

#[test]
fn registers_accessed_wrongly() {
    let wide = raw(Knobs::default(), |_, mini| {
        assert_eq!(common(mini).read::<u32>(0x14), u32::MAX);
        common(mini).write(0x20, 1u64);
    });
    assert_eq!(wide, [Breach::AccessWidth(0x14), Breach::AccessWidth(0x20)]);
    let read_only = raw(Knobs::default(), |_, mini| common(mini).write(0x12, 7u16));
    assert_eq!(read_only, [Breach::ReadOnlyRegister(0x12)]);
    let vector = up(|mini| {
        common(mini).write(0x10, 77u16);
        assert_eq!(common(mini).read::<u16>(0x10), 0xffff);
    });
    assert_eq!(vector, [Breach::VectorOutOfRange(77)]);
}

#[test]
fn bus_mastering_off() {
    let breaches = up(|mini| {
        let Registers::Pci { function, .. } = &mini.registers else { return };
        function.disable_bus_master();
        let queue = &mut mini.queues[0];
        queue.blk(0, 0, 1, queue.page.addr(4096), 512);
        queue.offer(0);
        mini.notify(0);
        assert_eq!(mini.queues[0].used_idx(), 0);
    });
    assert_eq!(breaches, [Breach::NotBusMaster]);
}

#[test]
fn queue_reset_not_awaited() {
    let knobs = Knobs { queue_reset_reads: 2, ..Knobs::default() };
    let run = |wait: bool| {
        raw(knobs, |_, mini| {
            mini.bring_up(F_RING_RESET, 1, 8);
            let common = common(mini);
            mini.select(0);
            common.write(0x3a, 1u16);
            while wait && common.read::<u16>(0x3a) != 0 {}
            if wait {
                assert_eq!(common.read::<u16>(0x1c), 0);
                // Everything is as before the queue was set up, the size included.
                assert_eq!(common.read::<u16>(0x18), 16);
                mini.queues[0] = Queue::new(0, 4, false);
                mini.place(&mini.queues[0]);
            }
            mini.enable_queue(0);
        })
    };
    assert_eq!(run(true), []);
    assert_eq!(run(false), [Breach::QueueResetNotAwaited(0), Breach::QueueConfigOrder(0)]);
    assert_eq!(
        raw(knobs, |_, mini| {
            mini.bring_up(0, 1, 8);
            common(mini).write(0x3a, 1u16);
        }),
        [Breach::QueueEnableValue(0)],
    );
}

#[test]
fn avail_index_jumps() {
    breaks(Breach::AvailJump(0), |queue| {
        queue.avail_idx = 8;
        queue.offer(0);
    });
    breaks(Breach::AvailJump(0), |queue| {
        // Backwards.
        queue.avail_idx = u16::MAX - 1;
        queue.offer(0);
    });
}

#[test]
fn avail_flags() {
    breaks(Breach::AvailFlags(0, 1), |queue| {
        queue.ring.write(queue.avail_at(), 1u16);
        queue.offer(0);
    });
}

#[test]
fn head_out_of_range() {
    breaks(Breach::HeadOutOfRange(0, 8), |queue| queue.offer(8));
}

#[test]
fn descriptors_in_two_chains() {
    breaks(Breach::DescriptorBusy(0, 0), |queue| {
        queue.blk(0, 0, 1, queue.page.addr(4096), 512);
        queue.offer(0);
        queue.offer(0);
    });
    breaks(Breach::DescriptorBusy(0, 2), |queue| {
        queue.blk(0, 0, 1, queue.page.addr(4096), 512);
        queue.descriptor(5, queue.page.addr(0), 16, NEXT, 2);
        queue.offer(0);
        queue.offer(5);
    });
}

#[test]
fn chains_that_lead_astray() {
    breaks(Breach::NextOutOfRange(0, 9), |queue| {
        queue.descriptor(0, queue.page.addr(0), 16, NEXT, 9);
        queue.offer(0);
    });
    breaks(Breach::ChainTooLong(0), |queue| {
        queue.descriptor(0, queue.page.addr(0), 16, NEXT, 1);
        queue.descriptor(1, queue.page.addr(0), 16, NEXT, 0);
        queue.offer(0);
    });
    breaks(Breach::ReadableAfterWritable(0), |queue| {
        queue.descriptor(0, queue.page.addr(0), 16, NEXT | WRITE, 1);
        queue.descriptor(1, queue.page.addr(0), 16, 0, 0);
        queue.offer(0);
    });
    breaks(Breach::DescriptorFlags(0, 8), |queue| {
        queue.descriptor(0, queue.page.addr(0), 16, 8, 0);
        queue.offer(0);
    });
    breaks(Breach::ChainTooBig(0), |queue| {
        queue.descriptor(0, queue.page.addr(0), u32::MAX, NEXT, 1);
        queue.descriptor(1, queue.page.addr(0), u32::MAX, 0, 0);
        queue.offer(0);
    });
}

#[test]
fn indirect_tables() {
    /// Puts a table of these descriptors (len, flags, next) at 8192 of the page and offers it.
    fn table(queue: &mut Queue, entries: &[(u32, u16, u16)], len: u32, flags: u16) {
        for (at, (len, flags, next)) in entries.iter().enumerate() {
            let base = 8192 + 16 * at;
            queue.page.write(base, queue.page.addr(0));
            queue.page.write(base + 8, *len);
            queue.page.write(base + 12, *flags);
            queue.page.write(base + 14, *next);
        }
        queue.descriptor(0, queue.page.addr(8192), len, INDIRECT | flags, 1);
        queue.offer(0);
    }
    breaks(Breach::IndirectWithNext(0), |queue| table(queue, &[(16, 0, 0)], 16, NEXT));
    breaks(Breach::IndirectLength(0, 24), |queue| table(queue, &[(16, 0, 0)], 24, 0));
    breaks(Breach::IndirectLength(0, 0), |queue| table(queue, &[(16, 0, 0)], 0, 0));
    breaks(Breach::IndirectNested(0), |queue| table(queue, &[(16, INDIRECT, 0)], 16, 0));
    breaks(Breach::NextOutOfRange(0, 2), |queue| table(queue, &[(16, NEXT, 1), (16, NEXT, 2)], 32, 0));
    breaks(Breach::ChainTooLong(0), |queue| table(queue, &[(16, NEXT, 1), (16, NEXT, 0)], 32, 0));
    let breaches = raw(Knobs::default(), |_, mini| {
        mini.bring_up(F_EVENT_IDX, 1, 8);
        table(&mut mini.queues[0], &[(16, 0, 0)], 16, 0);
        mini.notify(0);
    });
    assert_eq!(breaches, [Breach::IndirectNotNegotiated(0)]);
}

#[test]
fn memory_that_is_not_the_devices() {
    let breaches = up(|mini| {
        let queue = &mut mini.queues[0];
        let gone = Coherent::new(512, DmaConstraints::ANY).unwrap();
        queue.blk(0, 0, 1, gone.addr(0), 512);
        drop(gone);
        queue.offer(0);
        mini.notify(0);
        assert_eq!(mini.queues[0].status(0), 0xff);
    });
    assert!(matches!(breaches[..], [Breach::Memory(bad)] if bad.len == 512), "{breaches:?}");
}

#[test]
fn descriptor_changed_in_flight() {
    use undercroft_hosts::virtio::{Fault, FaultScript};
    let machine = Machine::new(Config::default());
    let blk = machine.add_virtio_pci(Blk::new(Disk::new(64)));
    blk.with(|d| d.set_faults(FaultScript::none().at(0, Fault::Delay(1000))));
    machine.run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        mini.bring_up(0, 1, 8);
        let queue = &mut mini.queues[0];
        queue.blk(0, 0, 1, queue.page.addr(4096), 512);
        queue.offer(0);
        mini.notify(0);
        let queue = &mut mini.queues[0];
        queue.blk(0, 0, 1, queue.page.addr(8192), 512);
        for _ in 0..20 {
            cpu::relax();
        }
        assert_eq!(mini.queues[0].pop(), Some((0, 513)));
    });
    assert_eq!(blk.with(|d| d.breaches()), [Breach::DescriptorChanged(0, 1)]);
}

#[test]
fn x19_block_requests_that_are_wrong() {
    let request = |kind: u32, sector: u64, len: u32, limits: BlkLimits| {
        let machine = Machine::new(Config::default());
        let blk = machine.add_virtio_pci(Blk::with_limits(Disk::new(64), limits));
        let mut status = 0xff;
        machine.run(|task| {
            let mut mini = Mini::pci(task, blk.address());
            mini.bring_up(u64::MAX >> 31, 1, 8);
            let queue = &mut mini.queues[0];
            queue.blk(0, kind, sector, queue.page.addr(4096), len);
            queue.offer(0);
            mini.notify(0);
            status = mini.queues[0].status(0);
        });
        (status, blk.with(|d| d.breaches()))
    };
    let wrong = |rule| vec![Breach::Request(rule)];
    let plain = BlkLimits::default();
    let big = BlkLimits { block_size: 4096, ..plain };
    assert_eq!(request(0, 63, 512, plain), (0, vec![]));
    assert_eq!(request(0, 63, 1024, plain), (1, wrong("5.2.6.1: a request beyond the capacity")));
    assert_eq!(request(4, 1, 0, plain), (0, wrong("5.2.6.1: a flush of a sector other than 0")));
    assert_eq!(request(99, 0, 0, plain), (2, vec![]));
    // X19: sectors are of 512 bytes whatever the block size: block 1 of 4096 bytes is sector 8.
    assert_eq!(request(0, 8, 4096, big), (0, vec![]));
    assert_eq!(request(0, 1, 4096, big), (0, wrong("5.2.6.1: a read of a part of a block")));
    assert_eq!(request(0, 0, 512, big), (0, wrong("5.2.6.1: a read of a part of a block")));
    let short = BlkLimits { size_max: 256, ..plain };
    assert_eq!(request(0, 0, 512, short), (0, wrong("5.2.6.1: a segment longer than size_max")));
}
