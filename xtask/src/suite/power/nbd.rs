//! A disk with a write cache, served to QEMU over a socket: NBD (the protocol's "fixed newstyle" negotiation and simple replies; reads, writes
//! and flushes). It takes its time, so that answers come out of order, and writes down all that happens.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::fuse::Fuse;
use super::log::Event;
use super::plan::{Random, SECTOR};

const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const GO: u32 = 7;
const ABORT: u32 = 2;
/// There are flags, and flushes. (What a guest asks to be durable by itself, QEMU's devices flush: they pass no such writes on.)
const FLAGS: u16 = 1 | 1 << 2;
const EINVAL: u32 = 22;

/// What happened at a disk, and what it holds now.
#[derive(Default)]
pub struct Story {
    pub events: Vec<Event>,
    /// Writes that came while another was under way to one of their sectors.
    pub overlaps: u64,
    bytes: Vec<u8>,
    /// Writes that are under way: number, first sector, sector behind the last.
    under_way: Vec<(usize, u64, u64)>,
    writes: usize,
    flushes: usize,
}

/// A disk that is served as long as the value lives.
pub struct Server {
    story: Arc<Mutex<Story>>,
    socket: PathBuf,
    thread: Option<JoinHandle<()>>,
}

fn lock(story: &Mutex<Story>) -> MutexGuard<'_, Story> {
    // A thread that panicked has left a list of events.
    story.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Serves these bytes at `socket`, once. `fuse` is told of every event.
    pub fn start(socket: &Path, bytes: Vec<u8>, seed: u64, fuse: Arc<Fuse>) -> Result<Self> {
        let listener = UnixListener::bind(socket).with_context(|| socket.display().to_string())?;
        let size = bytes.len() as u64;
        let story = Arc::new(Mutex::new(Story { bytes, ..Story::default() }));
        let disk = Disk { story: Arc::clone(&story), fuse };
        let thread = thread::spawn(move || {
            // Whatever ends the connection: what happened until then is what there is.
            if let Ok((stream, _)) = listener.accept() {
                let _ = serve(stream, &disk, size, Random(seed));
            }
        });
        Ok(Self { story, socket: socket.into(), thread: Some(thread) })
    }

    /// The image has acknowledged a generation.
    pub fn ack(&self, worker: u64, generation: u64) {
        lock(&self.story).events.push(Event::Ack { worker, generation });
    }

    /// Ends it: all that happened.
    pub fn end(mut self) -> Story {
        self.stop();
        core::mem::take(&mut *lock(&self.story))
    }

    fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // If nobody ever came, it still waits for somebody.
            drop(UnixStream::connect(&self.socket));
            let _ = thread.join();
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone)]
struct Disk {
    story: Arc<Mutex<Story>>,
    fuse: Arc<Fuse>,
}

/// What is done when its time has come.
enum Act {
    Read { start: u64, length: usize },
    Write { number: usize, start: u64, data: Arc<[u8]> },
    Flush { number: usize },
    Refuse,
}

struct Job {
    handle: [u8; 8],
    act: Act,
}

/// Speaks with QEMU until it is gone.
fn serve(stream: UnixStream, disk: &Disk, size: u64, mut random: Random) -> io::Result<()> {
    let (mut input, mut output) = (BufReader::new(stream.try_clone()?), stream);
    negotiate(&mut input, &mut output, size)?;
    let (sender, jobs) = channel();
    let answering = disk.clone();
    let thread = thread::spawn(move || answer(&mut output, &jobs, &answering));
    let ended = take_requests(&mut input, disk, size, &sender, &mut random);
    // What is not answered by now never is.
    drop(sender);
    let _ = thread.join();
    ended
}

