//! Eviction beside LRU, at equal memory, on made-up traces: a first look, no replacement for real ones.

use std::collections::{BTreeMap, HashMap};

use undercroft_hosts::Random;

use super::tests::{on_a_machine, table};

const PAGES: u32 = 512;

/// Least recently used.
#[derive(Default)]
struct Lru {
    when: HashMap<u64, u64>,
    order: BTreeMap<u64, u64>,
    now: u64,
}

impl Lru {
    fn read(&mut self, index: u64) -> bool {
        self.now += 1;
        let before = self.when.insert(index, self.now);
        before.map(|before| self.order.remove(&before));
        self.order.insert(self.now, index);
        if self.order.len() > PAGES as usize {
            let (_, oldest) = self.order.pop_first().expect("not empty");
            self.when.remove(&oldest);
        }
        before.is_some()
    }
}

/// Ranks whose share falls with the power 0.9 of their place.
fn zipf(random: &mut Random, sums: &[f64]) -> u64 {
    let at = random.next_u64() as f64 / u64::MAX as f64 * sums[sums.len() - 1];
    let rank = sums.partition_point(|sum| *sum < at) as u64;
    // Neighbours in rank are not neighbours on the disk.
    rank * 7919 % 65_536
}

/// Hits of a hundred: ours, and LRU's.
fn compare(trace: &[u64]) -> (f64, f64) {
    let mut hits = (0, 0);
    on_a_machine(|| {
        let (mut ours, mut lru) = (table(PAGES), Lru::default());
        for index in trace {
            hits.0 += usize::from(ours.read(*index));
            hits.1 += usize::from(lru.read(*index));
        }
    })
    .unwrap();
    let percent = |hits: usize| hits as f64 * 100.0 / trace.len() as f64;
    (percent(hits.0), percent(hits.1))
}

#[test]
fn eviction_beside_lru_on_made_up_traces() {
    let mut random = Random::new(1);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=8192)
        .map(|rank| {
            sum += f64::from(rank).powf(-0.9);
            sum
        })
        .collect();
    let popular: Vec<u64> = (0..60_000).map(|_| zipf(&mut random, &sums)).collect();
    let mut with_scans = Vec::new();
    for (at, index) in popular.iter().enumerate() {
        with_scans.push(*index);
        if at % 3000 == 0 {
            with_scans.extend((0..1024).map(|page| 1_000_000 + at as u64 * 1024 + page));
        }
    }
    let around: Vec<u64> = (0..60_000u64).map(|at| at % 600).collect();
    let moving: Vec<u64> = (0..60_000u64).map(|at| at / 20 + random.below(400) as u64).collect();
    let results =
        [("popular", &popular), ("popular, and scans", &with_scans), ("round and round", &around), ("moving", &moving)]
            .map(|(name, trace)| (name, compare(trace)));
    for (name, (ours, lru)) in results {
        println!("{name}: {ours:.1} of 100 hit, LRU {lru:.1}");
    }
    let [(_, popular), (_, scans), (_, around), (_, moving)] = results;
    assert!(popular.0 >= popular.1, "{popular:?}");
    assert!(scans.0 > scans.1, "{scans:?}");
    assert!(around.0 > around.1, "{around:?}");
    assert!(moving.0 >= moving.1 - 5.0, "{moving:?}");
}
