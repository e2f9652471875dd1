//! virtio-blk as a device: what each request does to the disk, and what the configuration says.

mod mini;

use mini::Mini;
use undercroft_hosts::virtio::{Blk, BlkLimits, Breach};
use undercroft_hosts::{Config, Disk, Machine, SECTOR};

const ALL: u64 = u64::MAX >> 31;

fn run(blk: Blk, f: impl FnOnce(&mut Mini)) -> Vec<Breach> {
    let machine = Machine::new(Config::default());
    let blk = machine.add_virtio_pci(blk);
    machine.run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        mini.bring_up(ALL, 1, 8);
        f(&mut mini);
    });
    blk.with(|d| d.breaches())
}

fn request(mini: &mut Mini, kind: u32, sector: u64, len: u32) -> (u8, u32) {
    let queue = &mut mini.queues[0];
    queue.blk(0, kind, sector, queue.page.addr(4096), len);
    queue.offer(0);
    mini.notify(0);
    let (id, written) = mini.queues[0].pop().unwrap();
    assert_eq!(id, 0);
    (mini.queues[0].status(0), written)
}

fn range(mini: &Mini, sector: u64, sectors: u32, flags: u32) {
    mini.queues[0].page.write(4096, sector);
    mini.queues[0].page.write(4104, sectors);
    mini.queues[0].page.write(4108, flags);
}

#[test]
fn writes_are_volatile_until_flushed() {
    let disk = Disk::new(64);
    let breaches = run(Blk::new(disk.clone()), |mini| {
        mini.queues[0].page.write(4096, [7u8; SECTOR]);
        assert_eq!(request(mini, 1, 5, 512), (0, 1));
        assert_eq!((disk.read_sector(5), disk.durable_sector(5)), ([7; SECTOR], [0; SECTOR]));
        assert_eq!(request(mini, 4, 0, 0), (0, 1));
        assert_eq!((disk.durable_sector(5), disk.flushes()), ([7; SECTOR], 1));
    });
    assert_eq!(breaches, []);
}

#[test]
fn the_cache_can_be_switched() {
    let disk = Disk::new(64);
    let breaches = run(Blk::new(disk.clone()), |mini| {
        assert_eq!(mini.config::<u8>(32), 1);
        let mini::Registers::Pci { config, .. } = &mini.registers else { return };
        config.write(32, 0u8);
        assert_eq!(mini.config::<u8>(32), 0);
        mini.queues[0].page.write(4096, [7u8; SECTOR]);
        request(mini, 1, 5, 512);
        assert_eq!(disk.durable_sector(5), [7; SECTOR]);
        // The capacity cannot be written.
        let mini::Registers::Pci { config, .. } = &mini.registers else { return };
        config.write(0, 9u32);
    });
    assert_eq!(breaches, [Breach::Request("5.2.4: wrote a read-only field of the configuration")]);
    assert_eq!(disk.sectors(), 64);
}

#[test]
fn discard_and_write_zeroes() {
    let disk = Disk::patterned(64, 1);
    let breaches = run(Blk::new(disk.clone()), |mini| {
        range(mini, 8, 4, 0);
        assert_eq!(request(mini, 11, 0, 16), (0, 1));
        range(mini, 20, 2, 1);
        assert_eq!(request(mini, 13, 0, 16), (0, 1));
        let zero: Vec<u64> = (0..64).filter(|at| disk.read_sector(*at) == [0; SECTOR]).collect();
        assert_eq!(zero, [8, 9, 10, 11, 20, 21]);
        range(mini, 62, 4, 0);
        assert_eq!(request(mini, 11, 0, 16), (1, 1));
        assert!(disk.read_sector(63) != [0; SECTOR]);
        range(mini, 0, 1, 1);
        assert_eq!(request(mini, 11, 0, 16), (2, 1));
    });
    assert_eq!(breaches, [Breach::Request("5.2.6.1: reserved range flags")]);
}

#[test]
fn identity_and_configuration() {
    let limits = BlkLimits {
        queues: 3,
        block_size: 4096,
        size_max: 1 << 20,
        seg_max: 62,
        alignment_offset: 1,
        ..BlkLimits::default()
    };
    let mut blk = Blk::with_limits(Disk::new(1 << 33), limits);
    blk.serial = "a serial number that is too long".to_owned();
    run(blk, |mini| {
        assert_eq!(request(mini, 8, 0, 20), (0, 21));
        assert_eq!(&mini.queues[0].page.read::<[u8; 20]>(4096), b"a serial number that");
        assert_eq!((mini.config::<u32>(0), mini.config::<u32>(4)), (0, 2));
        assert_eq!((mini.config::<u32>(8), mini.config::<u32>(12)), (1 << 20, 62));
        assert_eq!(mini.config::<u32>(20), 4096);
        assert_eq!((mini.config::<u8>(24), mini.config::<u8>(25)), (3, 1));
        assert_eq!((mini.config::<u16>(26), mini.config::<u32>(28)), (8, 64));
        assert_eq!(mini.config::<u16>(34), 3);
        assert_eq!((mini.config::<u32>(36), mini.config::<u32>(40)), (1 << 16, 4));
        assert_eq!(mini.config::<u32>(44), 8);
        assert_eq!((mini.config::<u32>(48), mini.config::<u32>(52)), (1 << 16, 4));
        assert_eq!(mini.config::<u8>(56), 1);
        assert_eq!(mini.queue_max(2), 256);
        assert_eq!(mini.queue_max(3), 0);
    });
}

#[test]
fn read_only_and_bad_sectors() {
    let disk = Disk::patterned(64, 1);
    disk.set_read_only(true);
    disk.set_bad(3);
    let breaches = run(Blk::new(disk), |mini| {
        assert_eq!(request(mini, 1, 5, 512), (1, 1));
        assert_eq!(request(mini, 0, 3, 512), (1, 1));
        assert_eq!(request(mini, 0, 4, 512), (0, 513));
    });
    assert_eq!(breaches, [Breach::Request("5.2.6.1: a write to a read-only device")]);
}

/// The device looks at bytes, not at descriptors: header and status may be cut anywhere (2.7.4.1).
#[test]
fn any_framing() {
    let breaches = run(Blk::new(Disk::patterned(64, 1)), |mini| {
        let queue = &mut mini.queues[0];
        queue.page.write(0, 0u32);
        queue.page.write(8, 9u64);
        let at = |offset: usize| queue.page.addr(offset);
        let parts = [(0, 5, 0), (5, 11, 0), (4096, 100, 2), (4196, 411, 2), (4607, 2, 2)];
        for (slot, (offset, len, flags)) in (0u16..).zip(parts) {
            let next = if slot < 4 { mini::NEXT } else { 0 };
            queue.descriptor(slot, at(offset), len, flags | next, slot + 1);
        }
        queue.offer(0);
        mini.notify(0);
        assert_eq!(mini.queues[0].pop(), Some((0, 513)));
        assert_eq!(mini.queues[0].page.read::<[u8; 512]>(4096), Disk::pattern(1, 9));
        assert_eq!(mini.queues[0].page.read::<u8>(4608), 0);
    });
    assert_eq!(breaches, []);
}
