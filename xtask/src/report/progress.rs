//! The display of what is going on: one line that changes on a terminal, a line now and then
//! elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
const TERMINAL_EVERY: Duration = Duration::from_millis(100);
const BAR: usize = 24;

pub struct Progress {
    terminal: bool,
    shown: bool,
    last: Instant,
}

impl Progress {
    pub fn new() -> Self {
        Self { terminal: stderr().is_terminal(), shown: false, last: Instant::now() }
    }

    /// Shows how far a phase of a disk is.
    pub fn show(&mut self, name: &str, phase: &str, done: u64, total: u64) {
        let every = if self.terminal { TERMINAL_EVERY } else { PLAIN_EVERY };
        if self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let line = line(name, phase, done, total);
        if self.terminal {
            eprint!("\r{line}\x1b[K");
            let _ = stderr().flush();
            self.shown = true;
        } else {
            eprintln!("{line}");
        }
    }

    /// Takes the line away, before something else is said.
    pub fn clear(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
            let _ = stderr().flush();
            self.shown = false;
        }
    }
}

fn line(name: &str, phase: &str, done: u64, total: u64) -> String {
    let part = if total == 0 { 0.0 } else { (done as f64 / total as f64).clamp(0.0, 1.0) };
    let full = (part * BAR as f64) as usize;
    let bar = "#".repeat(full) + &"-".repeat(BAR - full);
    format!("  {name:<6} {phase:<7} [{bar}] {:>3.0} %", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_stays_within_its_bounds() {
        assert_eq!(line("vd0", "read", 1, 2), "  vd0    read    [############------------]  50 %");
        for (done, total) in [(0, 0), (5, 0), (9, 3), (u64::MAX, u64::MAX), (0, 7)] {
            assert_eq!(line("a", "b", done, total).matches(['#', '-']).count(), BAR);
        }
    }
}