fn number<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn negotiate(input: &mut impl Read, output: &mut impl Write, size: u64) -> io::Result<()> {
    output.write_all(b"NBDMAGIC")?;
    output.write_all(&OPTION_MAGIC.to_be_bytes())?;
    // Fixed newstyle, no zeroes.
    output.write_all(&3u16.to_be_bytes())?;
    let _client_flags = number::<4>(input)?;
    loop {
        if u64::from_be_bytes(number(input)?) != OPTION_MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (option, length) = (u32::from_be_bytes(number(input)?), u32::from_be_bytes(number(input)?));
        io::copy(&mut input.by_ref().take(u64::from(length)), &mut io::sink())?;
        let mut reply = |kind: u32, data: &[u8]| -> io::Result<()> {
            output.write_all(&REPLY_MAGIC.to_be_bytes())?;
            output.write_all(&option.to_be_bytes())?;
            output.write_all(&kind.to_be_bytes())?;
            output.write_all(&(data.len() as u32).to_be_bytes())?;
            output.write_all(data)
        };
        match option {
            GO => {
                // The export's size and flags; then that this is all.
                reply(3, &[&[0; 2][..], &size.to_be_bytes(), &FLAGS.to_be_bytes()].concat())?;
                return reply(1, &[]);
            }
            ABORT => {
                reply(1, &[])?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            // Not supported.
            _ => reply(1 << 31 | 1, &[])?,
        }
    }
}

/// Notes each request as it comes, and when it is to be answered.
fn take_requests(
    input: &mut impl Read,
    disk: &Disk,
    size: u64,
    jobs: &Sender<(Instant, Job)>,
    random: &mut Random,
) -> io::Result<()> {
    loop {
        if number(input)? != 0x2560_9513_u32.to_be_bytes() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (_flags, kind) = (number::<2>(input)?, u16::from_be_bytes(number(input)?));
        let (handle, start, length) =
            (number(input)?, u64::from_be_bytes(number(input)?), u32::from_be_bytes(number(input)?));
        let mut data = Vec::new();
        if kind == 1 {
            input.by_ref().take(u64::from(length)).read_to_end(&mut data)?;
        }
        let whole = |at: u64| at.is_multiple_of(SECTOR as u64);
        let fits = start.checked_add(u64::from(length)).is_some_and(|end| end <= size);
        let good = fits && whole(start) && whole(u64::from(length));
        let act = match kind {
            0 if fits => Act::Read { start, length: length as usize },
            1 if good && data.len() == length as usize => disk.write(start, data.into()),
            2 => return Ok(()),
            3 => disk.flush(),
            _ => Act::Refuse,
        };
        let micros = match act {
            Act::Write { .. } => [0, random.below(500), random.below(3000)][random.below(3) as usize],
            Act::Flush { .. } => random.below(3000),
            Act::Read { .. } | Act::Refuse => 0,
        };
        if jobs.send((Instant::now() + Duration::from_micros(micros), Job { handle, act })).is_err() {
            return Ok(());
        }
    }
}

/// Does what is due.
fn answer(output: &mut impl Write, jobs: &Receiver<(Instant, Job)>, disk: &Disk) {
    // By time, and among those of one time in the order in which they came.
    let (mut waiting, mut count) = (BTreeMap::<(Instant, u64), Job>::new(), 0_u64);
    loop {
        let now = Instant::now();
        let patience = match waiting.first_entry() {
            Some(entry) if entry.key().0 <= now => {
                if disk.act(output, &entry.remove()).is_err() {
                    return;
                }
                continue;
            }
            Some(entry) => entry.key().0 - now,
            None => Duration::from_secs(3600),
        };
        match jobs.recv_timeout(patience) {
            Ok((due, job)) => {
                count += 1;
                waiting.insert((due, count), job);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Disk {
    fn write(&self, start: u64, data: Arc<[u8]>) -> Act {
        let (first, behind) = (start / SECTOR as u64, (start + data.len() as u64) / SECTOR as u64);
        let mut story = lock(&self.story);
        let number = story.writes;
        story.writes += 1;
        story.overlaps += u64::from(story.under_way.iter().any(|(_, start, end)| *start < behind && first < *end));
        story.under_way.push((number, first, behind));
        story.events.push(Event::Write { number, sector: first, data: Arc::clone(&data) });
        drop(story);
        self.fuse.burn();
        Act::Write { number, start, data }
    }

    fn flush(&self) -> Act {
        let mut story = lock(&self.story);
        let number = story.flushes;
        story.flushes += 1;
        story.events.push(Event::Flush { number });
        drop(story);
        self.fuse.burn();
        Act::Flush { number }
    }

    /// Does it, notes it, and answers, in this order: who has the answer may rely on it.
    fn act(&self, output: &mut impl Write, job: &Job) -> io::Result<()> {
        let mut reply = [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &job.handle].concat();
        let mut story = lock(&self.story);
        match &job.act {
            Act::Read { start, length } => reply.extend(&story.bytes[*start as usize..][..*length]),
            Act::Write { number, start, data } => {
                story.bytes[*start as usize..][..data.len()].copy_from_slice(data);
                story.under_way.retain(|(other, ..)| other != number);
                story.events.push(Event::Written { number: *number });
            }
            Act::Flush { number } => story.events.push(Event::Flushed { number: *number }),
            Act::Refuse => reply[4..8].copy_from_slice(&EINVAL.to_be_bytes()),
        }
        drop(story);
        self.fuse.burn();
        output.write_all(&reply)
    }
}
