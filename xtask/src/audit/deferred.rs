//! Every source of deferred work and the context that its handler runs in (A-GEN-05): what makes a bottom half, an item of the run queue, an
//! interrupt handler, an async task or a waker is listed in `audit/deferred.toml`, and the source has what the list says, no more and no less.
//!
//! Which context a handler runs in is in the constructor's name and checked by the compiler (the handler takes that context's token); so the
//! constructors go by their own names everywhere. Code of tests and measurements is left out.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::host::workspace;
use crate::suite::source;

/// Where something deferred runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Where {
    HardIrq,
    BottomHalf,
    Task,
    /// Wherever it is woken.
    Anywhere,
}

/// What makes deferred work: the path as it is written.
const MAKERS: [(&[&str], Where); 13] = [
    (&["BottomHalfWork", "new"], Where::BottomHalf),
    (&["TaskWork", "new"], Where::Task),
    (&["executor", "spawn"], Where::Task),
    (&["executor", "spawn_on"], Where::Task),
    (&["executor", "run_on"], Where::Task),
    (&["irq", "message"], Where::HardIrq),
    (&["irq", "line"], Where::HardIrq),
    (&["irq", "set_alarm_handler"], Where::HardIrq),
    (&["irq", "set_kick_handler"], Where::HardIrq),
    (&["RawWaker", "new"], Where::Anywhere),
    (&["Waker", "from_raw"], Where::Anywhere),
    (&["Wake", "for"], Where::Anywhere),
    (&["LocalWake", "for"], Where::Anywhere),
];

/// Names that are not to be given another name, or imported out of their module, or used without saying the context.
const NO_ALIAS: [&str; 3] = ["Work", "BottomHalfWork", "TaskWork"];
const NO_IMPORT: [(&str, &[&str]); 2] = [
    ("irq", &["message", "line", "set_alarm_handler", "set_kick_handler"]),
    ("executor", &["spawn", "spawn_on", "run_on"]),
];

/// How many sources a file has, by context.
type Found = BTreeMap<(String, Where), usize>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: Vec<Entry>,
}

/// An entry of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    file: String,
    context: Where,
    count: usize,
    what: String,
}

/// Holds the source to the list.
///
/// # Errors
/// What is in one and not in the other, and what hides a constructor's name.
pub fn check() -> Result<()> {
    let path = workspace::root().join("audit/deferred.toml");
    let list = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (mut found, mut hidden) = (Found::new(), Vec::new());
    for folder in workspace::folders()? {
        for path in source::paths(workspace::root(), &folder)? {
            let name = path.to_string_lossy().into_owned();
            if !source::is_linked(&path) || name.starts_with("xtask/") {
                continue;
            }
            let text = fs::read_to_string(workspace::root().join(&path)).with_context(|| name.clone())?;
            scan(&name, &text, &mut found, &mut hidden).with_context(|| name.clone())?;
        }
    }
    compare(&list, &found, hidden)
}

fn scan(file: &str, text: &str, found: &mut Found, hidden: &mut Vec<String>) -> Result<()> {
    let tokens: Vec<String> = source::linked_tokens(text)?.into_iter().filter(|token| token != ":").collect();
    let at = |index: usize| tokens.get(index).map_or("", String::as_str);
    let defines = |index: usize| ["struct", "fn", "trait", "impl", "type"].contains(&at(index.wrapping_sub(1)));
    for index in 0..tokens.len() {
        for (path, context) in MAKERS {
            if path[0] == at(index) && path[1] == at(index + 1) {
                *found.entry((file.to_owned(), context)).or_default() += 1;
            }
        }
        // With a context's name in brackets, or none at all.
        if at(index) == "Work" && (at(index + 1) == "new" || at(index + 1) == "<" && at(index + 4) == "new") {
            hidden.push(format!("{file}: Work::new does not say where it runs: BottomHalfWork::new, TaskWork::new"));
        }
        if NO_ALIAS.contains(&at(index)) && at(index + 1) == "as" {
            hidden.push(format!("{file}: {} under another name", at(index)));
        }
        let ends = |from: usize| (from..tokens.len()).find(|&end| at(end) == ";").unwrap_or(tokens.len());
        if at(index) == "type" && at(index + 1) != "Output" && file != "hal/src/work.rs" {
            let alias = (index + 2..ends(index)).find(|&inner| NO_ALIAS.contains(&at(inner)) && at(inner + 1) == ";");
            if let Some(inner) = alias.filter(|_| at(index + 2) == "=") {
                hidden.push(format!("{file}: {} under another name", at(inner)));
            }
        }
        if at(index) == "use" && !defines(index) {
            let words: Vec<&str> = (index + 1..ends(index)).map(at).collect();
            for (module, functions) in NO_IMPORT {
                let Some(from) = words.iter().position(|word| *word == module) else { continue };
                if let Some(name) = words[from + 1..].iter().find(|word| functions.contains(word) || **word == "*") {
                    hidden.push(format!("{file}: {module}::{name} is to be called by that name"));
                }
            }
        }
    }
    Ok(())
}

