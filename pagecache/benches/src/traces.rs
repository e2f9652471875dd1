//! Made-up traces of known shapes, the same in every run: which pages are read, one after the other.

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
    let ranks = Ranks::new(65_536);
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
    vec![
        ("zipf", zipf.clone()),
        ("zipf with scans in between", scans),
        ("zipf whose ranks change", shifting),
        ("a loop of 1.2 caches", (0..READS).map(|at| at % round).collect()),
        ("that loop and zipf, in turn", both.collect()),
        ("a working set that moves", moving),
    ]
}

/// Pages of which each has a share that falls with the power 0.9 of its rank.
struct Ranks {
    sums: Vec<f64>,
}

impl Ranks {
    fn new(pages: u32) -> Self {
        let mut sum = 0.0;
        let add = |rank| {
            sum += f64::from(rank).powf(-0.9);
            sum
        };
        Self { sums: (1..=pages).map(add).collect() }
    }

    /// A page, by its share. `shift` says which has which rank.
    fn page(&self, random: &mut Random, shift: u64) -> u64 {
        let pages = self.sums.len() as u64;
        let at = random.share() * self.sums.last().copied().unwrap_or_default();
        let rank = self.sums.partition_point(|sum| *sum < at) as u64;
        // Neighbours in rank are not neighbours on the disk.
        (rank * 7919 + shift * 9973) % pages
    }
}
