//! `cargo xtask fuzz guest`: the booted image under QEMU does what a seed says to its disks, while they are reset, stand still, come and go;
//! this program, which only knows the seed, holds every disk against what must be on it. A difference, a hang, a panic or a leak is a finding.

mod oracle;
mod session;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cli::FuzzGuestOptions;
use crate::host::{install, interrupt, workspace};
use crate::image::build;
use session::{Kind, Session};

/// Whether nothing was found.
pub fn command(options: &FuzzGuestOptions) -> Result<bool> {
    interrupt::watch();
    install::tools(&install::QEMU)?;
    let directory = workspace::scratch()?;
    let image = build::build(None, directory.path())?;
    let kernel = image.stripped.display().to_string();
    let until = Instant::now() + Duration::from_secs(60 * u64::from(options.minutes));
    let (mut seed, mut found) = (options.seed.unwrap_or_else(fresh), Vec::new());
    println!("the first seed is {seed}");
    loop {
        interrupt::check()?;
        match one(&kernel, seed, options.acts) {
            Ok(said) => println!("seed {seed}: {said}"),
            Err(finding) => {
                println!("FOUND, seed {seed}: {finding:#}");
                println!("        again: cargo xtask fuzz guest --seed {seed} --acts {} --minutes 0", options.acts);
                found.push(seed);
            }
        }
        if Instant::now() >= until {
            break;
        }
        seed = seed.wrapping_add(1);
    }
    println!("{} findings{}", found.len(), if found.is_empty() { String::new() } else { format!(": seeds {found:?}") });
    Ok(found.is_empty())
}

/// One boot: what was done, in a line. What was done until something was found is in `target/fuzz/guest`.
///
/// # Errors
/// The finding.
pub fn one(kernel: &str, seed: u64, acts: u32) -> Result<String> {
    let directory = workspace::scratch()?;
    let mut session = Session::start(kernel, directory.path(), seed)?;
    let result = session.run(acts).and_then(|()| session.finish());
    if result.is_err() {
        let folder = workspace::target().join("fuzz/guest");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(format!("{seed}.log"));
        fs::write(&path, session.log.join("\n") + "\n").with_context(|| path.display().to_string())?;
        let last = session.log.last().cloned().unwrap_or_default();
        return result
            .with_context(|| format!("after {} acts, the last '{last}' ({})", session.log.len(), path.display()));
    }
    result
}

/// Whether a disk on which one byte differs from what must be there is a finding: the negative control.
///
/// # Errors
/// If it is not.
pub fn control(kernel: &str) -> Result<()> {
    let directory = workspace::scratch()?;
    let mut session = Session::start(kernel, directory.path(), 1)?;
    session.act(Kind::Script)?;
    session.break_oracle();
    let why = session.finish().err().context("a byte that differs is no finding")?.to_string();
    anyhow::ensure!(why.contains("differs"), "another finding: {why}");
    Ok(())
}

/// A seed that nobody has used.
pub fn fresh() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 % 1_000_000_007
}
