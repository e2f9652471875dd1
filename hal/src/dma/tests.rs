//! Streaming memory: bounce buffers where the device needs them and only there, directions, and what a device has outlives everybody.

use super::*;
use crate::broken::{self, Hazard};
use crate::heap;
use crate::hosted::Cpus;
use std::sync::Arc;

const LINE: u64 = 1 << 32;

fn on_one_cpu(f: impl FnOnce(&Arc<Cpus>)) {
    let cpus = Cpus::new(1);
    cpus.run(0, |_| f(&cpus));
    assert_eq!(cpus.ram().live_blocks(), 0, "DMA memory leaked");
}

fn filled(len: usize, constraints: DmaConstraints) -> DmaBuf {
    let mut buf = DmaBuf::new(len, constraints).unwrap();
    buf.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
    buf
}

const BYTE: DmaConstraints = DmaConstraints { max_addr: u64::MAX, align: 1, boundary: 0 };

#[test]
fn what_the_device_can_reach_goes_directly() {
    on_one_cpu(|cpus| {
        let buf = filled(1000, DmaConstraints::ANY);
        let at = buf.segment().addr;
        let mapped = Streaming::<ToDevice>::map(buf, 100..600, BYTE).unwrap();
        assert!(!mapped.is_bounced());
        assert_eq!(mapped.segment(), Segment { addr: at + 100, len: 500 });
        let given = mapped.give();
        let mut seen = [0; 500];
        cpus.ram().read(given.segment().addr, &mut seen).unwrap();
        assert!(seen.iter().enumerate().all(|(i, &byte)| byte == (i + 100) as u8));
        assert_eq!(given.finish(0).segment().addr, at);
    });
}

#[test]
fn mask_alignment_and_boundary_each_need_a_bounce_buffer() {
    on_one_cpu(|_| {
        // Below the line is full: the next block lies above it.
        let low = DmaBuf::new(4 << 20, DmaConstraints::ANY).unwrap();
        let high = filled(4096, DmaConstraints::ANY);
        assert!(low.segment().addr < LINE && high.segment().addr >= LINE);
        drop(low);
        let mapped = Streaming::<ToDevice>::map(high, 0..4096, DmaConstraints::BELOW_4G).unwrap();
        assert!(mapped.is_bounced() && mapped.segment().addr + 4095 < LINE);
        let buf = mapped.unmap();
        for (range, constraints) in [
            (1..513, DmaConstraints { align: 512, ..BYTE }),
            (4000..4096, DmaConstraints { align: 64, ..BYTE }),
            (100..300, DmaConstraints { boundary: 256, ..BYTE }),
        ] {
            let whole = filled(4096, DmaConstraints::ANY);
            let mapped = Streaming::<ToDevice>::map(whole, range.clone(), constraints).unwrap();
            let reached = constraints.admit(mapped.segment());
            assert!(reached && mapped.segment().len as usize == range.len(), "{range:?} {constraints:?}");
            assert!(mapped.is_bounced(), "{range:?} {constraints:?}");
        }
        // The control: without those demands the same ranges go directly.
        assert!(!Streaming::<ToDevice>::map(buf, 1..513, BYTE).unwrap().is_bounced());
    });
}

#[test]
fn data_moves_in_its_direction_only() {
    on_one_cpu(|cpus| {
        let plain = || (0..64_u8).collect::<Vec<_>>();
        let write = |given: Segment| cpus.ram().write(given.addr, &[0xEE; 16]).unwrap();
        let read = |given: Segment| {
            let mut seen = [0; 16];
            cpus.ram().read(given.addr, &mut seen).unwrap();
            seen.to_vec()
        };

        let given = Streaming::<ToDevice, _>::map(plain(), 16..32, BYTE).unwrap().give();
        assert_eq!(read(given.segment()), plain()[16..32]);
        write(given.segment());
        assert_eq!(given.finish(16), plain(), "a device that writes what it is to read changes nothing");

        let given = Streaming::<FromDevice, _>::map(plain(), 16..32, BYTE).unwrap().give();
        assert_eq!(read(given.segment()), [0; 16], "the device does not see what it is to overwrite");
        write(given.segment());
        let back = given.finish(10);
        assert_eq!((&back[..16], &back[16..26], &back[26..]), (&plain()[..16], &[0xEE; 10][..], &plain()[26..]));

        let given = Streaming::<Bidirectional, _>::map(plain().into_boxed_slice(), 0..16, BYTE).unwrap().give();
        assert_eq!(read(given.segment()), plain()[..16]);
        write(given.segment());
        // A host that lies about how much it wrote: all there is, and no more.
        assert_eq!((&given.finish(usize::MAX)[..16], 16), (&[0xEE; 16][..], 16));
    });
}

