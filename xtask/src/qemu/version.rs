//! Which QEMU this is.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::host::program;

/// The oldest QEMU with all that is asked of it (JSON for -blockdev, PVH on microvm, a queue per
/// processor). Debian 12 has 7.2.
pub const OLDEST: (u32, u32) = (6, 0);

/// Checks the version of a QEMU program and returns it as text.
pub fn check(qemu: &Path) -> Result<String> {
    let said = program::run(Command::new(qemu).arg("--version"))?;
    let Some((major, minor)) = parse(&said) else {
        bail!("{} does not say which version of QEMU it is: {}", qemu.display(), said.trim());
    };
    if (major, minor) < OLDEST {
        bail!("{} is version {major}.{minor}; at least {}.{} is needed", qemu.display(), OLDEST.0, OLDEST.1);
    }
    Ok(format!("{major}.{minor}"))
}

fn parse(said: &str) -> Option<(u32, u32)> {
    let mut parts = said.split("version ").nth(1)?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\n"), Some((7, 2)));
        assert_eq!(parse("QEMU emulator version 10.0.0\nCopyright"), Some((10, 0)));
        assert_eq!(parse("Bochs 2.7"), None);
        assert!(parse("QEMU emulator version 5.2.0") < Some(OLDEST));
        assert!(parse("QEMU emulator version 10.0.0") > Some(OLDEST));
    }
}
