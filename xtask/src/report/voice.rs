//! Where text for people and JSON for programs go.

use std::io::Write;

use serde_json::Value;

/// The two streams of a command.
#[derive(Clone, Copy)]
pub struct Voice {
    pub json: bool,
}

impl Voice {
    /// Says a line to people.
    pub fn say(self, line: &str) {
        // Nobody listening any more (a closed pipe) is no reason to fail.
        let _ = if self.json { writeln!(std::io::stderr(), "{line}") } else { writeln!(std::io::stdout(), "{line}") };
    }

    /// Says an event to programs, where that was asked for.
    pub fn event(self, event: &Value) {
        if self.json {
            let mut stdout = std::io::stdout();
            let _ = writeln!(stdout, "{event}").and_then(|()| stdout.flush());
        }
    }
}
