//! The bugs that can be put back: the switches of all crates' negative controls, read from the source.

/// Where the switches are, and the folder of the crate.
const SOURCES: &[(&str, &str)] = &[
    ("hal", include_str!("../../hal/src/broken.rs")),
    ("timer", include_str!("../../timer/src/broken.rs")),
    ("wheel", include_str!("../../timer/src/wheel/broken.rs")),
    ("block", include_str!("../../block/src/broken.rs")),
    ("pagecache", include_str!("../../pagecache/src/broken.rs")),
    ("virtio", include_str!("../../virtio/src/defect.rs")),
    ("pvscsi", include_str!("../../pvscsi/src/defect.rs")),
    ("ata", include_str!("../../ata/src/defect.rs")),
    ("storvsc", include_str!("../../storvsc/src/defect.rs")),
];

/// The variants of the first enum of a source.
fn variants(source: &str) -> impl Iterator<Item = &str> {
    let (_, body) = source.split_once("enum ").and_then(|(_, rest)| rest.split_once('{')).unwrap_or_default();
    let (body, _) = body.split_once("\n}").unwrap_or_default();
    body.lines().map(str::trim).filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase())).map(|line| {
        let end = line.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(line.len());
        &line[..end]
    })
}

/// All of them, as `crate::Name`.
pub fn all() -> Vec<String> {
    SOURCES.iter().flat_map(|(folder, source)| variants(source).map(move |name| format!("{folder}::{name}"))).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_switches_of_all_crates_are_found() {
        let all = super::all();
        assert!(all.len() >= 150, "{}", all.len());
        for name in ["hal::NoSecondLook", "ata::TrustsInterrupts", "wheel::RoundedDown", "pagecache::NewestOnly"] {
            assert!(all.iter().any(|mutant| mutant == name), "{name}");
        }
    }
}
