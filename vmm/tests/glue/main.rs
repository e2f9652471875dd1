//! The glue that docs/hyperv.md shows, word for word, between the unmodified driver and a host that works on threads of its own: here the
//! model, behind the functions that another host has too.

mod model;
mod using;

mod glue {
    use super::model::Model;

    include!("glue.rs");
}

use std::sync::Arc;
use std::time::{Duration, Instant};

use undercroft_block::adapter::Disk;
use undercroft_block::queue::{BlockQueue, Config};
use undercroft_block::scsi::scan;
use undercroft_block::{Data, Error};
use undercroft_hal::Task;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted;
use undercroft_hal::hyperv::Partition;
use undercroft_hosts::Script;
use undercroft_hosts::hyperv::{Fault, Knobs};
use undercroft_hosts::virtio::Order;
use undercroft_storvsc::{Settings, Storvsc, VmBus};
use undercroft_timer::timers;

use glue::{Glue, Side};
use model::Model;

/// Runs `f` on a machine that is joined to a model by the glue. Afterwards the host has nothing of the guest's, and the guest has kept to the
/// interface.
fn joined<R>(f: impl FnOnce(&Task, &Arc<Model>) -> R) -> R {
    let (model, raised) = Model::start();
    let result = hosted::run(Glue::new(Arc::clone(&model), raised), |task| f(task, &model));
    assert_eq!(model.with(|model| (model.breaches().to_vec(), model.gpadls())), (Vec::new(), 0));
    result
}

/// Runs `f` with the first disk, behind a queue.
fn with_disk(config: Config, f: impl FnOnce(&Task, &Model, &Disk)) {
    joined(|task, model| {
        timers::start_service(task);
        let partition = Partition::start(task, Arc::new(Side(Arc::clone(model)))).expect("starts");
        let bus = VmBus::connect(task, partition, &Settings::default()).expect("connects");
        let controller = Storvsc::new(task, &bus, &bus.offers()[0], Settings::default()).expect("probes");
        let disk = scan(task, Arc::new(controller)).expect("scans").disks.remove(0);
        let disk = Disk::new(Arc::new(BlockQueue::new(disk, config)), 64);
        f(task, model, &disk);
        drop(disk);
        assert!(bus.close(task));
    });
}

fn buffer(bytes: usize) -> DmaBuf {
    DmaBuf::new(bytes, DmaConstraints::ANY).expect("memory")
}

fn bytes(data: &Data) -> Vec<u8> {
    data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect()
}

#[test]
fn the_book_shows_what_runs_here() {
    let book = include_str!("../../../docs/hyperv.md");
    for text in [include_str!("glue.rs"), include_str!("using.rs")] {
        assert!(
            book.contains(&format!("```rust\n{text}```\n")),
            "docs/hyperv.md does not show vmm/tests/glue as it is"
        );
    }
}

#[test]
fn the_first_sector_is_read() {
    joined(|task, model| {
        let sector = using::first_sector(task, Arc::new(Side(Arc::clone(model)))).expect("reads");
        assert!(sector == model.disk.read_sector(0), "other data than what is on the disk");
    });
}

#[test]
fn much_is_read_and_written() {
    with_disk(Config::default(), |task, model, disk| {
        model.with(|model| model.knobs = Knobs { order: Order::Random, ..Knobs::default() });
        for at in 0..200 {
            let mut data = buffer(4096);
            data.fill(at as u8);
            disk.write_blocking(task, at * 8, data).expect("writes");
            let data = disk.read_blocking(task, at * 8, buffer(4096 + 512)).expect("reads");
            let expected: Vec<u8> = (at * 8..at * 8 + 9).flat_map(|sector| model.disk.read_sector(sector)).collect();
            assert!(bytes(&data) == expected);
        }
    });
}

/// Deadlines work, by the alarm: what the host never answers ends, and the disk goes on.
#[test]
fn a_request_that_is_never_answered_ends() {
    let (timeout, rung) = (Duration::from_millis(50), Duration::from_millis(30));
    let config = Config { timeout, rungs: [rung, rung, rung, Duration::from_secs(10)], ..Config::default() };
    with_disk(config, |task, model, disk| {
        model.with(|model| model.set_packet_faults(Script::none().at(0, Fault::Never)));
        let started = Instant::now();
        let failed = disk.read_blocking(task, 0, buffer(512)).expect_err("is not answered");
        assert_eq!(failed.error, Error::TimedOut);
        let took = started.elapsed();
        assert!(took >= timeout && took < timeout + 4 * rung + Duration::from_secs(5), "{took:?}");
        drop(failed);
        let data = disk.read_blocking(task, 0, buffer(512)).expect("reads again");
        assert!(bytes(&data) == model.disk.read_sector(0));
    });
}