fn compare(list: &str, found: &Found, hidden: Vec<String>) -> Result<()> {
    let mut problems = hidden;
    let mut listed = Found::new();
    for entry in toml::from_str::<File>(list)?.source {
        if entry.what.trim().is_empty() {
            problems.push(format!("{}: the list does not say what it is", entry.file));
        }
        if listed.insert((entry.file.clone(), entry.context), entry.count).is_some() {
            problems.push(format!("{}: {:?} is listed twice", entry.file, entry.context));
        }
    }
    for (key, count) in found {
        let known = listed.remove(key).unwrap_or(0);
        if known != *count {
            let (file, context) = key;
            problems.push(format!("{file}: {count} sources of deferred work in {context:?}, and the list has {known}"));
        }
    }
    problems.extend(listed.keys().map(|(file, context)| format!("{file}: listed for {context:?}, and makes none")));
    if problems.is_empty() { Ok(()) } else { bail!("against audit/deferred.toml:\n{}", problems.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gen_05_every_source_of_deferred_work_is_known() {
        check().unwrap();
    }

    const LIST: &str = r#"
        [[source]]
        file = "driver/src/lib.rs"
        context = "hard-irq"
        count = 1
        what = "the device's interrupt"
        [[source]]
        file = "driver/src/lib.rs"
        context = "bottom-half"
        count = 1
        what = "what it sets off"
    "#;
    const DRIVER: &str = "use hal::{irq, work::BottomHalfWork}; fn start(cx: &Task) {
        let work = BottomHalfWork::new(0, |_| Turn::Done); irq::message(cx, 0, move |_| work.schedule()); }
        #[cfg(all(test, not(loom)))] mod tests { fn t() { TaskWork::new(0, |_| Turn::Done); } }
        #[cfg(test)] fn helper() -> TaskWork { TaskWork::new(0, |_| Turn::Done) }";

    fn judged(list: &str, text: &str) -> Result<()> {
        let (mut found, mut hidden) = (Found::new(), Vec::new());
        scan("driver/src/lib.rs", text, &mut found, &mut hidden).unwrap();
        compare(list, &found, hidden)
    }

    #[test]
    fn what_is_listed_and_what_tests_make_is_fine() {
        judged(LIST, DRIVER).unwrap();
    }

    /// A driver with a source that nobody listed, by each way to make one and each way to hide that.
    #[test]
    fn a_gen_05_control_planted_sources_are_found() {
        for (planted, says) in [
            ("fn f() { BottomHalfWork::new(1, g); }", "2 sources of deferred work in BottomHalf, and the list has 1"),
            ("fn f() { hal::work::TaskWork::new(1, g); }", "1 sources of deferred work in Task, and the list has 0"),
            ("fn f(cx: &Task) { irq::line(cx, l, g); }", "2 sources of deferred work in HardIrq"),
            ("fn f(cx: &Task) { irq::set_alarm_handler(cx, g); }", "2 sources of deferred work in HardIrq"),
            ("fn f(cx: &Task) { executor::spawn_on(cx, 0, g); }", "in Task"),
            ("impl Wake for Own {}", "in Anywhere"),
            ("#[cfg(not(test))] mod m { fn f() { BottomHalfWork::new(1, g); } }", "2 sources"),
            ("#[cfg(any(test, x))] mod m { fn f() { BottomHalfWork::new(1, g); } }", "2 sources"),
            ("fn f() { let _ = [BottomHalfWork::new][0](1, g); }", "2 sources"),
            ("fn f() { Work::new(1, |cx: &Task| g(cx)); }", "does not say where it runs"),
            ("fn f() { Work::<Task>::new(1, g); }", "does not say where it runs"),
            ("use hal::work::TaskWork as Later; fn f() { Later::new(1, g); }", "under another name"),
            ("type Later = hal::work::TaskWork; fn f() { Later::new(1, g); }", "under another name"),
            ("use hal::irq::message; fn f() { message(cx, 0, g); }", "is to be called by that name"),
            ("use hal::{irq::{self, line as wire}};", "is to be called by that name"),
            ("use hal::executor::*;", "is to be called by that name"),
        ] {
            let error = judged(LIST, &format!("{DRIVER} {planted}")).expect_err(planted);
            assert!(format!("{error:#}").contains(says), "{planted}: {error:#}");
        }
        let gone = judged(LIST, "").unwrap_err().to_string();
        assert!(gone.contains("listed for HardIrq, and makes none"), "{gone}");
        assert!(judged(&LIST.replace("what it sets off", " "), DRIVER).is_err());
    }
}
