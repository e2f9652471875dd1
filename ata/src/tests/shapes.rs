//! Sizes and addresses at the edges of commands.

use undercroft_block::Refusal;

use super::*;

fn codes(rig: &Rig) -> Vec<(u8, u64, u32)> {
    rig.log(0)
}

/// A disk of more than 2^28 sectors: 28 bits of address where they reach, 48 where they do not.
#[test]
fn addresses_beyond_28_bits() {
    let disk = Disk::patterned(1 << 33, seed(0));
    let settings = Settings { ..Settings::default() };
    let machine = Machine::new(Config::default());
    let piix = Piix::new(Channel::new(Some(Drive::with_settings(disk.clone(), settings)), None), Channel::default());
    let rig = Rig { host: machine.add_pci(piix), machine, disk };
    rig.disk(GOOD, |task, disk| {
        let sink = Sink::new();
        let edge = (1 << 28) - 1;
        for (lba, blocks, code) in [
            (0, 256, 0xc8),
            (0, 257, 0x25),
            (edge - 8, 8, 0xc8),
            (edge - 8, 9, 0x25),
            (edge, 1, 0x25),
            ((1 << 32) + 5, 3, 0x25),
            ((1 << 33) - 1, 1, 0x25),
        ] {
            go(&disk, read(lba, blocks, sink.to(0))).unwrap();
            let done = sink.one(task);
            assert_eq!(done.result, Ok(()));
            assert!(bytes(&done.request) == pattern(0, lba, u64::from(blocks)), "{lba}");
            assert_eq!(codes(&rig).last(), Some(&(code, lba, blocks)));
        }
        let refused = go(&disk, read(1 << 33, 1, sink.to(0))).unwrap_err();
        assert_eq!(refused.why, Refusal::Invalid(Error::OutOfRange));
    });
}

/// Without 48 bits, commands of 256 sectors at most.
#[test]
fn long_requests_are_several_commands() {
    let settings = Settings { lba48: false, fua: false, trim_blocks: 0, ..Settings::default() };
    for schedule in SCHEDULES {
        let rig = Rig::with(Config { schedule, ..Config::default() }, settings.clone());
        rig.disk(GOOD, |task, disk| {
            let sink = Sink::new();
            go(&disk, write(10, &fill(700, 7), sink.to(0))).unwrap();
            assert_eq!(sink.one(task).result, Ok(()));
            assert_eq!(codes(&rig), [(0xca, 10, 256), (0xca, 266, 256), (0xca, 522, 188)]);
            assert!((0..700).all(|n| rig.disk.read_sector(10 + n as u64)[..] == fill(700, 7)[n * 512..][..512]));
        });
    }
}

/// With 48 bits, commands of a megabyte, so that the other drive gets its turn.
#[test]
fn the_longest_request() {
    let rig = Rig::with(Config { ram: 64 << 20, ..Config::default() }, Settings::default());
    rig.disk(GOOD, |task, disk| {
        let sink = Sink::new();
        let most = disk.info().limits.max_transfer_bytes / 512;
        go(&disk, read(3, most, sink.to(0))).unwrap();
        let done = sink.one(task);
        assert!(bytes(&done.request) == pattern(0, 3, u64::from(most)));
        assert!(codes(&rig).iter().all(|(code, _, sectors)| (*code, *sectors) == (0x25, 2048)));
        let refused = disk.submit(read(3, most + 1, sink.to(0))).unwrap_err();
        assert_eq!(refused.why, Refusal::Invalid(Error::TooLarge));
    });
}

/// Logical blocks of 4096 bytes, in pieces that end within a block, by each way of moving data.
#[test]
fn blocks_of_4096_bytes() {
    for dma in [true, false] {
        for schedule in SCHEDULES {
            let settings =
                Settings { logical_block: 4096, dma, fua: dma, trim_blocks: u16::from(dma), ..Settings::default() };
            let rig = Rig::with(Config { schedule, ..Config::default() }, settings);
            rig.disk(GOOD, |task, disk| {
                let (info, sink) = (disk.info(), Sink::new());
                assert_eq!((info.capacity, info.block_size), (SECTORS / 8, 4096));
                let pieces: Vec<usize> = [512, 3072, 1024, 7680].into_iter().cycle().take(400).collect();
                let list: Vec<Piece> = pieces.iter().map(|&len| Piece::from(buffer(len))).collect();
                let blocks = pieces.iter().sum::<usize>() as u32 / 4096;
                go(&disk, Request::new(Op::Read, 11, blocks, Data::List(list), sink.to(0))).unwrap();
                let done = sink.one(task);
                assert_eq!(done.result, Ok(()));
                assert!(bytes(&done.request) == pattern(0, 88, u64::from(blocks) * 8));
                if dma {
                    go(&disk, Request::new(Op::Discard, 2, 3, Data::None, sink.to(0))).unwrap();
                    assert_eq!(sink.one(task).result, Ok(()));
                    assert_eq!((rig.disk.read_sector(16), rig.disk.read_sector(39)), ([0; 512], [0; 512]));
                    assert_eq!(rig.disk.read_sector(40), Disk::pattern(seed(0), 40));
                }
            });
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let rig = Rig::new();
    rig.disk(GOOD, |_, disk| {
        let sink = Sink::new();
        let invalid = |request| disk.submit(request).unwrap_err().why;
        assert_eq!(invalid(read(SECTORS, 1, sink.to(0))), Refusal::Invalid(Error::OutOfRange));
        assert_eq!(invalid(read(u64::MAX, 1, sink.to(0))), Refusal::Invalid(Error::OutOfRange));
        let zeroes = Request::new(Op::WriteZeroes, 0, 1, Data::None, sink.to(0));
        assert_eq!(invalid(zeroes), Refusal::Invalid(Error::Unsupported));
        let short = Request::new(Op::Read, 0, 2, buffer(512).into(), sink.to(0));
        assert_eq!(invalid(short), Refusal::Invalid(Error::BadLength));
    });
}

#[test]
fn a_bad_sector_spoils_its_request_only() {
    for dma in [true, false] {
        for schedule in SCHEDULES {
            let settings = Settings { dma, fua: dma, trim_blocks: u16::from(dma), ..Settings::default() };
            let rig = Rig::with(Config { schedule, ..Config::default() }, settings);
            rig.disk.set_bad(45);
            rig.disk(GOOD, |task, disk| {
                let sink = Sink::new();
                for (cookie, lba) in [(0, 0), (1, 30), (2, 60)] {
                    disk.submit(read(lba, 30, sink.to(cookie))).unwrap();
                }
                disk.submit(write(40, &fill(10, 0), sink.to(3))).unwrap();
                disk.commit();
                let results: Vec<_> = sink.wait(task, 4).iter().map(|done| done.result).collect();
                assert_eq!(results, [Ok(()), Err(Error::Medium), Ok(()), Err(Error::Medium)], "{dma}");
            });
        }
    }
}
