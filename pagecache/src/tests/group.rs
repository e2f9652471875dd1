//! Volumes that share a budget.

use std::sync::Arc;

use undercroft_block::{Error, Op};
use undercroft_hal::Task;
use undercroft_hosts::{Config as MachineConfig, Machine, Schedule};
use undercroft_timer::timers;

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const P: u64 = PAGE as u64;

/// Volumes over devices of a mebibyte, with 64 pages for all.
fn try_group(count: usize, test: impl FnOnce(&Task, &Cache, &[(Arc<Device>, Volume)], &Machine)) -> Result<(), String> {
    let machine = Machine::new(MachineConfig { schedule: Schedule::Eager, ..MachineConfig::default() });
    machine.try_run(|cx| {
        timers::start_service(cx);
        let cache = Cache::new(64, 4).unwrap();
        let volumes: Vec<_> = (0..count)
            .map(|_| {
                let device = Device::new(info(BYTES, 512));
                let volume = cache.open(cx, device.clone(), SMALL).unwrap();
                (device, volume)
            })
            .collect();
        test(cx, &cache, &volumes, &machine);
        volumes.iter().for_each(|(_, volume)| volume.verify(cx));
        drop(volumes);
        for _ in 0..20 {
            machine.advance(10_000_000);
            cx.run_pending();
        }
        assert_eq!((cache.totals(cx).volumes, cache.totals(cx).held), (0, 0), "the budget is back");
    })?;
    assert_eq!(machine.live_dma_blocks(), 0, "all memory is back");
    Ok(())
}

fn read(cx: &Task, volume: &Volume, pages: std::ops::Range<u64>) {
    let mut bytes = [0; PAGE];
    pages.for_each(|page| volume.read_blocking(cx, page * P, &mut bytes).unwrap());
}

fn misses(cx: &Task, volume: &Volume, pages: std::ops::Range<u64>) -> u64 {
    let before = volume.stats(cx).misses;
    read(cx, volume, pages);
    volume.stats(cx).misses - before
}

fn scan_beside_a_working_set() -> Result<(), String> {
    try_group(2, |cx, cache, volumes, machine| {
        let [(_, scanned), (_, worked)] = volumes else { unreachable!() };
        // Alone, one may have it all.
        read(cx, scanned, 0..200);
        assert_eq!((scanned.stats(cx).pages, cache.totals(cx).held), (64, 64), "what nobody wants is not idle");
        // The other comes to its share of 32, and keeps that.
        read(cx, worked, 0..32);
        assert_eq!(worked.stats(cx).pages, 32, "it did not come to its share");
        read(cx, worked, 0..32);
        for round in 0..10 {
            machine.advance(20_000_000);
            cx.run_pending();
            read(cx, scanned, 0..250);
            assert_eq!(misses(cx, worked, 0..32), 0, "round {round}: a scan of another volume took its pages");
        }
        assert!(cache.totals(cx).held <= 64, "more than the budget");
        assert_eq!(cache.totals(cx), Totals { volumes: 2, budget: 64, held: 64, share: 32 });
    })
}

#[test]
fn a_scan_of_one_volume_leaves_anothers_share_alone() {
    scan_beside_a_working_set().unwrap();
}

#[test]
fn a_scan_of_one_volume_leaves_anothers_share_alone_control() {
    for (hazard, message) in
        [(Hazard::SharesTaken, "a scan of another volume took its pages"), (Hazard::SharesKept, "NoMemory")]
    {
        let error = broken::with(hazard, scan_beside_a_working_set).unwrap_err();
        assert!(error.contains(message), "{hazard:?}: {error}");
    }
}

#[test]
fn a_sync_of_all_volumes_covers_each() {
    try_group(3, |cx, cache, volumes, machine| {
        for (at, (_, volume)) in volumes.iter().enumerate() {
            volume.write_blocking(cx, 5 * P, &[at as u8 + 1; PAGE]).unwrap();
        }
        assert_eq!(cache.sync_all_blocking(cx), Ok(()));
        for (at, (device, _)) in volumes.iter().enumerate() {
            assert!(device.lock().durable[5 * PAGE..6 * PAGE] == [at as u8 + 1; PAGE], "volume {at} is not durable");
        }
        // One that fails takes nothing from the others, and is told here and to its own handle.
        for (at, (_, volume)) in volumes.iter().enumerate() {
            volume.write_blocking(cx, 5 * P, &[at as u8 + 11; PAGE]).unwrap();
        }
        volumes[1].0.fail(Op::Write, 40, Error::Medium, 1);
        assert_eq!(cache.sync_all_blocking(cx), Err(Error::Medium));
        for at in [0, 2] {
            assert!(volumes[at].0.lock().durable[5 * PAGE..6 * PAGE] == [at as u8 + 11; PAGE]);
        }
        assert_eq!(volumes[1].1.sync_all_blocking(cx), Err(Error::Medium), "its own handle is told too");
        machine.advance(50_000_000);
        assert_eq!(cache.sync_all_blocking(cx), Ok(()));
        assert!(volumes[1].0.lock().durable[5 * PAGE..6 * PAGE] == [12; PAGE]);
    })
    .unwrap();
}

#[test]
fn memory_pressure_shrinks_whoever_has_most() {
    try_group(2, |cx, cache, volumes, _| {
        read(cx, &volumes[0].1, 0..64);
        read(cx, &volumes[1].1, 0..16);
        assert_eq!(volumes.iter().map(|(_, volume)| volume.stats(cx).pages).collect::<Vec<_>>(), [48, 16]);
        assert_eq!(cache.resize(cx, 32), 32);
        assert_eq!(volumes.iter().map(|(_, volume)| volume.stats(cx).pages).collect::<Vec<_>>(), [16, 16]);
        // What is dirty stays until it is written, whatever the budget.
        volumes[0].1.write_blocking(cx, 0, &[3; 16 * PAGE]).unwrap();
        volumes[1].1.write_blocking(cx, 0, &[4; 16 * PAGE]).unwrap();
        assert_eq!(cache.resize(cx, 16), 32);
        assert_eq!(cache.sync_all_blocking(cx), Ok(()));
        assert_eq!(cache.resize(cx, 16), 16);
        assert_eq!(cache.resize(cx, 64), 16);
        read(cx, &volumes[0].1, 0..64);
        assert_eq!(cache.totals(cx).held, 64);
        let mut seen = 0;
        cache.each(cx, |_, stats| seen += stats.pages);
        assert_eq!(seen, 64);
    })
    .unwrap();
}

#[test]
fn a_group_has_so_many_volumes() {
    try_group(4, |cx, cache, _, _| {
        let refused = cache.open(cx, Device::new(info(BYTES, 512)), SMALL);
        assert_eq!(refused.map(drop).unwrap_err(), Error::Busy);
        cx.run_pending();
    })
    .unwrap();
}
