//! The inputs that are checked in, as tests: one for each target, which fails if there are none.

use std::fs;
use std::path::PathBuf;

use super::TARGETS;

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name)
}

/// Runs the inputs of a target, the shortest first.
fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    let folder = corpus(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<(Vec<u8>, PathBuf)> = files
        .map(|file| file.expect("a file").path())
        .map(|path| (fs::read(&path).expect("can be read"), path))
        .collect();
    inputs.sort_by_key(|(bytes, path)| (bytes.len(), path.clone()));
    assert!(!inputs.is_empty(), "{} holds no inputs", folder.display());
    for (bytes, path) in inputs {
        // What fails says which it was.
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ended = std::panic::catch_unwind(|| (target.run)(&bytes));
        assert!(ended.is_ok(), "the input {name} fails");
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        /// Every target has its test here, its program in `fuzz/`, and nothing else does.
        #[test]
        fn every_target_replays_and_is_a_program() {
            let tests = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), tests);
            let manifest = include_str!("../../fuzz/Cargo.toml");
            let programs: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("name = \"")).skip(1).collect();
            assert_eq!(programs, tests.map(|test| format!("{test}\"")));
        }
    };
}

replays! {
    acpi
    blkif_ring
    block_script
    callouts
    command_line
    grant_evtchn
    ide_task_file
    page_cache
    partitions
    pvscsi_rings
    scsi_parsers
    virtio_scsi
    virtqueue_packed
    virtqueue_split
    vmbus_messages
    vmbus_ring
    wheel
    xenstore
}
