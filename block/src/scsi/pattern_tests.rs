//! Patterns of defects that were mended late elsewhere, and blocks beyond 2^32, each with a control.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use undercroft_hal::Task;

use super::testing::{MockHost, Reply, Sink, Unit, machine, one};
use super::wire::StandardInquiry;
use super::{Bus, Host, ProbeError};
use crate::broken::{Hazard, with};
use crate::{BlockDevice, Error, Op, Request};

/// Runs `test` with a unit before a bus.
fn on_bus(unit: Unit, test: impl FnOnce(&Task, &Arc<MockHost>, &Bus)) {
    let machine = machine();
    machine.run(|cx| {
        let host = MockHost::new(8, [(0, unit)]);
        let bus = Bus::new(host.clone());
        test(cx, &host, &bus);
    });
    assert_eq!(machine.live_dma_blocks(), 0, "all buffers are back");
}

/// The message of the panic of `f` with a hazard put back.
fn caught(hazard: Hazard, f: impl FnOnce()) -> String {
    let payload = with(hazard, || catch_unwind(AssertUnwindSafe(f))).expect_err("the hazard goes unseen");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).into()),
    }
}

/// A unit that fails an INQUIRY for more than the standard data is a disk. (The model checks that each command's allocation length is that of
/// its data.)
fn short_first() {
    let mut unit = Unit::new(4096, 512);
    unit.inquiry_most = StandardInquiry::BYTES;
    on_bus(unit, |cx, host, bus| {
        let found = bus.scan(cx).unwrap();
        assert_eq!(found.disks.len(), 1, "no disk, because too much was asked for: {:?}", found.others);
        let first = host.unit(0, |unit| unit.commands[0].clone());
        assert_eq!(first, [0x12, 0, 0, 0, 36, 0]);
        assert!(found.disks[0].identity().model.starts_with("VENDOR"));
    });
}

#[test]
fn p_16_the_first_inquiry_is_the_short_one() {
    short_first();
}

#[test]
fn p_16_the_first_inquiry_is_the_short_one_control() {
    let message = caught(Hazard::LongInquiry, short_first);
    assert!(message.contains("no disk, because too much was asked for"), "{message}");
}

/// A capacity that could not be read, or not whole, is no capacity: neither at first nor later.
fn unread_capacity() {
    on_bus(Unit::new(4096, 512), |cx, host, bus| {
        let disk = bus.scan(cx).unwrap().disks.remove(0);
        host.unit(0, |unit| unit.blocks = 9999);
        let short = Reply { residual: 32 - 11, ..Reply::good() };
        for reply in [Reply::sense(3, 0x11, 0), short] {
            host.unit(0, |unit| unit.script.extend([reply, Reply::sense(4, 0x44, 0)]));
            assert!(bus.refresh(cx, &disk).is_err(), "a capacity that was not read is used");
            assert_eq!(disk.info().capacity, 4096);
        }
        bus.refresh(cx, &disk).unwrap();
        assert_eq!(disk.info().capacity, 9999);
    });
    let mut unit = Unit::new(4096, 512);
    unit.unknown = vec![0x9e, 0x25];
    on_bus(unit, |cx, _, bus| {
        let found = bus.scan(cx).unwrap();
        assert!(found.disks.is_empty());
        assert_eq!(found.others[0].1, ProbeError::Failed(Error::Unsupported));
    });
}

#[test]
fn p_17_a_capacity_that_could_not_be_read_is_not_used() {
    unread_capacity();
}

#[test]
fn p_17_a_capacity_that_could_not_be_read_is_not_used_control() {
    let message = caught(Hazard::UsesUnread, unread_capacity);
    assert!(message.contains("a capacity that was not read is used"), "{message}");
}

/// A unit without blocks, by either command, is no disk; one that loses its blocks takes no request for any.
fn no_blocks() {
    for version in [3, 5] {
        let mut unit = Unit::new(0, 512);
        unit.version = version;
        on_bus(unit, |cx, host, bus| {
            let found = bus.scan(cx).unwrap();
            assert_eq!(found.disks.len(), 0, "a disk of {} blocks, made of none", found.disks[0].info().capacity);
            assert_eq!(found.others[0].1, ProbeError::Empty);
            host.unit(0, |unit| unit.blocks = 16);
            let disk = bus.scan(cx).unwrap().disks.remove(0);
            host.unit(0, |unit| unit.blocks = 0);
            bus.refresh(cx, &disk).unwrap();
            assert_eq!(disk.info().capacity, 0);
        });
    }
}

#[test]
fn p_19_a_unit_without_blocks() {
    no_blocks();
}

#[test]
fn p_19_a_unit_without_blocks_control() {
    let message = caught(Hazard::EmptyIsHuge, no_blocks);
    assert!(message.contains("blocks, made of none"), "{message}");
}

/// Commands for blocks on both sides of 2^32: the long form where the short does not reach, and every bit of the block.
fn far_blocks() {
    on_bus(Unit::new(1 << 33, 512), |cx, host, bus| {
        let disk = bus.scan(cx).unwrap().disks.remove(0);
        assert_eq!(disk.info().capacity, 1 << 33);
        let (sink, edge) = (Arc::new(Sink::default()), 1 << 32);
        for lba in [0, edge - 2, edge - 1, edge, edge + 1, (1 << 33) - 1] {
            for (op, ten, sixteen) in [(Op::Read, 0x28, 0x88), (Op::Write, 0x2a, 0x8a), (Op::WriteZeroes, 0x93, 0x93)] {
                host.unit(0, |unit| {
                    unit.commands.clear();
                    unit.script.push_back(Reply::good());
                });
                assert_eq!(sink.simple(cx, &*disk, op, lba, 1), Ok(()));
                let cdb = host.unit(0, |unit| unit.commands[0].clone());
                let field = if cdb.len() == 10 { &cdb[2..6] } else { &cdb[2..10] };
                let block = field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                assert_eq!(block, lba, "{op:?}: another block");
                assert_eq!(cdb[0], if lba < edge { ten } else { sixteen });
            }
        }
    });
}

#[test]
fn x27_blocks_beyond_32_bits() {
    far_blocks();
}

#[test]
fn x27_blocks_beyond_32_bits_control() {
    let message = caught(Hazard::CutsBlocks, far_blocks);
    assert!(message.contains("another block"), "{message}");
}

/// A command that is never given back does not keep the host that has it: whoever lets go of the disk lets go of the host, which then ends it.
fn host_goes_with_its_disks() {
    let machine = machine();
    machine.run(|cx| {
        let (host, sink) = (MockHost::new(8, [(0, Unit::new(4096, 512))]), Arc::new(Sink::default()));
        let disk = one(cx, &host);
        host.state.lock().unwrap().silent = true;
        disk.submit(Request::flush(sink.completion(0))).unwrap();
        disk.commit();
        cx.run_pending();
        drop(disk);
        assert_eq!(Arc::strong_count(&host), 1, "a command in flight keeps its host");
        // As the host does when it goes.
        host.state.lock().unwrap().silent = false;
        host.commit();
        cx.wait_until(|| !sink.done.lock().unwrap().is_empty());
    });
}

#[test]
fn a_command_in_flight_does_not_keep_its_host() {
    host_goes_with_its_disks();
}

#[test]
fn a_command_in_flight_does_not_keep_its_host_control() {
    let message = caught(Hazard::UnitKeepsHost, host_goes_with_its_disks);
    assert!(message.contains("a command in flight keeps its host"), "{message}");
}
