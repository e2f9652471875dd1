//! Whether a run has shown what it was to show. Nothing is taken for granted: what was not
//! reported did not happen.

use super::event;
use super::session::{Seen, Session};
use crate::cli::Workload;
use crate::disk::{Disk, Files, stored};
use crate::qemu::process::Exit;

/// A disk and what is known of it apart from the image.
pub struct Expected<'a> {
    pub disk: &'a Disk,
    /// Of the whole disk before the run; `None` where its contents have no meaning (null disks).
    pub sha256: Option<String>,
}

/// Exit statuses of QEMU after the image has written to the debug-exit port.
pub const SUCCESS: i32 = 33;
const FAILURE: i32 = 35;
const PANIC: i32 = 37;

/// Returns all that went wrong; a run has succeeded only if that is nothing. `host` is what the
/// host found on the disks afterwards.
pub fn failures(
    workload: Workload,
    expected: &[Expected],
    session: &Session,
    exit: &Exit,
    host: &[String],
) -> Vec<String> {
    let mut all = session.problems.clone();
    if let Some(what) = unexpected_exit(exit, session) {
        all.push(what);
    } else if session.end.is_none() {
        all.push("the image ended without a last word".into());
    }
    if session.hello.is_none() && *exit == Exit::Status(SUCCESS) {
        all.push("the image never introduced itself".into());
    }
    if let Some(end) = session.end {
        if end.failures > 0 && session.problems.is_empty() {
            all.push(format!("the image counted {} failures without naming one", end.failures));
        }
        if end.allocations_in_io_path > 0 {
            all.push(format!("{} allocations in the I/O path", end.allocations_in_io_path));
        }
        if session.heaps.is_empty() {
            all.push("the image did not tell what its heaps hold".into());
        }
        // The image calls a leak a problem itself.
        if session.problems.is_empty() {
            let leaks = session.heaps.iter().filter(|heap| heap.leaked_blocks + heap.leaked_bytes > 0);
            all.extend(leaks.map(|heap| format!("{} bytes of the {} heap leaked", heap.leaked_bytes, heap.heap)));
        }
        if session.disks.is_empty() {
            all.push("no disk was found".into());
        } else if session.first_io.is_none() {
            all.push("the image did not tell when it first used a disk".into());
        }
        for wanted in expected {
            let label = &wanted.disk.label;
            match session.by_serial(&wanted.disk.serial) {
                None => all.push(format!("disk {label}: the image did not find it")),
                Some(seen) => all.extend(
                    disk_failures(workload, wanted, seen, session)
                        .into_iter()
                        .map(|what| format!("disk {label}: {what}")),
                ),
            }
        }
    }
    all.extend_from_slice(host);
    all
}

fn unexpected_exit(exit: &Exit, session: &Session) -> Option<String> {
    let before = if session.end.is_none() { " before its work was done" } else { "" };
    match *exit {
        Exit::Status(SUCCESS) => None,
        // The image names its problems itself.
        Exit::Status(FAILURE) if !session.problems.is_empty() => None,
        Exit::Status(FAILURE) => Some("the image failed without naming a problem".into()),
        Exit::Status(PANIC) => Some(last_words(session)),
        Exit::Status(0) => Some(format!("the machine went off or was reset{before}")),
        Exit::Status(code) => Some(format!("QEMU ended with status {code}{before}")),
        Exit::Signal(signal) => Some(format!("QEMU was killed by signal {signal}{before}")),
        Exit::TimedOut => Some("the run took longer than --timeout allows and was stopped".into()),
        Exit::Silent => Some("nothing was heard from the image for too long: it hangs, and was stopped".into()),
        Exit::Interrupted => Some("interrupted".into()),
    }
}

/// What an image that stopped said of the reason.
fn last_words(session: &Session) -> String {
    match session.screen.iter().rev().find_map(|line| line.split_once("undercroft stopped: ")) {
        Some((_, why)) => format!("the image stopped: {why}"),
        None => "the image panicked".into(),
    }
}

