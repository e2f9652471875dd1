//! Partitions over a RAM disk.

use std::sync::Mutex;

use undercroft_hal::Task;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hosts::{Config, Machine};

use super::super::golden::{GPT_512, Image, MBR_EXTENDED, load};
use super::super::gpt::GptError;
use super::super::{Scheme, TableError, read};
use super::*;
use crate::adapter::Disk;
use crate::testing::RamDisk;
use crate::{Complete, Completion, Data, Error, Op};

fn run(test: impl FnOnce(&Task)) {
    let machine = Machine::new(Config::default());
    machine.run(test);
    assert_eq!(machine.live_dma_blocks(), 0);
}

fn table(cx: &Task, image: Vec<u8>, block_size: u32) -> Result<Option<Table>, TableError> {
    read(cx, &Disk::new(RamDisk::new(image, block_size, 4), 1))
}

#[test]
fn reads_golden_tables_from_a_disk() {
    run(|cx| {
        let (image, size) = load(GPT_512);
        let found = table(cx, image.clone(), size).unwrap().unwrap();
        assert_eq!((found.scheme, found.entries.len()), (Scheme::Gpt, 3));
        let mut broken = image.clone();
        broken[512 + 60] ^= 1;
        let found = table(cx, broken.clone(), size).unwrap().unwrap();
        assert_eq!((found.scheme, found.entries.len()), (Scheme::GptBackup(GptError::HeaderChecksum), 3));
        let last = broken.len() - 512;
        broken[last] = b'X';
        assert_eq!(
            table(cx, broken, size),
            Err(TableError::Gpt { primary: GptError::HeaderChecksum, backup: GptError::NoHeader })
        );
        let (image, size) = load(MBR_EXTENDED);
        let found = table(cx, image, size).unwrap().unwrap();
        assert_eq!(found.scheme, Scheme::Mbr);
        assert_eq!(found.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 5, 6, 7, 8]);
        let found = table(cx, Image::new(4096, &[(200, 299, "four k")]).write(|_| ()), 4096).unwrap().unwrap();
        assert_eq!((found.entries[0].name.as_str(), found.entries[0].blocks), ("four k", 100));
        assert_eq!(table(cx, vec![0; 8192], 512), Ok(None));
        assert_eq!(table(cx, vec![0; 512], 512), Ok(None), "a disk of one block");
    });
}

#[test]
fn a_table_that_cannot_be_read_is_an_error() {
    run(|cx| {
        let device = RamDisk::new(load(GPT_512).0, 512, 4);
        device.state.lock().unwrap().errors.push_back(Error::Medium);
        let disk = Disk::new(device.clone(), 1);
        assert_eq!(read(cx, &disk), Err(TableError::Unreadable(Error::Medium)));
        assert!(read(cx, &disk).unwrap().is_some());
    });
}

/// What a completion saw.
type Seen = Mutex<Vec<(u64, u32, usize, Result<(), Error>)>>;

#[derive(Default)]
struct Sink(Seen);

impl Complete for Sink {
    fn complete(&self, _: &BottomHalf, _: u64, request: Request, result: Result<(), Error>) {
        self.0.lock().unwrap().push((request.lba, request.blocks, request.data.len(), result));
    }
}

/// The check of X25: no request reaches a block outside, and the submitter's view of the request never changes. `Err` says what was wrong.
fn x25_check(cx: &Task, disk: &RamDisk, part: &dyn BlockDevice, first: u64, blocks: u64) -> Result<(), String> {
    for lba in [0, 1, blocks - 1, blocks, blocks + 1, u64::MAX - first, u64::MAX - 1, u64::MAX] {
        for (op, count) in [(Op::Read, 1u32), (Op::Write, 2), (Op::Discard, 2)] {
            let sink = Arc::new(Sink::default());
            disk.state.lock().unwrap().log.clear();
            let len = if op == Op::Discard { 0 } else { count as usize * 512 };
            let data = match len {
                0 => Data::None,
                len => DmaBuf::new(len, DmaConstraints::ANY).unwrap().into(),
            };
            let inside = lba.checked_add(u64::from(count)).is_some_and(|end| end <= blocks);
            let request = Request::new(op, lba, count, data, Completion::new(sink.clone(), 0));
            match part.submit(request) {
                Ok(_) if !inside => return Err(format!("{op:?} at {lba} was taken")),
                Ok(_) => {
                    part.commit();
                    cx.wait_until(|| !sink.0.lock().unwrap().is_empty());
                    if sink.0.lock().unwrap()[0] != (lba, count, len, Ok(())) {
                        return Err(format!("{op:?} at {lba} came back as {:?}", sink.0.lock().unwrap()[0]));
                    }
                }
                Err(rejected) if inside => return Err(format!("{op:?} at {lba} was refused: {}", rejected.why)),
                Err(rejected) if rejected.why != Refusal::Invalid(Error::OutOfRange) => {
                    return Err(format!("{op:?} at {lba}: {}", rejected.why));
                }
                Err(rejected) if (rejected.request.lba, rejected.request.data.len()) != (lba, len) => {
                    return Err(format!("{op:?} at {lba} was given back changed"));
                }
                Err(_) => {}
            }
            for (_, at, count) in &disk.state.lock().unwrap().log {
                if *at < first || at + u64::from(*count) > first + blocks {
                    return Err(format!("block {at} of the disk was touched"));
                }
            }
        }
    }
    Ok(())
}

