//! One boot of the image: QEMU started, its console followed, its end told.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cli::{Machine, On, Vmm};
use crate::disk::Disk;
use crate::host::program;
use crate::image::build::Image;
use crate::image::symbols::Symbols;
use crate::qemu::arguments::Vm;
use crate::qemu::process::{self, Exit, Limits};
use crate::qemu::refusal;
use crate::report::event::Event;
use crate::report::progress::Progress;
use crate::report::session::Session;
use crate::report::verdict::{Expected, SUCCESS};
use crate::report::voice::Voice;
use crate::report::{json, text};
use crate::{hyperv, xen};

/// What to boot and how.
pub struct Boot<'a> {
    pub qemu: &'a Path,
    pub on: On,
    /// Where files of this run may be put.
    pub directory: &'a Path,
    /// The host processor to pin QEMU to.
    pub pin: Option<u32>,
    pub machine: Machine,
    pub cpus: u32,
    pub memory_mib: u32,
    pub image: &'a Image,
    pub command_line: &'a str,
    pub disks: &'a [Disk],
    /// What is known of them, for what is said on the way.
    pub expected: &'a [Expected<'a>],
    pub extra: &'a [String],
    /// What plays Hyper-V.
    pub vmm: Vmm,
    pub limits: Limits,
}

/// Boots and listens to the end.
///
/// # Errors
/// QEMU could not be started, or refused what it was given.
pub fn boot(boot: &Boot, voice: Voice) -> Result<(Session, Exit)> {
    let mut command = command(boot)?;
    let mut listener =
        Listener { boot, voice, session: Session::default(), progress: Progress::new(), symbols: None, lines: 0 };
    let outcome = process::run(&mut command, boot.limits, |line, at| listener.hear(line, at), || {})?;
    listener.progress.clear();
    let session = listener.session;
    if listener.lines == 0 && matches!(outcome.exit, Exit::Status(1..=32)) {
        bail!(if boot.on == On::Hyperv { outcome.stderr } else { refusal::explain(&outcome.stderr) });
    }
    if !outcome.stderr.is_empty() {
        let who = if boot.on == On::Hyperv { "the machine" } else { "QEMU" };
        voice.say(&format!("{who} said: {}", outcome.stderr));
    }
    if boot.on == On::Xen && outcome.exit != Exit::Status(SUCCESS) {
        xen::say_what_happened(boot.directory, voice);
    }
    last_screen(&session, &outcome.exit, voice);
    Ok((session, outcome.exit))
}

/// QEMU (or what plays the machine), and all that it is told.
pub fn command(boot: &Boot) -> Result<Command> {
    match boot.on {
        On::Qemu => {}
        On::Xen => return xen::command(boot),
        On::Hyperv => return hyperv::command(boot),
    }
    let vm = Vm {
        machine: boot.machine,
        cpus: boot.cpus,
        memory_mib: boot.memory_mib,
        kernel: &boot.image.stripped,
        initrd: None,
        command_line: boot.command_line,
        disks: boot.disks,
        extra: boot.extra,
    };
    let mut command = pinned(boot.qemu, boot.pin)?;
    command.args(vm.arguments()?);
    Ok(command)
}

/// A command that runs `program`, on one host processor if that is asked for.
pub fn pinned(program: &Path, pin: Option<u32>) -> Result<Command> {
    Ok(match pin {
        None => Command::new(program),
        Some(cpu) => {
            let mut command = Command::new(program::find("taskset")?);
            command.args(["-c", &cpu.to_string()]).arg(program);
            command
        }
    })
}

struct Listener<'a> {
    boot: &'a Boot<'a>,
    voice: Voice,
    session: Session,
    progress: Progress,
    symbols: Option<Symbols>,
    lines: u64,
}

impl Listener<'_> {
    fn hear(&mut self, line: &str, at: Duration) {
        self.lines += 1;
        let first = self.session.first_io.is_none();
        let explained;
        let line = if line.trim_start().starts_with('#') {
            let image = &self.boot.image.whole;
            explained = self.symbols.get_or_insert_with(|| Symbols::of(image)).explain(line);
            &explained
        } else {
            line
        };
        let Some(event) = self.session.take(line, at) else {
            return self.say(line);
        };
        match &event {
            Event::Progress { name, phase, done_bytes, total_bytes } => {
                self.progress.show(name, phase, *done_bytes, *total_bytes);
            }
            Event::FirstIo { .. } if first => {
                let milliseconds = at.as_secs_f64() * 1e3;
                self.voice.event(&json::boot(self.boot.image.bytes, milliseconds));
                self.say(&format!("first I/O {milliseconds:.0} ms after the machine was started"));
            }
            Event::Read { name, .. } => {
                let seen = self.session.disks.iter().find(|seen| seen.found.name == *name);
                let text = seen.and_then(|seen| {
                    let known = self.boot.expected.iter().find(|e| e.disk.serial == seen.found.serial);
                    text::read(seen, known.and_then(|known| known.sha256.as_deref()))
                });
                text.iter().for_each(|text| self.say(text));
            }
            Event::Cached(cached) => {
                let found = self.session.disks.iter().find(|seen| seen.found.name == cached.name);
                let serial = found.map(|seen| seen.found.serial.as_str());
                let known = self.boot.expected.iter().find(|e| Some(e.disk.serial.as_str()) == serial);
                self.say(&text::cached(cached, known.and_then(|known| known.sha256.as_deref())));
            }
            other => text::live(other).iter().for_each(|text| self.say(text)),
        }
    }

    fn say(&mut self, text: &str) {
        self.progress.clear();
        self.voice.say(text);
    }
}

/// Shows what was last on the console of an image that had to be stopped.
fn last_screen(session: &Session, exit: &Exit, voice: Voice) {
    if matches!(exit, Exit::TimedOut | Exit::Silent) {
        voice.say("---- the last of the console ----");
        session.screen.iter().for_each(|line| voice.say(line));
        voice.say("---------------------------------");
    }
}