fn disk_failures(workload: Workload, wanted: &Expected, seen: &Seen, session: &Session) -> Vec<String> {
    let mut all = Vec::new();
    let (disk, found) = (wanted.disk, &seen.found);
    let mut differ = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            all.push(format!("its {what} is {ours}, the image says {theirs}"));
        }
    };
    differ("capacity", disk.bytes.to_string(), found.capacity_bytes.to_string());
    differ("block size", disk.block_size.to_string(), found.block_size.to_string());
    differ("driver", disk.bus.driver().into(), found.driver.clone());
    if disk.writable.is_none() && !found.read_only {
        all.push("it is attached read only, the image says writable".into());
    }
    if workload.verifies() {
        match (&seen.read, &wanted.sha256) {
            (None, _) => all.push("it was not read".into()),
            (Some(read), _) if read.bytes != disk.bytes => {
                all.push(format!("only {} of {} bytes were read", read.bytes, disk.bytes));
            }
            (Some(read), Some(sha256)) if read.sha256 != *sha256 => {
                all.push(format!("SHA-256 mismatch: the image read {}, the file has {sha256}", read.sha256));
            }
            _ => {}
        }
        match (&seen.cached, &wanted.sha256) {
            (None, _) => all.push("it was not read through the cache".into()),
            (Some(cached), _) if cached.bytes != disk.bytes => {
                all.push(format!("only {} of {} bytes were read through the cache", cached.bytes, disk.bytes));
            }
            (Some(cached), Some(sha256)) if cached.sha256 != *sha256 => {
                all.push(format!("SHA-256 mismatch through the cache: {}, the file has {sha256}", cached.sha256));
            }
            (Some(cached), _) if cached.again_misses > 0 || cached.again_hits == 0 => {
                all.push(format!("{} pages that had just been read were not in the cache", cached.again_misses));
            }
            _ => {}
        }
        if let Some(files) = &disk.files {
            all.extend(file_failures(files, &found.name, session));
        }
        match (&seen.written, disk.writable) {
            (None, None) => {}
            (None, Some(_)) => all.push("nothing was written".into()),
            (Some(_), None) => all.push("the image wrote to it without leave".into()),
            (Some(written), Some(region)) => {
                if (written.start, written.bytes) != (region.start, region.length) {
                    all.push(format!(
                        "bytes {}+{} were to be written, the image says {}+{}",
                        region.start, region.length, written.start, written.bytes
                    ));
                }
                if !written.flushed {
                    all.push("the writes were not flushed".into());
                }
                if !written.verified {
                    all.push("what was written was not read back equal".into());
                }
            }
        }
    }
    if workload.measures() && !session.speed.iter().any(|row| row.name == found.name && row.iops > 0.0) {
        all.push("it was not measured".into());
    }
    if workload.measures() && !session.sequential.iter().any(|row| row.name == found.name && row.cache_mib_s > 0.0) {
        all.push("reading it in order through the cache was not measured".into());
    }
    all
}

