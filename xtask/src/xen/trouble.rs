//! What went wrong with Xen itself, from its log: one clear message for what is known.

/// A line of the log, and what it means.
const KNOWN: [(&str, &str); 9] = [
    ("Hardware Dom0 crashed", "the first domain's Linux died at its start: QEMU older than 9.1 needs -cpu max,-smap"),
    ("Not enough RAM for domain 0", "the machine has too little memory for the first domain"),
    ("Insn len emulation failed", "QEMU reports RDTSCP wrongly: the domain needs tsc_mode = \"native\""),
    ("neither hap nor shadow paging", "this processor cannot run domains: QEMU's needs svm and npt"),
    ("Triple fault", "the domain's processor has shut down (a triple fault)"),
    ("libxl: error", "xl could not do what it was asked"),
    ("DOM0 FAILED", "the first domain failed"),
    ("Panic on CPU", "Xen panicked"),
    ("Kernel panic", "the first domain's Linux panicked"),
];

/// The first line of `log` that tells of trouble, with what it means.
pub fn explain(log: &str) -> Option<String> {
    log.lines().find_map(|line| {
        let (_, meaning) = KNOWN.iter().find(|(sign, _)| line.contains(sign))?;
        Some(format!("{meaning}: {}", line.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_trouble_is_named_with_its_line() {
        let log = "(XEN) all is well\n(XEN) d1v0 Triple fault - invoking HVM shutdown action 1\n";
        assert!(explain(log).unwrap().contains("Triple fault - invoking"));
        assert_eq!(explain("(XEN) all is well\n"), None);
    }
}
