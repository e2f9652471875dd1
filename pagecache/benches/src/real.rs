//! Traces of programs: what they read and wrote of files, page by page. Made by `traces/make.py`, which says how; each is compared with caches of a tenth
//! and of a third of the pages that it uses.

use std::collections::BTreeSet;

/// A trace of a program: its name, its accesses and the pages that a cache has.
pub type Real = (&'static str, Vec<u64>, u32);

const TRACES: [(&str, &str, &[u8]); 4] = [
    ("git: checkouts, status, grep, diff; a tenth", "git; a third", include_bytes!("../traces/git.trace")),
    ("tar, grep, wc over a source tree; a tenth", "tar, grep, wc; a third", include_bytes!("../traces/tree.trace")),
    ("sqlite, a full-text index; a tenth", "sqlite; a third", include_bytes!("../traces/database.trace")),
    ("e2fsck and debugfs on ext4; a tenth", "e2fsck and debugfs; a third", include_bytes!("../traces/fsck.trace")),
];

/// All of them, with each size of cache.
pub fn all() -> Vec<Real> {
    let sizes = |(tenth, third, bytes): (&'static str, &'static str, &[u8])| {
        let trace = decode(bytes);
        let distinct = trace.iter().collect::<BTreeSet<_>>().len() as u32;
        // Whole chunks, as a volume takes them.
        [
            (tenth, trace.clone(), (distinct / 10).next_multiple_of(16)),
            (third, trace, (distinct / 3).next_multiple_of(16)),
        ]
    };
    TRACES.into_iter().flat_map(sizes).collect()
}

/// Runs of pages: how far the first is from where the last run ended (zigzag), and how many there are less one, each as LEB128.
fn decode(mut bytes: &[u8]) -> Vec<u64> {
    let (mut pages, mut at) = (Vec::new(), 0_u64);
    while !bytes.is_empty() {
        let (delta, count) = (number(&mut bytes), number(&mut bytes) + 1);
        at = at.wrapping_add((delta >> 1) ^ (delta & 1).wrapping_neg());
        pages.extend(at..at + count);
        at += count;
    }
    pages
}

fn number(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    while let Some((first, rest)) = bytes.split_first() {
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        shift += 7;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}
