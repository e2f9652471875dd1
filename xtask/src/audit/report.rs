//! The table, looked at, in words and in JSON.

use serde_json::{Value, json};

use super::checklist::AREAS;
use super::table::{Entry, Status};
use super::verify::{Evidence, Item};
use crate::audit::results::Outcome;
use crate::report::text;

/// One item. `negative_control` is `null` where there is none; `caught` if each broken variant was.
pub fn json(item: &Item, evidence: &dyn Evidence) -> Value {
    let tests: Vec<String> = item.entry.iter().flat_map(|entry| &entry.tests).map(ToString::to_string).collect();
    json!({
        "id": item.id,
        "area": item.area,
        "title": item.entry.map(|entry| &entry.title),
        "status": item.status().name(),
        "verified": item.status() != Status::Open && item.holds(),
        "tests": tests,
        "negative_control": item.entry.map_or(Value::Null, |entry| control(entry, evidence)),
        "problems": item.problems,
    })
}

fn control(entry: &Entry, evidence: &dyn Evidence) -> Value {
    let caught = |test| evidence.exists(test) && evidence.outcome(test) == Outcome::Passed;
    let (names, tests): (Vec<&str>, Vec<_>) = match entry.status {
        // The file that must not compile is itself the broken variant.
        Status::ByType => entry.tests.iter().map(|test| (test.name.as_str(), test)).unzip(),
        _ => entry.negative_control.iter().map(|control| (control.variant.as_str(), &control.test)).unzip(),
    };
    if names.is_empty() {
        return Value::Null;
    }
    json!({
        "name": names.join(", "),
        "caught": tests.iter().all(|test| caught(test)),
        "tests": tests.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// One line for each item: its id, what it claims, whether that was seen, its title.
pub fn lines(items: &[&Item]) -> Vec<String> {
    let row = |item: &&Item| {
        let seen = match item.status() {
            Status::Open if item.holds() => "",
            _ if item.holds() => "verified",
            _ => "NOT VERIFIED",
        };
        let title = item.entry.map_or("(no entry)", |entry| &entry.title);
        [item.id.clone(), item.status().name().into(), seen.into(), title.into()]
    };
    text::table(&items.iter().map(row).collect::<Vec<_>>(), 4).iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Everything that the table says about one item.
pub fn whole(item: &Item) -> Vec<String> {
    let mut lines = lines(&[item]);
    if let Some(entry) = item.entry {
        lines.extend(entry.tests.iter().map(|test| format!("    test     {test}")));
        let control = |control: &super::table::Control| format!("    control  {} ({})", control.test, control.variant);
        lines.extend(entry.negative_control.iter().map(control));
        if !entry.note.is_empty() {
            lines.push(format!("    note     {}", entry.note));
        }
    }
    lines
}

/// How many of each, by area.
pub fn counts(items: &[Item]) -> Vec<String> {
    let head = ["area", "", "proven", "by-type", "open", "all"].map(String::from);
    let row = |name: &str, what: &str, belongs: &dyn Fn(&Item) -> bool| {
        let count = |status: Option<Status>| {
            let counted = |item: &&Item| belongs(item) && status.is_none_or(|status| item.status() == status);
            items.iter().filter(counted).count().to_string()
        };
        let [proven, by_type, open] = [Status::Proven, Status::ByType, Status::Open].map(|status| count(Some(status)));
        [name.into(), what.into(), proven, by_type, open, count(None)]
    };
    let areas = AREAS.iter().map(|area| row(area.name, area.what, &|item| item.area == area.name));
    let all = row("all", "", &|_| true);
    text::table(&std::iter::once(head).chain(areas).chain([all]).collect::<Vec<_>>(), 2)
}

#[cfg(test)]
mod tests {
    use super::super::checklist::area_of;
    use super::super::reference::TestRef;
    use super::super::table::Table;
    use super::super::table::tests::{GOOD, vq};
    use super::super::verify::verify;
    use super::*;

    struct Controls(Outcome);

    impl Evidence for Controls {
        fn exists(&self, _: &TestRef) -> bool {
            true
        }
        fn outcome(&self, test: &TestRef) -> Outcome {
            if test.name.ends_with("_control") { self.0 } else { Outcome::Passed }
        }
    }

    fn looked_at(evidence: &Controls, check: impl Fn(&[Item])) {
        let table = Table { areas: vec![(area_of("A-VQ-01").unwrap(), vq(GOOD).unwrap())] };
        check(&verify(&table, evidence));
    }

    #[test]
    fn json_says_what_was_seen() {
        let good = Controls(Outcome::Passed);
        looked_at(&good, |items| {
            let [first, second, third, fourth] = [0, 1, 2, 3].map(|n| json(&items[n], &good));
            assert_eq!(
                (&first["id"], &first["area"], &first["status"]),
                (&json!("A-VQ-01"), &json!("VQ"), &json!("proven"))
            );
            assert_eq!(first["tests"], json!(["unit p m::a_vq_01"]));
            let control = &first["negative_control"];
            assert_eq!(
                (&control["name"], &control["caught"], &first["verified"]),
                (&json!("Broken"), &json!(true), &json!(true))
            );
            assert_eq!(second["negative_control"]["name"], "misuse");
            assert_eq!((&third["status"], &third["negative_control"]), (&json!("open"), &Value::Null));
            assert_eq!((&fourth["status"], &fourth["verified"]), (&json!("open"), &json!(false)));
        });
        let bad = Controls(Outcome::Failed);
        looked_at(&bad, |items| {
            let first = json(&items[0], &bad);
            assert_eq!((&first["negative_control"]["caught"], &first["verified"]), (&json!(false), &json!(false)));
        });
    }

    #[test]
    fn counts_are_by_area() {
        looked_at(&Controls(Outcome::Passed), |items| {
            let lines = counts(items);
            let numbers = |line: &String| line.split_whitespace().rev().take(4).map(str::to_owned).collect::<Vec<_>>();
            let vq = lines.iter().find(|line| line.trim_start().starts_with("VQ ")).unwrap();
            assert_eq!(numbers(vq), ["4", "2", "1", "1"]);
            assert_eq!(numbers(lines.last().unwrap()), ["4", "2", "1", "1"]);
        });
    }

    #[test]
    fn a_claim_that_does_not_hold_cannot_be_overlooked() {
        looked_at(&Controls(Outcome::Failed), |items| {
            let lines = lines(&items.iter().collect::<Vec<_>>());
            assert!(lines[0].contains("NOT VERIFIED") && lines[1].contains(" verified"), "{lines:?}");
        });
    }
}
