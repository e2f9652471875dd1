//! How often a page is there: the page cache, a crate's cache and LRU, with room for as many pages each.

use std::collections::{BTreeMap, HashMap};

use quick_cache::unsync::Cache;
use undercroft_hal::Task;
use undercroft_pagecache::PAGE;

use crate::traces::DISK;
use crate::volume;

/// Misses of a thousand reads, for each cache, ours first.
pub fn misses(cx: &Task, trace: &[u64], cache: u32) -> [(&'static str, f64); 3] {
    let of = |hits: u64| 1000.0 - hits as f64 * 1000.0 / trace.len() as f64;
    [
        ("undercroft Volume", of(ours(cx, trace, cache))),
        ("quick_cache 0.7.0", of(quick_cache(trace, cache))),
        ("least recently used", of(lru(trace, cache))),
    ]
}

fn ours(cx: &Task, trace: &[u64], cache: u32) -> u64 {
    let volume = volume::open(cx, cache, DISK);
    let mut into = [0; PAGE];
    for index in trace {
        volume.read_blocking(cx, index * PAGE as u64, &mut into).expect("a read");
    }
    let stats = volume.stats(cx);
    assert!(stats.pages <= cache, "more memory than it may have");
    drop(volume);
    cx.run_pending();
    stats.hits
}

/// Of one shard, which is better for it than several.
fn quick_cache(trace: &[u64], cache: u32) -> u64 {
    let mut cache = Cache::new(cache as usize);
    let mut hits = 0;
    for index in trace {
        if cache.get(index).is_some() {
            hits += 1;
        } else {
            cache.insert(*index, ());
        }
    }
    hits
}

fn lru(trace: &[u64], cache: u32) -> u64 {
    let (mut when, mut order, mut hits) = (HashMap::new(), BTreeMap::new(), 0);
    for (now, index) in trace.iter().enumerate() {
        if let Some(before) = when.insert(*index, now) {
            order.remove(&before);
            hits += 1;
        } else if order.len() >= cache as usize {
            let oldest = order.pop_first();
            oldest.and_then(|(_, oldest)| when.remove(&oldest));
        }
        order.insert(now, *index);
    }
    hits
}
