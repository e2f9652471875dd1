//! What became of each test in a run of `cargo test`, from what cargo and the harnesses print.
//!
//! Cargo announces each harness by its program; which package that belongs to, cargo's own account of what it built tells.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::audit::reference::{COMPILE_FAIL, TestRef};

/// The package of each test program, and the file in `tests/` that it was made of.
#[derive(Default)]
pub struct Programs(BTreeMap<String, (String, Option<String>)>);

impl Programs {
    /// From the lines of `cargo test --no-run --message-format=json`.
    pub fn from_messages(lines: &str) -> Self {
        let built = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter_map(|message| {
            let program = message["executable"].as_str()?.rsplit('/').next()?.to_owned();
            let (folder, version) = message["package_id"].as_str()?.rsplit_once('#')?;
            // `path+file:///a/hal#undercroft-hal@0.1.0`, or `path+file:///a/undercroft-hal#0.1.0` where the names agree.
            let package = match version.split_once('@') {
                Some((name, _)) => name,
                None => folder.rsplit('/').next()?,
            };
            let target = &message["target"];
            let is_test = target["kind"].as_array()?.iter().any(|kind| kind == "test");
            let file = if is_test { Some(target["name"].as_str()?.to_owned()) } else { None };
            Some((program, (package.to_owned(), file)))
        });
        Self(built.collect())
    }
}

/// Every test in `output` with whether it passed. `output` is both streams of `cargo test`, in the order in which they were written.
pub fn outcomes(group: &str, programs: &Programs, output: &str) -> Vec<(TestRef, bool)> {
    let mut all = Vec::new();
    let mut running: Option<(String, Option<String>)> = None;
    let mut pending: Option<String> = None;
    for line in plain(output).lines() {
        let line = line.trim();
        let announced = line.strip_prefix("Running ").and_then(|rest| rest.rsplit_once('(')).map(|(_, path)| path);
        if let Some(path) = announced {
            let program = path.trim_end_matches(')').rsplit('/').next().unwrap_or(path);
            (running, pending) = (programs.0.get(program).cloned(), None);
            continue;
        }
        if let Some(name) = line.strip_prefix("Doc-tests ") {
            // Their names have line numbers, which is no name to rely on.
            (running, pending) = (Some((name.replace('_', "-"), Some("doc".into()))), None);
            continue;
        }
        let Some((package, target)) = &running else { continue };
        if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            let (group, target, name) = match name.strip_prefix("tests/compile-fail/") {
                Some(file) => (COMPILE_FAIL, None, file.trim_end_matches(".rs")),
                None => (group, target.clone(), name.trim_end_matches(" - should panic")),
            };
            let Some(passed) = verdict(result) else {
                // The harness says the name first; what the test itself prints comes between.
                pending = Some(name.to_owned());
                continue;
            };
            all.push((TestRef { group: group.into(), package: package.clone(), target, name: name.into() }, passed));
        } else if let (Some(name), Some(passed)) = (&pending, verdict(line)) {
            let (group, package, target) = (group.to_owned(), package.clone(), target.clone());
            all.push((TestRef { group, package, target, name: name.clone() }, passed));
            pending = None;
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ...")) {
            pending = Some(name.trim_end_matches(" - should panic").to_owned());
        }
    }
    all
}

fn verdict(word: &str) -> Option<bool> {
    match word.split([' ', ',']).next()? {
        "ok" => Some(true),
        // A test that is left out has not passed.
        "FAILED" | "ignored" | "error" | "mismatch" | "wip" => Some(false),
        _ => None,
    }
}

