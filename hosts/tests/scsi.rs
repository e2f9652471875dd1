//! virtio-scsi as a device: commands, addressing, sense, task management, events.

mod mini;

use std::rc::Rc;

use mini::{Mini, NEXT, WRITE};
use undercroft_hosts::scsi::{Lun, LunSettings, Sense, Target};
use undercroft_hosts::virtio::{Breach, Fault, FaultScript, Scsi, ScsiEvent, VirtioPci};
use undercroft_hosts::{Config, Disk, Handle, Machine, SECTOR};

const SEED: u64 = 4;
const GOOD: Answer = Answer { response: 0, status: 0, sense: None, residual: 0 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    response: u8,
    status: u8,
    sense: Option<Sense>,
    residual: u32,
}

fn lun(sectors: u64, block_size: u32) -> Lun {
    Lun::new(Disk::patterned(sectors, SEED), LunSettings { block_size, ..LunSettings::default() })
}

/// A target with units 0, 5 (4096-byte blocks) and 300.
fn target() -> Target {
    Target::new().with(0, lun(1 << 12, 512)).with(5, lun(1 << 12, 4096)).with(300, lun(1 << 34, 512))
}

fn with(f: impl FnOnce(&Rc<Machine>, &Handle<VirtioPci<Scsi>>, &mut Mini)) -> Vec<Breach> {
    let machine = Machine::new(Config::default());
    let scsi = machine.add_virtio_pci(Scsi::new(target()));
    machine.run(|task| {
        let mut mini = Mini::pci(task, scsi.address());
        mini.bring_up(u64::MAX >> 31, 3, 16);
        f(&machine, &scsi, &mut mini);
    });
    scsi.with(|d| d.breaches())
}

fn address(target: u8, lun: u16) -> [u8; 8] {
    let [high, low] = lun.to_be_bytes();
    [1, target, high | if lun > 255 { 0x40 } else { 0 }, low, 0, 0, 0, 0]
}

/// Offers a command on the first request queue, from descriptor `first`, with data at 4096 of the page.
fn offer(mini: &mut Mini, first: u16, to: [u8; 8], tag: u64, cdb: &[u8], out: u32, into: u32) {
    let queue = &mut mini.queues[2];
    let base = 256 * usize::from(first);
    let mut header = [0u8; 51];
    header[..8].copy_from_slice(&to);
    header[8..16].copy_from_slice(&tag.to_le_bytes());
    header[19..19 + cdb.len()].copy_from_slice(cdb);
    queue.page.write(base, header);
    queue.page.write(base + 64, [0xffu8; 108]);
    let data = queue.page.addr(32768);
    let mut parts = vec![(queue.page.addr(base), 51, 0)];
    if out > 0 {
        parts.push((data, out, 0));
    }
    parts.push((queue.page.addr(base + 64), 108, WRITE));
    if into > 0 {
        parts.push((data, into, WRITE));
    }
    let last = parts.len() - 1;
    for (at, (addr, len, flags)) in parts.into_iter().enumerate() {
        let slot = first + at as u16;
        queue.descriptor(slot, addr, len, flags | if at < last { NEXT } else { 0 }, slot + 1);
    }
    queue.offer(first);
    mini.notify(2);
}

fn answer(mini: &Mini, first: u16) -> Answer {
    let bytes: [u8; 108] = mini.queues[2].page.read(256 * usize::from(first) + 64);
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let sense = (word(0) > 0 && bytes[11] != 0xff).then(|| Sense::new(bytes[14], bytes[24], bytes[25]));
    Answer { response: bytes[11], status: bytes[10], sense, residual: word(4) }
}

fn command_to(mini: &mut Mini, to: [u8; 8], cdb: &[u8], out: u32, into: u32) -> Answer {
    offer(mini, 0, to, 1, cdb, out, into);
    assert_eq!(mini.queues[2].pop().map(|(id, _)| id), Some(0));
    answer(mini, 0)
}

fn command(mini: &mut Mini, lun: u16, cdb: &[u8], out: u32, into: u32) -> Answer {
    command_to(mini, address(0, lun), cdb, out, into)
}

