//! Patterns of defects that were mended late elsewhere, and blocks that are far away: each with a twin of the driver that has the defect.

use undercroft_block::Refusal;

use super::*;

/// A configuration that changes while it is read is read again; one that never stays the same is not used.
fn torn(defects: Defects) {
    // Read in halves across the change it would be 0x1_ffff_ffff or 0.
    let sizes = [0x0_ffff_ffff_u64, 0x1_0000_0000];
    for times in 0..12 {
        let rig = Rig::new(BlkLimits::default());
        let mut turn = 0;
        rig.host.with(|host| {
            host.model().claimed_capacity = Some(sizes[0]);
            host.tear_config(times, move |model| {
                turn ^= 1;
                model.claimed_capacity = Some(sizes[turn]);
            });
        });
        rig.run_with(defects, |_, driver| {
            let capacity = driver.info().capacity;
            assert!(sizes.contains(&capacity), "a capacity that never was: {capacity:#x}");
        });
    }
    let rig = Rig::new(BlkLimits::default());
    rig.host.with(|host| host.tear_config(u32::MAX, |_| ()));
    let error = rig.machine.run(|task| rig.probe(task, defects).err());
    assert_eq!(error, Some(ProbeError::ConfigUnstable));
}

#[test]
fn p_17_a_configuration_that_changes_while_it_is_read_is_not_used() {
    torn(GOOD);
}

#[test]
fn p_17_a_configuration_that_changes_while_it_is_read_is_not_used_control() {
    let message = says(|| torn(Defects::one(Defect::IgnoresGeneration)));
    assert!(message.contains("a capacity that never was: 0x1ffffffff"), "{message}");
}

/// Interrupts while nothing is in flight, and after the last request.
fn nothing_to_serve(defects: Defects) {
    for vectors in [None, Some(0)] {
        for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
            // It comes long before the request is done.
            let script = FaultScript::none().from(1, Fault::Spurious).from(1, Fault::Delay(20_000));
            let rig = Rig::schedule(schedule).faults(script);
            rig.host.with(|host| host.knobs.vectors = vectors);
            rig.run_with(defects, |task, driver| {
                let sink = Sink::new();
                driver.watch(sink.clone());
                for cookie in 0..20 {
                    let sent = go(&driver, read(cookie, 1, 512, sink.to(cookie)));
                    assert!(sent.is_ok(), "an interrupt with nothing to serve did harm");
                    let done = sink.wait(task, 1).remove(0);
                    assert_eq!(done.result, Ok(()), "an interrupt with nothing to serve did harm");
                    assert_eq!(bytes(&done.request), pattern(cookie, 1));
                }
                settle(task);
                assert_eq!((sink.count(), &sink.events()[..]), (0, &[][..]));
            });
        }
    }
}

#[test]
fn p_19_interrupts_with_nothing_to_serve() {
    nothing_to_serve(GOOD);
}

#[test]
fn p_19_interrupts_with_nothing_to_serve_control() {
    let message = says(|| nothing_to_serve(Defects::one(Defect::ExpectsUsed)));
    assert!(message.contains("an interrupt with nothing to serve did harm"), "{message}");
}

/// A disk without sectors takes no request for one, until it has some.
fn no_sectors(defects: Defects) {
    let rig = Rig::new(BlkLimits::default());
    rig.disk.resize(0);
    rig.run_with(defects, |task, driver| {
        let sink = Sink::new();
        driver.watch(sink.clone());
        assert_eq!(driver.info().capacity, 0, "a disk without sectors has some");
        for (lba, op) in [(0, Op::Read), (0, Op::Write), (u64::MAX, Op::Read), (0, Op::Discard)] {
            let data = if op == Op::Discard { Data::None } else { buffer(512).into() };
            let refused = driver.submit(Request::new(op, lba, 1, data, sink.to(0))).unwrap_err();
            assert_eq!(refused.why, Refusal::Invalid(Error::OutOfRange));
        }
        go(&driver, Request::flush(sink.to(1))).unwrap();
        assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
        let disk = rig.disk.clone();
        rig.host.with(|host| host.change_config(|_| disk.resize(8)));
        task.wait_until(|| !sink.events().is_empty());
        go(&driver, read(7, 1, 512, sink.to(2))).unwrap();
        assert_eq!(bytes(&sink.wait(task, 1)[0].request), pattern(7, 1));
    });
}

#[test]
fn p_19_a_disk_without_sectors() {
    no_sectors(GOOD);
}

#[test]
fn p_19_a_disk_without_sectors_control() {
    let message = says(|| no_sectors(Defects::one(Defect::LastBlockWraps)));
    assert!(message.contains("a disk without sectors has some"), "{message}");
}

/// Reads and writes on both sides of what 32 bits reach, in blocks and in sectors: each in its own place.
fn far_sectors(defects: Defects) {
    for block_size in [512, 4096] {
        let rig = Rig::new(BlkLimits { block_size, physical_exponent: 0, ..BlkLimits::default() });
        let per_block = u64::from(block_size / 512);
        rig.disk.resize((1 << 33) * per_block);
        rig.run_with(defects, |task, driver| {
            let sink = Sink::new();
            assert_eq!(driver.info().capacity, 1 << 33);
            let edge = 1 << 32;
            for lba in [edge / 8, edge - 2, edge - 1, edge, edge + 77, (1 << 33) - 2] {
                go(&driver, read(lba, 2, block_size, sink.to(lba))).unwrap();
                let done = sink.wait(task, 1).remove(0);
                assert_eq!(done.result, Ok(()));
                let whole = bytes(&done.request) == pattern(lba * per_block, 2 * per_block);
                assert!(whole, "{lba:#x}: another sector was read");
                go(&driver, write(lba + 1, &vec![0x5a; block_size as usize], block_size, sink.to(lba))).unwrap();
                assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
                let last = (lba + 2) * per_block - 1;
                assert_eq!(rig.disk.read_sector(last), [0x5a; 512], "{lba:#x}: another sector was written");
                rig.disk.write((lba + 1) * per_block, &pattern((lba + 1) * per_block, per_block)).unwrap();
            }
            go(&driver, Request::new(Op::WriteZeroes, edge + 300, 3, Data::None, sink.to(0))).unwrap();
            assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
            assert_eq!(rig.disk.read_sector((edge + 302) * per_block), [0; 512], "another sector was zeroed");
        });
    }
}

#[test]
fn x27_sectors_beyond_32_bits() {
    far_sectors(GOOD);
}

#[test]
fn x27_sectors_beyond_32_bits_control() {
    let message = says(|| far_sectors(Defects::one(Defect::CutsSectors)));
    assert!(message.contains("another sector was"), "{message}");
}
