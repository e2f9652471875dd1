//! What each sector may hold: every write is a version with the moments at which it began and ended. Reads linearise with them, and what was
//! made durable is there after a power cut.

use std::ops::Range;

/// A write, as one sector saw it. Number 0 is what was there at first.
#[derive(Debug, Clone, Copy)]
struct Version {
    number: u64,
    begun: u64,
    /// `u64::MAX` while it is under way.
    ended: u64,
    /// It succeeded.
    sure: bool,
    durable: bool,
}

/// The history of a disk.
#[derive(Debug)]
pub struct Oracle {
    sectors: Vec<Vec<Version>>,
    /// Sectors with versions that are not durable.
    volatile: Vec<u32>,
    /// Whether the power may go.
    cuts: bool,
}

/// The eight bytes that fill a sector.
const fn word(sector: u64, number: u64) -> u64 {
    if number == 0 { 0 } else { number << 20 | sector }
}

/// Fills sectors from `sector` on with write `number`.
pub fn fill(bytes: &mut [u8], sector: u64, number: u64) {
    for (sector, content) in (sector..).zip(bytes.chunks_exact_mut(512)) {
        let word = word(sector, number).to_le_bytes();
        content.as_chunks_mut().0.fill(word);
    }
}

/// Which write a sector's content is of.
fn number_of(content: &[u8], sector: u64) -> u64 {
    let (words, _) = content.as_chunks::<8>();
    let first = u64::from_le_bytes(words[0]);
    let number = first >> 20;
    let whole = words.iter().all(|other| *other == words[0]) && first == word(sector, number);
    assert!(whole, "sector {sector} holds what was never written: {:02x?}", &content[..16]);
    number
}

impl Oracle {
    /// A disk of zeros.
    pub fn new(sectors: u64, cuts: bool) -> Self {
        let first = Version { number: 0, begun: 0, ended: 0, sure: true, durable: true };
        Self { sectors: vec![vec![first]; sectors as usize], volatile: Vec::new(), cuts }
    }

    /// A write begins. `oldest` is when the oldest operation under way began.
    pub fn begin(&mut self, range: Range<u64>, number: u64, now: u64, oldest: u64) {
        for sector in range {
            let versions = &mut self.sectors[sector as usize];
            if versions.len() > 4 {
                let cuts = self.cuts;
                let by = |w: &Version| w.sure && w.ended < oldest && (w.durable || !cuts);
                let newest = versions.iter().filter(|w| by(w)).map(|w| w.begun).max().unwrap_or(0);
                versions.retain(|version| version.ended >= newest);
            }
            versions.push(Version { number, begun: now, ended: u64::MAX, sure: false, durable: false });
            self.volatile.push(sector as u32);
        }
    }

    /// It ends.
    pub fn end(&mut self, range: Range<u64>, number: u64, now: u64, good: bool, durable: bool) {
        for sector in range {
            let version = self.sectors[sector as usize].iter_mut().rfind(|version| version.number == number);
            let version = version.expect("a write that began");
            (version.ended, version.sure, version.durable) = (now, good, good && durable);
        }
    }

    /// A flush that began at `begun` has succeeded.
    pub fn flushed(&mut self, begun: u64) {
        let sectors = &mut self.sectors;
        self.volatile.retain(|sector| {
            let versions = &mut sectors[*sector as usize];
            versions.iter_mut().filter(|v| v.sure && v.ended < begun).for_each(|version| version.durable = true);
            versions.iter().any(|version| !version.durable)
        });
        self.volatile.sort_unstable();
        self.volatile.dedup();
    }

    /// A read from `sector` on, which began at `begun`, has returned this.
    pub fn read(&self, sector: u64, bytes: &[u8], begun: u64) {
        for (sector, content) in (sector..).zip(bytes.chunks_exact(512)) {
            let number = number_of(content, sector);
            let versions = &self.sectors[sector as usize];
            // What ended before this began cannot be seen any more, if it had been written over.
            let newest = versions.iter().filter(|w| w.sure && w.ended < begun).map(|w| w.begun).max().unwrap_or(0);
            let may = versions.iter().any(|version| version.number == number && version.ended >= newest);
            assert!(may, "sector {sector} reads as write {number} of {versions:?}: that is stale");
        }
    }

    /// The power went; this is what is left. The history begins anew.
    pub fn cut(&mut self, left: impl Fn(u64) -> [u8; 512]) {
        for (sector, versions) in (0..).zip(&mut self.sectors) {
            if versions.len() == 1 {
                continue;
            }
            let number = number_of(&left(sector), sector);
            let newest = versions.iter().filter(|w| w.sure && w.durable).map(|w| w.begun).max().unwrap_or(0);
            let may = versions.iter().any(|version| version.number == number && version.ended >= newest);
            assert!(
                may,
                "after a power cut sector {sector} holds write {number} of {versions:?}: what was flushed is lost"
            );
            *versions = vec![Version { number, begun: 0, ended: 0, sure: true, durable: true }];
        }
        self.volatile.clear();
    }
}
