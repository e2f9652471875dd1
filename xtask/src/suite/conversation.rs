//! A conversation with the image's monitor, line by line, while it tells news in between.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::guest;

const PROMPT: &str = "undercroft> ";
/// How what was not asked for begins.
const NEWS: &str = "-- news --";
/// In the image's last line.
const LAST_WORDS: &str = " allocations in the I/O path";
/// How long an answer or news may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whom it is with.
enum Other {
    /// A program that runs the image and ends with it.
    Program(Child),
    /// An image whose console is a socket, which stays.
    Socket(UnixStream),
}

/// See the module. It ends with the value.
pub struct Conversation {
    other: Other,
    input: Option<Box<dyn Write>>,
    output: Receiver<Vec<u8>>,
    heard: String,
    news: Vec<String>,
}

impl Conversation {
    /// `cargo xtask run --monitor` with these arguments, at its prompt.
    pub fn start(arguments: &[String]) -> Result<Self> {
        let mut command = Command::new(guest::program()?);
        command.args(["run", "--monitor"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot run this program again")?;
        let input = child.stdin.take().context("no standard input")?;
        let pipe = child.stdout.take().context("no standard output")?;
        Self::new(Other::Program(child), Box::new(input), pipe)
    }

    /// An image that starts, at its prompt, by its console.
    pub fn over(console: UnixStream) -> Result<Self> {
        let (input, output) = (console.try_clone()?, console.try_clone()?);
        Self::new(Other::Socket(console), Box::new(input), output)
    }

    fn new(other: Other, input: Box<dyn Write>, mut pipe: impl Read + Send + 'static) -> Result<Self> {
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut conversation = Self { other, input: Some(input), output, heard: String::new(), news: Vec::new() };
        conversation.answer()?;
        Ok(conversation)
    }

    /// What comes up to the next prompt, be it an answer or news.
    fn chunk(&mut self) -> Result<String> {
        let start = Instant::now();
        loop {
            if let Some(at) = self.heard.find(PROMPT) {
                let chunk = self.heard[..at].to_owned();
                self.heard.drain(..at + PROMPT.len());
                return Ok(chunk);
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.heard.extend(String::from_utf8_lossy(&bytes).chars().filter(|c| *c != '\r')),
                Err(_) => bail!("no more than this came:\n{}", self.heard),
            }
        }
    }

    /// The answer to the line that was told; news that come before it are kept.
    pub fn answer(&mut self) -> Result<String> {
        loop {
            let chunk = self.chunk()?;
            if !chunk.trim_start().starts_with(NEWS) {
                return Ok(chunk);
            }
            self.news.push(chunk);
        }
    }

    /// Tells it a line, without waiting for the answer.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the conversation is over")?;
        input.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// The answer to a line.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.tell(line)?;
        self.answer()
    }

    /// Holds if the answer to a line contains something.
    pub fn says(&mut self, line: &str, wanted: &str) -> Result<()> {
        let answer = self.ask(line)?;
        ensure!(answer.contains(wanted), "it does not say '{wanted}':\n{answer}");
        Ok(())
    }

    /// Waits for news that contain something.
    pub fn news(&mut self, wanted: &str) -> Result<String> {
        loop {
            if let Some(at) = self.news.iter().position(|news| news.contains(wanted)) {
                return Ok(self.news.remove(at));
            }
            let chunk = self.chunk().with_context(|| format!("no news of '{wanted}', but: {:?}", self.news))?;
            self.news.push(chunk);
        }
    }

    /// Ends it; holds if all went well. What was said last.
    pub fn quit(mut self) -> Result<String> {
        if let Some(mut input) = self.input.take() {
            input.write_all(b"quit\n")?;
        }
        self.end()
    }

    /// As [`Conversation::quit`], of an image that ends by itself.
    pub fn end(mut self) -> Result<String> {
        let mut rest = core::mem::take(&mut self.heard);
        let is_over = |rest: &str, other: &Other| matches!(other, Other::Socket(_)) && rest.contains(LAST_WORDS);
        while !is_over(&rest, &self.other)
            && let Ok(bytes) = self.output.recv_timeout(PATIENCE)
        {
            rest.push_str(&String::from_utf8_lossy(&bytes));
        }
        let success = match &mut self.other {
            Other::Program(child) => child.wait().context("cannot wait for this program")?.success(),
            Other::Socket(_) => rest.contains("all held: "),
        };
        ensure!(success, "{rest}");
        Ok(rest)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // The end of its input ends it; only if that does not, it is killed.
        drop(self.input.take());
        let child = match &mut self.other {
            Other::Program(child) => child,
            // Its reader ends.
            Other::Socket(socket) => return drop(socket.shutdown(Shutdown::Both)),
        };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
