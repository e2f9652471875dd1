//! P-08: what each transport takes at most, and one block less and one more. The parts are measured without the block layer's own check.

use undercroft_hal::dma::{DmaBuf, DmaConstraints};

use super::model::*;
use super::{Hazard, with};
use crate::*;

/// What a driver tells of its transport: segments, bytes of a segment and in all, where data may lie.
type Transport = (&'static str, u16, u32, u32, DmaConstraints);

const MIB_8: u32 = 8 << 20;
const ANY: DmaConstraints = DmaConstraints::ANY;
const TRANSPORTS: [Transport; 8] = [
    ("virtio-blk", 62, MIB_8, MIB_8, ANY),
    ("virtio-blk without SEG_MAX, SIZE_MAX of a page", 1, 4096, 4096, ANY),
    ("virtio-scsi", 62, MIB_8, MIB_8, ANY),
    ("virtio-scsi, MAX_SECTORS of 128", 62, 65_536, 65_536, ANY),
    ("pvscsi", 255, MIB_8, MIB_8, ANY),
    ("ata by DMA", 1024, MIB_8, MIB_8, DmaConstraints::BELOW_4G),
    ("ata by programmed I/O", 1024, MIB_8, MIB_8, ANY),
    // None of ours: ATA cuts at its boundary itself.
    ("a transport with a boundary", 4, 65_536, 131_072, DmaConstraints { boundary: 65_536, ..ANY }),
];

/// A piece to be: its buffer's alignment, how far into that it begins, its bytes.
type Shape = (usize, usize, usize);
/// A request's data, and into how many parts it is to be cut.
type Case = (&'static str, Vec<Shape>, usize);

fn piece((align, start, len): Shape) -> Piece {
    Piece::new(DmaBuf::new(start + len, DmaConstraints { align, ..DmaConstraints::BELOW_4G }).unwrap(), start, len)
}

/// At each limit, one block below and one above it.
fn cases((_, segments, segment, transfer, dma): Transport, block: usize) -> Vec<Case> {
    let plain = |len| (4096, 0, len);
    let mut cases: Vec<Case> = Vec::new();
    for (change, parts) in [(-1isize, 1), (0, 1), (1, 2)] {
        let count = (segments as usize).saturating_add_signed(change);
        if count * block <= transfer as usize + block && count > 0 {
            cases.push(("segments", (0..count).map(|_| plain(block)).collect(), parts));
        }
        let change = change * block as isize;
        let len = (segment as usize).saturating_add_signed(change);
        if len > 0 {
            cases.push(("the segment's size", vec![plain(len)], parts));
        }
        if segments > 1 {
            let half = transfer as usize / 2;
            let rest = half.saturating_add_signed(change);
            cases.push(("the transfer's size", vec![plain(half), plain(rest)], parts));
        }
        if dma.boundary != 0 {
            let half = dma.boundary as usize / 2;
            let len = half.saturating_add_signed(change);
            cases.push(("the boundary", vec![(half * 2, half, len)], parts));
        }
    }
    cases
}

/// Whether the parts that the device saw keep the limits and are the request, in order.
fn measure(limits: &Limits, seen: &[Seen], segments: &[Vec<undercroft_hal::dma::Segment>], block: usize) {
    let mut next = 7;
    for (part, segments) in seen.iter().zip(segments) {
        assert_eq!(part.lba, next, "parts follow one another");
        next += u64::from(part.blocks);
        assert!(segments.len() <= usize::from(limits.max_segments), "too many segments");
        let bytes: u32 = segments.iter().map(|segment| segment.len).sum();
        assert_eq!(bytes as usize, part.blocks as usize * block, "a part's data is not its blocks");
        assert!(bytes <= limits.max_transfer_bytes, "too long a transfer");
        for segment in segments {
            assert!(segment.len <= limits.max_segment_bytes, "too long a segment");
            let (first, last) = (segment.addr, segment.addr + u64::from(segment.len) - 1);
            assert!(last <= limits.dma.max_addr, "out of reach");
            let boundary = limits.dma.boundary;
            assert!(boundary == 0 || first / boundary == last / boundary, "a segment across a boundary");
        }
    }
}

fn shaped(rig: &Rig<'_>, (_, segments, segment, transfer, dma): Transport, block: usize) -> Limits {
    let mut state = rig.model.lock();
    let block = block as u32;
    state.hollow = true;
    let limits = Limits {
        max_segments: segments,
        max_segment_bytes: segment,
        joint: 0,
        max_transfer_bytes: transfer,
        dma,
        ..state.info.limits
    };
    state.info = Info { capacity: 1 << 32, block_size: block, physical_block_size: block, limits, ..state.info };
    limits
}

fn run(rig: &Rig<'_>, data: Vec<Piece>, block: usize) -> Result<(), Error> {
    let bytes: usize = data.iter().map(Piece::len).sum();
    rig.sink.done.lock().unwrap().clear();
    let mut request = rig.request(1, Op::Write, 7, 1);
    (request.blocks, request.data) = (bytes.div_ceil(block) as u32, Data::List(data));
    rig.model.lock().seen.clear();
    rig.model.lock().segments.clear();
    let submitted = rig.queue.submit(request);
    rig.queue.commit();
    rig.settle();
    match submitted {
        Ok(_) => rig.result(1).expect("ended"),
        Err(rejected) => Err(rejected.error().expect("there is room")),
    }
}

/// P-08.
fn all_limits() -> Result<(), String> {
    for transport in TRANSPORTS {
        for block in [512, 4096] {
            try_with(2, Features::VOLATILE_CACHE, TIMES, |rig| {
                let limits = shaped(rig, transport, block);
                for (what, shapes, parts) in cases(transport, block) {
                    let blocks = (shapes.iter().map(|shape| shape.2).sum::<usize>() / block) as u32;
                    let name = format!("{}, {what}, {} pieces, {blocks} blocks of {block}", transport.0, shapes.len());
                    rig.sink.done.lock().unwrap().clear();
                    assert_eq!(
                        run(rig, shapes.into_iter().map(piece).collect(), block),
                        Ok(()),
                        "{name}: not carried out"
                    );
                    let state = rig.model.lock();
                    measure(&limits, &state.seen, &state.segments, block);
                    let seen: u32 = state.seen.iter().map(|part| part.blocks).sum();
                    assert_eq!((state.seen.len(), seen), (parts, blocks), "{name}: its parts");
                }
            })?;
        }
    }
    Ok(())
}

#[test]
fn p_08_at_below_and_above_each_limit_of_each_transport() {
    all_limits().unwrap();
}

#[test]
fn p_08_at_below_and_above_each_limit_of_each_transport_control() {
    for (hazard, caught) in
        [(Hazard::PartTooLong, "not carried out"), (Hazard::BoundaryUnseen, "a segment across a boundary")]
    {
        let error = with(hazard, all_limits).unwrap_err();
        assert!(error.contains(caught), "{hazard:?}: {error}");
    }
}

/// Lengths that are no whole sectors, and memory whose last byte is out of reach: nothing can be done about those.
#[test]
fn p_08_what_no_cut_can_mend_is_refused() {
    for transport in TRANSPORTS {
        with_rig(2, |rig| {
            let limits = shaped(rig, transport, 512);
            for (len, result) in [(511, Err(Error::BadLength)), (512, Ok(())), (513, Err(Error::BadLength))] {
                assert_eq!(run(rig, vec![piece((4096, 0, len))], 512), result, "{} {len}", transport.0);
            }
            for (over, result) in [(-1, Err(Error::Unreachable)), (0, Ok(())), (1, Ok(()))] {
                let data = piece((4096, 0, 1024));
                let last = data.segment().addr + 1023;
                rig.model.lock().info.limits.dma.max_addr = last.saturating_add_signed(over);
                assert_eq!(run(rig, vec![data], 512), result, "{} {over}", transport.0);
                rig.model.lock().info.limits = limits;
            }
        });
    }
}

/// P-08: a device that takes one range of whole pages gets parts whose pieces meet at pages, and nothing else.
fn joints() -> Result<(), String> {
    let transport = ("a transport of whole pages", 64, MIB_8, MIB_8, ANY);
    let (page, tail, head, middle) = ((4096, 0, 4096), (4096, 3584, 512), (4096, 0, 512), (4096, 512, 512));
    try_with(2, Features::VOLATILE_CACHE, TIMES, |rig| {
        let limits = Limits { joint: 4096, ..shaped(rig, transport, 512) };
        rig.model.lock().info.limits = limits;
        for (shapes, parts) in [
            (vec![page; 5], 1),
            (vec![tail, page, page, head], 1),
            (vec![middle; 3], 3),
            (vec![page, middle, page], 3),
            (vec![page, head, page], 2),
            (vec![head, page], 2),
            (vec![middle], 1),
        ] {
            let what = format!("{shapes:?}");
            assert_eq!(run(rig, shapes.into_iter().map(piece).collect(), 512), Ok(()), "{what}: not carried out");
            let state = rig.model.lock();
            measure(&limits, &state.seen, &state.segments, 512);
            for segments in &state.segments {
                let meet = segments.windows(2).all(|pair| {
                    (pair[0].addr + u64::from(pair[0].len)).is_multiple_of(4096) && pair[1].addr.is_multiple_of(4096)
                });
                assert!(meet, "{what}: a hole between pieces");
            }
            assert_eq!(state.seen.len(), parts, "{what}: its parts");
        }
    })
}

#[test]
fn p_08_pieces_meet_where_the_device_wants() {
    joints().unwrap();
}

#[test]
fn p_08_pieces_meet_where_the_device_wants_control() {
    let error = with(Hazard::JointUnseen, joints).unwrap_err();
    assert!(error.contains("a hole between pieces"), "{error}");
}