#[test]
fn a_bounce_buffer_of_ones_own_serves_again_and_forgets() {
    on_one_cpu(|cpus| {
        let bounce = filled(4096, DmaConstraints::ANY);
        let secret = Streaming::<ToDevice, _>::map_with(vec![7_u8; 512], 0..512, BYTE, bounce).unwrap();
        let (_, bounce) = secret.give().finish_keeping(0);
        let bounce = bounce.unwrap();
        let given = Streaming::<FromDevice, _>::map_with(vec![0_u8; 512], 0..512, BYTE, bounce).unwrap().give();
        let mut seen = [1; 512];
        cpus.ram().read(given.segment().addr, &mut seen).unwrap();
        assert_eq!(seen, [0; 512], "the device sees what another request left");
        let (_, bounce) = given.finish_keeping(0);
        let long = Streaming::<FromDevice, _>::map_with(vec![0_u8; 5000], 0..5000, BYTE, bounce.unwrap());
        assert_eq!(long.unwrap_err().error, DmaError::NoMemory);
    });
}

#[test]
fn ranges_that_make_no_sense_come_back_with_an_error() {
    on_one_cpu(|_| {
        #[expect(clippy::reversed_empty_ranges, reason = "what a caller must not get away with")]
        let ranges = [0..0, 5..5, 0..65, 64..65, 9..3, 0..usize::MAX];
        for range in ranges {
            let refused = Streaming::<ToDevice, _>::map(vec![3_u8; 64], range.clone(), BYTE).unwrap_err();
            assert_eq!((refused.error, refused.buffer), (DmaError::BadLayout, vec![3; 64]), "{range:?}");
        }
        let boundary = DmaConstraints { boundary: 256, ..BYTE };
        let refused = Streaming::<ToDevice, _>::map(vec![3_u8; 512], 0..512, boundary).unwrap_err();
        assert_eq!(refused.error, DmaError::BadLayout);
    });
}

/// The requester is gone while the device works: the buffer stays until the driver's slot gives it up.
#[test]
fn what_a_device_has_survives_its_requester() {
    on_one_cpu(|cpus| {
        let mut slot = None;
        {
            let requester = filled(512, DmaConstraints::ANY);
            slot.replace(Streaming::<FromDevice>::map(requester, 0..512, BYTE).unwrap().give());
        }
        assert_eq!(cpus.ram().live_blocks(), 1);
        let given = slot.take().unwrap();
        cpus.ram().write(given.segment().addr, &[9; 512]).unwrap();
        assert_eq!(given.finish(512)[..], [9; 512]);
    });
}

/// The slot itself is dropped, which a driver must not do before a reset: the memory is never freed under the device.
#[test]
fn what_a_device_has_is_never_freed_by_a_drop() {
    let cpus = Cpus::new(1);
    cpus.run(0, |_| {
        let before = abandoned();
        let buf = filled(512, DmaConstraints::ANY);
        let bounced = Streaming::<FromDevice, _>::map(vec![0_u8; 64], 0..64, BYTE).unwrap().give();
        let given = Streaming::<FromDevice>::map(buf, 0..512, BYTE).unwrap().give();
        let (at, bounced_at) = (given.segment().addr, bounced.segment().addr);
        drop(given);
        drop(bounced);
        // The device writes late, into memory that is still its own.
        cpus.ram().write(at, &[1; 512]).unwrap();
        cpus.ram().write(bounced_at, &[1; 64]).unwrap();
        let after = abandoned();
        assert!(after.0 >= before.0 + 2 && after.1 >= before.1 + 576);
        // The control: a mapping that was never given is freed by its drop, and the ledger catches the device that writes then.
        let buf = filled(512, DmaConstraints::ANY);
        let at = buf.segment().addr;
        drop(Streaming::<FromDevice>::map(buf, 0..512, BYTE).unwrap());
        assert!(cpus.ram().write(at, &[1; 512]).is_err());
    });
    assert_eq!(cpus.ram().live_blocks(), 2);
}

