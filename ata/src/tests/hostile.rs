//! Drives that lie about themselves, and drives that cannot be used.

use super::*;

/// What probing one drive with these settings came to.
fn probed(settings: Settings) -> (usize, Vec<ProbeError>) {
    let rig = Rig::settings(settings);
    let result = rig.machine.run(|task| {
        let found = rig.probe(task, GOOD).unwrap();
        (found.disks.len(), found.failures.iter().map(|(_, error)| *error).collect())
    });
    assert_eq!(rig.machine.live_dma_blocks(), 0);
    result
}

#[test]
fn drives_that_cannot_be_used_are_named() {
    let patched = |patches: &[(usize, u16)]| Settings { patches: patches.to_vec(), ..Settings::default() };
    for (settings, error) in [
        (Settings { locked: true, ..Settings::default() }, ProbeError::Locked),
        (patched(&[(49, 0x0100)]), ProbeError::NoLba),
        (patched(&[(0, 0x8580)]), ProbeError::BadIdentify("not a disk's")),
        (patched(&[(100, 0xffff), (101, 0xffff), (102, 0xffff), (103, 0xffff)]), ProbeError::BadIdentify("capacity")),
        (patched(&[(106, 0x5000), (117, 3)]), ProbeError::BadIdentify("sector size")),
        (patched(&[(255, 0x00a5)]), ProbeError::BadIdentify("checksum")),
        (Settings { reset_nanos: 1 << 40, ..Settings::default() }, ProbeError::ResetTimeout),
    ] {
        assert_eq!(probed(settings), (0, Vec::from([error])));
    }
}

/// A drive that says that it has more sectors than it has: what lies beyond ends with an error, and the driver goes on.
#[test]
fn a_drive_with_less_than_it_says() {
    let rig = Rig::settings(Settings { patches: Vec::from([(102, 1)]), ..Settings::default() });
    rig.machine.run(|task| {
        let found = rig.probe(task, GOOD).unwrap();
        let (disk, sink) = (&found.disks[0], Sink::new());
        assert_eq!(disk.info().capacity, (1 << 32) + SECTORS);
        for (lba, result) in [(1 << 32, Err(Error::Medium)), (SECTORS, Err(Error::Medium)), (5, Ok(()))] {
            go(disk, read(lba, 1, sink.to(0))).unwrap();
            assert_eq!(sink.one(task).result, result, "{lba}");
        }
    });
}

/// Every drive without a feature, or with a smaller one, still does what the rest can do.
#[test]
fn drives_without() {
    let base = Settings::default;
    for settings in [
        Settings { lba48: false, fua: false, trim_blocks: 0, ..base() },
        Settings { dma: false, fua: false, trim_blocks: 0, max_multiple: 0, ..base() },
        Settings { flush: false, ..base() },
        Settings { flush: false, write_cache: None, ..base() },
        Settings { write_cache: Some(false), ..base() },
        Settings { patches: Vec::from([(63, 7), (88, 0x3f)]), ..base() },
        Settings { patches: Vec::from([(47, 0)]), ..base() },
        Settings { patches: Vec::from([(83, 0), (82, 0), (86, 0)]), ..base() },
    ] {
        let rig = Rig::settings(settings.clone());
        rig.disk(GOOD, |task, disk| {
            let sink = Sink::new();
            go(&disk, write(77, &fill(70, 7), sink.to(0))).unwrap();
            assert_eq!(sink.one(task).result, Ok(()));
            go(&disk, read(70, 500, sink.to(0))).unwrap();
            let done = sink.one(task);
            assert_eq!(done.result, Ok(()));
            assert!(bytes(&done.request)[7 * 512..77 * 512] == fill(70, 7));
        });
    }
}

/// A cache that cannot be written out is switched off; one that stays on in spite of that has no flush, and none is reported as done.
#[test]
fn a_cache_without_a_flush() {
    use undercroft_block::Features;
    for stays in [false, true] {
        let rig = Rig::settings(Settings { flush: false, cache_stays: stays, ..Settings::default() });
        rig.disk(GOOD, |task, disk| {
            let sink = Sink::new();
            assert_eq!(disk.info().features.contains(Features::VOLATILE_CACHE), stays);
            go(&disk, write(7, &fill(1, 7), sink.to(0))).unwrap();
            assert_eq!(sink.one(task).result, Ok(()));
            assert_eq!(rig.disk.volatile_sectors() > 0, stays);
            go(&disk, Request::flush(sink.to(0))).unwrap();
            assert_eq!(sink.one(task).result, if stays { Err(Error::Unsupported) } else { Ok(()) });
        });
    }
}

/// A medium that is write protected: the first write says so, and later ones are not taken.
#[test]
fn a_drive_that_is_write_protected() {
    use undercroft_block::{Features, Refusal};
    let rig = Rig::new();
    rig.disk.set_read_only(true);
    rig.disk(GOOD, |task, disk| {
        let sink = Sink::new();
        go(&disk, write(7, &fill(1, 7), sink.to(0))).unwrap();
        assert_eq!(sink.one(task).result, Err(Error::ReadOnly));
        assert!(disk.info().features.contains(Features::READ_ONLY));
        let refused = go(&disk, write(7, &fill(1, 7), sink.to(0))).unwrap_err();
        assert_eq!(refused.why, Refusal::Invalid(Error::ReadOnly));
        go(&disk, read(7, 1, sink.to(0))).unwrap();
        assert_eq!(sink.one(task).result, Ok(()));
    });
}

/// Words of nonsense: probing ends, whatever it comes to, and what was found can be read or fails.
#[test]
fn random_identify_data() {
    let mut random = undercroft_hosts::Random::new(11);
    for _ in 0..150 {
        let patches: Vec<_> = (0..random.below(30)).map(|_| (random.below(256), random.next_u64() as u16)).collect();
        let rig = Rig::settings(Settings { patches, ..Settings::default() });
        rig.machine.run(|task| {
            let found = rig.probe(task, GOOD).unwrap();
            let sink = Sink::new();
            for disk in &found.disks {
                let info = disk.info();
                let buf = buffer(info.block_size as usize);
                go(disk, Request::new(Op::Read, info.capacity - 1, 1, buf.into(), sink.to(0))).unwrap();
                sink.watch(task, &rig.machine, disk, 1, Duration::from_secs(1000));
            }
        });
        assert_eq!(rig.machine.live_dma_blocks(), 0);
    }
}

/// No memory for tables, or a part of it: the CPU moves the data, and nothing is left behind.
#[test]
fn set_up_without_memory() {
    for n in 0..2 {
        let rig = Rig::new();
        rig.machine.fail_dma_after(n);
        rig.disk(GOOD, |task, disk| {
            assert_eq!(&disk.identity().transport[..], "pio lba48");
            let sink = Sink::new();
            go(&disk, read(9, 9, sink.to(0))).unwrap();
            assert!(bytes(&sink.one(task).request) == pattern(0, 9, 9));
        });
    }
}
