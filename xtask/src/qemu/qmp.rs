//! QEMU's own monitor: commands and events, a line of JSON each (QEMU's "QMP" protocol).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a QEMU that was started with `-qmp unix:PATH,server=on,wait=off`.
pub struct Qmp {
    output: UnixStream,
    input: BufReader<UnixStream>,
    /// What has happened and was not asked for yet.
    events: Vec<Value>,
}

impl Qmp {
    pub fn connect(socket: &Path) -> Result<Self> {
        let output = UnixStream::connect(socket).context("QEMU's monitor does not answer")?;
        output.set_read_timeout(Some(PATIENCE))?;
        let input = BufReader::new(output.try_clone()?);
        let mut monitor = Self { output, input, events: Vec::new() };
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// As [`Qmp::connect`], to a QEMU that may be starting yet.
    pub fn connect_when_ready(socket: &Path) -> Result<Self> {
        let start = Instant::now();
        loop {
            match Self::connect(socket) {
                Err(_) if start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
                result => return result,
            }
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.input.read_line(&mut line).context("QEMU's monitor is silent")? > 0, "QEMU's monitor ended");
        serde_json::from_str(&line).with_context(|| line.clone())
    }

    /// Executes a command and waits for its answer; events are kept.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        writeln!(self.output, "{}", json!({"execute": command, "arguments": arguments}))?;
        loop {
            let line = self.line()?;
            ensure!(line["error"].is_null(), "{command} {arguments}: {}", line["error"]);
            if !line["return"].is_null() {
                return Ok(line["return"].clone());
            }
            if line["event"].is_string() {
                self.events.push(line);
            }
        }
    }

    /// Waits for an event of a device.
    pub fn event(&mut self, name: &str, device: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let wanted = |event: &Value| event["event"] == name && event["data"]["device"] == device;
            if let Some(at) = self.events.iter().position(wanted) {
                self.events.remove(at);
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "no {name} of {device}");
            let line = self.line()?;
            self.events.push(line);
        }
    }
}
