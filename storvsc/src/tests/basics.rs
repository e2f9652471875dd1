//! Connecting, finding disks, reading and writing.

use undercroft_block::BlockDevice;
use undercroft_block::scsi::{Host, scan};
use undercroft_hosts::{Disk, Schedule};

use super::*;

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

#[test]
fn disks_are_found_and_read() {
    for schedule in SCHEDULES {
        let rig = Rig::schedule(schedule);
        rig.run(GOOD, |task, driver| {
            assert_eq!(driver.identity().transport, "vmbus-6.0 vstor-6.0");
            let found = scan(task, driver.clone()).unwrap();
            let disks: Vec<_> =
                found.disks.iter().map(|disk| (disk.address(), disk.identity().serial.clone())).collect();
            assert_eq!(disks, [(at(0, 0), "S0".into()), (at(0, 5), "S5".into()), (at(0, 63), "S63".into())]);
            let sink = Sink::new();
            for (disk, seed) in found.disks.iter().zip([0, 5, 63]) {
                let block = disk.info().block_size;
                disk.submit(read(8, 16, block, sink.to(seed))).unwrap();
                disk.commit();
                let done = sink.wait(task, 1).remove(0);
                assert_eq!(done.result, Ok(()));
                let expected = Disk::patterned(1 << 14, seed);
                let mut bytes_there = vec![0; 16 * block as usize];
                expected.read(8 * u64::from(block) / 512, &mut bytes_there).unwrap();
                assert!(bytes(&done.request) == bytes_there, "other data than what is on disk {seed}");
            }
        });
    }
}
