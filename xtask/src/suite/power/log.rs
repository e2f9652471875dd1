//! All that happened at a disk, in order, and what a power cut at any moment may leave of it.
//!
//! The disk has a write cache. A write that was answered may vanish until a flush that came after the answer has been answered; one that was not
//! answered may be there in part. A sector is whole: the old or one of the newer versions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::plan::{Random, SECTOR, WORKERS};

/// Something that happened. Numbers count writes and flushes, each in the order in which they came.
#[derive(Clone, Debug)]
pub enum Event {
    /// A write has come.
    Write { number: usize, sector: u64, data: Arc<[u8]> },
    /// A write is answered.
    Written { number: usize },
    /// A flush has come.
    Flush { number: usize },
    /// A flush is answered.
    Flushed { number: usize },
    /// The image has said that a worker's generation is durable.
    Ack { worker: u64, generation: u64 },
}

/// What a cut leaves of what was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    All,
    /// Everything.
    None,
    /// Of each sector any version.
    Sectors,
    /// Of the writes some.
    Writes,
}

impl Loss {
    pub const EVERY: [Self; 4] = [Self::All, Self::None, Self::Sectors, Self::Writes];
}

/// A disk up to some moment.
pub struct Replay {
    /// What is durable.
    image: Vec<u8>,
    writes: BTreeMap<usize, (u64, Arc<[u8]>)>,
    /// Of each sector the writes that are not durable, oldest first.
    versions: BTreeMap<u64, Vec<usize>>,
    answered: BTreeSet<usize>,
    /// What the flushes that are under way will make durable.
    flushes: BTreeMap<usize, Vec<usize>>,
    /// What each worker may rely on.
    pub acked: [u64; WORKERS as usize],
}

impl Replay {
    /// A disk before anything happened.
    pub fn new(image: Vec<u8>) -> Self {
        Self {
            image,
            writes: BTreeMap::new(),
            versions: BTreeMap::new(),
            answered: BTreeSet::new(),
            flushes: BTreeMap::new(),
            acked: [0; WORKERS as usize],
        }
    }

    /// The next thing that happened.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Write { number, sector, data } => {
                for sector in *sector..sector + (data.len() / SECTOR) as u64 {
                    self.versions.entry(sector).or_default().push(*number);
                }
                self.writes.insert(*number, (*sector, Arc::clone(data)));
            }
            Event::Written { number } => drop(self.answered.insert(*number)),
            Event::Flush { number } => drop(self.flushes.insert(*number, self.answered.iter().copied().collect())),
            Event::Flushed { number } => {
                for write in self.flushes.remove(number).unwrap_or_default() {
                    self.settle(write);
                }
            }
            Event::Ack { worker, generation } => {
                if let Some(acked) = self.acked.get_mut(*worker as usize) {
                    *acked = *generation;
                }
            }
        }
    }

    /// A write is durable, and with it nothing older.
    fn settle(&mut self, number: usize) {
        self.answered.remove(&number);
        let Some((first, data)) = self.writes.remove(&number) else { return };
        for (bytes, sector) in data.chunks_exact(SECTOR).zip(first..) {
            let Some(versions) = self.versions.get_mut(&sector) else { continue };
            let Some(at) = versions.iter().position(|version| *version == number) else { continue };
            versions.drain(..=at);
            if versions.is_empty() {
                self.versions.remove(&sector);
            }
            put(&mut self.image, sector, bytes);
        }
    }

    /// Sectors of which something newer than what is durable may be lost.
    pub fn volatile(&self) -> usize {
        self.versions.len()
    }

    pub fn is_flushing(&self) -> bool {
        !self.flushes.is_empty()
    }

    /// What a power cut leaves now.
    pub fn cut(&self, loss: Loss, random: &mut Random) -> Vec<u8> {
        let mut image = self.image.clone();
        let kept: BTreeSet<usize> = match loss {
            Loss::Writes => self.writes.keys().copied().filter(|_| random.below(2) == 0).collect(),
            _ => BTreeSet::new(),
        };
        for (sector, versions) in &self.versions {
            let version = match loss {
                Loss::All => None,
                Loss::None => versions.last(),
                Loss::Sectors => versions.get(random.below(versions.len() as u64 + 1) as usize),
                Loss::Writes => versions.iter().rfind(|version| kept.contains(version)),
            };
            if let Some((first, data)) = version.and_then(|version| self.writes.get(version))
                && let Some(bytes) = data.get((sector - first) as usize * SECTOR..).and_then(|rest| rest.get(..SECTOR))
            {
                put(&mut image, *sector, bytes);
            }
        }
        image
    }
}

/// Puts one sector. The server takes no write beyond the disk's end.
fn put(image: &mut [u8], sector: u64, bytes: &[u8]) {
    if let Some(place) = image.get_mut(sector as usize * SECTOR..).and_then(|rest| rest.get_mut(..SECTOR)) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(number: usize, sector: u64, bytes: &[u8]) -> Event {
        let data: Vec<u8> = bytes.iter().flat_map(|byte| [*byte; SECTOR]).collect();
        Event::Write { number, sector, data: data.into() }
    }

    fn replay(events: &[Event]) -> Replay {
        let mut replay = Replay::new(vec![0; 4 * SECTOR]);
        events.iter().for_each(|event| replay.take(event));
        replay
    }

    /// The first bytes of the sectors that a cut leaves.
    fn cut(replay: &Replay, loss: Loss) -> Vec<u8> {
        replay.cut(loss, &mut Random(1)).chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    fn written(number: usize) -> Event {
        Event::Written { number }
    }

    #[test]
    fn a_flush_covers_what_was_answered_before_it_came() {
        let mut disk =
            replay(&[write(0, 0, &[1]), write(1, 1, &[2]), written(0), Event::Flush { number: 0 }, written(1)]);
        assert_eq!((cut(&disk, Loss::All), disk.volatile()), (vec![0; 4], 2), "the flush is not answered");
        disk.take(&Event::Flushed { number: 0 });
        assert_eq!((cut(&disk, Loss::All), cut(&disk, Loss::None)), (vec![1, 0, 0, 0], vec![1, 2, 0, 0]));
    }

    #[test]
    fn a_sector_never_goes_back_behind_what_is_durable() {
        let events = [
            write(0, 0, &[1, 1]),
            written(0),
            write(1, 0, &[2]),
            written(1),
            Event::Flush { number: 0 },
            write(2, 1, &[3]),
            Event::Flushed { number: 0 },
        ];
        assert_eq!(cut(&replay(&events), Loss::All), [2, 1, 0, 0]);
        assert_eq!(cut(&replay(&events), Loss::None), [2, 3, 0, 0]);
    }

    #[test]
    fn what_is_not_durable_may_be_there_in_part() {
        let disk = replay(&[write(0, 0, &[1, 1, 1, 1]), written(0), write(1, 0, &[2, 2, 2, 2])]);
        let (mut sectors, mut writes) = (BTreeSet::new(), BTreeSet::new());
        let mut random = Random(5);
        for _ in 0..2000 {
            let mut firsts =
                |loss| disk.cut(loss, &mut random).chunks(SECTOR).map(|sector| sector[0]).collect::<Vec<_>>();
            sectors.insert(firsts(Loss::Sectors));
            writes.insert(firsts(Loss::Writes));
        }
        assert_eq!(sectors.len(), 3usize.pow(4), "of each sector any version");
        assert_eq!(writes.len(), 3, "neither, or one of the two");
    }
}
