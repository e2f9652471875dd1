//! Devices of different shapes: interrupts, features, limits, transports.

use undercroft_block::{Features, Refusal};
use undercroft_hosts::virtio::feature;

use super::*;
use crate::probe::{Found, probe_mmio, probe_pci};

fn read_a_few(task: &Task, driver: &VirtioBlk) {
    let sink = Sink::new();
    for cookie in 0..20 {
        go(driver, read(cookie, 1, 512, sink.to(cookie))).unwrap();
    }
    for done in sink.wait(task, 20) {
        assert_eq!((done.result, bytes(&done.request)), (Ok(()), pattern(done.cookie, 1)));
    }
}

#[test]
fn vectors_refused_fall_back_to_fewer_and_to_the_line() {
    let two = BlkLimits { queues: 2, ..BlkLimits::default() };
    for (granted, kind) in [(None, "msi-x:3"), (Some(2), "msi-x:1"), (Some(4), "msi-x:2"), (Some(0), "intx")] {
        let rig = Rig::with(Config { cpus: 2, ..Config::default() }, two);
        rig.host.with(|host| host.knobs.vectors = granted);
        rig.run(|task, driver| {
            // Granting counts assignments, so what is left depends on how many were refused before.
            let got = &driver.identity().interrupts[..];
            assert!(got == kind || granted.is_some_and(|granted| granted > 0), "{granted:?}: {got}");
            read_a_few(task, &driver);
        });
    }
}

#[test]
fn a_small_vector_table_is_shared() {
    for (vectors, kind) in [(1, "msi-x:1"), (2, "msi-x:2"), (3, "msi-x:3")] {
        let machine = Machine::new(Config { cpus: 4, ..Config::default() });
        let limits = BlkLimits { queues: 4, ..BlkLimits::default() };
        let model = Model::with_limits(Disk::patterned(1 << 16, SEED), limits);
        let host = machine.add_pci(VirtioPci::with_vectors(Virtio::new(model), vectors));
        machine.run(|task| {
            let found = probe_pci(task, pci::devices(task)[0]).unwrap();
            let Some(Found::Blk(driver)) = found else { panic!("not found: {found:?}") };
            assert_eq!(driver.identity().interrupts, kind);
            read_a_few(task, &driver);
            drop(driver);
            settle(task);
        });
        assert_eq!(host.with(|host| host.breaches()), []);
        assert_eq!(machine.live_dma_blocks(), 0);
    }
}

#[test]
fn mmio_with_a_level_line() {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let machine = Machine::new(Config { schedule, ..Config::default() });
        let host = machine.add_virtio_mmio(Model::new(Disk::patterned(1 << 16, SEED)));
        machine.run(|task| {
            let (phys, len) = host.window();
            let Some(Found::Blk(driver)) = probe_mmio(task, phys, len, host.line()).unwrap() else { panic!() };
            assert_eq!(driver.identity().interrupts, "mmio");
            assert!(driver.identity().controller.starts_with("mmio 0x"));
            read_a_few(task, &driver);
            drop(driver);
            settle(task);
        });
        assert_eq!(host.with(|host| host.breaches()), []);
        assert_eq!(machine.live_dma_blocks(), 0);
    }
}

/// The legacy interface: a queue in one piece of the device's size, no `FEATURES_OK`; a reset in flight, too.
#[test]
fn legacy_mmio() {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let machine = Machine::new(Config { schedule, ..Config::default() });
        let model = Model::new(Disk::patterned(1 << 16, SEED));
        let host = machine.add_window(undercroft_hosts::virtio::VirtioMmio::legacy(Virtio::new(model)), true);
        machine.run(|task| {
            let (phys, len) = host.window();
            let Some(Found::Blk(driver)) = probe_mmio(task, phys, len, host.line()).unwrap() else { panic!() };
            assert_eq!(driver.identity().transport, "legacy event-idx indirect");
            read_a_few(task, &driver);
            let sink = Sink::new();
            driver.submit(read(1, 1, 512, sink.to(1))).unwrap();
            assert!(driver.reset(undercroft_block::Reset::Device));
            assert_eq!(sink.wait(task, 1)[0].result, Err(Error::NotStarted));
            settle(task);
            read_a_few(task, &driver);
            drop(driver);
            settle(task);
        });
        assert_eq!(host.with(|host| host.breaches()), []);
        assert_eq!(machine.live_dma_blocks(), 0);
    }
}

#[test]
fn without_event_idx_and_indirect() {
    for without in [feature::EVENT_IDX, feature::INDIRECT, feature::EVENT_IDX | feature::INDIRECT] {
        for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
            let rig = Rig::schedule(schedule);
            rig.host.with(|host| host.knobs.without = without);
            rig.run(|task, driver| {
                read_a_few(task, &driver);
                let sink = Sink::new();
                go(&driver, scattered(100, &[512; 40], sink.to(1))).unwrap();
                assert_eq!(bytes(&sink.wait(task, 1)[0].request), pattern(100, 40));
            });
        }
    }
}

