//! Every entry meets every state of a page (A-PC-01), a page that there is no memory for among them.
//!
//! A page is brought into a state and the device made to hold its answers; the entry comes; the device answers. Whatever happens in between, the entry
//! ends once and well, sees what was written before it, and after it the volume and, after a sync, the device have what they must.

use undercroft_hal::heap::fail_nth;

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const P: u64 = PAGE as u64;
const INDEX: u64 = 5;
const AT: u64 = INDEX * P;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Absent,
    /// Absent, and memory for pages is refused.
    Short,
    Reading,
    Clean,
    Dirty,
    Writing,
    Redirtied,
}

const STATES: [Before; 7] =
    [Before::Absent, Before::Short, Before::Reading, Before::Clean, Before::Dirty, Before::Writing, Before::Redirtied];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Read,
    WritePage,
    WritePart,
    Pin,
    Sync,
    SyncRange,
    Discard,
    Invalidate,
    Shrink,
    Fast,
    ReadFile,
    WriteFile,
    /// The page of a file that was never written.
    FirstWrite,
    SetAside,
    Map,
}

const ENTRIES: [Entry; 15] = [
    Entry::Read,
    Entry::WritePage,
    Entry::WritePart,
    Entry::Pin,
    Entry::Sync,
    Entry::SyncRange,
    Entry::Discard,
    Entry::Invalidate,
    Entry::Shrink,
    Entry::Fast,
    Entry::ReadFile,
    Entry::WriteFile,
    Entry::FirstWrite,
    Entry::SetAside,
    Entry::Map,
];

/// What a page's bytes may be: what the device had first, or filled.
fn page_of(fill: Option<u8>) -> Vec<u8> {
    fill.map_or_else(|| (AT as usize..AT as usize + PAGE).map(pattern).collect(), |fill| vec![fill; PAGE])
}

/// Brings the page into a state: its content, and what the device has at least when a write-back that is under way has ended.
fn prepare(rig: &Rig<'_>, before: Before) -> (Option<u8>, Option<u8>) {
    // There is memory, and a page that can be evicted.
    for page in 0..16 {
        assert!(rig.now((100 + page) * P, 1).is_ok());
    }
    let write = |fill| rig.volume.write_blocking(rig.cx, AT, &[fill; PAGE]).unwrap();
    match before {
        Before::Absent | Before::Short => {}
        Before::Clean => drop(rig.now(AT, 1).unwrap()),
        Before::Reading => {
            rig.device.hold();
            // It is read with the page before, for which the reader waits.
            rig.read(100, AT - P, PAGE + 1);
        }
        Before::Dirty | Before::Writing | Before::Redirtied => write(1),
    }
    if matches!(before, Before::Writing | Before::Redirtied) {
        rig.device.hold();
        rig.sync(100);
        rig.settle();
    }
    if before == Before::Redirtied {
        write(2);
    }
    rig.device.hold();
    let stats = rig.stats();
    let expected = match before {
        Before::Absent | Before::Short | Before::Clean => (0, 0, 0),
        Before::Reading => (2, 0, 0),
        Before::Dirty => (0, 1, 0),
        Before::Writing => (0, 0, 1),
        Before::Redirtied => (0, 1, 1),
    };
    assert_eq!((stats.reading, stats.dirty, stats.writing), expected, "{before:?} was not reached");
    match before {
        Before::Absent | Before::Short | Before::Reading | Before::Clean => (None, None),
        Before::Dirty => (Some(1), None),
        Before::Writing => (Some(1), Some(1)),
        Before::Redirtied => (Some(2), Some(1)),
    }
}

fn enter(rig: &Rig<'_>, entry: Entry, content: Option<u8>) {
    let (cx, volume, done) = (rig.cx, &rig.volume, rig.done(1));
    match entry {
        Entry::Read => rig.read(1, AT, PAGE),
        Entry::WritePage => rig.write(1, AT, PAGE, 9),
        Entry::WritePart => rig.write(1, AT + 10, PAGE - 20, 9),
        Entry::Pin => volume.pin(cx, AT + 3, done).unwrap(),
        Entry::Sync => volume.sync_all(cx, done).unwrap(),
        Entry::SyncRange => volume.sync(cx, AT..AT + 1, done).unwrap(),
        Entry::Discard => volume.discard(cx, AT..AT + P, done).unwrap(),
        Entry::Invalidate => volume.invalidate(cx, AT..AT + P, done).unwrap(),
        Entry::Shrink | Entry::Fast => {
            if entry == Entry::Shrink {
                volume.resize_cache(cx, 16);
            }
            // Nothing that completes: something else does.
            volume.sync(cx, 0..0, done).unwrap();
        }
        // Those that wait: the device goes on, but has not answered yet.
        Entry::ReadFile | Entry::WriteFile | Entry::FirstWrite | Entry::SetAside | Entry::Map => {
            rig.device.release();
            wait_for(rig, entry, content);
            volume.sync(cx, 0..0, done).unwrap();
        }
    }
}

