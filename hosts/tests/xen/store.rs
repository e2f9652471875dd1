//! xenstore: what it is asked and what it says, and servers that lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use undercroft_hal::hosted::ThisMachine;
use undercroft_hal::xen::Domain;
use undercroft_hosts::xen::{Event, Knobs, Plugged, Settings, StoreFault, VbdSettings, Xen};
use undercroft_hosts::{Config, Machine, Schedule, Script};
use undercroft_xen::store::{Store, StoreError, Transaction};

use super::rig::*;

const NONE: Transaction = Transaction::NONE;

#[test]
fn values_lists_and_errors() {
    let rig = Rig::plain();
    rig.domain(|task, _, store| {
        assert_eq!(store.read_number(task, NONE, "domid").unwrap(), 1);
        assert_eq!(store.read(task, NONE, "nothing"), Err(StoreError::NotFound));
        assert_eq!(store.read(task, NONE, "/local/domain/0"), Err(StoreError::Denied));
        store.write(task, NONE, "data/a/b", "x").unwrap();
        assert_eq!(store.read_text(task, NONE, "/local/domain/1/data/a/b").unwrap(), "x");
        assert_eq!(store.list(task, NONE, "data/a").unwrap(), ["b"]);
        store.remove(task, NONE, "data/a").unwrap();
        assert_eq!(store.list(task, NONE, "data/a"), Err(StoreError::NotFound));
        let long = "v".repeat(4096 - 7);
        store.write(task, NONE, "data/l", &long).unwrap();
        assert_eq!(store.read_text(task, NONE, "data/l").unwrap(), long);
        assert_eq!(store.write(task, NONE, "data/l", "v".repeat(4096)), Err(StoreError::TooLong));
    });
}

#[test]
fn lists_longer_than_a_message() {
    for part in [usize::MAX, 4000, 100] {
        let machine = Machine::new(Config::default());
        let host = machine.add_window(Plugged::new(Xen::new(Settings { part, ..Settings::default() })), true);
        let names: Vec<String> = (0..800).map(|at| format!("name-{at:05}")).collect();
        host.with(|plugged| names.iter().for_each(|name| plugged.host.write(&format!("data/{name}"), 1)));
        machine.run(|task| {
            let domain = Domain::start(task, Arc::new(ThisMachine)).unwrap();
            let store = Store::connect(task, &domain).unwrap();
            assert!(store.list(task, NONE, "data").unwrap() == names);
            settle(task);
        });
        host.with(|plugged| assert_eq!(plugged.host.breaches(), []));
    }
}

#[test]
fn a_transaction_is_tried_again_when_others_come_between() {
    let rig = Rig::new(Config::default(), Knobs { transactions_fail: 3, ..Knobs::default() }, VbdSettings::default());
    rig.domain(|task, _, store| {
        let tries = AtomicU64::new(0);
        let result = store.transaction(task, |tx| {
            let before = store.read_number(task, tx, "data/n").or(Ok::<_, StoreError>(0))?;
            // Somebody comes between the first time that could succeed.
            if tries.fetch_add(1, Ordering::SeqCst) == 3 {
                rig.model(|host| host.write("data/n", 41));
            }
            store.write(task, tx, "data/n", before + 1)
        });
        assert_eq!(result, Ok(()));
        assert_eq!(store.read_number(task, NONE, "data/n").unwrap(), 42);
        assert_eq!((tries.load(Ordering::SeqCst), rig.counts().again), (5, 4));
    });
}

#[test]
fn watches_tell_of_what_is_below_them_and_end() {
    let rig = Rig::scheduled(Schedule::RANDOM, 2);
    rig.domain(|task, _, store| {
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let watch = store.watch(task, "data", 0, move || _ = counted.fetch_add(1, Ordering::SeqCst)).unwrap();
        task.wait_until(|| count.load(Ordering::SeqCst) > 0);
        for path in ["data", "data/a", "data/a/b"] {
            settle(task);
            let before = count.load(Ordering::SeqCst);
            store.write(task, NONE, path, 1).unwrap();
            task.wait_until(|| count.load(Ordering::SeqCst) > before);
        }
        watch.end(task).unwrap();
        settle(task);
        let before = count.load(Ordering::SeqCst);
        store.write(task, NONE, "data/a", 2).unwrap();
        rig.happen(Event::FireWatches);
        settle(task);
        assert_eq!(count.load(Ordering::SeqCst), before);
    });
}

const LIES: [StoreFault; 20] = [
    StoreFault::Delay(3_000),
    StoreFault::Drop,
    StoreFault::Twice,
    StoreFault::Kind(99),
    StoreFault::Kind(15),
    StoreFault::Kind(16),
    StoreFault::Request(0),
    StoreFault::Request(u32::MAX),
    StoreFault::Length(4097),
    StoreFault::Length(u32::MAX),
    StoreFault::Length(4096),
    StoreFault::Truncate(0),
    StoreFault::Truncate(1),
    StoreFault::Garbage(0),
    StoreFault::Garbage(0xff),
    StoreFault::Garbage(b'9'),
    StoreFault::Refused("EWHATEVER"),
    StoreFault::StrayEvent("18446744073709551615"),
    StoreFault::StrayReply,
    StoreFault::Producer(5_000),
];

/// A server that lies about one reply, at every place: the disk connects, or there is an error; nothing panics, nothing hangs.
#[test]
fn a_server_that_lies() {
    let plain = Rig::plain();
    plain.disk(|task, disk| plain.check_disk(task, disk, 1));
    let requests = plain.counts().store_requests;
    assert!(requests > 20, "{requests}");
    for lie in LIES {
        for at in 0..requests {
            let rig = Rig::plain();
            rig.machine.spins_take(1_000_000);
            rig.model(|host| host.faults.replies = Script::none().at(at, lie));
            rig.wild(|task, domain, store| {
                if let Ok(Some(disk)) = rig.connect(task, domain, store) {
                    let sink = Sink::new();
                    if let Ok(_tag) = undercroft_block::BlockDevice::submit(&*disk, read(1, 1, 512, sink.to(0))) {
                        undercroft_block::BlockDevice::commit(&*disk);
                        sink.wait(task, 1);
                    }
                    disk.close(task);
                }
            });
        }
    }
}

/// What is within the rules is no trouble.
#[test]
fn a_server_that_is_slow_and_says_more_than_it_was_asked() {
    let odd =
        [StoreFault::Delay(3_000), StoreFault::Bytewise, StoreFault::StrayEvent("77"), StoreFault::StrayEvent("-")];
    for seed in 0..10 {
        let rig = Rig::scheduled(Schedule::RANDOM, seed);
        rig.model(|host| host.faults.replies = Script::none().sometimes(seed, 40, &odd));
        rig.disk(|task, disk| rig.check_disk(task, disk, 1));
    }
}
