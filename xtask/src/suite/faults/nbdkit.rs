//! Disks that fail or are slow: nbdkit with its filters, served over a socket.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::program;

/// Filters of nbdkit, outermost first, and their arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Filters {
    pub names: &'static [&'static str],
    pub arguments: &'static [&'static str],
}

/// A server that ends with its case.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.signal(Signal::SIGCONT);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Serves `file` at `socket`.
    pub fn start(file: &Path, socket: &Path, filters: Filters) -> Result<Self> {
        let mut command = Command::new(program::find("nbdkit")?);
        command.args(["--foreground", "--exit-with-parent", "--unix"]).arg(socket);
        command.args(filters.names.iter().map(|name| format!("--filter={name}")));
        command.arg("file").arg(file).args(filters.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(command.spawn().context("cannot start nbdkit")?);
        let began = Instant::now();
        while !socket.exists() {
            ensure!(began.elapsed() < Duration::from_secs(10), "nbdkit does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.0.id() as i32), signal).context("cannot signal nbdkit")
    }
}
