use undercroft_hosts::{Config, Machine, Random};

use super::*;
use crate::testing::RamDisk;

/// Blocks and chunks that the disk does not end on: 512-byte blocks, 4096-byte blocks, and blocks larger than a chunk.
const SHAPES: [(usize, u32); 3] = [(21, 512), (5, 4096), (3, 8192)];

fn with_disk(blocks: usize, block_size: u32, test: impl FnOnce(&Task, &RamDisk, &Disk)) {
    let machine = Machine::new(Config::default());
    machine.run(|cx| {
        let bytes = (0..blocks * block_size as usize).map(|at| (at / 3) as u8).collect();
        let device = RamDisk::new(bytes, block_size, 4);
        let disk = Disk::new(device.clone(), 2);
        test(cx, &device, &disk);
    });
    assert_eq!(machine.live_dma_blocks(), 0, "all buffers are back");
}

#[test]
fn a_stream_is_the_bytes_of_the_disk() {
    for (blocks, block_size) in SHAPES {
        with_disk(blocks, block_size, |cx, device, disk| {
            let mut expected = device.state.lock().unwrap().store.clone();
            let mut stream = Stream::new(cx, disk);
            let mut random = Random::new(blocks as u64);
            for round in 0..300 {
                let at = random.below(expected.len());
                let count = random.below((expected.len() - at).min(9000) + 1);
                assert_eq!(stream.seek(SeekFrom::Start(at as u64)), Ok(at as u64));
                if random.below(2) == 0 {
                    let bytes = vec![round as u8; count];
                    stream.write_all(&bytes).unwrap();
                    expected[at..at + count].copy_from_slice(&bytes);
                } else {
                    let mut bytes = vec![0; count];
                    stream.read_exact(&mut bytes).unwrap();
                    assert_eq!(bytes, expected[at..at + count], "{at} {count}");
                }
                assert_eq!(stream.stream_position(), Ok((at + count) as u64));
            }
            stream.flush().unwrap();
            assert_eq!(device.state.lock().unwrap().store, expected);
        });
    }
}

#[test]
fn a_stream_ends_where_the_disk_does() {
    for (blocks, block_size) in SHAPES {
        with_disk(blocks, block_size, |cx, _, disk| {
            let end = (blocks * block_size as usize) as u64;
            let mut stream = Stream::new(cx, disk);
            assert_eq!(stream.seek(SeekFrom::End(-3)), Ok(end - 3));
            assert_eq!(stream.read(&mut [0; 10]), Ok(3));
            assert_eq!(stream.read(&mut [0; 10]), Ok(0));
            assert_eq!(stream.write(&[1]), Err(Error::OutOfRange));
            assert_eq!(stream.write(&[]), Ok(0));
            assert_eq!(stream.seek(SeekFrom::Current(-2)), Ok(end - 2));
            assert_eq!(stream.write(&[1, 2, 3]), Ok(2));
            assert_eq!(stream.seek(SeekFrom::Current(i64::MIN)), Err(Error::OutOfRange));
            assert_eq!(stream.seek(SeekFrom::Start(u64::MAX)), Ok(u64::MAX));
            assert_eq!(stream.read(&mut [0; 10]), Ok(0));
        });
    }
}

#[test]
fn an_error_leaves_nothing_stale() {
    with_disk(16, 512, |cx, device, disk| {
        let mut stream = Stream::new(cx, disk);
        assert_eq!(stream.read(&mut [0; 4]), Ok(4));
        // The chunk is held: the write is the next request.
        device.state.lock().unwrap().errors.push_back(Error::Medium);
        assert_eq!(stream.write(&[9; 4]), Err(Error::Medium));
        assert_eq!(stream.stream_position(), Ok(4), "nothing was written");
        let mut bytes = [0; 4];
        assert_eq!((stream.read(&mut bytes), bytes), (Ok(4), [1, 1, 2, 2]), "it is read again");
        device.state.lock().unwrap().errors.push_back(Error::TimedOut);
        stream.seek(SeekFrom::Start(5000)).unwrap();
        assert_eq!(stream.read(&mut bytes), Err(Error::TimedOut));
        assert_eq!(embedded_io::Error::kind(&Error::TimedOut), ErrorKind::TimedOut);
        assert_eq!(stream.read(&mut bytes), Ok(4));
    });
}
