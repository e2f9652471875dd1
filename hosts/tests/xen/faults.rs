//! Everything of the script that a host may do, and what becomes of it.

use std::sync::Arc;

use undercroft_block::{BlockDevice, Error};
use undercroft_hal::Task;
use undercroft_hosts::xen::{Event, Fault, Knobs, VbdSettings};
use undercroft_hosts::{Config, Schedule, Script};
use undercroft_xen::blk::XenDisk;

use super::rig::*;

/// Submits reads until there is no room. Returns how many were taken.
pub fn flood(disk: &XenDisk, sink: &Arc<Sink>, most: u64) -> usize {
    let mut sent = 0;
    for at in 0..most {
        match disk.submit(read(at * 8, 8, 512, sink.to(at))) {
            Ok(_) => sent += 1,
            Err(refused) => drop(refused.request),
        }
        if at % 7 == 0 {
            disk.commit();
        }
    }
    disk.commit();
    sent
}

fn ended(sink: &Sink, task: &Task, sent: usize) {
    for done in sink.wait(task, sent) {
        assert!(
            matches!(done.result, Ok(()) | Err(Error::Removed | Error::Reset | Error::NotStarted | Error::Broken)),
            "{:?}",
            done.result
        );
    }
}

#[test]
fn a_status_is_told_and_the_disk_goes_on() {
    let rig = Rig::plain();
    rig.disk(|task, disk| {
        let sink = Sink::new();
        for (status, error) in
            [(-1, Error::Hardware), (-2, Error::Unsupported), (-77, Error::Hardware), (9, Error::Hardware)]
        {
            for fault in [Fault::Status(status), Fault::SaysStatus(status)] {
                rig.model(|host| host.set_request_faults(Script::none().at(0, fault)));
                assert_eq!(one(task, &**disk, &sink, read(1, 8, 512, sink.to(0))).result, Err(error));
                rig.check_disk(task, disk, 1);
            }
        }
    });
}

#[test]
fn a_bad_sector_fails_its_request_only() {
    let rig = Rig::plain();
    rig.disk.set_bad(5);
    rig.disk(|task, disk| {
        let sink = Sink::new();
        assert_eq!(one(task, &**disk, &sink, read(1, 8, 512, sink.to(0))).result, Err(Error::Hardware));
        rig.check_disk(task, disk, 8);
    });
}

/// What a host writes to the pages of a request after it has answered does not reach who has the data.
#[test]
fn a_xblk_04_a_page_is_written_to_after_the_answer() {
    let rig = Rig::plain();
    rig.disk(|task, disk| {
        rig.model(|host| host.set_request_faults(Script::none().from(0, Fault::TouchesLate)));
        let sink = Sink::new();
        let done = one(task, &**disk, &sink, write(50, &[7; 4096], 512, sink.to(0)));
        assert_eq!(done.result, Ok(()));
        for lba in 0..40 {
            let done = one(task, &**disk, &sink, read(lba, 8, 512, sink.to(0)));
            let before = bytes(&done.request);
            settle(task);
            assert!(bytes(&done.request) == before, "data changed after it was given back");
        }
    });
}

/// An answer that is wrong is the last one: everything ends, and nothing of it is believed.
#[test]
fn x11_answers_that_cannot_be_end_the_disk() {
    let lies = [
        Fault::Id(0),
        Fault::Id(u64::MAX),
        Fault::IdBits(1),
        Fault::IdBits(1 << 32),
        Fault::IdBits(1 << 48),
        Fault::IdBits(63 << 32),
        Fault::StaleId,
        Fault::Duplicate,
        Fault::Operation(1),
        Fault::Operation(255),
        Fault::Producer(1 << 20),
        Fault::Producer(u32::MAX - 64),
        Fault::Producer(1 << 31),
    ];
    for lie in lies {
        for at in [0, 1, 5] {
            let rig = Rig::plain();
            rig.wild(|task, domain, store| {
                let disk = rig.connect(task, domain, store).unwrap().unwrap();
                rig.model(|host| host.set_request_faults(Script::none().at(at, lie)));
                let sink = Sink::new();
                let sent = flood(&disk, &sink, 40);
                let mut wrong = 0;
                for done in sink.wait(task, sent) {
                    match done.result {
                        // What is said to have been read was.
                        Ok(()) => {
                            let blocks = u64::from(done.request.blocks);
                            assert!(bytes(&done.request) == rig.expected(done.request.lba, blocks), "{lie:?}");
                        }
                        Err(error) => {
                            assert!(matches!(error, Error::Broken | Error::Removed), "{lie:?}: {error:?}");
                            wrong += 1;
                        }
                    }
                }
                settle(task);
                disk.close(task);
                assert!(wrong > 0 || lie == Fault::Duplicate, "{lie:?} at {at} went unnoticed");
                assert_eq!(disk.counts().breaches, 1, "{lie:?}");
            });
        }
    }
}

/// The back end goes, or dies, at every step: of coming up, of a load.
#[test]
fn it_goes_at_every_step() {
    let plain = Rig::plain();
    plain.disk(|task, disk| {
        let sink = Sink::new();
        let sent = flood(disk, &sink, 30);
        sink.wait(task, sent);
    });
    let steps = plain.counts().steps;
    assert!(steps > 60, "{steps}");
    for event in [Event::Detach(0), Event::Close(0), Event::Vanish(0)] {
        for step in (0..steps).step_by(3) {
            let rig = Rig::plain();
            // Patience is long: it is waited for in vain, sometimes.
            rig.machine.spins_take(1_000_000);
            rig.model(|host| host.faults.events = Script::none().at(step, event));
            rig.wild(|task, domain, store| {
                let Ok(Some(disk)) = rig.connect(task, domain, store) else { return };
                let sink = Sink::new();
                let sent = flood(&disk, &sink, 30);
                ended(&sink, task, sent);
                disk.close(task);
            });
            rig.model(|host| assert_eq!(host.breaches(), [], "{event:?} at {step}"));
        }
    }
}

/// The tool stack takes the disk out under load: every request ends once, and nothing is left.
#[test]
fn detached_under_load() {
    for seed in 0..20 {
        let config = Config { cpus: 2, schedule: Schedule::RANDOM, seed, ..Config::default() };
        let rig = Rig::new(config, Knobs::default(), VbdSettings { queues: 2, ..VbdSettings::default() });
        rig.disk(|task, disk| {
            rig.model(|host| host.faults.events = Script::none().at(3 + seed, Event::Detach(0)));
            let sink = Sink::new();
            let sent = flood(disk, &sink, 60);
            ended(&sink, task, sent);
        });
        assert_eq!(rig.model(|host| host.states(0)).unwrap().0, None, "the back end is still there");
    }
}