/// An entry that waits: what it is to see, it sees.
fn wait_for(rig: &Rig<'_>, entry: Entry, content: Option<u8>) {
    let (cx, mut bytes) = (rig.cx, vec![0xee; PAGE]);
    let file = |place| {
        let volume = rig.volume.another(cx).unwrap();
        File::new(cx, volume, &[Extent { len: P, place }], P).unwrap()
    };
    match entry {
        Entry::ReadFile => {
            assert_eq!(file(Place::Written(AT)).read(cx, 0, &mut bytes), Ok(PAGE));
            assert!(bytes == page_of(content), "it saw something else");
        }
        Entry::WriteFile => file(Place::Written(AT)).write(cx, 10, &[9; PAGE - 20]).unwrap(),
        Entry::FirstWrite => {
            let file = file(Place::Unwritten(AT));
            assert_eq!(file.read(cx, 0, &mut bytes), Ok(PAGE));
            assert_eq!(bytes, [0; PAGE], "it saw something else");
            file.write(cx, 10, &[9; PAGE - 20]).unwrap();
        }
        Entry::SetAside => {
            let aside = rig.volume.set_aside(cx, AT..AT + P).unwrap();
            assert!(rig.store(AT as usize, PAGE) == page_of(content), "its owner sees something else");
            assert_eq!(rig.now(AT, 1), Err(undercroft_block::Error::Busy));
            drop(aside);
            rig.settle();
        }
        _ => {
            let pinned = rig.volume.pin_blocking(cx, AT).unwrap();
            pinned.read(cx, 0, &mut bytes);
            assert!(bytes == page_of(content), "it saw something else");
            let mapped = pinned.map(cx).map_err(|(_, error)| error).unwrap();
            mapped.page().write(cx, 10, &[9; PAGE - 20]).unwrap();
            assert_eq!(rig.stats().dirty, 1, "a mapped page counts as changed");
            mapped.unmap(cx, || ());
        }
    }
}

fn meets(before: Before, entry: Entry) -> Result<(), String> {
    let met = try_with(Config { pages: 32, ..SMALL }, |rig| {
        let (content, sent) = prepare(rig, before);
        let short = if before == Before::Short { 1 } else { u64::MAX };
        // The first allocation is the test's own, where there is one.
        let _ = fail_nth(short, || {
            enter(rig, entry, content);
            rig.settle();
        });
        rig.device.release();
        rig.settle();
        assert_eq!(rig.result(1), Some(Ok(())), "it did not end, or not well");
        let pinned = rig.sink.ended.lock().unwrap().get_mut(&1).unwrap().outcome.pinned.take();
        let mut page = page_of(content);
        match entry {
            Entry::Read => assert!(rig.bytes(1) == page, "it saw something else"),
            Entry::WritePage => page.fill(9),
            Entry::WritePart | Entry::WriteFile | Entry::Map => page[10..PAGE - 10].fill(9),
            Entry::FirstWrite => {
                page.fill(0);
                page[10..PAGE - 10].fill(9);
            }
            Entry::Pin => {
                let mut bytes = vec![0; PAGE];
                pinned.as_ref().expect("pinned").read(rig.cx, 0, &mut bytes);
                assert!(bytes == page, "it saw something else");
            }
            Entry::Sync | Entry::SyncRange => {
                assert!(rig.device.lock().durable[AT as usize..][..PAGE] == page, "it is not durable");
            }
            Entry::Discard => page.fill(0xdd),
            // What was on its way has arrived; what was not is lost.
            Entry::Invalidate => page = page_of(sent),
            Entry::Shrink | Entry::Fast | Entry::ReadFile | Entry::SetAside => {}
        }
        drop(pinned);
        assert!(rig.now(AT, PAGE).unwrap() == page, "the volume has something else afterwards");
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
        assert!(rig.store(AT as usize, PAGE) == page, "the device has something else afterwards");
    });
    met.map_err(|error| format!("{entry:?} of a page that was {before:?}: {error}"))
}

fn all() -> Result<(), String> {
    for before in STATES {
        for entry in ENTRIES {
            meets(before, entry)?;
        }
    }
    Ok(())
}

#[test]
fn a_pc_01_every_entry_meets_every_state() {
    all().unwrap();
}

#[test]
fn a_pc_01_every_entry_meets_every_state_control() {
    for (hazard, message) in [
        // The device has the page's memory: there is nothing to be read.
        (Hazard::OverReading, "out of range for slice of length 0"),
        (Hazard::NotReadFirst, "something else"),
        (Hazard::DiscardOvertakes, "something else"),
        (Hazard::NewestOnly, "it is not durable"),
    ] {
        let error = broken::with(hazard, all).expect_err(&format!("{hazard:?}"));
        assert!(error.contains(message), "{hazard:?}: {error}");
    }
}
