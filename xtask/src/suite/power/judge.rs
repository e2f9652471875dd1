//! Whether what is left of a disk after a power cut can be: all that was acknowledged is there, byte for byte, and no sector holds what was never
//! written to it.

use anyhow::{Result, bail, ensure};

use super::plan::{Label, SECTOR, SECTORS, WORKERS};

/// Generations that may have begun after the last one that was heard of: what was said last may be lost with the power.
const UNHEARD: u64 = 64;

/// What was written to a disk in one run, by plan.
pub struct Judge {
    disk: u64,
    seed: u64,
    /// The first sector of the region.
    start: u64,
    /// What was on it before.
    before: Vec<u8>,
    /// Of each sector of the region its worker, and the generations that write it.
    writers: Vec<(u64, Vec<u64>)>,
}

impl Judge {
    /// For workers of which so many generations are known to be acknowledged.
    pub fn new(disk: u64, seed: u64, start: u64, before: Vec<u8>, acked: [u64; WORKERS as usize]) -> Self {
        let mut writers = vec![(0, Vec::new()); SECTORS as usize];
        for (worker, acked) in (0..WORKERS).zip(acked) {
            for generation in 1..=acked + UNHEARD {
                for (first, count) in (Label { disk, sector: 0, seed, worker, generation }).plan(start) {
                    for sector in first - start..first - start + count {
                        writers[sector as usize].0 = worker;
                        writers[sector as usize].1.push(generation);
                    }
                }
            }
        }
        Self { disk, seed, start, before, writers }
    }

    /// Holds if what a cut left is possible when so many generations were acknowledged.
    pub fn look(&self, left: &[u8], acked: [u64; WORKERS as usize]) -> Result<()> {
        ensure!(left.len() == self.before.len(), "the disk has {} bytes", left.len());
        for (sector, (now, before)) in (0..).zip(left.chunks_exact(SECTOR).zip(self.before.chunks_exact(SECTOR))) {
            let place = u64::checked_sub(sector, self.start).and_then(|at| self.writers.get(at as usize));
            match place {
                Some((worker, generations)) => {
                    let acked = acked.get(*worker as usize).copied().unwrap_or(0);
                    self.sector(sector, now, before, *worker, generations, acked)?;
                }
                None => ensure!(now == before, "sector {sector}: never written: it is outside of the region"),
            }
        }
        Ok(())
    }

