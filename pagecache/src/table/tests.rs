//! The table: found pages, lists that follow from states, eviction, chunks.

use std::collections::BTreeMap;

use undercroft_hal::dma::{DmaConstraints, DmaPages, Lender};
use undercroft_hosts::{Config, Machine, Random, Schedule};

use super::*;
use crate::broken::{self, Hazard};

pub(super) fn on_a_machine(test: impl FnOnce()) -> Result<(), String> {
    let machine = Machine::new(Config { schedule: Schedule::Eager, ..Config::default() });
    machine.try_run(|_| test())?;
    assert_eq!(machine.live_dma_blocks(), 0, "all memory is back");
    Ok(())
}

fn chunk(table: &Table) -> DmaPages {
    DmaPages::new(&Lender::new(0).unwrap(), table.chunk() as usize, DmaConstraints::ANY).unwrap()
}

pub(super) fn table(pages: u32) -> Table {
    let mut table = Table::new(pages).unwrap();
    while table.may_grow() > 0 {
        assert!(table.put_chunk(chunk(&table)).is_none());
    }
    table
}

impl Table {
    /// A read of a page, as far as the table is concerned: whether it was here.
    pub(super) fn read(&mut self, index: u64) -> bool {
        if let Some(slot) = self.find(index) {
            self.touch(slot);
            return true;
        }
        let slot = self.take().expect("something can go");
        self.enter(slot, index, PageState::Reading);
        self.change(slot, PageState::Clean);
        self.touch(slot);
        false
    }

    /// Every page is in the list, and only in that, that its state asks for; links hold both ways; counts are right.
    pub(crate) fn verify(&self) {
        let mut seen = vec![Place::Nowhere; self.pages.len()];
        for place in [Place::Free, Place::Small, Place::Main, Place::Dirty, Place::Urgent, Place::Mapped] {
            let list = self.list(place);
            let (mut at, mut before, mut len) = (list.head, NONE, 0);
            while at != NONE {
                assert_eq!(seen[at as usize], Place::Nowhere, "page in two lists");
                seen[at as usize] = place;
                assert_eq!(self.pages[at as usize].prev, before);
                (before, at, len) = (at, self.pages[at as usize].next, len + 1);
            }
            assert_eq!((list.tail, list.len), (before, len), "{place:?}");
        }
        for (slot, page) in self.pages.iter().enumerate() {
            assert_eq!(page.place, seen[slot]);
            let fits = match page.state {
                PageState::Free => matches!(page.place, Place::Free | Place::Nowhere),
                PageState::Reading | PageState::Writing => page.place == Place::Nowhere,
                PageState::Clean => (page.place == Place::Nowhere) == (page.pins > 0),
                PageState::Dirty | PageState::Redirtied => match page.place {
                    Place::Urgent => true,
                    Place::Mapped => page.maps > 0,
                    place => place == Place::Dirty && page.maps == 0,
                },
            };
            assert!(fits, "{:?} in {:?}", page.state, page.place);
            if page.state != PageState::Free {
                assert_eq!(self.find(page.index), Some(slot as u32), "a page that is not found");
                let valid = self.index.find_valid(page.index);
                assert_eq!(valid, page.state.is_valid().then_some(slot as u32), "valid or not");
                let lent = page.state == PageState::Reading && self.is_lent(slot as u32);
                assert!(lent || !self.bytes(slot as u32).is_empty(), "a page without memory");
            }
        }
        let lines = self.pages.iter().filter(|page| !page.waiters.is_empty()).count();
        assert_eq!(self.lines as usize, lines, "pages that somebody waits for");
        let fresh = self.pages.iter().filter(|page| page.fresh).count();
        assert_eq!(self.fresh as usize, fresh, "pages that nobody has used");
        for state in PageState::ALL {
            let there = self.pages.iter().filter(|page| page.state == state).count();
            assert_eq!(self.count(state) as usize, there, "{state:?}");
        }
    }
}

