//! Whatever a driver does, the models answer: they note breaches and never panic.

mod mini;

use mini::{Mini, Queue, Registers};
use undercroft_hal::cpu;
use undercroft_hal::mmio::Mmio;
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::virtio::{Blk, BlkLimits, Breach, Model, Scsi, status};
use undercroft_hosts::{Config, Disk, Machine, Random, Schedule};

fn blk() -> Blk {
    Blk::with_limits(Disk::patterned(1 << 12, 1), BlkLimits { queues: 3, queue_size: 16, ..BlkLimits::default() })
}

fn scsi() -> Scsi {
    let lun = |size| Lun::new(Disk::patterned(1 << 12, 1), LunSettings { block_size: size, ..LunSettings::default() });
    Scsi::new(Target::new().with(0, lun(512)).with(3, lun(4096)))
}

fn poke(random: &mut Random, mmio: Mmio) {
    let at = random.below(mmio.len());
    let value = match random.below(4) {
        0 => random.next_u64(),
        1 => u64::MAX,
        _ => random.next_u64() % 16,
    };
    match random.below(8) {
        0 => mmio.write(at, value as u8),
        1 => mmio.write(at & !1, value as u16),
        2 | 3 => mmio.write(at & !3, value as u32),
        4 => mmio.write(at & !7, value),
        5 => drop(mmio.read::<u8>(at)),
        6 => drop(mmio.read::<u16>(at & !1)),
        _ => drop(mmio.read::<u32>(at & !3)),
    }
}

/// Fills the ring and its page with half-sensible descriptors.
fn scramble(random: &mut Random, queue: &mut Queue) {
    let size = queue.size;
    for at in 0..size {
        let addr = match random.below(8) {
            0 => random.next_u64(),
            1 => u64::MAX - random.next_u64() % 64,
            _ => queue.page.addr(random.below(4096)),
        };
        let len = if random.chance(10) { random.next_u64() as u32 } else { random.next_u64() as u32 % 600 };
        let flags = if random.chance(5) { random.next_u64() as u16 } else { random.next_u64() as u16 & 7 };
        let next = if random.chance(5) { random.next_u64() as u16 } else { random.next_u64() as u16 % size };
        queue.descriptor(at, addr, len, flags, next);
    }
    for _ in 0..64 {
        let byte = if random.chance(50) { random.next_u64() as u8 % 20 } else { 0 };
        queue.page.write(random.below(8192), byte);
    }
    queue.offer(if random.chance(20) { random.next_u64() as u16 } else { random.next_u64() as u16 % size });
}

/// Offers a request in good form: what the device reads, then data to it, then data from it, cut where a driver would.
fn offer(random: &mut Random, queue: &mut Queue, header: &[u8], data_first: bool, response: u32) {
    let first = 4 * random.below(usize::from(queue.size) / 4) as u16;
    header.iter().enumerate().for_each(|(at, byte)| queue.page.write(8192 + at, *byte));
    let (page, data) = (queue.page.addr(0), queue.page.addr(16384));
    let len = 512 * random.below(9) as u32;
    let out = if random.chance(50) { 0 } else { mini::WRITE };
    let mut parts = vec![(page + 8192, header.len() as u32, 0), (page + 12288, response, mini::WRITE)];
    if len > 0 {
        parts.insert(if out == 0 || data_first { 1 } else { 2 }, (data, len, out));
    }
    let last = parts.len() - 1;
    for (slot, (addr, len, flags)) in (first..).zip(parts) {
        let next = if slot - first < last as u16 { mini::NEXT } else { 0 };
        queue.descriptor(slot, addr, len, flags | next, slot + 1);
    }
    queue.offer(first);
}

fn blk_request(random: &mut Random, queue: &mut Queue) {
    let mut header = (random.below(15) as u32).to_le_bytes().to_vec();
    header.extend([0; 4]);
    let sector = if random.chance(10) { random.next_u64() } else { random.below(5000) as u64 };
    header.extend(sector.to_le_bytes());
    for at in 0..32 {
        queue.page.write(16384 + at, if at % 16 < 10 { random.below(3) as u8 } else { 0 });
    }
    offer(random, queue, &header, true, 1);
}

