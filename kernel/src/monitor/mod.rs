//! The monitor: a prompt on the serial port. Task context.
//!
//! A command is an entry of [`COMMANDS`]: a name, what it takes, what it does. What is typed is never trusted: a bad line gets one message
//! that names the word, and the prompt comes back.

mod cache;
mod callouts;
mod device;
mod disk;
mod editor;
mod files;
mod loads;
mod queues;
mod script;
mod status;
mod terminal;
#[cfg(test)]
mod tests;
mod words;

use alloc::sync::Arc;
use core::fmt::Arguments;
use core::ops::ControlFlow;

use undercroft_hal::Task;

use crate::cached::Pages;
use crate::disks::{Disk, Disks};
use crate::hotplug::Hotplug;
use crate::options::Options;
use crate::report::Report;
use crate::run::Machine;
use crate::xen::Vbds;
pub use editor::{Editor, Effect, LINE, Line};
use terminal::Terminal;
pub use terminal::{Came, Port};
pub use words::{Bad, Words};

/// What a command works with.
pub(crate) struct Session<'a> {
    pub(crate) cx: &'a Task,
    pub(crate) machine: &'a Machine<'a>,
    pub(crate) disks: &'a [Disk],
    pub(crate) pages: &'a Pages,
    pub(crate) vbds: Option<&'a Vbds>,
    pub(crate) options: &'a Options,
    pub(crate) report: &'a Report,
}

impl Session<'_> {
    fn say(&self, line: Arguments<'_>) {
        self.report.text(line);
    }

    /// The disk that the next word names.
    fn disk<'w>(&self, words: &mut Words<'w>) -> Result<&Disk, Bad<'w>> {
        let name = words.word("the disk's name")?;
        self.disks.iter().find(|disk| disk.name == name).ok_or(Bad::NoDisk(name))
    }
}

type Outcome<'w> = Result<ControlFlow<()>, Bad<'w>>;

/// A command. It takes all words, or says what is wrong with them.
pub(crate) struct Command {
    name: &'static str,
    takes: &'static str,
    what: &'static str,
    run: for<'w> fn(&Session<'_>, Words<'w>) -> Result<(), Bad<'w>>,
}

/// All commands but `quit`, in the order of the help.
const COMMANDS: &[Command] = &[
    Command { name: "help", takes: "", what: "list the commands", run: help },
    Command { name: "disks", takes: "", what: "list the disks and their partitions", run: disk::list },
    Command { name: "capacities", takes: "", what: "read the capacities of SCSI disks again", run: disk::capacities },
    Command {
        name: "read",
        takes: "DISK LBA [BLOCKS]",
        what: "read blocks, show the first bytes and the SHA-256 of all",
        run: disk::read,
    },
    Command {
        name: "write",
        takes: "DISK LBA BLOCKS [SEED]",
        what: "write the pattern, flush, read it back; only where it is allowed",
        run: disk::write,
    },
    Command {
        name: "verify",
        takes: "DISK [LBA BLOCKS [SEED]]",
        what: "compare blocks with the pattern, or show the SHA-256 of the whole disk",
        run: disk::verify,
    },
    Command {
        name: "discard",
        takes: "DISK LBA BLOCKS",
        what: "say that blocks are not needed; only where it is allowed",
        run: device::discard,
    },
    Command {
        name: "zero",
        takes: "DISK LBA BLOCKS",
        what: "write zeroes without data; only where it is allowed",
        run: device::zero,
    },
    Command {
        name: "cache",
        takes: "[DISK [on|off]]",
        what: "what the page cache has and did; on, off: switch a disk's own write cache",
        run: cache::cache,
    },
    Command {
        name: "sync",
        takes: "[DISK]",
        what: "make durable what was written through the page cache",
        run: cache::sync,
    },
    Command {
        name: "ls",
        takes: "DISK/PARTITION[/PATH]",
        what: "list a directory of a file system (ext4 or FAT), through the page cache",
        run: files::ls,
    },
    Command {
        name: "cat",
        takes: "DISK/PARTITION/PATH",
        what: "show the beginning of a file, and the SHA-256 of all of it",
        run: files::cat,
    },
    Command {
        name: "reset",
        takes: "DISK [queue|unit|controller]",
        what: "reset with reads in flight, and read on",
        run: device::reset,
    },
    Command {
        name: "script",
        takes: "DISK LBA BLOCKS SEED STEPS [DEPTH]",
        what: "reads and writes of all sizes, some at a time, made from the seed; only where it is allowed",
        run: script::script,
    },
    Command {
        name: "load",
        takes: "DISK LBA BLOCKS [SEED]",
        what: "read and, where allowed, write the pattern in the background, until unload",
        run: loads::begin,
    },
    Command { name: "loads", takes: "", what: "what became of the requests in the background", run: loads::list },
    Command { name: "unload", takes: "DISK", what: "end it, and wait for its last request", run: loads::end },
    Command { name: "speed", takes: "DISK", what: "measure; writes only where it is allowed", run: disk::speed },
    Command {
        name: "stats",
        takes: "",
        what: "queues of each CPU: depth, waiting times, batches used up; locks",
        run: status::stats,
    },
    Command {
        name: "queues",
        takes: "",
        what: "queues of each disk: requests, parts, waits, merges, deadlines, recovery, errors",
        run: queues::queues,
    },
    Command {
        name: "latency",
        takes: "",
        what: "cycles from an interrupt to its bottom half and to a waiting task",
        run: status::latency,
    },
    Command {
        name: "callouts",
        takes: "",
        what: "callouts of each CPU: armed, run, how late, slow handlers, in flight",
        run: callouts::callouts,
    },
    Command {
        name: "stress",
        takes: "SECONDS [SEED]",
        what: "start, stop, move, drain, close callouts on all CPUs; look for races",
        run: callouts::stress,
    },
    Command {
        name: "xen",
        takes: "",
        what: "what was asked of Xen, and what became of its disks' connections",
        run: status::xen,
    },
    Command { name: "heaps", takes: "", what: "what the heaps hold", run: status::heaps },
    Command { name: "cpus", takes: "", what: "list the CPUs and the interrupts they took", run: status::cpus },
    Command { name: "irq", takes: "", what: "interrupt handlers, unclaimed interrupts, storms", run: status::irq },
];

