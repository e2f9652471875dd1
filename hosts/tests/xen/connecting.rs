//! Attempts to connect that fail: nothing is left behind, and what failed for once does not fail the next. Each test ends with the ledgers of the rig.

use undercroft_hal::dma::DmaError;
use undercroft_hosts::xen::{Event, Knobs, VbdSettings};
use undercroft_hosts::{Config, Script};
use undercroft_xen::blk::ConnectError;

use super::rig::*;

/// Grants that run out end the attempt, and everything that it took comes back.
#[test]
fn a_xblk_03_grants_run_out_while_it_connects() {
    let rig = Rig::new(Config::default(), Knobs { grant_frames: 1, ..Knobs::default() }, VbdSettings::default());
    rig.domain(|task, domain, store| {
        for _ in 0..3 {
            assert_eq!(rig.connect(task, domain, store).err(), Some(ConnectError::NoGrant));
            settle(task);
            rig.model(|host| assert_eq!((host.granted(), host.mapped(), host.open_ports()), (0, 0, 0)));
        }
    });
}

/// Memory that runs out once: for the ring, and for the pages of data, of which there are 512.
#[test]
fn memory_runs_out_while_it_connects() {
    for after in [0, 1, 2, 3, 100, 512] {
        let rig = Rig::plain();
        rig.domain(|task, domain, store| {
            rig.machine.fail_dma_after(after);
            assert_eq!(rig.connect(task, domain, store).err(), Some(ConnectError::Memory(DmaError::NoMemory)));
            let disk = rig.connect(task, domain, store).expect("connects when there is memory").expect("is a disk");
            rig.check_disk(task, &disk, 5);
            assert!(disk.close(task));
        });
    }
}

/// Event channels that run out.
#[test]
fn event_channels_run_out_while_it_connects() {
    let rig = Rig::new(Config::default(), Knobs { ports: 3, ..Knobs::default() }, VbdSettings::default());
    rig.domain(|task, domain, store| {
        assert!(matches!(rig.connect(task, domain, store), Err(ConnectError::NoEvents(_))));
    });
}

/// A back end that has mapped the rings and then says what cannot be lets go of them.
#[test]
fn a_connected_back_end_that_cannot_be_used_is_parted_from() {
    let rig = Rig::with(VbdSettings { sector_size: 8192, queues: 2, ..VbdSettings::default() });
    rig.domain(|task, domain, store| {
        for _ in 0..3 {
            let error = rig.connect(task, domain, store).err();
            assert_eq!(error, Some(ConnectError::Bad("the sector size", 8192)));
            settle(task);
            rig.model(|host| {
                assert_eq!((host.granted(), host.mapped(), host.open_ports(), host.watches()), (0, 0, 0, 0))
            });
        }
    });
}

/// A back end that goes away while it connects, and keeps the rings mapped for two minutes: until then their memory is nobody else's.
#[test]
fn a_ring_that_is_kept_after_a_failure_is_set_aside() {
    let mut kept = 0;
    for step in 0..40 {
        let rig =
            Rig::new(Config::default(), Knobs { lingers: 120_000_000_000, ..Knobs::default() }, VbdSettings::default());
        rig.domain(|task, domain, store| {
            rig.model(|host| host.faults.events = Script::none().at(step, Event::Vanish(0)));
            match rig.connect(task, domain, store) {
                Ok(disk) => drop(disk.map(|disk| disk.close(task))),
                Err(_) if rig.model(|host| host.mapped()) > 0 => {
                    kept += 1;
                    assert!(rig.machine.live_dma_blocks() > 0, "memory that is mapped was freed");
                }
                Err(_) => {}
            }
            task.wait_until(|| rig.model(|host| (host.mapped(), host.granted()) == (0, 0)));
        });
    }
    assert!(kept > 0, "at no step was a ring mapped");
}
