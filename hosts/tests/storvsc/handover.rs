//! A machine of generation 1: an IDE controller with two disks, the first of which has a storage channel too. The channel is the way to it, and
//! the ATA driver leaves it alone, as the image does it.

use std::sync::Arc;

use undercroft_block::BlockDevice;
use undercroft_block::scsi::scan;
use undercroft_hal::pci;
use undercroft_hosts::ata::{Channel, Drive, Piix};
use undercroft_hosts::hyperv::Controller;
use undercroft_hosts::scsi::Target;
use undercroft_hosts::{Config, Disk};
use undercroft_storvsc::Storvsc;

use super::rig::{Rig, SECTORS, Sink, bytes, lun, one, read};

#[test]
fn ide_disks_are_handed_over() {
    let rig = Rig::new(Config::default(), undercroft_hosts::hyperv::Knobs::default());
    let (first, second) = (Disk::patterned(SECTORS, 31), Disk::patterned(SECTORS, 32));
    rig.model(|host| host.add_controller(Controller::ide(0, 0, Target::new().with(0, lun(&first, 512, "IDE0")))));
    let ide = rig.machine.add_pci(Piix::new(
        Channel::new(Some(Drive::new(first.clone())), None),
        Channel::new(Some(Drive::new(second.clone())), None),
    ));
    rig.bus(|task, bus| {
        let offers = bus.offers();
        let drivers: Vec<_> =
            offers.iter().map(|offer| Arc::new(Storvsc::new(task, bus, offer, rig.wishes).unwrap())).collect();
        let taken: Vec<_> = drivers.iter().filter_map(|driver| driver.ide_place()).collect();
        assert_eq!(taken, [(0, 0)]);
        let found = pci::devices(task)
            .into_iter()
            .find_map(|function| undercroft_ata::probe_except(task, function, &taken).unwrap());
        let found = found.expect("an IDE controller");
        assert_eq!((found.disks.len(), found.others.len(), found.failures.len()), (1, 1, 0), "{:?}", found.others);
        let serials: Vec<String> = drivers
            .into_iter()
            .flat_map(|driver| scan(task, driver).unwrap().disks)
            .map(|disk| {
                let sink = Sink::new();
                let serial = disk.identity().serial.clone();
                if serial == "IDE0" {
                    let done = one(task, &disk, &sink, read(9, 1, &sink, 0));
                    assert!(bytes(&done.2)[..] == first.read_sector(9)[..]);
                }
                serial
            })
            .collect();
        assert_eq!(serials, ["S1", "IDE0"]);
        let sink = Sink::new();
        found.disks[0].submit(read(9, 1, &sink, 0)).unwrap();
        found.disks[0].commit();
        assert!(bytes(&sink.wait(task, 1)[0].2)[..] == second.read_sector(9)[..]);
    });
    let log = ide.with(|ide| ide.channels[0].drive(0).log().iter().map(|(command, ..)| *command).collect::<Vec<_>>());
    assert!(log.iter().all(|command| *command == 0xec), "the disk of the storage channel is used past it: {log:x?}");
}
