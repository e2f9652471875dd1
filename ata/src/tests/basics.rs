//! What the driver is for.

use undercroft_block::{Features, Refusal};

use super::*;

/// Reads, writes over one part of a cylinder and many, flushes; checks what the model's disk holds.
fn exercise(task: &Task, rig: &Rig, disk: &AtaDisk) {
    let sink = Sink::new();
    for (lba, blocks) in [(5, 1), (5, 8), (100, 16), (1000, 300)] {
        go(disk, read(lba, blocks, sink.to(1))).unwrap();
        let done = sink.one(task);
        assert_eq!((done.cookie, done.result, done.context), (1, Ok(()), Kind::BottomHalf));
        assert!(bytes(&done.request) == pattern(0, lba, u64::from(blocks)), "what was read at {lba}");
    }
    let content = fill(300, 0);
    go(disk, write(2000, &content, sink.to(2))).unwrap();
    assert_eq!(sink.one(task).result, Ok(()));
    for (sector, chunk) in (2000..).zip(content.chunks(512)) {
        assert_eq!(rig.disk.read_sector(sector)[..], *chunk, "sector {sector}");
    }
    assert!(rig.disk.volatile_sectors() > 0);
    go(disk, Request::flush(sink.to(3))).unwrap();
    assert_eq!(sink.one(task).result, Ok(()));
    assert_eq!(rig.disk.volatile_sectors(), 0);
    assert_eq!(
        disk.counters(),
        crate::Counters { foreign_interrupts: disk.counters().foreign_interrupts, ..Default::default() }
    );
}

#[test]
fn reads_writes_and_flushes_by_dma() {
    for schedule in SCHEDULES {
        let rig = Rig::schedule(schedule);
        rig.disk(GOOD, |task, disk| exercise(task, &rig, &disk));
    }
}

#[test]
fn reads_writes_and_flushes_by_programmed_io() {
    for schedule in SCHEDULES {
        for max_multiple in [0, 1, 8, 128] {
            let rig = Rig::pio(schedule, max_multiple);
            rig.disk(GOOD, |task, disk| exercise(task, &rig, &disk));
        }
    }
}

#[test]
fn native_mode_and_no_bus_master() {
    let one = || [Some(Settings::default()), None, None, None];
    for (mode, bus_master, word) in
        [(Mode::Native, true, "dma"), (Mode::Native, false, "pio"), (Mode::Compatible, false, "pio")]
    {
        for schedule in SCHEDULES {
            let config = Config { schedule, ..Config::default() };
            let rig = Rig::full(config, one(), mode, bus_master);
            rig.disk(GOOD, |task, disk| {
                let identity = disk.identity();
                assert!(identity.transport.starts_with(word), "{identity:?}");
                assert_eq!(&identity.interrupts[..], if mode == Mode::Native { "intx" } else { "irq:14" });
                exercise(task, &rig, &disk);
            });
        }
    }
}

#[test]
fn says_who_and_what_it_is() {
    let rig = Rig::settings(Settings { physical_exponent: 3, ..Settings::default() });
    rig.disk(GOOD, |_, disk| {
        let identity = disk.identity();
        assert_eq!(
            (identity.driver, &identity.serial[..], &identity.model[..]),
            ("ata", "ide-0", "UNDERCROFT MODEL DISK")
        );
        assert_eq!(&identity.controller[..], "pci 0000:00:01.0 primary device 0");
        assert_eq!(&identity.transport[..], "dma lba48");
        let info = disk.info();
        assert_eq!((info.capacity, info.block_size, info.physical_block_size), (1 << 16, 512, 4096));
        assert_eq!(info.features, Features::VOLATILE_CACHE | Features::FUA | Features::DISCARD);
        assert_eq!((info.queues, info.depth), (1, 32));
    });
}

#[test]
fn four_drives_at_once() {
    let all = || {
        core::array::from_fn(|place| {
            Some(Settings { dma: place != 1, fua: false, trim_blocks: 0, ..Settings::default() })
        })
    };
    for schedule in SCHEDULES {
        let rig = Rig::full(Config { schedule, ..Config::default() }, all(), Mode::Compatible, true);
        rig.run(|task, found| {
            assert_eq!((found.disks.len(), &found.failures[..]), (4, &[][..]));
            let sink = Sink::new();
            for n in 0..80u64 {
                let place = n as usize % 4;
                found.disks[place].submit(read(n * 9, 1 + n as u32 % 40, sink.to(n))).unwrap();
            }
            found.disks.iter().for_each(|disk| disk.commit());
            for done in sink.wait(task, 80) {
                assert_eq!(done.result, Ok(()));
                let data = bytes(&done.request);
                let good = pattern(done.cookie as usize % 4, done.cookie * 9, data.len() as u64 / 512);
                assert!(data == good, "request {}", done.cookie);
            }
        });
    }
}

