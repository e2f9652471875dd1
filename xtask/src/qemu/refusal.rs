//! What QEMU says when it will not start, in words that name the thing.

/// Returns what a QEMU that died without a word from the image meant.
pub fn explain(stderr: &str) -> String {
    let about = |marker: &str| stderr.lines().find(|line| line.contains(marker));
    if about("Failed to get").is_some_and(|line| line.contains("lock")) {
        let file =
            about("Is another process using the image").and_then(|l| Some(l.split_once('[')?.1.split_once(']')?.0));
        return match file {
            Some(file) => format!("disk {file}: another program is using it (a virtual machine, perhaps)"),
            None => "a disk is in use by another program".into(),
        };
    }
    match stderr.lines().last() {
        Some(last) => format!("QEMU did not start: {}", last.trim_start_matches("qemu-system-x86_64: ")),
        None => "QEMU ended without saying why".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_names_the_file() {
        let stderr = "qemu-system-x86_64: -blockdev {...}: Failed to get shared \"write\" lock\n\
                      Is another process using the image [/d/a.img]?";
        assert!(explain(stderr).starts_with("disk /d/a.img: another program"), "{}", explain(stderr));
    }

    #[test]
    fn anything_else_is_repeated() {
        assert_eq!(explain("qemu-system-x86_64: -foo: invalid option"), "QEMU did not start: -foo: invalid option");
        assert!(explain("").contains("without saying why"));
    }
}
