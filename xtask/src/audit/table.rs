//! The table itself: the files of `audit/`, one for each area of the checklist.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::checklist::{AREAS, Area};
use super::reference::{COMPILE_FAIL, TestRef};

/// How an item of the checklist is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// By tests, each check with a negative control.
    Proven,
    /// The misuse does not compile, and a test shows that it does not.
    ByType,
    /// Not yet, or not wholly.
    Open,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Proven => "proven",
            Status::ByType => "by-type",
            Status::Open => "open",
        }
    }
}

/// A broken variant, and the test that passes only if the check catches it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// The name of the broken variant in the source.
    pub variant: String,
    pub test: TestRef,
}

/// One item of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub id: String,
    pub title: String,
    pub status: Status,
    #[serde(default)]
    pub tests: Vec<TestRef>,
    #[serde(default)]
    pub negative_control: Vec<Control>,
    /// What the tests leave out, why it is open, what it waits for.
    #[serde(default)]
    pub note: String,
}

impl Entry {
    /// All tests that it names.
    pub fn named(&self) -> impl Iterator<Item = &TestRef> {
        self.tests.iter().chain(self.negative_control.iter().map(|control| &control.test))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    entry: Vec<Entry>,
}

/// All entries, by area in the checklist's order.
pub struct Table {
    pub areas: Vec<(&'static Area, BTreeMap<String, Entry>)>,
}

impl Table {
    /// Reads the files in `directory`.
    pub fn load(directory: &Path) -> Result<Self> {
        let mut areas = Vec::new();
        for area in &AREAS {
            let path = directory.join(format!("{}.toml", area.name.to_lowercase()));
            let read = || path.display().to_string();
            let text = fs::read_to_string(&path).with_context(read)?;
            areas.push((area, parse(area, &text).with_context(read)?));
        }
        Ok(Self { areas })
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.areas.iter().flat_map(|(_, entries)| entries.values())
    }
}

/// The entries of one file.
///
/// # Errors
/// What is not in the form, ids that the area does not have or that come twice, and claims that lack what they rest on.
pub fn parse(area: &Area, text: &str) -> Result<BTreeMap<String, Entry>> {
    let file: File = toml::from_str(text)?;
    let mut entries = BTreeMap::new();
    for entry in file.entry {
        ensure!(area.ids().any(|id| id == entry.id), "{} is no id of the area {}", entry.id, area.name);
        well_formed(&entry).with_context(|| entry.id.clone())?;
        if let Some(twice) = entries.insert(entry.id.clone(), entry) {
            bail!("{} comes twice", twice.id);
        }
    }
    Ok(entries)
}

fn well_formed(entry: &Entry) -> Result<()> {
    ensure!(!entry.title.trim().is_empty(), "it has no title");
    let controls = &entry.negative_control;
    let must_not_compile = |test: &TestRef| test.group == COMPILE_FAIL;
    ensure!(controls.iter().all(|control| !control.variant.trim().is_empty()), "a broken variant without a name");
    ensure!(
        !controls.iter().any(|control| entry.tests.contains(&control.test)),
        "a test cannot be the control of itself"
    );
    match entry.status {
        Status::Proven => {
            ensure!(!entry.tests.is_empty(), "it claims to be proven and names no test");
            ensure!(!controls.is_empty(), "it claims to be proven and has no negative control");
        }
        Status::ByType => ensure!(
            entry.tests.iter().any(must_not_compile),
            "it claims that the misuse does not compile and names no {COMPILE_FAIL} test"
        ),
        Status::Open => {}
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::super::checklist::area_of;
    use super::*;

    pub const GOOD: &str = r#"
        [[entry]]
        id = "A-VQ-01"
        title = "a title"
        status = "proven"
        tests = ["unit p m::a_vq_01"]
        negative_control = [{ variant = "Broken", test = "unit p m::a_vq_01_control" }]

        [[entry]]
        id = "A-VQ-02"
        title = "another"
        status = "by-type"
        tests = ["compile-fail p misuse"]

        [[entry]]
        id = "A-VQ-04"
        title = "a third"
        status = "open"
        note = "why"
    "#;

    pub fn vq(text: &str) -> Result<BTreeMap<String, Entry>> {
        parse(area_of("A-VQ-01").unwrap(), text)
    }

    fn error(text: &str) -> String {
        format!("{:#}", vq(text).unwrap_err())
    }

    #[test]
    fn entries_are_read() {
        let entries = vq(GOOD).unwrap();
        let status: Vec<_> = entries.values().map(|entry| (entry.id.as_str(), entry.status)).collect();
        assert_eq!(status, [("A-VQ-01", Status::Proven), ("A-VQ-02", Status::ByType), ("A-VQ-04", Status::Open)]);
        assert_eq!(entries["A-VQ-01"].named().count(), 2);
        assert_eq!(entries["A-VQ-01"].negative_control[0].variant, "Broken");
    }

    #[test]
    fn claims_without_their_ground_are_refused() {
        let tests = r#"tests = ["unit p m::a_vq_01"]"#;
        let control = r#"negative_control = [{ variant = "Broken", test = "unit p m::a_vq_01_control" }]"#;
        assert!(error(&GOOD.replace(tests, "")).contains("names no test"));
        assert!(error(&GOOD.replace(control, "")).contains("no negative control"));
        assert!(error(&GOOD.replace("compile-fail p", "unit p")).contains("names no compile-fail test"));
        assert!(error(&GOOD.replace("_control\"", "\"")).contains("control of itself"));
        assert!(error(&GOOD.replace("Broken", " ")).contains("without a name"));
    }

    #[test]
    fn what_is_not_in_the_form_is_refused() {
        assert!(error(&GOOD.replace("A-VQ-04", "A-VQ-05")).contains("no id of the area VQ"));
        assert!(error(&GOOD.replace("A-VQ-04", "A-VBLK-04")).contains("no id of the area VQ"));
        assert!(error(&GOOD.replace("A-VQ-04", "A-VQ-01")).contains("comes twice"));
        assert!(error(&GOOD.replace("a third", "")).contains("no title"));
        assert!(vq(&GOOD.replace("\"open\"", "\"done\"")).is_err());
        assert!(vq(&GOOD.replace("note", "remark")).is_err());
        assert!(vq(&GOOD.replace("unit p m::a_vq_01\"", "m::a_vq_01\"")).is_err());
    }

    #[test]
    fn the_checked_in_table_is_well_formed_and_whole() {
        let table = Table::load(&crate::host::workspace::root().join("audit")).unwrap();
        let missing: Vec<_> =
            table.areas.iter().flat_map(|(area, entries)| area.ids().filter(|id| !entries.contains_key(id))).collect();
        assert!(missing.is_empty(), "without an entry: {missing:?}");
    }
}
