//! P-22: tables of disks with blocks of 512 and 4096 bytes, by their primary and their backup, attached more than once, with buffers as the disk
//! wants them.

use std::sync::{Arc, Mutex};

use undercroft_hal::Task;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hosts::{Config, Machine};

use super::golden::Image;
use super::gpt::GptError;
use super::{Partition, Scheme, open, read};
use crate::adapter::Disk;
use crate::broken::{Hazard, with};
use crate::testing::RamDisk;
use crate::*;

/// Where data has to lie for the disk: more than a buffer has by chance.
const REACH: DmaConstraints = DmaConstraints { align: 65_536, ..DmaConstraints::ANY };
/// First and last block, and name, of the partitions.
const PARTS: [(u64, u64, &str); 2] = [(100, 149, "one"), (200, 209, "two")];
const BLOCKS: u64 = 512;

/// A disk that is particular about buffers.
struct Particular {
    ram: Arc<RamDisk>,
    wrong: Mutex<u32>,
}

impl BlockDevice for Particular {
    fn identity(&self) -> &Identity {
        self.ram.identity()
    }
    fn info(&self) -> Info {
        let info = self.ram.info();
        Info { limits: Limits { dma: REACH, ..info.limits }, ..info }
    }
    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        *self.wrong.lock().unwrap() += request.data.segments().filter(|segment| !REACH.admit(*segment)).count() as u32;
        self.ram.submit(request)
    }
    fn commit(&self) {
        self.ram.commit();
    }
    fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.ram.watch(watcher);
    }
}

/// What is where on the disk.
fn fill(block: u64) -> u8 {
    (block % 251) as u8
}

/// An image whose free blocks tell their numbers.
fn image(scheme: Scheme, size: u32) -> Vec<u8> {
    let mut image = match scheme {
        Scheme::Mbr => {
            let mut image = vec![0; BLOCKS as usize * size as usize];
            for (at, (first, last, _)) in PARTS.iter().enumerate() {
                let entry = &mut image[446 + at * 16..][..16];
                entry[4] = 0x83;
                entry[8..12].copy_from_slice(&(*first as u32).to_le_bytes());
                entry[12..].copy_from_slice(&((last - first + 1) as u32).to_le_bytes());
            }
            image[510..512].copy_from_slice(&[0x55, 0xaa]);
            image
        }
        _ => Image::new(size, &PARTS).write(|_| ()),
    };
    for block in 64..300 {
        image[(block * u64::from(size)) as usize..][..size as usize].fill(fill(block));
    }
    if matches!(scheme, Scheme::GptBackup(_)) {
        image[size as usize] ^= 1;
    }
    image
}

/// Reads and writes of one partition's first and last blocks are those of the disk.
fn place(cx: &Task, ram: &RamDisk, part: &Arc<Partition>, size: usize, stamp: u8) {
    let (first, blocks) = (part.entry().first, part.entry().blocks);
    assert_eq!(part.info().capacity, blocks);
    let disk = Disk::new(part.clone(), 2);
    let buffer = || DmaBuf::new(size, REACH).unwrap();
    for lba in [0, blocks - 1] {
        let at = (first + lba) as usize * size;
        let there = ram.state.lock().unwrap().store[at];
        let data = disk.read_blocking(cx, lba, buffer()).unwrap();
        assert_eq!(data.pieces()[0].bytes(), vec![there; size], "read from another place");
        let mut data = buffer();
        data.fill(stamp);
        disk.write_blocking(cx, lba, data).unwrap();
        let store = &ram.state.lock().unwrap().store;
        assert_eq!(store[at..at + size], vec![stamp; size], "written to another place");
        assert!(store[at - size..at].iter().all(|byte| *byte != stamp || lba != 0), "written before its place");
    }
    let failed = disk.read_blocking(cx, blocks, buffer()).unwrap_err();
    assert_eq!(failed.error, Error::OutOfRange);
}

fn attached() -> Result<(), String> {
    for size in [512, 4096] {
        for scheme in [Scheme::Gpt, Scheme::GptBackup(GptError::NoHeader), Scheme::Mbr] {
            let machine = Machine::new(Config::default());
            machine.try_run(|cx| {
                // The next page is not where a buffer of the disk may begin.
                let _page = DmaBuf::new(4096, DmaConstraints::ANY).unwrap();
                let ram = RamDisk::new(image(scheme, size), size, 4);
                let disk = Arc::new(Particular { ram: ram.clone(), wrong: Mutex::default() });
                let device: Arc<dyn BlockDevice> = disk.clone();
                let mut attachments = Vec::new();
                for _ in 0..2 {
                    let table = read(cx, &Disk::new(device.clone(), 1));
                    let table = table.unwrap_or_else(|error| panic!("the table is not read: {error}")).unwrap();
                    assert_eq!(table.scheme, scheme);
                    let found: Vec<_> =
                        table.entries.iter().map(|entry| (entry.first, entry.first + entry.blocks - 1)).collect();
                    assert_eq!(found, PARTS.map(|(first, last, _)| (first, last)));
                    attachments.push(open(&device, &table));
                }
                for (number, part) in attachments.iter().flatten().enumerate() {
                    place(cx, &ram, part, size as usize, 0xf0 + number as u8);
                }
                // One that goes leaves the other.
                attachments.pop();
                place(cx, &ram, &attachments[0][1], size as usize, 0xfe);
                assert_eq!(*disk.wrong.lock().unwrap(), 0, "buffers that the disk cannot use");
            })?;
        }
    }
    Ok(())
}

#[test]
fn p_22_tables_and_partitions_are_in_blocks_and_shared() {
    attached().unwrap();
}

#[test]
fn p_22_tables_and_partitions_are_in_blocks_and_shared_control() {
    for (hazard, caught) in [
        (Hazard::SectorsForBlocks, "read from another place"),
        (Hazard::ReadsSectors, "the table is not read"),
        (Hazard::NoBackup, "the table is not read"),
        (Hazard::AnyBuffer, "buffers that the disk cannot use"),
    ] {
        let error = with(hazard, attached).unwrap_err();
        assert!(error.contains(caught), "{hazard:?}: {error}");
    }
}

/// Each attachment through a handle of its own hears what happens to the disk.
#[test]
fn p_22_each_attachment_hears_the_disk() {
    #[derive(Default)]
    struct Count(Mutex<Vec<Event>>);
    impl Watcher for Count {
        fn event(&self, _: &undercroft_hal::BottomHalf, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }
    Machine::new(Config::default()).run(|cx| {
        let ram = RamDisk::new(image(Scheme::Gpt, 512), 512, 4);
        let first = queue::BlockQueue::new(ram.clone(), queue::Config::default());
        let second = first.handle().unwrap();
        let attachments = [first, second].map(|handle| {
            let handle: Arc<dyn BlockDevice> = Arc::new(handle);
            let table = read(cx, &Disk::new(handle.clone(), 1)).unwrap().unwrap();
            let watcher = Arc::new(Count::default());
            let parts = open(&handle, &table);
            parts[0].watch(watcher.clone());
            (parts, watcher)
        });
        ram.announce(Event::Resized);
        cx.run_pending();
        for (_, watcher) in &attachments {
            assert_eq!(*watcher.0.lock().unwrap(), [Event::Resized]);
        }
    });
}