/// Random legal changes, against a map.
#[test]
fn the_table_holds_what_was_put_into_it() {
    on_a_machine(|| {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let mut table = table(64);
            let mut model: BTreeMap<u64, PageState> = BTreeMap::new();
            for _ in 0..2000 {
                let index = random.below(150) as u64 * 0x1_0000_0001;
                match table.find(index) {
                    Some(slot) => {
                        let from = table.state(slot);
                        assert_eq!(model[&index], from);
                        let next: Vec<_> = PageState::ALL.into_iter().filter(|to| from.may_become(*to)).collect();
                        let to = next[random.below(next.len())];
                        if table.pins(slot) > 0 && random.chance(50) {
                            table.unpin(slot);
                        } else if random.chance(10) {
                            table.pin(slot);
                        } else if random.chance(10) {
                            table.hurry(slot);
                        } else if to != PageState::Free || table.pins(slot) == 0 {
                            table.change(slot, to);
                            if to == PageState::Free {
                                model.remove(&index);
                            } else {
                                model.insert(index, to);
                            }
                        }
                    }
                    None => {
                        let Some(slot) = table.take() else { continue };
                        // An eviction may have taken any clean page.
                        model.retain(|index, _| table.find(*index).is_some());
                        let state = [PageState::Reading, PageState::Dirty][random.below(2)];
                        table.enter(slot, index, state);
                        model.insert(index, state);
                    }
                }
                if random.chance(5) {
                    table.verify();
                }
            }
            let there = table.pages.iter().filter(|page| page.state != PageState::Free).count();
            assert_eq!(there, model.len());
        }
    })
    .unwrap();
}

#[test]
fn pages_that_are_dirty_in_flight_or_pinned_stay() {
    on_a_machine(|| {
        let mut table = table(16);
        for index in 0..16 {
            let slot = table.take().unwrap();
            table.enter(slot, index, if index % 2 == 0 { PageState::Dirty } else { PageState::Reading });
            match index % 4 {
                0 => table.change(slot, PageState::Writing),
                1 => {
                    table.change(slot, PageState::Clean);
                    assert!(table.pin(slot));
                }
                _ => {}
            }
        }
        table.verify();
        assert_eq!(table.take(), None);
        let slot = table.find(1).unwrap();
        table.unpin(slot);
        assert_eq!(table.take(), Some(slot), "the only page that may go");
    })
    .unwrap();
}

/// A working set that is used again and again, and a scan of ten times the cache in between.
fn scan() -> Result<(), String> {
    on_a_machine(|| {
        let mut table = table(160);
        for _ in 0..4 {
            (0..100).for_each(|index| _ = table.read(index));
        }
        let mut next = 1000;
        for _ in 0..10 {
            (0..160).for_each(|_| {
                table.read(next);
                next += 1;
            });
            let here = (0..100).filter(|index| table.read(*index)).count();
            assert!(here >= 95, "a scan displaced the working set: {here} of 100 left");
        }
        table.verify();
    })
}

#[test]
fn a_scan_leaves_the_working_set() {
    scan().unwrap();
}

#[test]
fn a_scan_leaves_the_working_set_control() {
    let error = broken::with(Hazard::ScanDisplaces, scan).unwrap_err();
    assert!(error.contains("a scan displaced the working set"), "{error}");
}

/// X28: memory comes back when it is asked for, and what was in it is gone, but nothing that must stay.
fn shrink() -> Result<(), String> {
    on_a_machine(|| {
        let mut table = table(128);
        (0..128).for_each(|index| _ = table.read(index));
        // One dirty page in one chunk, one pinned in another.
        let (dirty, pinned) = (table.find(0).unwrap(), table.find(127).unwrap());
        table.change(dirty, PageState::Dirty);
        table.pin(pinned);
        table.allow(16);
        let mut back = 0;
        let mut at = Some(0).filter(|_| !broken::is(Hazard::KeepsMemory));
        while let Some(from) = at.filter(|_| table.is_over()) {
            let (chunk, next) = table.coldest_chunk(from);
            back += u32::from(chunk.is_some());
            at = next;
            table.verify();
        }
        assert_eq!(back, 6, "memory that could go back stayed");
        assert_eq!((table.find(0), table.find(127)), (Some(dirty), Some(pinned)));
        table.unpin(pinned);
        assert!(table.coldest_chunk(0).0.is_some() && table.coldest_chunk(0).0.is_none());
        assert_eq!(table.with_memory(), 16);
        assert!(table.put_chunk(chunk(&table)).is_some(), "no more than is allowed");
        table.allow(64);
        assert!(table.put_chunk(chunk(&table)).is_none());
        table.verify();
    })
}

#[test]
fn x28_shrinking_gives_memory_back() {
    shrink().unwrap();
}

#[test]
fn x28_shrinking_gives_memory_back_control() {
    let error = broken::with(Hazard::KeepsMemory, shrink).unwrap_err();
    assert!(error.contains("memory that could go back stayed"), "{error}");
}