/// Takes away the unit attention of the last reset.
fn ready(mini: &mut Mini) {
    for lun in [0, 5, 300] {
        assert_eq!(command(mini, lun, &[0; 6], 0, 0), check(Sense::RESET));
    }
}

fn check(sense: Sense) -> Answer {
    Answer { status: 2, sense: Some(sense), ..GOOD }
}

fn data<const N: usize>(mini: &Mini) -> [u8; N] {
    mini.queues[2].page.read(32768)
}

#[test]
fn unit_attention_after_reset() {
    let breaches = with(|_, _, mini| {
        // Not reported to INQUIRY and REPORT LUNS, taken by REQUEST SENSE.
        assert_eq!(command(mini, 0, &[0x12, 0, 0, 0, 36, 0], 0, 36), GOOD);
        assert_eq!(command(mini, 5, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 0, 256).status, 0);
        assert_eq!(command(mini, 0, &[0x03, 0, 0, 0, 18, 0], 0, 18), GOOD);
        assert_eq!(&data::<18>(mini)[..3], [0x70, 0, 6]);
        assert_eq!(command(mini, 0, &[0; 6], 0, 0), GOOD);
        assert_eq!(command(mini, 5, &[0; 6], 0, 0), check(Sense::RESET));
        assert_eq!(command(mini, 5, &[0; 6], 0, 0), GOOD);
    });
    assert_eq!(breaches, []);
}

