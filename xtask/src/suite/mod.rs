//! `cargo xtask test`: every test there is, in groups that run one after the other whatever
//! became of those before. The last line counts the checks.

pub mod audit;
pub mod bad_input;
pub mod boot;
pub mod cargo;
pub mod conversation;
pub mod faults;
pub mod files;
pub mod guest;
pub mod hotplug;
pub mod hyperv;
pub mod lint;
pub mod monitor;
pub mod outcomes;
pub mod platform;
pub mod power;
mod script;
pub mod source;
pub mod tally;
pub mod unsafe_count;
pub mod virtio;
pub mod xen;

use anyhow::{Result, bail};

use crate::audit::reference::COMPILE_FAIL;
use crate::audit::results::{self, Results};
use crate::cli::TestOptions;
use crate::host::interrupt;
use tally::Tally;

struct Group {
    name: &'static str,
    what: &'static str,
    run: fn(&mut Tally) -> Result<()>,
}

const GROUPS: [Group; 15] = [
    Group {
        name: "unit",
        what: "tests of all crates on the host: units, models, examples in documentation",
        run: cargo::unit,
    },
    Group {
        name: COMPILE_FAIL,
        what: "misuse that must not compile: each file, with the compiler's answer to it",
        run: cargo::compile_fail,
    },
    Group {
        name: "loom",
        what: "every interleaving of the lock-free parts, by the loom model checker",
        run: cargo::loom,
    },
    Group {
        name: "shuttle",
        what: "thousands of random interleavings of what is too large for loom, by the shuttle scheduler",
        run: cargo::shuttle,
    },
    Group { name: "sanitizer", what: "the tests with real threads, under ThreadSanitizer", run: cargo::sanitizer },
    Group {
        name: "sim",
        what: "the whole stack on simulated machines: fixed seeds of every scenario, and new ones",
        run: crate::sim::group,
    },
    Group {
        name: "platform",
        what: "the platform's own checks on each machine, and the last screen of every way to stop",
        run: platform::group,
    },
    Group {
        name: "boot",
        what: "the image under QEMU on q35, pc and microvm, and what happens with bad input",
        run: boot::group,
    },
    Group {
        name: "script",
        what: "the image does to its disks what seeds say, while they are reset, stand still, come and go",
        run: script::group,
    },
    Group {
        name: "hyperv",
        what: "the image on the Hyper-V machine: disks that are on VMBus only, and one that comes and goes",
        run: hyperv::group,
    },
    Group {
        name: "faults",
        what: "the image while its disks fail, are slow, stand still or are protected, behind each controller",
        run: faults::group,
    },
    Group {
        name: "power",
        what: "power cuts while the image writes and flushes, behind each controller: what was acknowledged is there",
        run: power::group,
    },
    Group { name: "xen", what: "the image as a domain of the real Xen, which QEMU runs", run: xen::group },
    Group {
        name: "lint",
        what: "format, clippy, documentation, the count of unsafe code, unfinished work",
        run: lint::group,
    },
    // The last: what the others have run is not run again.
    Group {
        name: "audit",
        what: "every test that the table of hazards names, where it has not run yet, and the table's claims",
        run: audit::group,
    },
];

/// `cargo xtask test`.
pub fn command(options: &TestOptions) -> Result<bool> {
    let width = GROUPS.iter().map(|group| group.name.len()).max().unwrap_or(0);
    for name in &options.groups {
        if !GROUPS.iter().any(|group| group.name == name) {
            bail!("there is no group '{name}'; cargo xtask test --list shows them");
        }
    }
    let wanted = |group: &&Group| options.groups.is_empty() || options.groups.iter().any(|name| name == group.name);
    if options.list {
        GROUPS.iter().filter(wanted).for_each(|group| println!("{:width$}  {}", group.name, group.what));
        return Ok(true);
    }
    interrupt::watch();
    let mut tally = Tally::new(options.cuts, options.seed, options.long);
    for group in GROUPS.iter().filter(wanted) {
        println!("==== {}: {}", group.name, group.what);
        tally.begin(group.name, &results::digest()?);
        // A group that cannot go on is one failure; the others still run.
        if let Err(error) = (group.run)(&mut tally) {
            tally.failed(group.name, &format!("{error:#}"));
        }
        tally.end();
        save(&tally)?;
        interrupt::check()?;
    }
    tally.conclude();
    Ok(tally.is_good())
}

/// Puts what became of the tests so far where `cargo xtask audit` finds it; other groups keep what they had.
fn save(tally: &Tally) -> Result<Results> {
    let mut results = Results::load()?;
    results.groups.extend(tally.runs().clone());
    results.save()?;
    Ok(results)
}
