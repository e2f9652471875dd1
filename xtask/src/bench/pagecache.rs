//! `cargo xtask bench pagecache`: reads that hit, what is kept, and what that takes, in the page cache and in what others would use.

use anyhow::Result;

use super::ratios::{Bound, Limit, Table};
use crate::cli::BenchRatiosOptions;

const HIT: &str = "4 KiB that are there, at random";
const CRATE: &str = "quick_cache 0.7.0";

const fn of_trace(case: &'static str) -> Bound {
    Bound { case, name: CRATE, least: 1.0, what: "at most its misses" }
}

const BOUNDS: [Bound; 26] = [
    Bound { case: HIT, name: "memcpy from random pages", least: 1.0 / 1.3, what: "at most 1.3 times its time" },
    Bound { case: HIT, name: "quick_cache 0.7.0 get, and copy", least: 1.0, what: "at most its time" },
    Bound { case: HIT, name: "Linux pread, cached file", least: 1.0, what: "at most its time" },
    of_trace("misses of 1000: zipf"),
    of_trace("misses of 1000: zipf with scans in between"),
    of_trace("misses of 1000: zipf whose ranks change"),
    of_trace("misses of 1000: a loop of 1.2 caches"),
    of_trace("misses of 1000: that loop and zipf, in turn"),
    of_trace("misses of 1000: a working set that moves"),
    of_trace("misses of 1000: a loop of 2 caches"),
    of_trace("misses of 1000: two pools in turn"),
    of_trace("misses of 1000: a database"),
    of_trace("misses of 1000: a web server"),
    of_trace("misses of 1000: files read twice"),
    of_trace("misses of 1000: zipf, power 0.6"),
    of_trace("misses of 1000: zipf, power 0.8"),
    of_trace("misses of 1000: zipf, power 1"),
    of_trace("misses of 1000: zipf, power 1.2"),
    // Of programs.
    of_trace("misses of 1000: git: checkouts, status, grep, diff; a tenth"),
    of_trace("misses of 1000: git; a third"),
    of_trace("misses of 1000: tar, grep, wc over a source tree; a tenth"),
    of_trace("misses of 1000: tar, grep, wc; a third"),
    of_trace("misses of 1000: sqlite, a full-text index; a tenth"),
    of_trace("misses of 1000: sqlite; a third"),
    of_trace("misses of 1000: e2fsck and debugfs on ext4; a tenth"),
    of_trace("misses of 1000: e2fsck and debugfs; a third"),
];

const LIMITS: [Limit; 1] = [Limit { case: "bytes per page, beyond the page", most: 96.0 }];

const TABLE: Table = Table { package: "undercroft-pagecache-benches", words: &[], bounds: &BOUNDS, limits: &LIMITS };

/// Makes the measurement, shows it, and says whether it is what is wanted.
pub fn command(options: &BenchRatiosOptions) -> Result<bool> {
    Ok(TABLE.judge(&TABLE.measure(options)?))
}