/// Serves the port until `quit`. Disks may come and go meanwhile.
pub(crate) fn serve(
    cx: &Task,
    machine: &Machine<'_>,
    disks: &mut Disks,
    options: &Options,
    report: &Report,
    port: Port,
) {
    let Some(terminal) = Terminal::new(cx, machine.xen, port, options.echo) else {
        report.problem(&"the monitor has no serial port to listen to", None);
        return;
    };
    let mut hotplug = Hotplug::begin(cx, disks, report);
    report.text(format_args!("monitor: 'help' lists the commands"));
    loop {
        (port.print)(format_args!("undercroft> "));
        let attention = Arc::clone(&disks.attention);
        let Some(line) = terminal.line(cx, || attention.is_wanted()) else {
            // Whoever reads this line by line can tell it from an answer.
            (port.print)(format_args!("\n-- news --\n"));
            hotplug.act(cx, disks, report);
            if !disks.vbds.as_ref().is_some_and(|vbds| vbds.must_end(cx, report)) {
                continue;
            }
            return loads::stop_all(&Session {
                cx,
                machine,
                disks: &disks.list,
                pages: &disks.pages,
                vbds: disks.vbds.as_ref(),
                options,
                report,
            });
        };
        let session = Session {
            cx,
            machine,
            disks: &disks.list,
            pages: &disks.pages,
            vbds: disks.vbds.as_ref(),
            options,
            report,
        };
        let outcome = match line.bytes().map(core::str::from_utf8) {
            None => Err(Bad::TooLong(LINE)),
            Some(Err(_)) => Err(Bad::NotText),
            Some(Ok(text)) => obey(&session, text),
        };
        match outcome {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return loads::stop_all(&session),
            Err(bad) => session.say(format_args!("error: {bad}")),
        }
    }
}

fn obey<'w>(session: &Session<'_>, line: &'w str) -> Outcome<'w> {
    let mut words = Words::new(line);
    let Some(name) = words.optional() else { return Ok(ControlFlow::Continue(())) };
    if name == "quit" {
        words.end()?;
        return Ok(ControlFlow::Break(()));
    }
    let command = COMMANDS.iter().find(|command| command.name == name).ok_or(Bad::Unknown(name))?;
    (command.run)(session, words).map(ControlFlow::Continue)
}

fn help<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    let quit = [("quit", "", "end the monitor and power off")];
    for (name, takes, what) in COMMANDS.iter().map(|c| (c.name, c.takes, c.what)).chain(quit) {
        session.say(format_args!("  {name:<8} {takes:<24} {what}"));
    }
    Ok(())
}