fn disk_and_parts() -> (Arc<RamDisk>, Vec<Arc<Partition>>) {
    let disk = RamDisk::new(vec![0; 512 * 512], 512, 4);
    let entry = |number, first, blocks| Entry {
        number,
        first,
        blocks,
        kind: super::super::Kind::Mbr(0x83),
        name: String::new(),
    };
    let table = Table { scheme: Scheme::Mbr, entries: vec![entry(1, 100, 50), entry(2, 200, 10)] };
    let parts = open(&(disk.clone() as Arc<dyn BlockDevice>), &table);
    (disk, parts)
}

#[test]
fn x25_out_of_range_is_refused_and_requests_come_back_unchanged() {
    run(|cx| {
        let (disk, parts) = disk_and_parts();
        x25_check(cx, &disk, &*parts[0], 100, 50).unwrap();
        x25_check(cx, &disk, &*parts[1], 200, 10).unwrap();
        assert_eq!(parts[1].identity().controller, "test partition 2");
    });
}

/// The historic way: the caller's request is moved for good, and nobody looks at the partition's end.
struct Historic(Arc<RamDisk>, u64);

impl BlockDevice for Historic {
    fn identity(&self) -> &Identity {
        self.0.identity()
    }
    fn info(&self) -> Info {
        self.0.info()
    }
    fn submit(&self, mut request: Request) -> Result<Tag, Rejected> {
        request.lba = request.lba.wrapping_add(self.1);
        self.0.submit(request)
    }
    fn commit(&self) {
        self.0.commit();
    }
    fn watch(&self, _: Arc<dyn Watcher>) {}
}

#[test]
fn x25_out_of_range_is_refused_and_requests_come_back_unchanged_control() {
    run(|cx| {
        let (disk, _) = disk_and_parts();
        assert!(x25_check(cx, &disk, &Historic(disk.clone(), 100), 100, 50).is_err());
    });
}

#[test]
fn partitions_in_partitions_and_full_disks_move_requests_back() {
    run(|cx| {
        let (disk, parts) = disk_and_parts();
        let inner =
            Table { scheme: Scheme::Mbr, entries: vec![Entry { first: 10, blocks: 20, ..parts[0].entry().clone() }] };
        let outer: Arc<dyn BlockDevice> = parts[0].clone();
        let nested = open(&outer, &inner);
        x25_check(cx, &disk, &*nested[0], 110, 20).unwrap();
        // Refused for want of room, far below.
        disk.state.lock().unwrap().held = true;
        let sink = Arc::new(Sink::default());
        let read = |lba| {
            let data = DmaBuf::new(512, DmaConstraints::ANY).unwrap();
            Request::new(Op::Read, lba, 1, data.into(), Completion::new(sink.clone(), 0))
        };
        for lba in 0..4 {
            nested[0].submit(read(lba)).unwrap();
        }
        let rejected = nested[0].submit(read(7)).unwrap_err();
        assert_eq!((rejected.why, rejected.request.lba), (Refusal::Full, 7));
        disk.release();
        cx.wait_until(|| sink.0.lock().unwrap().len() == 4);
        assert_eq!(sink.0.lock().unwrap().iter().map(|seen| seen.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
    });
}

#[test]
fn each_partition_has_its_own_watcher() {
    struct Count(Mutex<Vec<Event>>);
    impl Watcher for Count {
        fn event(&self, _: &BottomHalf, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }
    run(|cx| {
        let (disk, parts) = disk_and_parts();
        let watchers = [0, 1].map(|_| Arc::new(Count(Mutex::default())));
        for (part, watcher) in parts.iter().zip(&watchers) {
            part.watch(watcher.clone());
        }
        disk.state.lock().unwrap().held = true;
        let wrapped = Disk::new(parts[0].clone(), 8);
        wrapped.watch(watchers[0].clone());
        let mut reads: Vec<_> =
            (0..5).map(|lba| Box::pin(wrapped.read(lba, DmaBuf::new(512, DmaConstraints::ANY).unwrap()))).collect();
        let mut poll = core::task::Context::from_waker(core::task::Waker::noop());
        for read in &mut reads {
            assert!(core::future::Future::poll(read.as_mut(), &mut poll).is_pending());
        }
        disk.release();
        for read in reads {
            cx.block_on(read).unwrap();
        }
        assert!(watchers.iter().all(|watcher| watcher.0.lock().unwrap().contains(&Event::Room)));
    });
}
