//! A few boots of `cargo xtask fuzz guest`: seeds that stay, one that nobody has used, and one whose disk is wrong by a byte.

use anyhow::Result;

use super::tally::Tally;
use crate::fuzz::guest;
use crate::host::{install, interrupt, workspace};
use crate::image::build;

/// Seeds that are run every time: some, and those that once found something.
const SEEDS: [u64; 3] = [1, 2, 3];
const ACTS: u32 = 30;

pub fn group(tally: &mut Tally) -> Result<()> {
    install::tools(&install::QEMU)?;
    let directory = workspace::scratch()?;
    let kernel = build::build(None, directory.path())?.stripped.display().to_string();
    let fresh = guest::fresh();
    println!("        the fresh seed is {fresh}: cargo xtask fuzz guest --seed {fresh} --acts {ACTS} --minutes 0");
    for (name, seed) in
        SEEDS.iter().map(|seed| (format!("the seed {seed}"), *seed)).chain([("a fresh seed".into(), fresh)])
    {
        interrupt::check()?;
        let held = guest::one(&kernel, seed, ACTS);
        tally.check(&format!("script: {name}: every disk holds what it must, whatever happened meanwhile"), held);
    }
    tally.check("script: control: a disk that is wrong by one byte is found", guest::control(&kernel));
    Ok(())
}
