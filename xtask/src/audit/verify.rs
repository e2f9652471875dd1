//! Whether what the table claims is so.

use super::reference::TestRef;
use super::results::Outcome;
use super::table::{Entry, Status, Table};

/// What is known about tests.
pub trait Evidence {
    /// Whether it is in the source.
    fn exists(&self, test: &TestRef) -> bool;
    /// What became of it when it last ran.
    fn outcome(&self, test: &TestRef) -> Outcome;
}

/// An item of the checklist, looked at.
pub struct Item<'a> {
    pub id: String,
    pub area: &'static str,
    /// `None` if the table has no entry for it: it is open.
    pub entry: Option<&'a Entry>,
    /// What it claims and cannot show.
    pub problems: Vec<String>,
}

impl Item<'_> {
    pub fn status(&self) -> Status {
        self.entry.map_or(Status::Open, |entry| entry.status)
    }

    /// Whether everything it claims was seen. An open item claims nothing but the tests that it names.
    pub fn holds(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Looks at every id of the checklist, in its order.
pub fn verify<'a>(table: &'a Table, evidence: &dyn Evidence) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    for (area, entries) in &table.areas {
        for id in area.ids() {
            let entry = entries.get(&id);
            let problems = entry.map_or_else(Vec::new, |entry| problems(entry, evidence));
            items.push(Item { id, area: area.name, entry, problems });
        }
    }
    items
}

fn problems(entry: &Entry, evidence: &dyn Evidence) -> Vec<String> {
    let tests =
        entry.tests.iter().filter_map(|test| wrong(test, evidence).map(|why| format!("the test '{test}' {why}")));
    let controls = entry.negative_control.iter().filter_map(|control| {
        let why = wrong(&control.test, evidence)?;
        Some(format!("the negative control '{}' ({}) {why}", control.test, control.variant))
    });
    tests.chain(controls).collect()
}

fn wrong(test: &TestRef, evidence: &dyn Evidence) -> Option<&'static str> {
    if !evidence.exists(test) {
        return Some("does not exist");
    }
    match evidence.outcome(test) {
        Outcome::Passed => None,
        Outcome::Failed => Some("failed"),
        Outcome::DidNotRun => Some("did not run"),
        Outcome::Stale => Some("ran before the source changed"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::checklist::area_of;
    use super::super::table::tests::{GOOD, vq};
    use super::*;

    /// Everything exists and passed, but for these.
    #[derive(Default)]
    struct Known {
        absent: &'static str,
        outcomes: Vec<(&'static str, Outcome)>,
    }

    impl Evidence for Known {
        fn exists(&self, test: &TestRef) -> bool {
            test.to_string() != self.absent
        }
        fn outcome(&self, test: &TestRef) -> Outcome {
            let known = self.outcomes.iter().find(|(name, _)| test.to_string() == *name);
            known.map_or(Outcome::Passed, |(_, outcome)| *outcome)
        }
    }

    const TEST: &str = "unit p m::a_vq_01";
    const CONTROL: &str = "unit p m::a_vq_01_control";
    const MISUSE: &str = "compile-fail p misuse";

    /// The problems of A-VQ-01 and A-VQ-02.
    fn problems_with(evidence: &Known) -> [Vec<String>; 2] {
        let table = Table { areas: vec![(area_of("A-VQ-01").unwrap(), vq(GOOD).unwrap())] };
        let items = verify(&table, evidence);
        let ids: Vec<_> = items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, ["A-VQ-01", "A-VQ-02", "A-VQ-03", "A-VQ-04"]);
        assert!(items[2].entry.is_none() && items[2].status() == Status::Open, "not in the table");
        assert!(items[2].holds() && items[3].holds(), "open items are no failures");
        [items[0].problems.clone(), items[1].problems.clone()]
    }

    #[test]
    fn what_was_seen_holds() {
        assert_eq!(problems_with(&Known::default()), [Vec::<String>::new(), Vec::new()]);
    }

    #[test]
    fn a_test_that_does_not_exist_is_an_error_though_it_once_passed() {
        let [first, second] = problems_with(&Known { absent: TEST, ..Known::default() });
        assert_eq!(first, ["the test 'unit p m::a_vq_01' does not exist"]);
        assert!(second.is_empty());
        let [_, second] = problems_with(&Known { absent: MISUSE, ..Known::default() });
        assert_eq!(second, ["the test 'compile-fail p misuse' does not exist"]);
    }

    #[test]
    fn a_control_that_is_missing_or_was_not_caught_is_an_error() {
        let [first, _] = problems_with(&Known { absent: CONTROL, ..Known::default() });
        assert_eq!(first, ["the negative control 'unit p m::a_vq_01_control' (Broken) does not exist"]);
        let [first, _] = problems_with(&Known { outcomes: vec![(CONTROL, Outcome::Failed)], ..Known::default() });
        assert_eq!(first, ["the negative control 'unit p m::a_vq_01_control' (Broken) failed"]);
    }

    #[test]
    fn a_test_that_failed_or_did_not_run_or_ran_on_other_source_is_an_error() {
        for (outcome, why) in [
            (Outcome::Failed, "failed"),
            (Outcome::DidNotRun, "did not run"),
            (Outcome::Stale, "ran before the source changed"),
        ] {
            for name in [TEST, MISUSE] {
                let [first, second] = problems_with(&Known { outcomes: vec![(name, outcome)], ..Known::default() });
                assert_eq!([first, second].concat(), [format!("the test '{name}' {why}")]);
            }
        }
    }
}
