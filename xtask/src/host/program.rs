//! Finding and running programs of the host.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Finds a program by name in PATH and in the system directories, which a user's PATH often
/// lacks; a name with a slash is taken as it is.
pub fn find(name: impl AsRef<Path>) -> Result<PathBuf> {
    let name = name.as_ref();
    if name.components().count() > 1 {
        return if is_program(name) { Ok(name.into()) } else { bail!("{} is not a program", name.display()) };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|candidate| is_program(candidate))
        .with_context(|| format!("the program {} is missing", name.display()))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// Names the program and repeats what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_program_and_what_it_said() {
        let error = run(Command::new("/bin/sh").args(["-c", "echo so it is; exit 3"])).unwrap_err().to_string();
        assert!(error.starts_with("sh failed") && error.contains("so it is"), "{error}");
        assert!(find("no-such-program-anywhere").unwrap_err().to_string().contains("no-such-program-anywhere"));
        assert!(find("/etc/passwd").is_err(), "not executable");
    }
}