fn scsi_request(random: &mut Random, queue: &mut Queue) {
    const CODES: [u8; 24] = [
        0x00, 0x03, 0x08, 0x0a, 0x12, 0x1a, 0x1b, 0x25, 0x28, 0x2a, 0x35, 0x41, 0x42, 0x5a, 0x88, 0x8a, 0x91, 0x93,
        0x9e, 0xa0, 0xa8, 0xaa, 0xff, 0x28,
    ];
    let mut header = vec![0; 51];
    (header[0], header[1], header[3]) = (1, random.chance(10).into(), [0, 3, 9][random.below(3)]);
    let bytes = if random.chance(20) { 255 } else { 4 };
    header[19] = CODES[random.below(CODES.len())];
    for _ in 0..random.below(8) {
        header[20 + random.below(16)] = random.below(bytes + 1) as u8;
    }
    for at in 0..64 {
        queue.page.write(16384 + at, if random.chance(30) { random.below(bytes + 1) as u8 } else { 0 });
    }
    offer(random, queue, &header, false, 108);
}

/// Drives a device with good and bad requests until it breaks, again and again. Returns how many it answered, and what it noted.
fn abuse<M: Model + 'static>(seed: u64, model: M, request: fn(&mut Random, &mut Queue)) -> (u64, Vec<Breach>) {
    let count = 3;
    let random = &mut Random::new(seed);
    let machine = Machine::new(Config { seed, schedule: Schedule::RANDOM, ..Config::default() });
    let device = machine.add_virtio_pci(model);
    machine.run(|task| {
        for _ in 0..20 {
            let mut mini = Mini::pci(task, device.address());
            mini.negotiate(random.next_u64() | 1 << 32);
            mini.status();
            let features = mini.offered() & 1 << 29;
            mini.bring_up_queues(features, count, 16);
            for _ in 0..40 {
                // The last queue takes requests with either device.
                let number = if random.chance(90) { 2 } else { random.below(3) };
                if random.chance(3) {
                    scramble(random, &mut mini.queues[number]);
                } else {
                    request(random, &mut mini.queues[number]);
                }
                mini.notify(number as u16);
                (0..8).for_each(|_| cpu::relax());
                if mini.status() & status::NEEDS_RESET != 0 {
                    break;
                }
                if random.chance(3) {
                    let Registers::Pci { common, isr, notify, config, .. } = &mini.registers else { return };
                    let part = [*common, *isr, *notify, *config][random.below(4)];
                    poke(random, part);
                }
            }
            mini.reset();
        }
    });
    device.with(|d| (d.completed(), d.breaches()))
}

/// Rings at the end of the address space: no sum of theirs overflows.
#[test]
fn rings_at_the_end_of_the_world() {
    let machine = Machine::new(Config::default());
    let device = machine.add_virtio_pci(blk());
    machine.run(|task| {
        let mini = Mini::pci(task, device.address());
        mini.negotiate(1 << 29);
        mini.status();
        let Registers::Pci { common, .. } = &mini.registers else { return };
        mini.select(0);
        for at in [0x20, 0x28, 0x30] {
            common.write(at, 0xffff_fff0_u32);
            common.write(at + 4, u32::MAX);
        }
        mini.enable_queue(0);
        mini.set_status(15);
        mini.notify(0);
    });
    assert!(matches!(device.with(|d| d.breaches())[..], [Breach::Memory(_)]));
}

#[test]
fn garbage_is_survived_and_noted() {
    let (mut answered, mut noted) = ([0; 2], [0; 2]);
    for seed in 0..40 {
        for (at, (done, breaches)) in
            [abuse(seed, blk(), blk_request), abuse(seed, scsi(), scsi_request)].into_iter().enumerate()
        {
            answered[at] += done;
            noted[at] += breaches.len();
        }
    }
    // Some of it gets through, and much of it does not.
    assert!(answered.iter().all(|n| *n > 2_000) && noted.iter().all(|n| *n > 500), "{answered:?} {noted:?}");
}

#[test]
fn garbage_on_mmio_registers_is_survived() {
    for seed in 0..40 {
        let random = &mut Random::new(seed);
        let machine = Machine::new(Config { seed, schedule: Schedule::RANDOM, ..Config::default() });
        let device = machine.add_virtio_mmio(blk());
        machine.run(|_| {
            let (base, len) = device.window();
            let mmio = Mmio::map(base, len).unwrap();
            (0..5_000).for_each(|_| {
                let part = mmio.sub(0, if random.chance(90) { 0x100 } else { len }).unwrap();
                poke(random, part);
            });
        });
        assert!(!device.with(|d| d.breaches()).is_empty());
    }
}
