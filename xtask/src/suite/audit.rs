//! The table of hazards: runs what it names, then holds it to its claims.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::tally::Tally;
use super::{GROUPS, cargo, save};
use crate::audit::reference::{HARNESS_GROUPS, TestRef};
use crate::audit::results::{self, Results};
use crate::audit::table::{Status, Table};
use crate::audit::verify::verify;
use crate::audit::{Seen, table};

/// This group's name.
pub const NAME: &str = "audit";

pub fn group(tally: &mut Tally) -> Result<()> {
    let table = table()?;
    for (group, tests) in by_group(&table) {
        // A group that ran whole in this very run has its results.
        if tally.runs().contains_key(group) {
            continue;
        }
        if let Err(error) = run(group, &tests, tally) {
            tally.failed(group, &format!("{error:#}"));
        }
    }
    tally.begin(NAME, &results::digest()?);
    claims(&table, save(tally)?, tally)
}

/// The tests that the table names, once each, by the group that runs them.
fn by_group(table: &Table) -> BTreeMap<&str, Vec<&TestRef>> {
    let mut groups: BTreeMap<&str, Vec<&TestRef>> = BTreeMap::new();
    for test in table.entries().flat_map(|entry| entry.named()) {
        let tests = groups.entry(test.group.as_str()).or_default();
        if !tests.contains(&test) {
            tests.push(test);
        }
    }
    groups
}

fn run(group: &str, tests: &[&TestRef], tally: &mut Tally) -> Result<()> {
    tally.begin(group, &results::digest()?);
    if HARNESS_GROUPS.contains(&group) {
        return cargo::only(group, tests, tally);
    }
    // The others are scenarios of many checks: they run whole.
    match GROUPS.iter().find(|known| known.name == group && group != NAME) {
        Some(whole) => (whole.run)(tally),
        None => bail!("the table names the group '{group}', which there is not"),
    }
}

/// One check for each claim.
fn claims(table: &Table, results: Results, tally: &mut Tally) -> Result<()> {
    let seen = Seen::new(results)?;
    for item in verify(table, &seen) {
        match (item.status(), item.holds()) {
            (Status::Open, true) => {}
            (status, true) => tally.passed(&format!("{}: {}", item.id, status.name())),
            (status, false) => tally.failed(&format!("{}: {}", item.id, status.name()), &item.problems.join("\n")),
        }
    }
    Ok(())
}
