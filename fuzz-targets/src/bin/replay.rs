//! `replay TARGET FILE|FOLDER...`: runs a target on inputs, without libFuzzer: for a debugger, and for coverage.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use undercroft_fuzz_targets::TARGETS;

fn inputs(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    fs::read_dir(path)?.map(|file| file.map(|file| file.path())).collect()
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        TARGETS.iter().for_each(|target| println!("{}  {}", target.name, target.what));
        return ExitCode::FAILURE;
    };
    let (mut count, mut failed) = (0, 0);
    for argument in arguments {
        let mut paths = inputs(Path::new(&argument)).unwrap_or_default();
        paths.sort();
        for path in paths {
            let Ok(bytes) = fs::read(&path) else { continue };
            count += 1;
            if std::panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
                println!("FAILED {}", path.display());
                failed += 1;
            }
        }
    }
    println!("{name}: {count} inputs, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
