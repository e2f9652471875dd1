//! Scripts that failed once, and that a run depends on nothing but its bytes.

use std::fs;
use std::path::Path;

use undercroft_sim::{SCENARIOS, run, scenario, script};

#[test]
fn scripts_that_failed_once_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut count = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (of, _) = name.split_once('-').expect("the name of a scenario, and a seed");
        let ran = run(scenario::find(of).expect("a scenario"), &fs::read(&path).unwrap(), false);
        assert_eq!(ran.failure, None, "{name}");
        count += 1;
    }
    assert!(count > 0, "no scripts are kept");
}

#[test]
fn the_same_seed_is_the_same_run_bit_for_bit() {
    for scenario in SCENARIOS.iter().filter(|scenario| ["load", "mixed", "cache_blk"].contains(&scenario.name)) {
        let bytes = script(scenario, 4);
        let [one, other] = [(); 2].map(|()| run(scenario, &bytes, true));
        assert_eq!(one.trace.digest, other.trace.digest, "{}", scenario.name);
        assert_eq!(one.trace.events, other.trace.events, "{}", scenario.name);
        assert!(one.trace.operations > 20, "{} does nothing", scenario.name);
    }
}

#[test]
fn another_seed_is_another_run_control() {
    let load = scenario::find("load").unwrap();
    let [one, other] = [4, 5].map(|seed| run(load, &script(load, seed), false).trace.digest);
    assert_ne!(one, other);
}