    fn sector(
        &self,
        sector: u64,
        now: &[u8],
        before: &[u8],
        worker: u64,
        generations: &[u64],
        acked: u64,
    ) -> Result<()> {
        let floor = generations.iter().copied().rfind(|generation| *generation <= acked);
        if now == before {
            let Some(floor) = floor else { return Ok(()) };
            bail!("sector {sector}: lost: it is as it was before the run, and generation {floor} was acknowledged");
        }
        let Some(label) = Label::read(now) else { bail!("sector {sector}: never written: it is nobody's") };
        ensure!(label.disk == self.disk && label.sector == sector, "sector {sector}: misplaced: {label:?}");
        ensure!(label.bytes() == now, "sector {sector}: torn: {label:?} is its beginning only");
        let known = label.seed == self.seed && label.worker == worker;
        ensure!(known && generations.contains(&label.generation), "sector {sector}: never written: {label:?}");
        let possible = label.generation <= acked + UNHEARD;
        ensure!(possible, "sector {sector}: never written: {label:?}, and {acked} generations were acknowledged");
        if let Some(floor) = floor {
            let generation = label.generation;
            ensure!(
                generation >= floor,
                "sector {sector}: lost: it is of generation {generation}, and {floor} was acknowledged"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 2;

    fn label(sector: u64, worker: u64, generation: u64) -> Label {
        Label { disk: 5, sector, seed: 9, worker, generation }
    }

    /// A disk on which so many generations of each worker were written, and its judge.
    fn disk(written: u64, acked: u64) -> (Vec<u8>, Judge) {
        let before = vec![0; (START + SECTORS + 1) as usize * SECTOR];
        let mut left = before.clone();
        for worker in 0..WORKERS {
            for generation in 1..=written {
                for (first, count) in label(0, worker, generation).plan(START) {
                    for sector in first..first + count {
                        put(&mut left, label(sector, worker, generation));
                    }
                }
            }
        }
        (left, Judge::new(5, 9, START, before, [acked; WORKERS as usize]))
    }

    fn put(image: &mut [u8], label: Label) {
        image[label.sector as usize * SECTOR..][..SECTOR].copy_from_slice(&label.bytes());
    }

    fn says(judge: &Judge, left: &[u8], acked: u64) -> String {
        judge.look(left, [acked; WORKERS as usize]).map_or_else(|error| error.to_string(), |()| "fine".into())
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_what_was_written_later_may() {
        for (written, acked) in [(0, 0), (5, 0), (5, 5), (40, 7), (40, 40)] {
            let (left, judge) = disk(written, acked);
            assert_eq!(says(&judge, &left, acked), "fine", "{written} {acked}");
        }
        let (left, judge) = disk(5, 6);
        assert!(says(&judge, &left, 6).contains("lost"), "the last generation is not there");
        let (left, judge) = disk(0, 1);
        assert!(says(&judge, &left, 1).contains("as it was before the run"));
    }

    /// A sector of a generation that writes it, and one that comes before that and writes it, too.
    fn twice_written(worker: u64) -> (u64, u64, u64) {
        let covers = |sector: u64, generation| {
            let plan = label(0, worker, generation).plan(START);
            plan.into_iter().any(|(first, count)| (first..first + count).contains(&sector))
        };
        let twice = |sector| {
            let mut generations = (1..=40).filter(|generation| covers(sector, *generation));
            Some((sector, generations.next()?, generations.next()?))
        };
        (START..START + SECTORS).find_map(twice).unwrap()
    }

    #[test]
    fn an_older_version_is_lost_what_is_newer() {
        let (sector, first, second) = twice_written(1);
        let (mut left, judge) = disk(40, 40);
        put(&mut left, label(sector, 1, first));
        assert!(says(&judge, &left, 40).contains("lost: it is of generation"), "{}", says(&judge, &left, 40));
        // Not so as long as the newer one is not acknowledged.
        let (mut left, judge) = disk(first, first);
        put(&mut left, label(sector, 1, first));
        assert!(!says(&judge, &left, second - 1).contains(&format!("sector {sector}:")));
    }

    /// The checker's own negative controls: each kind of content that nobody ever wrote there.
    #[test]
    fn what_was_never_written_is_noticed() {
        let (good, judge) = disk(40, 40);
        let (sector, first, _) = twice_written(0);
        let bytes = label(sector, 0, first).bytes();
        let changed = |at: usize, wanted: &str, change: &dyn Fn(&mut [u8])| {
            let mut left = good.clone();
            change(&mut left[at * SECTOR..][..SECTOR]);
            let said = says(&judge, &left, 40);
            assert!(said.contains(wanted) && said.contains(&format!("sector {at}:")), "{wanted}: {said}");
        };
        let at = sector as usize;
        changed(at, "never written: it is nobody's", &|place| place.fill(0xaa));
        changed(at, "misplaced", &|place| place.copy_from_slice(&label(sector + 1, 0, first).bytes()));
        changed(at, "misplaced", &|place| place.copy_from_slice(&Label { disk: 6, ..label(sector, 0, first) }.bytes()));
        changed(at, "torn", &|place| place[256..].copy_from_slice(&[0; 256]));
        changed(at, "torn", &|place| {
            place.copy_from_slice(&bytes);
            place[SECTOR - 1] ^= 1;
        });
        changed(at, "never written", &|place| {
            place.copy_from_slice(&Label { seed: 8, ..label(sector, 0, first) }.bytes())
        });
        changed(at, "never written", &|place| place.copy_from_slice(&label(sector, 1, first).bytes()));
        changed(at, "never written", &|place| place.copy_from_slice(&label(sector, 0, 1_000_000).bytes()));
        changed(0, "outside of the region", &|place| place[0] = 1);
    }
}