#[test]
fn a_full_queue_gives_the_request_back_and_says_when_there_is_room() {
    let rig = Rig::schedule(Schedule::Lazy);
    rig.disk(GOOD, |task, disk| {
        let sink = Sink::new();
        disk.watch(sink.clone());
        let depth = u64::from(disk.info().depth);
        for n in 0..depth {
            disk.submit(read(n, 1, sink.to(n))).unwrap();
        }
        let refused = disk.submit(read(99, 1, sink.to(99))).unwrap_err();
        assert_eq!((refused.why, refused.request.lba), (Refusal::Full, 99));
        disk.commit();
        let done = sink.wait(task, depth as usize);
        assert!(done.iter().map(|done| done.cookie).eq(0..depth), "in order");
        assert_eq!(sink.events.lock().unwrap()[..], [Event::Room]);
        go(&disk, refused.request).unwrap();
        sink.one(task);
    });
}

#[test]
fn a_packet_device_is_recognised_and_skipped() {
    let disk = Disk::patterned(SECTORS, seed(0));
    let piix = Piix::new(
        Channel::new(Some(Drive::new(disk.clone())), Some(Drive::packet())),
        Channel::new(Some(Drive::packet()), None),
    );
    let machine = Machine::new(Config::default());
    let rig = Rig { host: machine.add_pci(piix), machine, disk };
    rig.run(|task, found| {
        let others: Vec<_> = found.others.iter().map(|other| (&other.place[..], &other.model[..])).collect();
        let model = "UNDERCROFT MODEL CD-ROM";
        assert_eq!(
            others,
            [("pci 0000:00:01.0 primary device 1", model), ("pci 0000:00:01.0 secondary device 0", model)]
        );
        assert_eq!((found.disks.len(), &found.failures[..]), (1, &[][..]));
        exercise(task, &rig, &found.disks[0]);
    });
}

#[test]
fn a_second_drive_without_a_first() {
    let rig = Rig::full(Config::default(), [None, Some(Settings::default()), None, None], Mode::Compatible, true);
    rig.run(|task, found| {
        let sink = Sink::new();
        go(&found.disks[0], read(7, 3, sink.to(0))).unwrap();
        assert_eq!(bytes(&sink.one(task).request), pattern(1, 7, 3));
        found.disks[0].reset_channel();
        go(&found.disks[0], read(7, 3, sink.to(0))).unwrap();
        assert_eq!(sink.one(task).result, Ok(()));
    });
}

#[test]
fn an_empty_controller_and_a_channel_that_firmware_left_off() {
    let rig = Rig::full(Config::default(), [None, None, None, None], Mode::Compatible, true);
    rig.run(|_, found| assert!(found.disks.is_empty() && found.failures.is_empty()));
    let rig = Rig::three(Config::default());
    rig.host.with(|host| host.disable_channel(0));
    rig.run(|_, found| {
        assert_eq!(found.disks.len(), 1);
        assert_eq!(&found.disks[0].identity().controller[..], "pci 0000:00:01.0 secondary device 0");
    });
    assert!(!rig.host.with(|host| host.enabled(0)), "left as firmware left it");
}

#[test]
fn trims_and_writes_past_the_cache() {
    let rig = Rig::new();
    rig.disk(GOOD, |task, disk| {
        let sink = Sink::new();
        let most = disk.info().limits.max_discard_blocks;
        assert_eq!(most, 64 * 65_535);
        // More than one range of a TRIM.
        go(&disk, Request::new(Op::Discard, 10, 65_500, Data::None, sink.to(0))).unwrap();
        assert_eq!(sink.one(task).result, Ok(()));
        assert_eq!(rig.disk.read_sector(9), Disk::pattern(seed(0), 9));
        assert_eq!((rig.disk.read_sector(10), rig.disk.read_sector(65_509)), ([0; 512], [0; 512]));
        assert_eq!(rig.disk.read_sector(65_510), Disk::pattern(seed(0), 65_510));
        go(&disk, Request::flush(sink.to(0))).unwrap();
        sink.one(task);
        let mut past = write(20, &fill(3, 9), sink.to(1));
        past.fua = true;
        go(&disk, past).unwrap();
        assert_eq!(sink.one(task).result, Ok(()));
        assert_eq!(rig.disk.volatile_sectors(), 0);
        assert_eq!(rig.disk.durable_sector(21)[..], fill(3, 9)[512..1024]);
    });
}
