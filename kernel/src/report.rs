//! The image's report on its console: JSON Lines for `cargo xtask`, text for people. Task context.

use core::cell::Cell;
use core::fmt::{Arguments, Display};

use undercroft_hal::{Duration, Instant};

use crate::json::{Object, Value};

/// Prints one whole line, with its line feed, however long.
pub type Print = fn(Arguments<'_>);

/// A report's console, for work that goes on elsewhere. Any context but hard interrupts.
#[derive(Clone, Copy)]
pub(crate) struct Voice {
    print: Print,
    alive: fn(),
}

impl Voice {
    /// Prints an event.
    pub(crate) fn say(&self, object: &Object<'_>) {
        (self.alive)();
        (self.print)(format_args!("{object}\n"));
    }
}

/// Where the report goes, and what has failed so far.
pub struct Report {
    json: bool,
    print: Print,
    /// Told at every step: the machine's watchdog.
    alive: fn(),
    failures: Cell<u64>,
}

impl Report {
    /// A report through `print`; `alive` is called whenever there is progress.
    pub const fn new(json: bool, print: Print, alive: fn()) -> Self {
        Self { json, print, alive, failures: Cell::new(0) }
    }

    pub(crate) const fn voice(&self) -> Voice {
        Voice { print: self.print, alive: self.alive }
    }

    /// Whether it is JSON Lines.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// How many problems there were.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// Says that there is progress, where there is nothing to print.
    pub fn alive(&self) {
        (self.alive)();
    }

    /// Prints an event.
    pub fn json(&self, object: &Object<'_>) {
        (self.alive)();
        (self.print)(format_args!("{object}\n"));
    }

    /// Prints a line for people.
    pub fn text(&self, line: Arguments<'_>) {
        (self.alive)();
        (self.print)(format_args!("{line}\n"));
    }

    /// Counts and prints a failure, of a disk if there is one to name.
    pub fn problem(&self, what: &dyn Display, disk: Option<&str>) {
        self.failures.set(self.failures.get() + 1);
        match (self.json, disk) {
            (true, None) => self.json(&Object { event: Some("problem"), fields: &[("what", Value::Text(what))] }),
            (true, Some(disk)) => {
                let fields = [("what", Value::Text(what)), ("disk", Value::Text(&disk))];
                self.json(&Object { event: Some("problem"), fields: &fields });
            }
            (false, None) => self.text(format_args!("PROBLEM: {what}")),
            (false, Some(disk)) => self.text(format_args!("PROBLEM: {disk}: {what}")),
        }
    }

    /// A progress display of a phase with `total` bytes to do.
    pub(crate) fn progress<'a>(&'a self, name: &'a str, phase: &'static str, total: u64) -> Progress<'a> {
        let shown = Instant::now();
        Progress { report: self, name, phase, total, done: 0, started: shown, shown }
    }
}

/// Says how far a phase is: about ten times a second at most, and once at its end.
pub(crate) struct Progress<'a> {
    report: &'a Report,
    name: &'a str,
    phase: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    shown: Instant,
}

impl Progress<'_> {
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        (self.report.alive)();
        let now = Instant::now();
        if now.since(self.shown) >= Duration::from_millis(100) || self.done == self.total {
            self.shown = now;
            self.show(now);
        }
    }

    fn show(&self, now: Instant) {
        if self.report.json {
            self.report.json(&Object {
                event: Some("progress"),
                fields: &[
                    ("name", Value::Text(&self.name)),
                    ("phase", Value::Text(&self.phase)),
                    ("done_bytes", Value::Number(self.done)),
                    ("total_bytes", Value::Number(self.total)),
                ],
            });
        } else if self.done == self.total {
            let millis = now.since(self.started).as_millis();
            self.report.text(format_args!("  {} {}: {} MiB in {millis} ms", self.name, self.phase, self.total >> 20));
        }
    }
}
