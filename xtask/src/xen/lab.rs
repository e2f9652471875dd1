//! Xen under QEMU with a first domain that does what it is told, so that many domains share one start of it: tests and measurements.
//!
//! Commands are lines of shell that go to the first domain by a port of their own; domains print and read at a socket, one domain at a time.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::domain::Domain;
use super::machine::{DOMAINS, Drive, Machine};
use super::trouble;
use crate::host::{interrupt, program};
use crate::qemu::process::Guard;

/// How long QEMU, Xen and the first domain's Linux may take until the first command is answered.
const START: Duration = Duration::from_secs(120);
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How the end of an answer begins.
const STATUS: &str = "#STATUS ";

/// What a lab is made of.
pub struct Setup<'a> {
    pub cpus: u32,
    pub domains: &'a [Domain],
    /// Files for the first domain, by their names in [`DOMAINS`].
    pub files: &'a [(&'a str, &'a Path)],
    pub drives: &'a [Drive<'a>],
    /// Where its sockets and its log go.
    pub directory: &'a Path,
    /// The processor of the host to pin QEMU to.
    pub pin: Option<u32>,
    /// More for QEMU.
    pub extra: &'a [String],
}

/// See the module. QEMU ends with it.
pub struct Lab {
    /// Dropped last, and first asked to end.
    _qemu: Guard,
    output: UnixStream,
    input: BufReader<UnixStream>,
    console: PathBuf,
    log: PathBuf,
}

/// How a domain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It said that it powers off.
    PowerOff,
    Reboot,
    Crash,
    /// In another way, by Xen's number.
    Other(u32),
}

impl Lab {
    /// Starts QEMU, Xen and the first domain, and waits until that takes commands.
    ///
    /// # Errors
    /// What could not be fetched or started; what is known of Xen's trouble.
    pub fn start(setup: &Setup) -> Result<Self> {
        let [console, control, log] = ["console", "control", "xen.log"].map(|name| setup.directory.join(name));
        let machine = Machine {
            qemu: &program::find("qemu-system-x86_64")?,
            script: "serve\n",
            domains: setup.domains,
            files: setup.files,
            console: Some(&console),
            control: Some(&control),
            cpus: setup.cpus,
            drives: setup.drives,
            pin: setup.pin,
            log: &log,
            directory: setup.directory,
        };
        let mut command = machine.command()?;
        command.args(setup.extra).stdin(Stdio::null()).stdout(Stdio::null());
        let mut qemu = Guard::start(&mut command)?;
        let output = connect(&control, &mut qemu)?;
        output.set_read_timeout(Some(Duration::from_millis(200)))?;
        let input = BufReader::new(output.try_clone()?);
        let mut lab = Self { _qemu: qemu, output, input, console, log };
        lab.ask("true", START)?;
        Ok(lab)
    }

    fn ask(&mut self, line: &str, patience: Duration) -> Result<(String, i32)> {
        ensure!(!line.contains('\n'), "a command is a line");
        let start = Instant::now();
        writeln!(self.output, "{line}")?;
        let (mut answer, mut bytes) = (String::new(), Vec::new());
        loop {
            interrupt::check()?;
            match self.input.read_until(b'\n', &mut bytes) {
                Ok(0) => bail!("the first domain is gone{}", self.trouble()),
                Ok(_) if bytes.ends_with(b"\n") => {
                    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                    if let Some(status) = text.strip_prefix(STATUS) {
                        return Ok((answer, status.parse().unwrap_or(-1)));
                    }
                    answer += &text;
                    answer.push('\n');
                    bytes.clear();
                }
                // A part of a line.
                Ok(_) => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error).with_context(|| format!("{line}{}", self.trouble())),
            }
            ensure!(
                start.elapsed() < patience,
                "the first domain does not answer '{line}': {answer}{}",
                self.trouble()
            );
        }
    }

    /// What a command of the first domain's shell prints, whatever its status.
    ///
    /// # Errors
    /// The first domain does not answer.
    pub fn try_shell(&mut self, line: &str) -> Result<(String, i32)> {
        self.ask(line, PATIENCE)
    }

    /// What a command of the first domain's shell prints.
    ///
    /// # Errors
    /// It failed: with what it printed.
    pub fn shell(&mut self, line: &str) -> Result<String> {
        let (answer, status) = self.try_shell(line)?;
        ensure!(status == 0, "'{line}' failed with {status}: {}", answer.trim());
        Ok(answer.trim().to_owned())
    }

    /// Starts one of the domains, and returns its console.
    ///
    /// # Errors
    /// The first domain does not answer.
    pub fn begin(&mut self, domain: &Domain) -> Result<UnixStream> {
        let console = UnixStream::connect(&self.console).context("the console's socket")?;
        self.shell(&format!("behind {}", domain.name))?;
        Ok(console)
    }

    /// Waits for the end of a domain.
    ///
    /// # Errors
    /// It does not end, or xl could not do what it was asked: with what that says.
    pub fn end(&mut self, domain: &Domain, patience: Duration) -> Result<End> {
        let name = &domain.name;
        let line = format!("ended {name} {}", patience.as_secs());
        let (answer, status) = self.ask(&line, patience + PATIENCE)?;
        if status != 0 {
            // Not waited for a second time: it is of no more use.
            let _ = self.try_shell(&format!("xl destroy {name}"));
            bail!("the domain {name} does not end{}", self.trouble());
        }
        let reason = answer.lines().find_map(|line| reason(line, name));
        let reason = reason.with_context(|| format!("the domain {name}: {}", answer.trim()))?;
        Ok(reason)
    }

    /// What is known of Xen's trouble, for the end of a message.
    fn trouble(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        trouble::explain(&String::from_utf8_lossy(&log)).map_or(String::new(), |text| format!("; Xen: {text}"))
    }
}

/// Of the last line of `start`: why the domain `name` ended.
fn reason(line: &str, name: &str) -> Option<End> {
    let rest = line.strip_prefix("DOMAIN ")?.strip_prefix(name)?.strip_prefix(" ENDED: status ")?;
    Some(match rest.split_once(" reason ")?.1.trim().parse().ok()? {
        0 => End::PowerOff,
        1 => End::Reboot,
        3 => End::Crash,
        other => End::Other(other),
    })
}

/// Connects to a socket that QEMU makes.
fn connect(path: &Path, qemu: &mut Guard) -> Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if start.elapsed() > START => return Err(error).context("QEMU makes no socket"),
            Err(_) => ensure!(qemu.is_running()?, "QEMU does not start"),
        }
        interrupt::check()?;
        thread::sleep(Duration::from_millis(20));
    }
}

/// The path of a file for the first domain.
pub fn path(name: &str) -> String {
    format!("{DOMAINS}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_end_is_read() {
        assert_eq!(reason("DOMAIN a ENDED: status 0 reason 0", "a"), Some(End::PowerOff));
        assert_eq!(reason("DOMAIN a ENDED: status 0 reason 1", "a"), Some(End::Reboot));
        assert_eq!(reason("DOMAIN a ENDED: status 0 reason 3", "a"), Some(End::Crash));
        assert_eq!(reason("DOMAIN a ENDED: status 0 reason 5", "a"), Some(End::Other(5)));
        for line in ["DOMAIN a ENDED: status 1 reason none", "DOMAIN b ENDED: status 0 reason 0", "xl: no"] {
            assert_eq!(reason(line, "a"), None, "{line}");
        }
    }
}
