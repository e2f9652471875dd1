//! QEMU as a process: its console line by line, and a watchdog. It never outlives us.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::host::interrupt;

/// How a run of QEMU ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    Status(i32),
    Signal(i32),
    /// The whole run took too long.
    TimedOut,
    /// Nothing was heard for too long.
    Silent,
    /// The user stopped us.
    Interrupted,
}

/// What a run of QEMU left behind.
pub struct Outcome {
    pub exit: Exit,
    /// What QEMU itself said on standard error.
    pub stderr: String,
}

/// Limits of a run.
#[derive(Clone, Copy)]
pub struct Limits {
    pub whole: Duration,
    pub silence: Duration,
}

/// Longest line taken from a guest; a longer one is cut into lines of this length.
const LONGEST_LINE: usize = 1 << 20;

/// Runs `command` and hands each line of its standard output to `on_line` with the time since the
/// start; `on_tick` is called now and then in between.
pub fn run(
    command: &mut Command,
    limits: Limits,
    on_line: impl FnMut(&str, Duration),
    on_tick: impl FnMut(),
) -> Result<Outcome> {
    run_known(command, limits, |_| (), on_line, on_tick)
}

/// As [`run`]; `on_start` is told the process's number, which is nobody else's before this returns.
pub fn run_known(
    command: &mut Command,
    limits: Limits,
    on_start: impl FnOnce(u32),
    mut on_line: impl FnMut(&str, Duration),
    mut on_tick: impl FnMut(),
) -> Result<Outcome> {
    interrupt::watch();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut guard = Guard::start(command)?;
    on_start(guard.0.id());
    let console = read_in_chunks(guard.0.stdout.take());
    let errors = read_in_chunks(guard.0.stderr.take());
    let (mut partial, mut heard) = (Vec::new(), start);
    let mut stopped = None;
    loop {
        match console.recv_timeout(Duration::from_millis(100)) {
            Ok((chunk, at)) => {
                heard = at;
                partial.extend(chunk);
                take_lines(&mut partial, |line| on_line(line, at - start));
            }
            Err(RecvTimeoutError::Timeout) => on_tick(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        stopped = if interrupt::came() {
            Some(Exit::Interrupted)
        } else if start.elapsed() > limits.whole {
            Some(Exit::TimedOut)
        } else if heard.elapsed() > limits.silence {
            Some(Exit::Silent)
        } else {
            continue;
        };
        break;
    }
    if !partial.is_empty() {
        on_line(&text(&partial), start.elapsed());
    }
    let exit = match stopped {
        Some(exit) => exit,
        None => guard.wait(limits.silence)?,
    };
    drop(guard);
    let stderr = rest(&errors);
    Ok(Outcome { exit, stderr: String::from_utf8_lossy(&stderr).trim().to_owned() })
}

/// Runs `command` with our standard input and output as its own; what it reads ends with `last_words`. It is sent nothing before it has
/// printed `prompt`: a serial port that is being set up loses what comes. The guest may be silent for as long as it likes.
pub fn converse(
    command: &mut Command,
    whole: Duration,
    prompt: &'static str,
    last_words: &'static str,
) -> Result<Exit> {
    interrupt::watch();
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut guard = Guard::start(command)?;
    let console = read_in_chunks(guard.0.stdout.take());
    let mut input = guard.0.stdin.take();
    let mut tail = Vec::new();
    loop {
        match console.recv_timeout(Duration::from_millis(100)) {
            Ok((chunk, _)) => {
                let mut stdout = std::io::stdout();
                // Nobody listening any more is no reason to stop what was asked for.
                let _ = stdout.write_all(&chunk).and_then(|()| stdout.flush());
                tail.extend(chunk);
                let seen = tail.windows(prompt.len()).any(|part| part == prompt.as_bytes());
                tail.drain(..tail.len().saturating_sub(prompt.len()));
                if let Some(mut pipe) = input.take_if(|_| seen) {
                    // Not waited for: it may be reading from a terminal when the guest ends.
                    thread::spawn(move || {
                        // Either fails if the guest is gone. The pipe stays open, so that its end is not taken for the guest's.
                        let _ = std::io::copy(&mut std::io::stdin(), &mut pipe);
                        let _ = pipe.write_all(last_words.as_bytes());
                        thread::park();
                    });
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return guard.wait(Duration::from_secs(10)),
        }
        if interrupt::came() {
            return Ok(Exit::Interrupted);
        }
        if start.elapsed() > whole {
            return Ok(Exit::TimedOut);
        }
    }
}

/// What came and comes from a pipe whose writer is gone. A child of its own may still hold the
/// other end: that is not waited for.
fn rest(pipe: &Receiver<(Vec<u8>, Instant)>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok((chunk, _)) = pipe.recv_timeout(Duration::from_secs(1)) {
        all.extend(chunk);
    }
    all
}

/// Kills the process when it goes out of scope, whatever the reason.
pub struct Guard(Child);

impl Guard {
    /// Starts a process.
    ///
    /// # Errors
    /// Names what could not be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        Ok(Self(command.spawn().with_context(|| format!("cannot start {program}"))?))
    }

    /// Whether it has not ended.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.0.try_wait().context("cannot wait for QEMU")?.is_none())
    }

    /// Waits for the end of a process that has closed its output.
    fn wait(&mut self, patience: Duration) -> Result<Exit> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().context("cannot wait for QEMU")? {
                return Ok(exit(status));
            }
            if since.elapsed() > patience {
                return Ok(Exit::Silent);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn exit(status: ExitStatus) -> Exit {
    match status.code() {
        Some(code) => Exit::Status(code),
        None => Exit::Signal(status.signal().unwrap_or(0)),
    }
}

fn read_in_chunks(pipe: Option<impl Read + Send + 'static>) -> Receiver<(Vec<u8>, Instant)> {
    let (sender, receiver) = channel();
    if let Some(mut pipe) = pipe {
        thread::spawn(move || {
            let mut buffer = [0; 16384];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                if sender.send((buffer[..length].to_vec(), Instant::now())).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

fn take_lines(partial: &mut Vec<u8>, mut on_line: impl FnMut(&str)) {
    let mut start = 0;
    while let Some(length) = partial[start..].iter().position(|&byte| byte == b'\n') {
        on_line(&text(&partial[start..start + length]));
        start += length + 1;
    }
    partial.drain(..start);
    if partial.len() > LONGEST_LINE {
        on_line(&text(partial));
        partial.clear();
    }
}

/// A line of the console without the control characters a terminal would act on.
fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { whole: Duration::from_secs(20), silence: Duration::from_secs(10) };

    fn sh(script: &str, limits: Limits) -> (Outcome, Vec<String>) {
        let mut lines = Vec::new();
        let mut command = Command::new("/bin/sh");
        let outcome = run(command.args(["-c", script]), limits, |line, _| lines.push(line.into()), || {}).unwrap();
        (outcome, lines)
    }

    #[test]
    fn lines_status_and_errors_come_through() {
        let (outcome, lines) = sh(r"printf 'one\r\n\033tw'; printf 'o\nthree'; echo oops >&2; exit 33", LIMITS);
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!((outcome.exit, outcome.stderr.as_str()), (Exit::Status(33), "oops"));
    }

    #[test]
    fn a_signal_is_told_from_a_status() {
        assert_eq!(sh("kill -9 $$", LIMITS).0.exit, Exit::Signal(9));
    }

    #[test]
    fn silence_ends_a_run_and_what_was_said_is_kept() {
        let limits = Limits { silence: Duration::from_millis(300), ..LIMITS };
        let (outcome, lines) = sh("printf 'half a li'; exec sleep 100", limits);
        assert_eq!((outcome.exit, lines), (Exit::Silent, vec!["half a li".to_owned()]));
    }

    #[test]
    fn chatter_does_not_keep_a_run_alive_for_ever() {
        let limits = Limits { whole: Duration::from_millis(500), ..LIMITS };
        assert_eq!(sh("while :; do echo x; sleep 0.05; done", limits).0.exit, Exit::TimedOut);
    }

    #[test]
    fn a_grandchild_that_lives_on_is_not_waited_for() {
        let start = Instant::now();
        let limits = Limits { silence: Duration::from_millis(300), ..LIMITS };
        let (outcome, _) = sh("echo oops >&2; sleep 30; true", limits);
        assert_eq!((outcome.exit, outcome.stderr.as_str()), (Exit::Silent, "oops"));
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_conversation_waits_for_the_prompt_and_ends_with_the_guest() {
        // Under a test the standard input is what it is: only the end is sure to come.
        let script =
            "printf 'a pro'; sleep 0.2; printf 'mpt> '; while read line; do [ \"$line\" = bye ] && exit 5; done";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let whole = if std::io::IsTerminal::is_terminal(&std::io::stdin()) { 1 } else { 20 };
        let exit = converse(&mut command, Duration::from_secs(whole), "prompt> ", "bye\n").unwrap();
        assert!(matches!(exit, Exit::Status(5) | Exit::TimedOut), "{exit:?}");
    }

    #[test]
    fn closing_the_console_without_dying_is_silence_too() {
        let limits = Limits { silence: Duration::from_millis(300), ..LIMITS };
        assert_eq!(sh("exec >&- 2>&-; exec sleep 100", limits).0.exit, Exit::Silent);
    }
}
