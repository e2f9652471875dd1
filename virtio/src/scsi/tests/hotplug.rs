//! Units that come, go and are missed, as a bus of disks sees it.

use alloc::sync::Weak;
use core::sync::atomic::{AtomicUsize, Ordering};

use undercroft_block::scsi::{Bus, HostWatcher, ScsiDisk};
use undercroft_block::{BlockDevice, Event, Refusal};
use undercroft_hal::work::{TaskWork, Turn};

use super::*;
use undercroft_hosts::rig::read;

fn luns(disks: &[Arc<ScsiDisk>]) -> Vec<u32> {
    disks.iter().map(|disk| disk.address().lun.number()).collect()
}

#[test]
fn a_unit_that_is_added_becomes_a_disk_and_one_that_is_removed_says_so() {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule);
        rig.run(GOOD, |task, driver| {
            let bus = Bus::new(driver);
            let disks = bus.scan(task).unwrap().disks;
            assert_eq!(luns(&disks), [0, 5, 300]);
            let before = bus.changes();
            rig.host.with(|host| {
                host.model().target(0).unwrap().add(7, unit(7, 512));
                host.model().event(ScsiEvent::Rescan(0, 7));
            });
            settle(task);
            assert_eq!(bus.changes(), before + 1);
            let added = bus.scan(task).unwrap().disks;
            assert_eq!(luns(&added), [7]);

            let sink = Sink::new();
            disks[1].watch(sink.clone());
            rig.host.with(|host| {
                host.model().target(0).unwrap().remove(5);
                host.model().event(ScsiEvent::Removed(0, 5));
            });
            settle(task);
            assert_eq!(sink.events(), [Event::Removed]);
            let rejected = disks[1].submit(read(0, 1, 4096, sink.to(1))).unwrap_err();
            assert_eq!(rejected.why, Refusal::Gone(Error::Removed));
            assert!(bus.scan(task).unwrap().disks.is_empty(), "what is known is not found again");
        });
    }
}

/// More events than buffers: what was lost is found by the scan that the loss asks for.
fn missed(defects: Defects) {
    let rig = Rig::schedule(Schedule::Lazy);
    rig.run(defects, |task, driver| {
        let bus = Bus::new(Arc::clone(&driver) as Arc<dyn Host>);
        let disks = bus.scan(task).unwrap().disks;
        let sink = Sink::new();
        disks[1].watch(sink.clone());
        let before = bus.changes();
        rig.host.with(|host| {
            (0..40).for_each(|_| host.model().event(ScsiEvent::HardReset(0, 0)));
            host.model().target(0).unwrap().remove(5);
            host.model().target(0).unwrap().add(6, unit(6, 512));
            host.model().event(ScsiEvent::Removed(0, 5));
            host.model().event(ScsiEvent::Rescan(0, 6));
        });
        settle(task);
        assert!(sink.events().is_empty(), "the event was not lost");
        assert!(bus.changes() > before, "nobody was told that events were lost");
        assert_eq!(luns(&bus.scan(task).unwrap().disks), [6]);
        settle(task);
        assert_eq!(sink.events(), [Event::Removed]);
        let rejected = disks[1].submit(read(0, 1, 4096, sink.to(1))).unwrap_err();
        assert_eq!(rejected.why, Refusal::Gone(Error::Removed));
        assert!(driver.event_counts().missed > 0);
    });
}

#[test]
fn a_vscsi_02_lost_events_are_made_good_by_a_scan() {
    missed(GOOD);
}

#[test]
#[should_panic(expected = "nobody was told that events were lost")]
fn a_vscsi_02_lost_events_are_made_good_by_a_scan_control() {
    missed(Defects::one(Defect::IgnoresMissed));
}

/// Schedules a scan whenever the host says that something changed.
#[derive(Default)]
struct Rescanner(Mutex<Weak<TaskWork>>);

impl HostWatcher for Rescanner {
    fn event(&self, _cx: &BottomHalf, event: HostEvent) {
        if matches!(event, HostEvent::Added(_) | HostEvent::Rescan)
            && let Some(work) = self.0.lock().unwrap().upgrade()
        {
            work.schedule();
        }
    }
}

/// What the scans of a test share.
struct Scans {
    driver: Arc<VirtioScsi>,
    /// The bus of all of them; `None` gives each its own.
    bus: Option<Bus>,
    rescanner: Arc<Rescanner>,
    found: Mutex<Vec<Arc<ScsiDisk>>>,
    inside: AtomicUsize,
    nested: AtomicUsize,
}

impl Scans {
    fn new_bus(driver: &Arc<VirtioScsi>, rescanner: &Arc<Rescanner>) -> Bus {
        let bus = Bus::new(Arc::clone(driver) as Arc<dyn Host>);
        bus.watch(Arc::clone(rescanner) as Arc<dyn HostWatcher>);
        bus
    }

    fn scan(&self, task: &Task) {
        self.nested.fetch_add(usize::from(self.inside.fetch_add(1, Ordering::SeqCst) > 0), Ordering::SeqCst);
        let disks = match &self.bus {
            Some(bus) => bus.scan(task).unwrap().disks,
            None => Self::new_bus(&self.driver, &self.rescanner).scan(task).unwrap().disks,
        };
        self.found.lock().unwrap().extend(disks);
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Events ask for a scan in the middle of a scan.
fn rescans(one_bus: bool) {
    for seed in 0..5 {
        let config = Config { schedule: Schedule::RANDOM, seed, ..Config::default() };
        let rig = Rig::new(config, ScsiLimits { max_target: 3, ..ScsiLimits::default() });
        rig.run(GOOD, |task, driver| {
            let rescanner = Arc::new(Rescanner::default());
            let scans = Arc::new(Scans {
                bus: one_bus.then(|| Scans::new_bus(&driver, &rescanner)),
                driver,
                rescanner: Arc::clone(&rescanner),
                found: Mutex::default(),
                inside: AtomicUsize::new(0),
                nested: AtomicUsize::new(0),
            });
            let again = Arc::downgrade(&scans);
            let work = Arc::new(TaskWork::new(0, move |task: &Task| {
                if let Some(scans) = again.upgrade() {
                    scans.scan(task);
                }
                Turn::Done
            }));
            *rescanner.0.lock().unwrap() = Arc::downgrade(&work);
            rig.host.with(|host| {
                host.model().target(0).unwrap().add(9, unit(9, 512));
                host.model().event(ScsiEvent::Rescan(0, 9));
            });
            scans.scan(task);
            settle(task);
            assert!(scans.nested.load(Ordering::SeqCst) > 0, "no scan ran in the middle of another");
            let mut luns = luns(&scans.found.lock().unwrap());
            luns.sort_unstable();
            assert_eq!(luns, [0, 5, 9, 300], "a disk was found twice, or not at all");
            scans.found.lock().unwrap().clear();
        });
    }
}

#[test]
fn x26_a_rescan_during_a_rescan_finds_no_disk_twice() {
    rescans(true);
}

/// The hazard: each scan with a roster of its own.
#[test]
#[should_panic(expected = "a disk was found twice")]
fn x26_a_rescan_during_a_rescan_finds_no_disk_twice_control() {
    rescans(false);
}
