//! `cargo xtask run --on xen`, from end to end: disks are found by xenstore, read, written and let go of.

use std::fs::File;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::suite::guest::{self, Run, text};
use crate::suite::tally::Tally;

/// A domain to try.
struct Case {
    name: &'static str,
    cpus: u32,
    /// `--disk` options behind the file's name; none: the prepared disks.
    own: &'static [&'static str],
    /// Of each disk: blocks, and whether it is read only.
    disks: &'static [(u64, bool)],
}

const CASES: [Case; 2] = [
    Case { name: "two processors", cpus: 2, own: &[], disks: &[(512, false), (4096, false)] },
    // A blank disk may be written anywhere; the other one nowhere.
    Case { name: "one processor", cpus: 1, own: &[",rw", ",ro"], disks: &[(512, false), (512, true)] },
];

/// The cases of the short form: a start of Xen costs most.
const SHORT: usize = 1;

/// Whole runs with the image at `kernel`; files go to `directory`.
pub fn checks(kernel: &Path, directory: &Path, is_long: bool, tally: &mut Tally) -> Result<()> {
    for case in &CASES[..if is_long { CASES.len() } else { SHORT }] {
        let mut arguments: Vec<String> =
            ["--on", "xen", "--workload", "verify", "--disk-size", "16", "--timeout", "240", "--silence", "120"]
                .map(str::to_owned)
                .into();
        arguments.extend(["--cpus".into(), case.cpus.to_string(), "--kernel".into(), text(kernel)]);
        for (index, options) in case.own.iter().enumerate() {
            let path = directory.join(format!("own{index}"));
            File::create(&path).and_then(|file| file.set_len(8 << 20))?;
            arguments.extend(["--disk".into(), format!("{}{options}", text(&path))]);
        }
        let run = guest::run(&arguments)?;
        if !run.success {
            println!("{}", run.text);
        }
        tally.check(&format!("xen, {}: everything held", case.name), ended(&run));
        tally.check(
            &format!("xen, {}: each disk by its name, with its blocks and its protection", case.name),
            disks(case, &run),
        );
        tally.check(&format!("xen, {}: a ring for each processor", case.name), rings(case, &run));
        tally.check(&format!("xen, {}: read whole, written, found by the host", case.name), moved(&run));
        tally.check(&format!("xen, {}: the backend has let go of every page", case.name), heaps(&run));
    }
    let wrong = guest::run(&["--on", "xen", "--bus", "ide"].map(str::to_owned))?;
    tally.check("a bus that Xen has not is refused by name", wrong.failed_naming("Xen has no ide"));
    Ok(())
}

fn ended(run: &Run) -> Result<()> {
    let summary = run.events("summary").next().cloned().unwrap_or_default();
    ensure!(run.success, "{summary}");
    let machine = run.text.lines().find(|line| line.starts_with("machine: "));
    ensure!(machine.is_some_and(|line| line.contains("Xen")), "{machine:?}");
    Ok(())
}

fn disks(case: &Case, run: &Run) -> Result<()> {
    let found: Vec<_> = run
        .events("disk")
        .map(|disk| {
            let place = disk["controller"].as_str().unwrap_or_default().to_owned();
            (place, disk["block_size"].as_u64(), disk["write_bytes"].as_u64() == Some(0))
        })
        .collect();
    // As the first domain counts: 202 << 8, and 16 for each.
    let places = [51712, 51728].map(|number| format!("device/vbd/{number} of domain 0"));
    let wanted: Vec<_> = case
        .disks
        .iter()
        .zip(places)
        .map(|((block_size, read_only), place)| (place, Some(*block_size), *read_only))
        .collect();
    ensure!(found == wanted, "{found:?} are not {wanted:?}");
    ensure!(run.events("disk").all(|disk| disk["driver"] == "xenblk"), "not by xenblk");
    Ok(())
}

fn rings(case: &Case, run: &Run) -> Result<()> {
    let queues: Vec<_> = run.events("disk").map(|disk| disk["queues"].as_u64()).collect();
    ensure!(queues.iter().all(|queues| *queues == Some(u64::from(case.cpus))), "{queues:?}");
    let taken: Vec<_> = run.events("cpu").map(|cpu| cpu["device_interrupts"].as_u64()).collect();
    ensure!(taken.len() == case.cpus as usize && taken.iter().all(|count| *count > Some(0)), "{taken:?}");
    Ok(())
}

fn moved(run: &Run) -> Result<()> {
    for disk in run.events("disk") {
        ensure!(disk["read_bytes"] == disk["capacity_bytes"] && disk["sha256"] == disk["sha256_expected"], "{disk}");
        let is_written = disk["write_bytes"].as_u64() > Some(0) && disk["write_verified"] == true;
        // Which may not be written is looked at above.
        ensure!(disk["write_bytes"].as_u64() == Some(0) || is_written, "{disk}");
    }
    Ok(())
}

fn heaps(run: &Run) -> Result<()> {
    let heaps: Vec<&Value> = run.events("heap").collect();
    ensure!(!heaps.is_empty() && heaps.iter().all(|heap| heap["leaked_bytes"] == 0), "{heaps:?}");
    Ok(())
}