#[test]
fn one_doorbell_for_a_batch_and_none_for_nothing() {
    let rig = Rig::schedule(Schedule::Lazy);
    rig.run(|task, driver| {
        let sink = Sink::new();
        let before = rig.machine.register_accesses();
        for cookie in 0..32 {
            driver.submit(read(cookie, 1, 512, sink.to(cookie))).unwrap();
        }
        assert_eq!(rig.machine.register_accesses() - before, 0);
        driver.commit();
        driver.commit();
        assert_eq!(rig.machine.register_accesses() - before, 1);
        sink.wait(task, 32);
        assert_eq!(rig.machine.register_accesses() - before, 1, "completions touch no register");
    });
}

#[test]
fn the_transport_refuses_what_the_limits_forbid() {
    let rig = Rig::new(BlkLimits { seg_max: 4, size_max: 8192, ..BlkLimits::default() });
    rig.run(|task, driver| {
        let sink = Sink::new();
        let limits = driver.info().limits;
        assert_eq!((limits.max_segments, limits.max_segment_bytes, limits.max_transfer_bytes), (4, 8192, 32768));
        go(&driver, scattered(0, &[8192; 4], sink.to(1))).unwrap();
        assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
        for pieces in [&[512; 5][..], &[8192 + 512]] {
            let refused = driver.submit(scattered(0, pieces, sink.to(1))).unwrap_err();
            assert_eq!(refused.why, Refusal::Invalid(Error::TooLarge));
        }
    });
}

#[test]
fn discard_and_write_zeroes() {
    let rig = Rig::new(BlkLimits { block_size: 4096, physical_exponent: 0, ..BlkLimits::default() });
    rig.run(|task, driver| {
        let sink = Sink::new();
        for op in [Op::WriteZeroes, Op::Discard] {
            go(&driver, Request::new(op, 3, 2, Data::None, sink.to(1))).unwrap();
            assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
        }
        assert_eq!(rig.disk.read_sector(24), [0; 512]);
        assert_eq!(rig.disk.read_sector(39), [0; 512]);
        assert_ne!(rig.disk.read_sector(40), [0; 512]);
        let too_many = driver.info().limits.max_discard_blocks + 1;
        let refused = driver.submit(Request::new(Op::Discard, 0, too_many, Data::None, sink.to(1))).unwrap_err();
        assert!(matches!(refused.why, Refusal::Invalid(_)));
    });
}

#[test]
fn a_read_only_disk_takes_no_writes() {
    let rig = Rig::new(BlkLimits::default());
    rig.disk.set_read_only(true);
    rig.run(|task, driver| {
        let sink = Sink::new();
        assert!(driver.info().features.contains(Features::READ_ONLY));
        let refused = driver.submit(write(0, &[1; 512], 512, sink.to(1))).unwrap_err();
        assert_eq!(refused.why, Refusal::Invalid(Error::ReadOnly));
        go(&driver, Request::flush(sink.to(2))).unwrap();
        assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
    });
}

/// A flush is the device's to perform, and its failure is the flush's.
fn flushes(defects: Defects) {
    let rig = Rig::schedule(Schedule::Eager).faults(FaultScript::none().at(3, Fault::Error));
    rig.run_with(defects, |task, driver| {
        let sink = Sink::new();
        go(&driver, write(1, &[1; 512], 512, sink.to(1))).unwrap();
        assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
        go(&driver, Request::flush(sink.to(2))).unwrap();
        assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
        assert_eq!(rig.disk.durable_sector(1), [1; 512], "flushed without a flush");
        go(&driver, Request::flush(sink.to(3))).unwrap();
        assert_eq!(sink.wait(task, 1)[0].result, Err(Error::Medium));
    });
}

#[test]
fn p_21_a_flush_is_performed() {
    flushes(GOOD);
}

#[test]
#[should_panic(expected = "flushed without a flush")]
fn p_21_a_flush_is_performed_control() {
    flushes(Defects::one(Defect::FakesFlush));
}

#[test]
fn without_a_cache_a_flush_succeeds_from_the_bottom_half() {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig =
            Rig::with(Config { schedule, ..Config::default() }, BlkLimits { flush: false, ..BlkLimits::default() });
        rig.run(|task, driver| {
            let sink = Sink::new();
            assert!(!driver.info().features.contains(Features::VOLATILE_CACHE));
            for cookie in 0..10 {
                go(&driver, Request::flush(sink.to(cookie))).unwrap();
            }
            let done = sink.wait(task, 10);
            assert!(
                done.iter().all(|d| d.result == Ok(()) && d.context.0 == undercroft_hal::context::Kind::BottomHalf)
            );
            assert_eq!(rig.disk.flushes(), 0);
        });
    }
}

#[test]
fn a_resize_is_told_and_read_whole() {
    let rig = Rig::schedule(Schedule::RANDOM);
    rig.run(|task, driver| {
        let sink = Sink::new();
        driver.watch(sink.clone());
        let disk = rig.disk.clone();
        rig.host.with(|host| host.change_config(|_| disk.resize(1 << 18)));
        task.wait_until(|| !sink.events().is_empty());
        assert_eq!(sink.events()[..], [Event::Resized]);
        assert_eq!(driver.info().capacity, 1 << 18);
        go(&driver, read((1 << 18) - 1, 1, 512, sink.to(1))).unwrap();
        assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
    });
}
