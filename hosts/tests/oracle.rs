//! Another implementation of the driver's side against the model: `VirtIOBlk` of the crate `virtio-drivers`, on this platform's memory.
//!
//! What it does and what a script says must agree with the disk, and with the hand-written driver on a second machine. Its own
//! transports dereference register addresses, which are no pointers on a simulated machine, so it gets one over [`Mmio`].

mod mini;

use std::collections::BTreeMap;

use mini::Mini;
use undercroft_block::BlockDevice;
use undercroft_block::adapter::Disk as BlockDisk;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::mmio::Mmio;
use undercroft_hal::virtio_hal::VirtioHal;
use undercroft_hal::{cpu, pci};
use undercroft_hosts::virtio::{Blk, Breach};
use undercroft_hosts::{Config, Disk, Machine, Random, SECTOR, Schedule};
use undercroft_virtio::{Found, probe_mmio, probe_pci};
use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const SEED: u64 = 77;
const SECTORS: u64 = 512;

/// The registers of virtio-mmio. A careful transport does what that crate leaves out: it waits for resets and reads FEATURES_OK back.
struct Registers {
    mmio: Mmio,
    careful: bool,
}

impl Registers {
    fn get(&self, offset: usize) -> u32 {
        self.mmio.read(offset)
    }

    fn set(&self, offset: usize, value: u32) {
        self.mmio.write(offset, value);
    }

    fn set_addr(&self, offset: usize, addr: u64) {
        self.set(offset, addr as u32);
        self.set(offset + 4, (addr >> 32) as u32);
    }
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn read_device_features(&mut self) -> u64 {
        self.set(0x14, 0);
        let low = u64::from(self.get(0x10));
        self.set(0x14, 1);
        low | u64::from(self.get(0x10)) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.set(0x24, select);
            self.set(0x20, half);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.set(0x30, queue.into());
        self.get(0x34)
    }

    fn notify(&mut self, queue: u16) {
        self.set(0x50, queue.into());
        // That crate spins on memory without a word to the platform: whatever the schedule, the device has to be done by then.
        (0..64).for_each(|_| cpu::relax());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.get(0x70))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.set(0x70, status.bits());
        if self.careful {
            assert_eq!(self.get(0x70), status.bits());
        }
    }

    fn set_guest_page_size(&mut self, _size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.set(0x30, queue.into());
        self.set(0x38, size);
        self.set_addr(0x80, descriptors);
        self.set_addr(0x90, driver);
        self.set_addr(0xa0, device);
        self.set(0x44, 1);
    }

    fn queue_unset(&mut self, _queue: u16) {
        // That crate frees the ring next, and counts on this to have stopped the device.
        self.set(0x70, 0);
        while self.get(0x70) != 0 {
            cpu::relax();
        }
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.set(0x30, queue.into());
        self.get(0x44) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let status = self.get(0x60);
        self.set(0x64, status);
        InterruptStatus::from_bits_truncate(status)
    }

    fn read_config_generation(&self) -> u32 {
        self.get(0xfc)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let at = 0x100 + offset;
        let bytes = match size_of::<T>() {
            1 => self.mmio.read::<u8>(at).to_le_bytes().to_vec(),
            2 => self.mmio.read::<u16>(at).to_le_bytes().to_vec(),
            4 => self.mmio.read::<u32>(at).to_le_bytes().to_vec(),
            _ => return Err(Error::ConfigSpaceTooSmall),
        };
        T::read_from_bytes(&bytes).map_err(|_| Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _offset: usize, _value: T) -> Result<()> {
        Err(Error::Unsupported)
    }
}

/// One step of a script.
enum Step {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Flush,
}

fn script(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut step = || {
        let sectors = 1 + random.below(8);
        let sector = random.below(SECTORS as usize - sectors) as u64;
        match random.below(10) {
            0 => Step::Flush,
            1..5 => Step::Write(sector, (0..sectors * SECTOR).map(|_| random.next_u64() as u8).collect()),
            _ => Step::Read(sector, sectors * SECTOR),
        }
    };
    (0..steps).map(|_| step()).collect()
}

/// What a script reads, one entry for each read, and what it leaves on the disk: now and after a power cut that loses all.
type Left = (Vec<Vec<u8>>, Vec<[u8; SECTOR]>, Vec<[u8; SECTOR]>);

