//! What the driver is for.

use undercroft_block::{Features, Refusal};

use super::*;

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

#[test]
fn reads_writes_and_flushes() {
    for schedule in SCHEDULES {
        let rig = Rig::schedule(schedule);
        rig.run(|task, driver| {
            let sink = Sink::new();
            go(&driver, read(5, 8, 512, sink.to(1))).unwrap();
            let done = sink.wait(task, 1).remove(0);
            assert_eq!((done.cookie, done.result), (1, Ok(())));
            assert_eq!(bytes(&done.request), pattern(5, 8));
            let fill: Vec<u8> = (0..4096u32).map(|n| n as u8).collect();
            go(&driver, write(9, &fill, 512, sink.to(2))).unwrap();
            assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
            assert_eq!(rig.disk.read_sector(10)[..], fill[512..1024]);
            assert!(rig.disk.volatile_sectors() > 0);
            go(&driver, Request::flush(sink.to(3))).unwrap();
            assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
            assert_eq!(rig.disk.volatile_sectors(), 0);
        });
    }
}

#[test]
fn says_who_and_what_it_is() {
    let rig = Rig::new(BlkLimits { queues: 4, physical_exponent: 3, ..BlkLimits::default() });
    rig.run(|_, driver| {
        let identity = driver.identity();
        assert_eq!((identity.driver, &identity.serial[..]), ("virtio-blk", "undercroft-0"));
        assert_eq!(&identity.interrupts[..], "msi-x:2", "one queue for one CPU");
        assert_eq!(&identity.transport[..], "event-idx indirect ring-reset");
        let info = driver.info();
        assert_eq!((info.capacity, info.block_size, info.physical_block_size), (1 << 16, 512, 4096));
        assert!(info.features.contains(Features::VOLATILE_CACHE | Features::DISCARD | Features::WRITE_ZEROES));
        assert_eq!((info.limits.max_segments, info.queues, info.depth), (62, 1, 256));
    });
}

#[test]
fn many_in_flight_with_scattered_data() {
    for schedule in SCHEDULES {
        let rig = Rig::schedule(schedule);
        rig.run(|task, driver| {
            let sink = Sink::new();
            let mut submitted = 0;
            for n in 0..40u64 {
                let sizes = [512usize, 1024, 4096];
                let pieces: Vec<usize> = (0..=n as usize % 20).map(|k| sizes[k % 3]).collect();
                driver.submit(scattered(n * 100, &pieces, sink.to(n))).unwrap();
                submitted += 1;
            }
            assert!(sink.count() == 0 || schedule == Schedule::RANDOM || schedule == Schedule::Eager);
            driver.commit();
            for done in sink.wait(task, submitted) {
                assert_eq!(done.result, Ok(()));
                let data = bytes(&done.request);
                assert_eq!(data, pattern(done.cookie * 100, data.len() as u64 / 512));
            }
        });
    }
}

#[test]
fn a_full_queue_gives_the_request_back_and_says_when_there_is_room() {
    let rig = Rig::new(BlkLimits { queue_size: 8, ..BlkLimits::default() });
    rig.run(|task, driver| {
        let sink = Sink::new();
        driver.watch(sink.clone());
        for n in 0..8 {
            driver.submit(read(n, 1, 512, sink.to(n))).unwrap();
        }
        let refused = driver.submit(read(99, 1, 512, sink.to(99))).unwrap_err();
        assert_eq!((refused.why, refused.request.lba), (Refusal::Full, 99));
        driver.commit();
        assert_eq!(sink.wait(task, 8).len(), 8);
        assert_eq!(sink.events()[..], [Event::Room]);
        go(&driver, refused.request).unwrap();
        sink.wait(task, 1);
    });
}
