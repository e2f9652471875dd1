//! A run of the image during which something is done to it from outside, as its console tells that it has come so far.

use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cli::Machine;
use crate::host::program;
use crate::image::build::Image;
use crate::qemu::arguments::Vm;
use crate::qemu::process::{self, Exit, Limits};
use crate::report::session::Session;

/// How long the image may take to say something.
const PATIENCE: Duration = Duration::from_secs(40);

/// The image's console, for who acts on it.
pub struct Console {
    lines: Receiver<String>,
    /// What was said and not asked for yet.
    heard: Vec<String>,
}

impl Console {
    /// Waits for a line that `wanted` takes, and returns what it makes of it.
    pub fn hear<T>(&mut self, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some((at, found)) = self.heard.iter().enumerate().find_map(|(at, line)| Some((at, wanted(line)?))) {
                self.heard.remove(at);
                return Ok(found);
            }
            let left = PATIENCE.saturating_sub(began.elapsed());
            let line = self.lines.recv_timeout(left);
            self.heard.push(line.with_context(|| format!("the image never said {what}"))?);
        }
    }

    /// Waits for this line.
    pub fn line(&mut self, wanted: &str) -> Result<()> {
        self.hear(&format!("'{wanted}'"), |line| (line.trim() == wanted).then_some(()))
    }

    /// Waits until a disk of this serial number is found: its name.
    pub fn found(&mut self, serial: &str) -> Result<String> {
        self.hear(&format!("that it found {serial}"), |line| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            let is_it = event["event"] == "found" && event["serial"] == serial;
            is_it.then(|| event["name"].as_str().map(str::to_owned))?
        })
    }
}

/// Boots, and does `act` meanwhile; what the image said, if both went well.
pub fn run(
    image: &Image,
    line: &str,
    extra: &[String],
    act: impl FnOnce(Console) -> Result<()> + Send,
) -> Result<Session> {
    let vm = Vm {
        machine: Machine::Q35,
        cpus: 2,
        memory_mib: 256,
        kernel: &image.stripped,
        initrd: None,
        command_line: line,
        disks: &[],
        extra,
    };
    let mut command = Command::new(program::find("qemu-system-x86_64")?);
    command.args(vm.arguments()?);
    let mut session = Session::default();
    let limits = Limits { whole: Duration::from_secs(90), silence: Duration::from_secs(40) };
    let (sender, lines) = channel();
    let (outcome, acted) = thread::scope(|scope| {
        let acting = scope.spawn(|| act(Console { lines, heard: Vec::new() }));
        let outcome = process::run(
            &mut command,
            limits,
            |text, at| {
                drop(session.take(text, at));
                // Nobody may be listening any more.
                let _ = sender.send(text.to_owned());
            },
            || {},
        );
        drop(sender);
        (outcome, acting.join())
    });
    let outcome = outcome?;
    let acted = acted.unwrap_or_else(|_| Err(anyhow::anyhow!("what was to be done meanwhile panicked")));
    if outcome.exit != Exit::Status(33) || !session.problems.is_empty() || acted.is_err() {
        let screen = session.screen.iter().cloned().collect::<Vec<_>>().join("\n");
        let acted = acted.err().map(|error| format!("{error:#}")).unwrap_or_default();
        bail!("{:?}: {}\n{acted}\n{}\n{screen}", outcome.exit, session.problems.join("; "), outcome.stderr);
    }
    Ok(session)
}