fn left(reads: Vec<Vec<u8>>, disk: &Disk) -> Left {
    let all = |read: &dyn Fn(u64) -> [u8; SECTOR]| (0..SECTORS).map(read).collect();
    (reads, all(&|at| disk.read_sector(at)), all(&|at| disk.durable_sector(at)))
}

/// What the script means.
fn meant(script: &[Step]) -> Left {
    let mut now: BTreeMap<u64, Vec<u8>> = (0..SECTORS).map(|at| (at, Disk::pattern(SEED, at).to_vec())).collect();
    let mut durable = now.clone();
    let mut reads = Vec::new();
    for step in script {
        match step {
            Step::Read(at, len) => {
                reads.push((*at..at + (len / SECTOR) as u64).flat_map(|at| now[&at].clone()).collect());
            }
            Step::Write(at, data) => now.extend((*at..).zip(data.chunks(SECTOR).map(<[u8]>::to_vec))),
            Step::Flush => durable = now.clone(),
        }
    }
    let sectors = |map: BTreeMap<u64, Vec<u8>>| map.into_values().map(|s| s.try_into().unwrap()).collect();
    (reads, sectors(now), sectors(durable))
}

fn theirs(script: &[Step], config: Config) -> Left {
    let machine = Machine::new(config);
    let disk = Disk::patterned(SECTORS, SEED);
    let blk = machine.add_virtio_mmio(Blk::new(disk.clone()));
    let reads = machine.run(|_| {
        let (base, len) = blk.window();
        let registers = Registers { mmio: Mmio::map(base, len).unwrap(), careful: true };
        let mut driver = VirtIOBlk::<VirtioHal, _>::new(registers).unwrap();
        assert_eq!((driver.capacity(), driver.readonly()), (SECTORS, false));
        let mut id = [0; 20];
        assert_eq!(driver.device_id(&mut id), Ok(12));
        assert_eq!(&id[..12], b"undercroft-0");
        let mut reads = Vec::new();
        for step in script {
            match step {
                Step::Read(at, len) => {
                    let mut data = vec![0; *len];
                    driver.read_blocks(*at as usize, &mut data).unwrap();
                    reads.push(data);
                }
                Step::Write(at, data) => driver.write_blocks(*at as usize, data).unwrap(),
                Step::Flush => driver.flush().unwrap(),
            }
        }
        reads
    });
    assert_eq!(blk.with(|d| d.breaches()), []);
    assert_eq!(machine.live_dma_blocks(), 0);
    left(reads, &disk)
}

/// The stack itself: its virtio-blk, under its blocking adapter, on the bus of the caller's choice.
fn ours(script: &[Step], config: Config, on_pci: bool) -> Left {
    let machine = Machine::new(config);
    let disk = Disk::patterned(SECTORS, SEED);
    let blk = Blk::new(disk.clone());
    let (pci, mmio) =
        if on_pci { (Some(machine.add_virtio_pci(blk)), None) } else { (None, Some(machine.add_virtio_mmio(blk))) };
    let reads = machine.run(|task| {
        let found = if let Some(mmio) = &mmio {
            let (base, len) = mmio.window();
            probe_mmio(task, base, len, mmio.line()).unwrap()
        } else {
            let function = pci::devices(task).into_iter().next().unwrap();
            probe_pci(task, function).unwrap()
        };
        let Some(Found::Blk(driver)) = found else { panic!("no disk was found") };
        assert_eq!((driver.info().capacity, driver.identity().serial.as_str()), (SECTORS, "undercroft-0"));
        let disk = BlockDisk::new(driver, 4);
        let buffer = |bytes: usize| DmaBuf::new(bytes, DmaConstraints::ANY).unwrap();
        let mut reads = Vec::new();
        for step in script {
            match step {
                Step::Read(at, len) => {
                    let data = disk.read_blocking(task, *at, buffer(*len)).unwrap();
                    reads.push(data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect());
                }
                Step::Write(at, bytes) => {
                    let mut data = buffer(bytes.len());
                    data.copy_from_slice(bytes);
                    disk.write_blocking(task, *at, data).unwrap();
                }
                Step::Flush => disk.flush_blocking(task).unwrap(),
            }
        }
        reads
    });
    let breaches = pci.map(|d| d.with(|d| d.breaches())).into_iter().chain(mmio.map(|d| d.with(|d| d.breaches())));
    assert_eq!(breaches.flatten().collect::<Vec<_>>(), []);
    left(reads, &disk)
}