/// X23: a list with holes and with numbers beyond one byte; a number is not a count.
#[test]
fn x23_sparse_luns() {
    with(|_, _, mini| {
        let report = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        for to in [address(0, 0), [0xc1, 0x01, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(command_to(mini, to, &report, 0, 256).residual, 256 - 32);
            let list: [u8; 32] = data(mini);
            assert_eq!(list[..8], [0, 0, 0, 24, 0, 0, 0, 0]);
            let numbers: Vec<_> = list[8..].chunks(8).map(|lun| (lun[0], lun[1])).collect();
            assert_eq!(numbers, [(0, 0), (0, 5), (0x41, 44)]);
        }
        ready(mini);
        // The flat form of a small number is as good.
        assert_eq!(command_to(mini, [1, 0, 0x40, 5, 0, 0, 0, 0], &[0; 6], 0, 0), GOOD);
        assert_eq!(command(mini, 1, &[0; 6], 0, 0), check(Sense::NO_UNIT));
        assert_eq!(command(mini, 1, &[0x12, 0, 0, 0, 36, 0], 0, 36), GOOD);
        assert_eq!(data::<1>(mini), [0x7f]);
        assert_eq!(command_to(mini, address(1, 0), &[0; 6], 0, 0).response, 3);
        assert_eq!(command_to(mini, [9; 8], &[0; 6], 0, 0).response, 3);
    });
}

#[test]
fn capacities() {
    with(|_, _, mini| {
        ready(mini);
        assert_eq!(command(mini, 0, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, 8), GOOD);
        assert_eq!(data::<8>(mini), [0, 0, 0x0f, 0xff, 0, 0, 2, 0]);
        assert_eq!(command(mini, 5, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, 8), GOOD);
        assert_eq!(data::<8>(mini), [0, 0, 0x01, 0xff, 0, 0, 0x10, 0]);
        assert_eq!(command(mini, 300, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, 8), GOOD);
        assert_eq!(data::<8>(mini), [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
        let mut long = [0; 16];
        (long[0], long[1], long[13]) = (0x9e, 0x10, 32);
        assert_eq!(command(mini, 300, &long, 0, 32), GOOD);
        let got: [u8; 32] = data(mini);
        assert_eq!(got[..16], [0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0xc0, 0]);
    });
}

#[test]
fn reads_and_writes_of_each_length() {
    let breaches = with(|_, scsi, mini| {
        ready(mini);
        let reads: [&[u8]; 4] = [
            &[0x08, 0, 0, 9, 1, 0],
            &[0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0],
            &[0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0],
            &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0],
        ];
        for cdb in reads {
            mini.queues[2].page.write(32768, [0u8; 4096]);
            assert_eq!(command(mini, 0, cdb, 0, 512), GOOD);
            assert_eq!(data::<512>(mini), Disk::pattern(SEED, 9));
            assert_eq!(command(mini, 5, cdb, 0, 4096), GOOD);
            assert_eq!(data::<512>(mini), Disk::pattern(SEED, 72));
        }
        // More than one block.
        assert_eq!(command(mini, 0, &[0x28, 0, 0, 0, 0, 9, 0, 0, 3, 0], 0, 1536), GOOD);
        let three: [u8; 1536] = data(mini);
        let parts: Vec<_> = three.chunks(SECTOR).collect();
        assert_eq!(parts, [9, 10, 11].map(|at| Disk::pattern(SEED, at)));
        let disk = scsi.with(|d| d.model().target(0).unwrap().lun(0).unwrap().disk.clone());
        let writes: [&[u8]; 4] = [
            &[0x0a, 0, 0, 1, 1, 0],
            &[0x2a, 0, 0, 0, 0, 2, 0, 0, 1, 0],
            &[0xaa, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0],
            &[0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0],
        ];
        for (at, cdb) in (1u8..).zip(writes) {
            mini.queues[2].page.write(32768, [at; SECTOR]);
            assert_eq!(command(mini, 0, cdb, 512, 0), GOOD);
            assert_eq!(disk.read_sector(at.into()), [at; SECTOR]);
        }
        // The last one had FUA.
        assert_eq!((disk.volatile_sectors(), disk.durable_sector(4)), (3, [4; SECTOR]));
        assert_eq!(command(mini, 0, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, 0), GOOD);
        assert_eq!((disk.volatile_sectors(), disk.flushes()), (0, 1));
    });
    assert_eq!(breaches, []);
}

#[test]
fn what_is_refused() {
    with(|_, scsi, mini| {
        ready(mini);
        assert_eq!(command(mini, 0, &[0x28, 0, 0, 0, 0x10, 0, 0, 0, 1, 0], 0, 512).sense, Some(Sense::OUT_OF_RANGE));
        assert_eq!(command(mini, 0, &[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], 0, 512).sense, Some(Sense::INVALID_FIELD));
        assert_eq!(command(mini, 0, &[0xee; 6], 0, 0), check(Sense::INVALID_OPCODE));
        // Less room than the command moves.
        let overrun = command(mini, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0], 0, 512);
        assert_eq!((overrun.response, overrun.residual), (1, 512));
        // More room than it moves.
        assert_eq!(command(mini, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 0, 2048).residual, 1536);
        scsi.with(|d| {
            let lun = d.model().target(0).unwrap().lun(0).unwrap();
            lun.disk.set_bad(7);
            lun.settings.synchronizes = false;
        });
        assert_eq!(command(mini, 0, &[0x28, 0, 0, 0, 0, 7, 0, 0, 1, 0], 0, 512).sense, Some(Sense::READ_ERROR));
        assert_eq!(command(mini, 0, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, 0), check(Sense::INVALID_OPCODE));
        scsi.with(|d| d.model().target(0).unwrap().lun(0).unwrap().disk.set_read_only(true));
        let write = command(mini, 0, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512, 0);
        assert_eq!(write.sense, Some(Sense::WRITE_PROTECTED));
        assert_eq!(command(mini, 0, &[0x1a, 0, 0x08, 0, 64, 0], 0, 64).status, 0);
        assert_eq!(data::<8>(mini), [23, 0, 0x90, 0, 8, 18, 4, 0]);
        assert_eq!(command(mini, 0, &[0x1a, 0, 0x02, 0, 64, 0], 0, 64).sense, Some(Sense::INVALID_FIELD));
        scsi.with(|d| d.model().target(0).unwrap().lun(0).unwrap().not_ready = Some(Sense::new(2, 4, 1)));
        assert_eq!(command(mini, 0, &[0; 6], 0, 0), check(Sense::new(2, 4, 1)));
    });
}

#[test]
fn vital_product_data() {
    with(|_, _, mini| {
        let mut page = |page: u8| {
            mini.queues[2].page.write(32768, [0u8; 128]);
            let answer = command(mini, 5, &[0x12, 1, page, 0, 128, 0], 0, 128);
            (answer.sense, data::<128>(mini))
        };
        assert_eq!(page(0x00).1[..10], [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
        assert_eq!(page(0x80).1[..6], [0, 0x80, 0, 2, b'S', b'0']);
        let identification = page(0x83).1;
        assert_eq!(identification[..8], [0, 0x83, 0, 26, 2, 1, 0, 10]);
        assert_eq!(identification[18..30], [1, 3, 0, 8, 0x50, 0, 0xc5, 0, 0, 0, 0, 1]);
        let limits = page(0xb0).1;
        assert_eq!(limits[..12], [0, 0xb0, 0, 60, 1, 0, 0, 8, 0, 0, 0xff, 0xff]);
        assert_eq!(limits[20..28], [0, 0x10, 0, 0, 0, 0, 0, 16]);
        assert_eq!(page(0xb1).1[..6], [0, 0xb1, 0, 60, 0, 1]);
        assert_eq!(page(0xb2).1[..8], [0, 0xb2, 0, 4, 0, 0xe4, 2, 0]);
        assert_eq!(page(0xb3).0, Some(Sense::INVALID_FIELD));
    });
}

#[test]
fn unmap_and_write_same() {
    with(|_, scsi, mini| {
        ready(mini);
        let disk = scsi.with(|d| d.model().target(0).unwrap().lun(0).unwrap().disk.clone());
        let mut list = [0u8; 40];
        (list[1], list[3]) = (38, 32);
        (list[15], list[19]) = (10, 2);
        (list[31], list[35]) = (20, 1);
        mini.queues[2].page.write(32768, list);
        assert_eq!(command(mini, 0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], 40, 0), GOOD);
        let zero: Vec<u64> = (0..64).filter(|at| disk.read_sector(*at) == [0; SECTOR]).collect();
        assert_eq!(zero, [10, 11, 20]);
        mini.queues[2].page.write(32768, [5u8; 512]);
        assert_eq!(command(mini, 0, &[0x41, 0, 0, 0, 0, 30, 0, 0, 2, 0], 512, 0), GOOD);
        assert_eq!((disk.read_sector(30), disk.read_sector(31)), ([5; SECTOR], [5; SECTOR]));
        let no_data = [0x93, 9, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 3, 0, 0];
        assert_eq!(command(mini, 0, &no_data, 0, 0), GOOD);
        assert_eq!(disk.read_sector(42), [0; SECTOR]);
        let nothing = command(mini, 0, &[0x41, 0, 0, 0, 0, 30, 0, 0, 0, 0], 512, 0);
        assert_eq!(nothing.sense, Some(Sense::INVALID_FIELD));
    });
}

#[test]
fn injected_answers() {
    let breaches = with(|_, scsi, mini| {
        let script = FaultScript::none()
            .at(0, Fault::Error)
            .at(1, Fault::Status(5))
            .at(2, Fault::ScsiStatus(0x28))
            .at(3, Fault::Sense(0xb, 0x47, 3));
        scsi.with(|d| d.set_faults(script));
        let answers: Vec<_> = (0..4).map(|_| command(mini, 0, &[0; 6], 0, 0)).collect();
        assert_eq!((answers[0].response, answers[1].response), (9, 5));
        assert_eq!((answers[2].response, answers[2].status, answers[2].sense), (0, 0x28, None));
        assert_eq!(answers[3], check(Sense::new(0xb, 0x47, 3)));
    });
    assert_eq!(breaches, []);
}

/// Sends a task management function; returns the response.
fn manage(mini: &mut Mini, function: u8, to: [u8; 8], tag: u64) -> Option<u8> {
    let queue = &mut mini.queues[0];
    let mut request = [0u8; 24];
    request[4] = function;
    request[8..16].copy_from_slice(&to);
    request[16..].copy_from_slice(&tag.to_le_bytes());
    queue.page.write(0, request);
    queue.page.write(64, 0xffu8);
    queue.descriptor(0, queue.page.addr(0), 24, NEXT, 1);
    queue.descriptor(1, queue.page.addr(64), 1, WRITE, 0);
    queue.offer(0);
    mini.notify(0);
    let queue = &mut mini.queues[0];
    queue.pop().map(|(id, len)| {
        assert_eq!((id, len), (0, 1));
        queue.page.read(64)
    })
}

#[test]
fn task_management_ends_what_never_ends() {
    let breaches = with(|_, scsi, mini| {
        ready(mini);
        scsi.with(|d| d.set_faults(FaultScript::none().from(0, Fault::Never)));
        let tur = [0; 6];
        offer(mini, 0, address(0, 0), 10, &tur, 0, 0);
        offer(mini, 3, address(0, 0), 11, &tur, 0, 0);
        offer(mini, 6, address(0, 5), 12, &tur, 0, 0);
        offer(mini, 9, address(0, 300), 13, &tur, 0, 0);
        assert_eq!(mini.queues[2].pop(), None);
        // ABORT TASK of another tag does nothing, of the right one ends it before it is itself answered.
        assert_eq!(manage(mini, 0, address(0, 0), 99), Some(0));
        assert_eq!(mini.queues[2].pop(), None);
        assert_eq!(manage(mini, 0, address(0, 0), 11), Some(0));
        assert_eq!((mini.queues[2].pop(), answer(mini, 3).response), (Some((3, 108)), 2));
        // LOGICAL UNIT RESET ends those of its unit and leaves a unit attention.
        assert_eq!(manage(mini, 5, address(0, 5), 0), Some(0));
        assert_eq!((mini.queues[2].pop(), answer(mini, 6).response), (Some((6, 108)), 4));
        // I_T NEXUS RESET ends all of the target.
        assert_eq!(manage(mini, 4, address(0, 0), 0), Some(0));
        assert_eq!((mini.queues[2].pop(), mini.queues[2].pop()), (Some((0, 108)), Some((9, 108))));
        assert_eq!(manage(mini, 5, address(0, 1), 0), Some(12));
        assert_eq!(manage(mini, 5, address(3, 0), 0), Some(3));
        assert_eq!(manage(mini, 6, address(0, 0), 0), Some(11));
        scsi.with(|d| d.set_faults(FaultScript::none()));
        assert_eq!(command(mini, 300, &[0; 6], 0, 0), check(Sense::RESET));
        scsi.with(|d| d.model().management_response = Some(11));
        assert_eq!(manage(mini, 5, address(0, 0), 0), Some(11));
        scsi.with(|d| d.model().management_deaf = true);
        assert_eq!(manage(mini, 5, address(0, 0), 0), None);
    });
    assert_eq!(breaches, []);
}

#[test]
fn events_and_missed_events() {
    with(|_, scsi, mini| {
        let supply = |mini: &mut Mini, first: u16| {
            let queue = &mut mini.queues[1];
            queue.descriptor(first, queue.page.addr(16 * usize::from(first)), 16, WRITE, 0);
            queue.offer(first);
            mini.notify(1);
        };
        let event = |mini: &mut Mini| {
            let queue = &mut mini.queues[1];
            undercroft_hal::cpu::relax();
            queue.pop().map(|(id, len)| {
                assert_eq!(len, 16);
                let bytes: [u8; 16] = queue.page.read(16 * id as usize);
                (u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), bytes[5], bytes[7], bytes[12], bytes[13])
            })
        };
        supply(mini, 0);
        supply(mini, 1);
        assert_eq!(event(mini), None);
        scsi.with(|d| {
            d.model().event(ScsiEvent::Removed(0, 5));
            d.model().event(ScsiEvent::Changed(0, 0, 0x2a, 9));
            d.model().event(ScsiEvent::Rescan(0, 7));
        });
        assert_eq!(event(mini), Some((1, 0, 5, 2, 0)));
        assert_eq!(event(mini), Some((3, 0, 0, 0x2a, 9)));
        // The third found no buffer; the next event says that one was missed.
        assert_eq!(event(mini), None);
        supply(mini, 0);
        assert_eq!(event(mini), Some((1 << 31, 0, 0, 0, 0)));
        supply(mini, 1);
        assert_eq!(event(mini), None);
    });
}

#[test]
fn sizes_of_sense_and_cdb_can_be_set() {
    with(|_, _, mini| {
        let mini::Registers::Pci { config, .. } = &mini.registers else { return };
        config.write(20, 18u32);
        assert_eq!((mini.config::<u32>(20), mini.config::<u32>(24)), (18, 32));
        assert_eq!((mini.config::<u32>(0), mini.config::<u32>(16)), (1, 16));
        assert_eq!((mini.config::<u16>(30), mini.config::<u32>(32)), (255, 16383));
    });
}