/// T-FAILN over an operation with three allocations: each failure is an error, leaves nothing behind, and spares the caller's buffer.
#[test]
fn each_allocation_that_fails_is_an_error_and_leaks_nothing() {
    on_one_cpu(|cpus| {
        type Parts = (Coherent, DmaBuf, Streaming<ToDevice, Vec<u8>>);
        let set_up = || -> Result<Parts, DmaError> {
            let ring = Coherent::new(4096, DmaConstraints::ANY)?;
            let status = DmaBuf::new(16, DmaConstraints::ANY)?;
            let data = Streaming::map(vec![1; 512], 0..512, BYTE).map_err(|refused| {
                assert_eq!(refused.buffer, [1; 512]);
                refused.error
            })?;
            Ok((ring, status, data))
        };
        let (result, failures) = heap::each_failure(set_up, |n, result| {
            assert_eq!(result.err(), Some(DmaError::NoMemory), "allocation {n}");
            assert_eq!(cpus.ram().live_blocks(), 0, "allocation {n} failed, and something stayed");
        });
        assert_eq!((failures, cpus.ram().live_blocks()), (3, 3));
        drop(result);
    });
}

/// The control: an operation that keeps what it has when it fails is caught by the same look at the ledger.
#[test]
#[should_panic(expected = "and something stayed")]
fn each_allocation_that_fails_control_a_leak() {
    let cpus = Cpus::new(1);
    cpus.run(0, |_| {
        let leaks = || -> Result<DmaBuf, DmaError> {
            let first = std::mem::ManuallyDrop::new(DmaBuf::new(16, DmaConstraints::ANY)?);
            let _second = DmaBuf::new(16, DmaConstraints::ANY)?;
            Ok(std::mem::ManuallyDrop::into_inner(first))
        };
        let _ = heap::each_failure(leaks, |n, _| {
            assert_eq!(cpus.ram().live_blocks(), 0, "allocation {n} failed, and something stayed");
        });
    });
}

/// Debug builds know who holds memory.
#[cfg(debug_assertions)]
#[test]
fn the_call_site_of_live_memory_is_known() {
    on_one_cpu(|_| {
        let held = DmaBuf::new(4321, DmaConstraints::ANY).unwrap();
        let line = line!() - 1;
        let live = || {
            let mut found = None;
            heap::by_site(|site| {
                if site.site.file().ends_with("dma/tests.rs") && site.site.line() == line {
                    found = Some((site.live_blocks, site.live_bytes));
                }
            });
            found
        };
        assert_eq!(live(), Some((1, 4321)));
        drop(held);
        assert_eq!(live(), Some((0, 0)));
    });
}

/// Memory of every kind, and of lengths that are no sizes of anything: each block is freed with the length that it was asked for with, in
/// the count and towards the platform, whose RAM refuses any other. One at a time: a refusal must meet no other block.
fn lengths() {
    type Make = fn(usize) -> Box<dyn core::any::Any>;
    let kinds: [Make; 4] = [
        |len| Box::new(Coherent::new(len, DmaConstraints::ANY).unwrap()),
        |len| Box::new(DmaBuf::new(len, DmaConstraints { align: 16, ..BYTE }).unwrap()),
        |len| Box::new(DmaBuf::new(len, DmaConstraints { boundary: 1 << 16, ..DmaConstraints::BELOW_4G }).unwrap()),
        |len| Box::new(Streaming::<FromDevice, _>::map(vec![0_u8; len], 0..len, BYTE).unwrap()),
    ];
    on_one_cpu(|_| {
        let before = stats();
        for (kind, len) in (0..4).flat_map(|kind| [1, 7, 511, 512, 513, 4095, 4097, 10_000].map(|len| (kind, len))) {
            let memory = kinds[kind](len);
            let held = stats();
            let more = (held.live_blocks - before.live_blocks, held.live_bytes - before.live_bytes);
            assert_eq!(more, (1, len as u64), "kind {kind}");
            drop(memory);
            let after = stats();
            assert_eq!((after.live_blocks, after.live_bytes), (before.live_blocks, before.live_bytes), "kind {kind}");
        }
    });
}

#[test]
fn p_06_memory_is_freed_with_its_length() {
    lengths();
}

#[test]
#[should_panic(expected = "freed DMA memory at 0x")]
fn p_06_memory_is_freed_with_its_length_control() {
    broken::with(Hazard::FreedLonger, lengths);
}