/// Without the escape sequences that colour a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        // The letter that ends the sequence.
        let mut letters = rest.chars();
        letters.next();
        rest = letters.as_str();
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"
        {"reason":"compiler-artifact","package_id":"path+file:///a/hal#undercroft-hal@0.1.0","target":{"kind":["lib"],"name":"undercroft_hal"},"executable":"/a/target/debug/deps/undercroft_hal-1"}
        {"reason":"compiler-artifact","package_id":"path+file:///a/hal#undercroft-hal@0.1.0","target":{"kind":["test"],"name":"compile_fail"},"executable":"/a/target/debug/deps/compile_fail-2"}
        {"reason":"compiler-artifact","package_id":"path+file:///a/plain#0.1.0","target":{"kind":["bin"],"name":"plain"},"executable":"/a/target/debug/deps/plain-3"}
        {"reason":"compiler-artifact","package_id":"path+file:///a/hal#undercroft-hal@0.1.0","target":{"kind":["lib"],"name":"undercroft_hal"},"executable":null}
        {"reason":"build-finished","success":true}"#;

    fn parsed(group: &str, output: &str) -> Vec<String> {
        let all = outcomes(group, &Programs::from_messages(MESSAGES), output);
        all.into_iter().map(|(test, passed)| format!("{test}: {passed}")).collect()
    }

    #[test]
    fn each_test_is_of_the_program_announced_before_it() {
        let output = "\
            test nobody::knows ... ok\n\
            \x20    Running unittests src/lib.rs (target/debug/deps/undercroft_hal-1)\n\
            running 3 tests\n\
            test a::fine ... ok\n\
            test a::wrong ... FAILED\n\
            test a::caught - should panic ... ok\n\
            test a::left_out ... ignored, too slow\n\
            test result: FAILED. 2 passed; 1 failed; 1 ignored\n\
            \x20    Running unittests src/main.rs (target/debug/deps/plain-3)\n\
            test a::fine ... ok\n\
            \x20    Running unittests src/main.rs (target/debug/deps/unknown-4)\n\
            test a::fine ... ok\n\
            \x20  Doc-tests undercroft_hal\n\
            test hal/src/lib.rs - (line 9) ... ok\n";
        let expected = [
            "unit undercroft-hal a::fine: true",
            "unit undercroft-hal a::wrong: false",
            "unit undercroft-hal a::caught: true",
            "unit undercroft-hal a::left_out: false",
            "unit plain a::fine: true",
            "unit undercroft-hal/doc hal/src/lib.rs - (line 9): true",
        ];
        assert_eq!(parsed("unit", output), expected);
    }

    #[test]
    fn files_that_must_not_compile_are_tests_of_their_own() {
        let output = "     Running tests/compile_fail.rs (target/debug/deps/compile_fail-2)\n\
            running 1 test\n\
            test misuse ... \n\
            test \u{1b}[0m\u{1b}[1mtests/compile-fail/keep.rs\u{1b}[0m ... \u{1b}[0m\u{1b}[32mok\n\
            \u{1b}[0mtest \u{1b}[0m\u{1b}[1mtests/compile-fail/send.rs\u{1b}[0m ... \u{1b}[0m\u{1b}[1m\u{1b}[31merror\n\
            \u{1b}[0mExpected test case to fail to compile, but it succeeded.\n\
            test \u{1b}[0m\u{1b}[1mtests/compile-fail/make.rs\u{1b}[0m ... \u{1b}[0m\u{1b}[1m\u{1b}[31mmismatch\n\
            \u{1b}[0mFAILED\n";
        let expected = [
            "compile-fail undercroft-hal keep: true",
            "compile-fail undercroft-hal send: false",
            "compile-fail undercroft-hal make: false",
            "unit undercroft-hal/compile_fail misuse: false",
        ];
        assert_eq!(parsed("unit", output), expected);
    }

    #[test]
    fn a_test_may_print_between_its_name_and_its_verdict() {
        let output = "Running unittests src/lib.rs (deps/undercroft_hal-1)\ntest a ... what it says\nand more\nok\ntest b ... ok\n";
        assert_eq!(parsed("loom", output), ["loom undercroft-hal a: true", "loom undercroft-hal b: true"]);
        // A crash says nothing: the test has no outcome.
        assert!(parsed("loom", "Running unittests src/lib.rs (deps/undercroft_hal-1)\ntest a ... \n").is_empty());
    }
}