fn by_hand(script: &[Step], config: Config) -> Left {
    let machine = Machine::new(config);
    let disk = Disk::patterned(SECTORS, SEED);
    let blk = machine.add_virtio_pci(Blk::new(disk.clone()));
    let reads = machine.run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        let features = mini.negotiate(u64::MAX >> 31);
        mini.status();
        mini.use_msix(task, 1);
        mini.bring_up_queues(features, 1, 4);
        let mut reads = Vec::new();
        for step in script {
            let queue = &mut mini.queues[0];
            let data = queue.page.addr(4096);
            let len = match step {
                Step::Read(at, len) => {
                    queue.blk(0, 0, *at, data, *len as u32);
                    *len
                }
                Step::Write(at, bytes) => {
                    bytes.iter().enumerate().for_each(|(at, byte)| queue.page.write(4096 + at, *byte));
                    queue.blk(0, 1, *at, data, bytes.len() as u32);
                    0
                }
                Step::Flush => {
                    queue.blk(0, 4, 0, 0, 0);
                    0
                }
            };
            queue.arm(queue.seen_used);
            queue.offer(0);
            mini.notify(0);
            task.wait_until(|| mini.queues[0].used_idx() != mini.queues[0].seen_used);
            let queue = &mut mini.queues[0];
            assert_eq!(queue.pop(), Some((0, len as u32 + 1)));
            assert_eq!(queue.status(0), 0);
            if len > 0 {
                reads.push((0..len).map(|at| queue.page.read(4096 + at)).collect());
            }
        }
        reads
    });
    assert_eq!(blk.with(|d| d.breaches()), []);
    left(reads, &disk)
}

#[test]
fn all_drivers_agree_with_the_script() {
    for (seed, schedule) in (1..).zip([Schedule::Eager, Schedule::Lazy, Schedule::RANDOM, Schedule::RANDOM]) {
        let config = Config { seed, schedule, ..Config::default() };
        let script = script(seed, 300);
        let meant = meant(&script);
        assert!(theirs(&script, config) == meant, "virtio-drivers, seed {seed}");
        assert!(by_hand(&script, config) == meant, "by hand, seed {seed}");
        assert!(ours(&script, config, true) == meant, "ours on PCI, seed {seed}");
        assert!(ours(&script, config, false) == meant, "ours on MMIO, seed {seed}");
    }
}

/// The crate itself neither waits for a reset nor reads FEATURES_OK back: the model says so.
#[test]
fn x24_what_virtio_drivers_leaves_out() {
    let machine = Machine::new(Config::default());
    let blk = machine.add_virtio_mmio(Blk::new(Disk::new(SECTORS)));
    machine.run(|_| {
        let (base, len) = blk.window();
        let registers = Registers { mmio: Mmio::map(base, len).unwrap(), careful: false };
        VirtIOBlk::<VirtioHal, _>::new(registers).map(drop).unwrap();
    });
    assert_eq!(blk.with(|d| d.breaches()), [Breach::ResetNotAwaited, Breach::FeaturesOkNotReadBack]);
}

/// Memory that runs out while its rings are set up is an error, and what it had is given back.
#[test]
fn virtio_hal_without_memory() {
    let mut failures = 0;
    loop {
        let machine = Machine::new(Config::default());
        let blk = machine.add_virtio_mmio(Blk::new(Disk::new(SECTORS)));
        let made = machine.run(|_| {
            let (base, len) = blk.window();
            let registers = Registers { mmio: Mmio::map(base, len).unwrap(), careful: true };
            machine.fail_dma_after(failures);
            VirtIOBlk::<VirtioHal, _>::new(registers).map(drop)
        });
        assert_eq!(machine.live_dma_blocks(), 0);
        match made {
            Ok(()) => break,
            Err(error) => assert_eq!(error, Error::DmaError),
        }
        failures += 1;
    }
    // The descriptors with what the driver writes, and what the device writes.
    assert_eq!(failures, 2);
}
