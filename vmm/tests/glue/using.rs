use std::error::Error;
use std::sync::Arc;

use undercroft_block::adapter::Disk;
use undercroft_block::queue::{BlockQueue, Config};
use undercroft_block::scsi::scan;
use undercroft_hal::Task;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hyperv::{Hypervisor, Partition};
use undercroft_storvsc::{Settings, Storvsc, VmBus};
use undercroft_timer::timers;

/// The first sector of the first disk of the first controller.
pub fn first_sector(task: &Task, hypervisor: Arc<dyn Hypervisor>) -> Result<Vec<u8>, Box<dyn Error>> {
    // Deadlines are callouts, which run by the machine's alarm.
    timers::start_service(task);
    let partition = Partition::start(task, hypervisor)?;
    let bus = VmBus::connect(task, partition, &Settings::default())?;
    let offer = *bus.offers().first().ok_or("the host offers no disks")?;
    let controller = Arc::new(Storvsc::new(task, &bus, &offer, Settings::default())?);
    let disk = scan(task, controller)?.disks.into_iter().next().ok_or("a controller without disks")?;
    // A queue before a disk gives each request a deadline, and recovers the controller when one has passed.
    let queue = BlockQueue::new(disk, Config::default());
    let disk = Disk::new(Arc::new(queue), 4);
    let sector = disk.read_blocking(task, 0, DmaBuf::new(512, DmaConstraints::ANY)?)?;
    let bytes = sector.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect();
    drop((sector, disk));
    // Waits until the controller is closed, and unloads: the host uses no memory of the guest's any more.
    bus.close(task).then_some(bytes).ok_or_else(|| "the host does not let go".into())
}
