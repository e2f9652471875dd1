//! The table as a page of the book: `docs/hazards.md`, written by `cargo xtask audit --page` and held to the table by a test.

use std::fmt::Write;
use std::path::PathBuf;

use super::reference::COMPILE_FAIL;
use super::table::{Entry, Table};
use crate::host::workspace;

const HEAD: &str = "# Every hazard, and what shows that it is not there

Written by `cargo xtask audit --page`. What the ids and the words mean: [The audit table](audit.md). Whether the tests passed on the source \
as it is now, `cargo xtask audit` says; `cargo xtask audit --verify` runs them all.
";

/// Where it is.
pub fn path() -> PathBuf {
    workspace::root().join("docs/hazards.md")
}

/// The page.
pub fn render(table: &Table) -> String {
    let mut page = HEAD.to_owned();
    for (area, entries) in &table.areas {
        // Writing to a string does not fail.
        let _ = write!(page, "\n## {}\n", capital(area.what));
        for id in area.ids() {
            page += &entries.get(&id).map_or_else(|| format!("\n**{id}**: no entry\n"), item);
        }
    }
    page
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

fn item(entry: &Entry) -> String {
    let mut text = format!("\n**{}** {} ({})\n\n", entry.id, entry.title, entry.status.name());
    for test in &entry.tests {
        let what = if test.group == COMPILE_FAIL { "must not compile" } else { "test" };
        let _ = writeln!(text, "- {what} `{test}`");
    }
    for control in &entry.negative_control {
        let _ = writeln!(text, "- broken variant `{}`, caught by `{}`", control.variant, control.test);
    }
    if !entry.note.is_empty() {
        let _ = writeln!(text, "- {}", entry.note);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_table() {
        let page = std::fs::read_to_string(path()).unwrap();
        assert!(page == render(&super::super::table().unwrap()), "stale: run cargo xtask audit --page");
    }

    #[test]
    fn every_id_is_on_it() {
        let table = super::super::table().unwrap();
        let page = render(&table);
        for id in table.areas.iter().flat_map(|(area, _)| area.ids()) {
            assert!(page.contains(&format!("\n**{id}**")), "{id}");
        }
    }
}
