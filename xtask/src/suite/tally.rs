//! Counting what passed and what failed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Instant;

use crate::audit::reference::{OURSELVES, TestRef};
use crate::audit::results::GroupRun;

/// The count of all checks so far, and the names of those that failed.
#[derive(Default)]
pub struct Tally {
    passed: u64,
    failed: Vec<String>,
    /// Failed checks that a test harness counted and named itself.
    unnamed: u64,
    /// What became of each test, by group.
    runs: BTreeMap<String, GroupRun>,
    /// The group that runs now.
    group: String,
    /// What the group that runs now began with: checks that passed, that failed, and when.
    began: Option<(u64, u64, Instant)>,
    /// A line on each group that is over.
    lines: Vec<String>,
    /// How often the power is cut, and the seed of that.
    pub cuts: u32,
    pub seed: u64,
    /// Whether to be as thorough as the requirements ask for.
    pub is_long: bool,
}

impl Tally {
    /// Of checks in which the power is cut so often.
    pub fn new(cuts: u32, seed: u64, is_long: bool) -> Self {
        Self { cuts, seed, is_long, ..Self::default() }
    }

    /// From here on outcomes are this group's, of this state of the source; what it had before is forgotten.
    pub fn begin(&mut self, group: &str, source: &str) {
        self.group = group.into();
        self.runs.insert(group.into(), GroupRun::new(source.into()));
        self.began = Some((self.passed, self.failures(), Instant::now()));
    }

    /// The group is over.
    pub fn end(&mut self) {
        if let Some((passed, failed, at)) = self.began.take() {
            let (passed, failed) = (self.passed - passed, self.failures() - failed);
            self.lines.push(format!(
                "{passed:5} passed, {failed} failed in {:4} s  {}",
                at.elapsed().as_secs(),
                self.group
            ));
        }
    }

    /// The outcomes of the groups that ran.
    pub fn runs(&self) -> &BTreeMap<String, GroupRun> {
        &self.runs
    }

    /// Takes down what became of a test that a harness counts.
    pub fn record(&mut self, test: &TestRef, passed: bool) {
        if let Some(run) = self.runs.get_mut(&self.group) {
            run.record(test, passed);
        }
    }

    fn record_check(&mut self, name: &str, passed: bool) {
        let (group, package) = (self.group.clone(), OURSELVES.into());
        self.record(&TestRef { group, package, target: None, name: name.into() }, passed);
    }

    pub fn passed(&mut self, name: &str) {
        println!("ok      {name}");
        self.passed += 1;
        self.record_check(name, true);
    }

    pub fn failed(&mut self, name: &str, why: &str) {
        self.record_check(name, false);
        println!("FAILED  {name}\n        {}", why.trim_end().replace('\n', "\n        "));
        self.failed.push(name.into());
    }

    /// Counts one check.
    pub fn check<T, E: Display>(&mut self, name: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.passed(name);
                Some(value)
            }
            Err(why) => {
                self.failed(name, &format!("{why:#}"));
                None
            }
        }
    }

    /// Adds what a test harness counted.
    pub fn add(&mut self, name: &str, counts: Counts) {
        println!(
            "{} {name}: {} passed, {} failed",
            if counts.failed == 0 { "ok     " } else { "FAILED " },
            counts.passed,
            counts.failed
        );
        self.passed += counts.passed;
        self.unnamed += counts.failed;
        if counts.failed > 0 {
            self.failed.push(format!("{name}: {} tests", counts.failed));
            self.unnamed -= 1;
        }
    }

    pub fn is_good(&self) -> bool {
        self.failures() == 0
    }

    fn failures(&self) -> u64 {
        self.failed.len() as u64 + self.unnamed
    }

    /// What came of each group, the names of what failed, and the counts as the very last line.
    pub fn conclude(&self) {
        println!("====");
        self.lines.iter().for_each(|line| println!("{line}"));
        self.failed.iter().for_each(|name| println!("FAILED  {name}"));
        println!("{}", self.last_line());
    }

    fn last_line(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failures())
    }
}

/// What a run of `cargo test` counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

impl Counts {
    /// Adds up the `test result:` lines of all harnesses in `output`.
    pub fn of(output: &str) -> Self {
        let mut all = Self::default();
        for line in output.lines().filter_map(|line| line.trim().strip_prefix("test result: ")) {
            let count = |what: &str| {
                let field = line.split([';', '.']).find(|field| field.trim_end().ends_with(what))?;
                field.split_whitespace().next()?.parse::<u64>().ok()
            };
            all.passed += count("passed").unwrap_or(0);
            all.failed += count("failed").unwrap_or(0);
            all.ignored += count("ignored").unwrap_or(0);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests\n\
        test a ... ok\n\
        test result: ok. 75 passed; 0 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.79s\n\
        \n\
        test result: FAILED. 8 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.03s\n";

    #[test]
    fn results_of_all_harnesses_are_added_up() {
        assert_eq!(Counts::of(OUTPUT), Counts { passed: 83, failed: 3, ignored: 2 });
        assert_eq!(Counts::of("error: could not compile"), Counts::default());
    }

    #[test]
    fn outcomes_are_kept_by_group() {
        let mut tally = Tally::default();
        tally.passed("of no group");
        tally.begin("boot", "s");
        tally.passed("a disk");
        tally.failed("another", "because");
        tally.begin("unit", "t");
        tally.record(&"unit p a".parse().unwrap(), true);
        let of = |group: &str| tally.runs()[group].passed.iter().map(|(k, v)| format!("{k}: {v}")).collect::<Vec<_>>();
        assert_eq!(of("boot"), ["boot undercroft-xtask a disk: true", "boot undercroft-xtask another: false"]);
        assert_eq!((of("unit"), tally.runs()["unit"].source.as_str()), (vec!["unit p a: true".to_owned()], "t"));
        tally.begin("boot", "s");
        assert!(tally.runs()["boot"].passed.is_empty(), "a new run forgets the old one");
    }

    #[test]
    fn the_last_line_counts_everything() {
        let mut tally = Tally::default();
        assert_eq!(tally.last_line(), "0 passed, 0 failed");
        tally.add("good", Counts { passed: 5, failed: 0, ignored: 0 });
        tally.passed("one");
        assert!(tally.is_good());
        tally.add("bad", Counts { passed: 2, failed: 3, ignored: 0 });
        tally.failed("another", "because");
        assert_eq!(tally.check("fine", Ok::<_, String>(3)), Some(3));
        assert_eq!(tally.check("not fine", Err::<(), _>("no")), None);
        assert_eq!(tally.last_line(), "9 passed, 5 failed");
        assert!(!tally.is_good());
    }
}
