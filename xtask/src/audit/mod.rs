//! `cargo xtask audit`: the table in `audit/` says of every item of the checklist of hazards which tests prove it, and this shows that it
//! is so: the tests exist, ran on this source, and passed, and every broken variant was caught.

pub mod checklist;
pub mod deferred;
pub mod existence;
mod page;
pub mod reference;
pub mod report;
pub mod results;
pub mod table;
pub mod verify;

use anyhow::{Context, Result, ensure};

use crate::cli::{AuditOptions, TestOptions};
use crate::host::workspace;
use crate::report::voice::Voice;
use crate::suite;
use existence::Existence;
use reference::TestRef;
use results::{Outcome, Results};
use table::{Status, Table};
use verify::{Evidence, Item};

/// The table that is checked in.
pub fn table() -> Result<Table> {
    Table::load(&workspace::root().join("audit"))
}

/// What the source and the last runs say.
pub struct Seen {
    existence: Existence,
    results: Results,
    source: String,
}

impl Seen {
    pub fn new(results: Results) -> Result<Self> {
        Ok(Self { existence: Existence::look()?, results, source: results::digest()? })
    }
}

impl Evidence for Seen {
    fn exists(&self, test: &TestRef) -> bool {
        self.existence.of(test)
    }
    fn outcome(&self, test: &TestRef) -> Outcome {
        self.results.outcome(test, &self.source)
    }
}

/// `cargo xtask audit`.
pub fn command(options: &AuditOptions) -> Result<bool> {
    let voice = Voice { json: options.json };
    let table = table()?;
    if options.page {
        let path = page::path();
        std::fs::write(&path, page::render(&table)).with_context(|| path.display().to_string())?;
        voice.say(&format!("written: {}", path.display()));
        return Ok(true);
    }
    let held = !options.verify || suite::command(&TestOptions::of(suite::audit::NAME))?;
    let seen = Seen::new(Results::load()?)?;
    let items = verify::verify(&table, &seen);
    if let Some(id) = &options.id {
        ensure!(checklist::area_of(id).is_some(), "{id} is not on the checklist");
    }
    let wanted = |item: &&Item| {
        options.id.as_ref().is_none_or(|id| *id == item.id) && (!options.open || item.status() == Status::Open)
    };
    let shown: Vec<&Item> = items.iter().filter(wanted).collect();
    shown.iter().for_each(|item| voice.event(&report::json(item, &seen)));
    let lines = match (&options.id, &shown[..]) {
        (Some(_), [one]) => report::whole(one),
        _ => report::lines(&shown),
    };
    lines.iter().for_each(|line| voice.say(line));
    if options.id.is_none() {
        report::counts(&items).iter().for_each(|line| voice.say(line));
    }
    let problems: Vec<_> =
        shown.iter().flat_map(|item| item.problems.iter().map(|problem| format!("{}: {problem}", item.id))).collect();
    problems.iter().for_each(|problem| voice.say(&format!("FAILED: {problem}")));
    voice.say(&match problems.len() {
        0 => "every claim holds".to_owned(),
        n => format!("{n} claims do not hold; cargo xtask audit --verify runs all that the table names"),
    });
    Ok(held && problems.is_empty())
}
