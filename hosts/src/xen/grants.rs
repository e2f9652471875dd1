//! The guest's grant table, of version 1, and what of it is mapped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use undercroft_hal::xen::SharedPage;

use super::breach::{Breach, Log};
use super::consts::{BACKEND, PAGE, grant};
use super::memory;
use crate::Bus;

/// Entries that the tool stack has made: of the console's page and xenstore's.
const TAKEN: u32 = 2;
/// Entries of a page.
const PER_FRAME: u32 = PAGE as u32 / grant::ENTRY;

#[derive(Debug, Clone, Copy)]
struct Mapped {
    frame: u32,
    flags: u16,
    /// How often, and how often to be written.
    times: u32,
    writers: u32,
}

#[derive(Debug, Default)]
pub(super) struct Grants {
    /// The table's pages.
    frames: Vec<Option<SharedPage>>,
    mapped: BTreeMap<u32, Mapped>,
    /// References of which a breach was noted already.
    noted: Vec<u32>,
}

/// Flags, domain, frame.
type Entry = (u16, u16, u32);

impl Grants {
    pub fn frames(&self) -> u32 {
        self.frames.len() as u32
    }

    /// Puts a page of the table at a frame.
    pub fn add_frame(&mut self, bus: &Bus<'_>, index: u64, frame: u64) {
        let index = index as usize;
        while self.frames.len() <= index {
            self.frames.push(None);
        }
        bus.frames().put(frame);
        self.frames[index] = bus.frames().page(frame);
        if index == 0 {
            (0..TAKEN).for_each(|reference| self.write_entry(reference, Self::taken(reference)));
        }
    }

    fn taken(reference: u32) -> Entry {
        let flags = grant::PERMIT | grant::READING | grant::WRITING;
        (flags, BACKEND, if reference == 0 { 0xf_efff } else { 0xf_effc })
    }

    fn words(&self, reference: u32) -> Option<[&AtomicU32; 2]> {
        let page = self.frames.get((reference / PER_FRAME) as usize)?.as_ref()?;
        let offset = (reference % PER_FRAME * grant::ENTRY) as usize;
        Some([page.word(offset), page.word(offset + 4)])
    }

    fn entry(&self, reference: u32) -> Option<Entry> {
        let [head, frame] = self.words(reference)?.map(|word| word.load(Ordering::SeqCst));
        Some((head as u16, (head >> 16) as u16, frame))
    }

    fn write_entry(&self, reference: u32, (flags, domain, frame): Entry) {
        let Some(words) = self.words(reference) else { return };
        words[1].store(frame, Ordering::SeqCst);
        words[0].store(u32::from(flags) | u32::from(domain) << 16, Ordering::SeqCst);
    }

    /// Maps a reference for the back end's domain. Returns the address of the page.
    pub fn map(&mut self, bus: &Bus<'_>, reference: u32, writes: bool, log: &mut Log) -> Result<u64, Breach> {
        let bad = |what| Err(Breach::Grant(reference, what));
        let Some((flags, domain, frame)) = self.entry(reference) else { return bad("there is no such entry") };
        if reference < TAKEN {
            return bad("it is the tool stack's");
        }
        if flags & grant::TYPE != grant::PERMIT {
            return bad("it grants no access");
        }
        if domain != BACKEND {
            return bad("it is granted to another domain");
        }
        if writes && flags & grant::READ_ONLY != 0 {
            return bad("it grants reading only");
        }
        let at = u64::from(frame) * PAGE;
        // No memory of a driver's: granted all the same, which would be a hole in it.
        memory::read(bus, at, &mut [0; PAGE as usize])?;
        log.counts.maps += 1;
        let kept = Mapped { frame, flags: flags & !(grant::READING | grant::WRITING), times: 0, writers: 0 };
        let mapped = self.mapped.entry(reference).or_insert(kept);
        mapped.times += 1;
        mapped.writers += u32::from(writes);
        let used = flags | grant::READING | if writes { grant::WRITING } else { 0 };
        self.write_entry(reference, (used, domain, frame));
        Ok(at)
    }

    /// Where a reference is mapped, if the guest has left it so.
    pub fn mapped_at(&mut self, reference: u32) -> Option<u64> {
        self.mapped.get(&reference).map(|mapped| u64::from(mapped.frame) * PAGE)
    }

    /// Lets go of what was mapped.
    pub fn unmap(&mut self, reference: u32, writes: bool, log: &mut Log) {
        self.check_one(reference, log);
        let Some(mapped) = self.mapped.get_mut(&reference) else { return };
        mapped.times = mapped.times.saturating_sub(1);
        mapped.writers = mapped.writers.saturating_sub(u32::from(writes));
        let (times, writers) = (mapped.times, mapped.writers);
        if times == 0 {
            self.mapped.remove(&reference);
        }
        if let Some((flags, domain, frame)) = self.entry(reference) {
            let over = if times == 0 { grant::READING } else { 0 } | if writers == 0 { grant::WRITING } else { 0 };
            self.write_entry(reference, (flags & !over, domain, frame));
        }
    }

    fn check_one(&mut self, reference: u32, log: &mut Log) {
        let Some(mapped) = self.mapped.get(&reference) else { return };
        let used = grant::READING | if mapped.writers > 0 { grant::WRITING } else { 0 };
        let stays = self.entry(reference) == Some((mapped.flags | used, BACKEND, mapped.frame));
        if !stays && !self.noted.contains(&reference) {
            self.noted.push(reference);
            log.breach(Breach::RevokedWhileMapped(reference));
        }
    }

    /// Looks whether the guest has kept its hands off what is mapped and off what is not its own.
    pub fn check(&mut self, log: &mut Log) {
        for reference in self.mapped.keys().copied().collect::<Vec<_>>() {
            self.check_one(reference, log);
        }
        for reference in 0..TAKEN {
            let entry = self.entry(reference);
            if entry.is_some_and(|entry| entry != Self::taken(reference)) && !self.noted.contains(&reference) {
                self.noted.push(reference);
                log.breach(Breach::ReservedGrant(reference));
            }
        }
    }

    /// References that are mapped.
    pub fn mapped(&self) -> usize {
        self.mapped.len()
    }

    /// References that the guest has granted, but for the tool stack's.
    pub fn granted(&self) -> usize {
        let most = self.frames() * PER_FRAME;
        (TAKEN..most).filter(|reference| self.entry(*reference).is_some_and(|(flags, ..)| flags != 0)).count()
    }
}
