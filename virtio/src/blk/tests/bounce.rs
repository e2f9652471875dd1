//! A device that reaches a part of memory only, with `ACCESS_PLATFORM` (virtio 1.2, 6.1): rings within, data through bounce buffers. An
//! address outside that the device is given is a breach.

use undercroft_block::{Bounce, Refusal};
use undercroft_hosts::virtio::{BlkLimits, Breach};

use super::*;

const ACCESS_PLATFORM: u64 = 1 << 33;

/// Devices reach the first 4 MiB of 16; the guest gets other memory first.
fn rig(limits: BlkLimits) -> (Rig, DmaConstraints) {
    let config = Config::default();
    let last = config.ram_base + (4 << 20) - 1;
    let rig = Rig::with(config, limits);
    rig.machine.limit_devices(last);
    rig.host.with(|device| device.knobs.with = ACCESS_PLATFORM);
    (rig, DmaConstraints { max_addr: last, ..DmaConstraints::ANY })
}

#[test]
fn a_device_that_reaches_little_is_given_nothing_else() {
    for limits in [BlkLimits::default(), BlkLimits { seg_max: 2, ..BlkLimits::default() }] {
        let (mut rig, reach) = rig(limits);
        rig.reach = reach;
        let disk = rig.disk.clone();
        rig.run(|task, driver| {
            assert!(driver.identity().transport.contains("access-platform"));
            let sink = Sink::new();
            // By itself the driver refuses what the device does not reach.
            let Err(refused) = driver.submit(read(8, 1, 512, sink.to(0))) else { panic!("an address out of reach") };
            assert_eq!(refused.why, Refusal::Invalid(Error::Unreachable));
            let far = refused.request.data.segments().all(|segment| segment.addr > reach.max_addr);
            assert!(far, "the test's buffers are within reach");

            let bounced = Bounce::new(Arc::new(driver), 4, 8192).unwrap();
            bounced.submit(read(8, 2, 512, sink.to(1))).unwrap();
            bounced.submit(scattered(3, &[512, 1536], sink.to(2))).unwrap();
            bounced.submit(write(100, &[0x5a; 4096], 512, sink.to(3))).unwrap();
            // Within reach it goes straight through.
            let near = DmaBuf::new(1024, reach).unwrap();
            bounced.submit(Request::new(Op::Read, 50, 2, near.into(), sink.to(4))).unwrap();
            bounced.commit();
            let done = sink.wait(task, 4);
            for (cookie, sector, sectors) in [(1, 8, 2), (2, 3, 4), (4, 50, 2)] {
                let one = done.iter().find(|done| done.cookie == cookie).unwrap();
                assert_eq!((one.result, bytes(&one.request)), (Ok(()), pattern(sector, sectors)));
            }
            let written = done.iter().find(|done| done.cookie == 3).unwrap();
            assert_eq!((written.result, bytes(&written.request)), (Ok(()), alloc::vec![0x5a; 4096]));
            assert_eq!(written.request.data.pieces().len(), 1);
            assert!((100..108).all(|sector| disk.read_sector(sector) == [0x5a; 512]));
            // One more than there are buffers.
            let mut more: Vec<_> = (0..5).map(|n| bounced.submit(read(n, 1, 512, sink.to(n)))).collect();
            let Some(Err(fifth)) = more.pop() else { panic!("five of four buffers") };
            assert_eq!(fifth.why, Refusal::Full);
            bounced.watch(Arc::clone(&sink) as Arc<dyn undercroft_block::Watcher>);
            bounced.commit();
            sink.wait(task, 4);
            assert_eq!(sink.events(), [Event::Room]);
            go_through(task, &bounced, fifth.request);
        });
    }
}

fn go_through(task: &Task, device: &Bounce, mut request: Request) {
    let sink = Sink::new();
    request.set_completion(sink.to(9));
    device.submit(request).unwrap();
    device.commit();
    let done = sink.wait(task, 1);
    assert_eq!((done[0].result, bytes(&done[0].request)), (Ok(()), pattern(4, 1)));
}

/// What the device was given is not within its reach, and the same check says so.
#[test]
fn a_device_that_reaches_little_is_given_nothing_else_control() {
    let (rig, _) = rig(BlkLimits::default());
    rig.machine.run(|task| {
        // Nobody said what it reaches.
        drop(rig.probe(task, GOOD));
        settle(task);
    });
    let breaches = rig.host.with(|device| device.breaches());
    assert!(matches!(breaches[..], [Breach::Memory(bad), ..] if bad.addr > 4 << 20), "{breaches:?}");
}