/// Both file systems of a prepared disk, each read in both ways, and files written to one.
fn file_failures(files: &Files, name: &str, session: &Session) -> Vec<String> {
    let mut all = Vec::new();
    for system in ["ext4", "fat"] {
        for through in ["cache", "device"] {
            let what = format!("its {system} file system, through the {through}");
            // The files that are written through the cache are there when the device is looked at.
            let more = if (system, through) == ("fat", "device") { stored::totals() } else { (0, 0) };
            let (count, bytes) = (files.count + more.0, files.bytes + more.1);
            let wanted = |seen: &&event::Files| (&*seen.name, &*seen.system, &*seen.through) == (name, system, through);
            match session.files.iter().find(wanted) {
                None => all.push(format!("{what}: not looked at")),
                Some(seen) if (seen.files, seen.bytes) != (count, bytes) => all.push(format!(
                    "{what}: {} files with {} bytes, there are {count} with {bytes}",
                    seen.files, seen.bytes
                )),
                Some(seen) if seen.list_sha256 != files.sha256 => {
                    all.push(format!("{what}: the list of files is another"));
                }
                // The list is not in itself. What is wrong the image has named.
                Some(seen) if seen.checked + seen.wrong + 1 != files.count => {
                    all.push(format!("{what}: only {} files were compared", seen.checked + seen.wrong));
                }
                Some(_) => {}
            }
        }
    }
    let stored = session.stored.iter().find(|stored| stored.name == name);
    if stored.map(|stored| (stored.files, stored.bytes)) != Some(stored::totals()) {
        all.push("the files that were to be written were not found on the device".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::session::tests::{A_GOOD_RUN, session};
    use super::*;
    use crate::disk::Backend;
    use crate::disk::option::Bus;
    use crate::disk::region::Region;

    fn disk() -> Disk {
        Disk {
            label: "d".into(),
            backend: Backend::Null,
            serial: "S1".into(),
            bus: Bus::VirtioBlk,
            block_size: 512,
            bytes: 1 << 20,
            writable: Some(Region { start: 4096, length: 8192 }),
            files: Some(Files {
                fat: Region { start: 512, length: 512 },
                count: 3,
                bytes: 99,
                sha256: "cc".into(),
                seed: 1,
                budget: 1,
            }),
        }
    }

    fn judge_disk(disk: &Disk, lines: &str, exit: Exit, host: &[String]) -> Vec<String> {
        let expected = [Expected { disk, sha256: Some("aa".into()) }];
        failures(Workload::All, &expected, &session(lines), &exit, host)
    }

    fn judge(lines: &str, exit: Exit) -> Vec<String> {
        judge_disk(&disk(), lines, exit, &[])
    }

    fn without(event: &str) -> String {
        let marker = format!("{{\"event\":\"{event}\"");
        A_GOOD_RUN.lines().filter(|line| !line.starts_with(&marker)).collect::<Vec<_>>().join("\n")
    }

    const GOOD: Exit = Exit::Status(SUCCESS);

    #[test]
    fn a_good_run_has_no_failures() {
        assert_eq!(judge(A_GOOD_RUN, GOOD), [""; 0]);
    }

    #[test]
    fn whatever_is_missing_is_a_failure() {
        for event in [
            "hello",
            "first_io",
            "found",
            "read",
            "cached",
            "sequential",
            "files",
            "stored",
            "speed",
            "written",
            "heap",
            "end",
        ] {
            assert_ne!(judge(&without(event), GOOD), [""; 0], "{event}");
        }
        assert_eq!(judge(&without("progress"), GOOD), [""; 0]);
    }

    #[test]
    fn whatever_is_different_is_a_failure() {
        for (good, bad) in [
            ("\"sha256\":\"aa\"", "\"sha256\":\"ab\""),
            ("\"capacity_bytes\":1048576", "\"capacity_bytes\":1048064"),
            ("\"block_size\":512", "\"block_size\":4096"),
            ("\"driver\":\"virtio-blk\"", "\"driver\":\"virtio-scsi\""),
            ("\"serial\":\"S1\"", "\"serial\":\"S2\""),
            ("\"bytes\":1048576,\"sha", "\"bytes\":1048064,\"sha"),
            ("\"sha256\":\"aa\",\"nanoseconds\":6", "\"sha256\":\"ab\",\"nanoseconds\":6"),
            (
                "\"bytes\":1048576,\"sha256\":\"aa\",\"nanoseconds\":6",
                "\"bytes\":4096,\"sha256\":\"aa\",\"nanoseconds\":6",
            ),
            ("\"through\":\"device\"", "\"through\":\"cache\""),
            ("\"files\":3", "\"files\":2"),
            ("\"bytes\":99", "\"bytes\":98"),
            ("\"checked\":2", "\"checked\":1"),
            ("\"list_sha256\":\"cc\"", "\"list_sha256\":\"cd\""),
            ("\"files\":8", "\"files\":7"),
            ("\"again_misses\":0", "\"again_misses\":1"),
            ("\"cache_mib_s\":900.0", "\"cache_mib_s\":0.0"),
            ("\"start\":4096,\"bytes\":8192", "\"start\":4096,\"bytes\":4096"),
            ("\"start\":4096,\"bytes\":8192", "\"start\":8192,\"bytes\":8192"),
            ("\"flushed\":true", "\"flushed\":false"),
            ("\"verified\":true", "\"verified\":false"),
            ("\"iops\":500", "\"iops\":0"),
            ("\"leaked_bytes\":0", "\"leaked_bytes\":64"),
            ("\"leaked_blocks\":0", "\"leaked_blocks\":1"),
            ("{\"event\":\"end\",\"failures\":0", "{\"event\":\"end\",\"failures\":1"),
            ("\"allocations_in_io_path\":0", "\"allocations_in_io_path\":1"),
        ] {
            assert!(A_GOOD_RUN.contains(good), "{good}");
            assert_eq!(judge(&A_GOOD_RUN.replacen(good, bad, 1), GOOD).len(), 1, "{bad}");
        }
    }

    #[test]
    fn any_problem_and_any_other_end_is_a_failure() {
        let problem = format!("{}\n{}", r#"{"event":"problem","what":"x","disk":"vd0"}"#, A_GOOD_RUN);
        assert_eq!(judge(&problem, GOOD), ["disk vd0: x"]);
        for exit in [0, 1, FAILURE, PANIC].map(Exit::Status) {
            assert_eq!(judge(A_GOOD_RUN, exit).len(), 1);
        }
        for exit in [Exit::Signal(11), Exit::TimedOut, Exit::Silent, Exit::Interrupted] {
            assert_eq!(judge(A_GOOD_RUN, exit).len(), 1);
        }
    }

    #[test]
    fn the_last_words_of_an_image_that_stopped_are_the_failure() {
        let lines = format!("{A_GOOD_RUN}\n*** undercroft stopped: too little memory\nand more");
        assert_eq!(judge(&lines, Exit::Status(PANIC)), ["the image stopped: too little memory"]);
    }

    #[test]
    fn what_the_host_finds_counts() {
        assert_eq!(judge_disk(&disk(), A_GOOD_RUN, GOOD, &["changed".into()]), ["changed"]);
    }

    #[test]
    fn a_disk_without_leave_must_not_be_written() {
        let disk = Disk { writable: None, ..disk() };
        let wrote = judge_disk(&disk, A_GOOD_RUN, GOOD, &[]);
        assert_eq!(wrote.len(), 2, "writable, and written: {wrote:?}");
        let honest = without("written").replace("\"read_only\":false", "\"read_only\":true");
        assert_eq!(judge_disk(&disk, &honest, GOOD, &[]), [""; 0]);
    }
}
