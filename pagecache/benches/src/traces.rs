//! Made-up traces of known shapes, the same in every run: which pages are read, one after the other.

use std::collections::VecDeque;

use crate::random::Random;

/// Pages of the caches that are compared: 16 MiB.
pub const CACHE: u32 = 4096;
/// Pages of the disk that is read.
pub const DISK: u64 = 1 << 22;
/// Reads, without those of scans.
const READS: u64 = 400_000;
/// Where scans begin.
const FAR: u64 = 1 << 20;

/// A trace's name and its reads.
pub type Trace = (&'static str, Vec<u64>);

/// All of them.
pub fn all() -> Vec<Trace> {
    let ranks = Ranks::new(65_536, 0.9);
    let mut random = Random(1);
    let mut popular = |shift: u64| ranks.page(&mut random, shift);
    let zipf: Vec<u64> = (0..READS).map(|_| popular(0)).collect();
    // As long as two caches, one for each 20,000 reads; no page of a scan is ever read again.
    let scan = |at: u64| (0..2 * u64::from(CACHE)).map(move |page| FAR + at * u64::from(CACHE) / 10_000 + page);
    let scans = (0..READS).flat_map(|at| {
        let scan = (at % 20_000 == 19_999).then(|| scan(at - 19_999)).into_iter().flatten();
        std::iter::once(zipf[at as usize]).chain(scan)
    });
    let scans = scans.collect();
    let shifting = (0..READS).map(|at| popular(at / 50_000)).collect();
    let round = u64::from(CACHE) * 6 / 5;
    let mut random = Random(2);
    let window = u64::from(CACHE) * 4 / 5;
    let moving = (0..READS).map(|at| at / 20 + random.below(window)).collect();
    let both = (0..READS).map(|at| if at % 2 == 0 { zipf[at as usize] } else { FAR + at / 2 % round });
    let mut all = vec![
        ("zipf", zipf.clone()),
        ("zipf with scans in between", scans),
        ("zipf whose ranks change", shifting),
        ("a loop of 1.2 caches", (0..READS).map(|at| at % round).collect()),
        ("that loop and zipf, in turn", both.collect()),
        ("a working set that moves", moving),
        ("a loop of 2 caches", (0..READS).map(|at| at % (2 * u64::from(CACHE))).collect()),
        ("two pools in turn", pools()),
        ("a database", database()),
        ("a web server", web()),
        ("files read twice", twice()),
    ];
    for (name, power) in
        [("zipf, power 0.6", 0.6), ("zipf, power 0.8", 0.8), ("zipf, power 1", 1.0), ("zipf, power 1.2", 1.2)]
    {
        let (ranks, mut random) = (Ranks::new(65_536, power), Random(3));
        all.push((name, (0..READS).map(|_| ranks.page(&mut random, 0)).collect()));
    }
    all
}

/// An index of half a cache and records of twenty, one after the other: what 2Q and LRU-2 were made for.
fn pools() -> Vec<u64> {
    let mut random = Random(4);
    let (index, records) = (u64::from(CACHE) / 2, u64::from(CACHE) * 20);
    (0..READS).map(|at| if at % 2 == 0 { random.below(index) } else { FAR + random.below(records) }).collect()
}

/// Tables by popularity, a log that is written at its end and read a little behind it.
fn database() -> Vec<u64> {
    let (tables, mut random, mut end) = (Ranks::new(20_000, 0.8), Random(5), 0u64);
    let mut next = || match random.below(10) {
        0..=5 => tables.page(&mut random, 0),
        6..=8 => {
            let behind = random.below(600);
            2 * FAR + end.saturating_sub(behind)
        }
        _ => {
            end += 1;
            2 * FAR + end
        }
    };
    (0..READS).map(|_| next()).collect()
}

/// A third is never wanted again; the rest by popularity, which drifts.
fn web() -> Vec<u64> {
    let (files, mut random, mut fresh) = (Ranks::new(40_000, 0.8), Random(6), 0);
    let next = |at| {
        if random.below(100) < 35 {
            fresh += 1;
            return 3 * FAR + fresh;
        }
        files.rank(&mut random) * 7919 % 40_000 + at / 400
    };
    (0..READS).map(next).collect()
}

/// Pages that are wanted once more some fifty pages later, and then, most of them, never again.
fn twice() -> Vec<u64> {
    let (popular, mut random, mut again) = (Ranks::new(65_536, 0.9), Random(7), VecDeque::new());
    let mut next = || {
        if random.below(2) == 0 && again.len() > 50 {
            return again.pop_front().unwrap_or_default();
        }
        let page = if random.below(3) == 0 { popular.page(&mut random, 0) } else { FAR + random.below(3 * FAR) };
        again.push_back(page);
        page
    };
    (0..READS).map(|_| next()).collect()
}

/// Pages of which each has a share that falls with a power of its rank.
struct Ranks {
    sums: Vec<f64>,
}

impl Ranks {
    fn new(pages: u32, power: f64) -> Self {
        let mut sum = 0.0;
        let add = |rank| {
            sum += f64::from(rank).powf(-power);
            sum
        };
        Self { sums: (1..=pages).map(add).collect() }
    }

    /// A page, by its share. `shift` says which has which rank.
    fn page(&self, random: &mut Random, shift: u64) -> u64 {
        // Neighbours in rank are not neighbours on the disk.
        (self.rank(random) * 7919 + shift * 9973) % self.sums.len() as u64
    }

    fn rank(&self, random: &mut Random) -> u64 {
        let at = random.share() * self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum < at) as u64
    }
}
