//! Commands to a SCSI host, and a collector of its answers.

use std::sync::{Arc, Mutex};

use undercroft_block::scsi::{
    Address, Cdb, Command, Direction, Host, Initiator, Lun, Outcome, Refused, Response, Status,
};
use undercroft_block::{Complete, Completion, Data, Error, Op, Refusal, Request, Tag};
use undercroft_hal::{BottomHalf, Task, cpu};

use super::buffer;

/// TEST UNIT READY.
pub const TEST_UNIT_READY: [u8; 10] = [0; 10];
/// The code of READ (10).
pub const READ_10: u8 = 0x28;
/// A command without data.
pub const NOTHING: (Direction, usize) = (Direction::None, 0);

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the command was made with.
    pub cookie: u64,
    /// How the host's side answered.
    pub response: Response,
    /// The unit's status.
    pub status: Status,
    /// Sense data.
    pub sense: Vec<u8>,
    /// Bytes that were not moved.
    pub residual: u32,
    /// The command's data.
    pub data: Vec<u8>,
}

/// Called with the cookie of each answer.
type Hook = Arc<dyn Fn(u64) + Send + Sync>;

/// Collects what comes back.
#[derive(Default)]
pub struct Collector {
    answers: Mutex<Vec<Answer>>,
    hook: Mutex<Option<Hook>>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("answers", &self.answers).finish_non_exhaustive()
    }
}

impl Collector {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many answers have come and were not taken.
    pub fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// Takes what has come.
    pub fn take(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.answers.lock().unwrap())
    }

    /// Waits for `count` answers, and takes them.
    pub fn wait(&self, task: &Task, count: usize) -> Vec<Answer> {
        task.wait_until(|| self.count() >= count);
        self.take()
    }

    /// As [`Collector::wait`], for what ends by the passing of time.
    ///
    /// # Panics
    /// If that many do not come.
    pub fn spin(&self, task: &Task, count: usize) -> Vec<Answer> {
        for _ in 0..5_000_000 {
            if self.count() >= count {
                break;
            }
            task.run_pending();
            cpu::relax();
        }
        assert!(self.count() >= count, "{} of {count} commands came back", self.count());
        self.take()
    }

    /// Has `hook` called, in the bottom half, with the cookie of each answer.
    pub fn on_answer(&self, hook: impl Fn(u64) + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    /// Has nothing called any more.
    pub fn forget_hook(&self) {
        *self.hook.lock().unwrap() = None;
    }
}

impl Initiator for Collector {
    fn done(self: Arc<Self>, cx: &BottomHalf, command: Command, outcome: &Outcome<'_>) {
        let data = command.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect();
        // The cookie travels as the block number, which nobody looks at.
        let request = command.into_request();
        let answer = Answer {
            cookie: request.request().lba,
            response: outcome.response,
            status: outcome.status,
            sense: outcome.sense.to_vec(),
            residual: outcome.residual,
            data,
        };
        let hook = self.hook.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(answer.cookie);
        }
        self.answers.lock().unwrap().push(answer);
        request.finish(cx, Ok(()));
    }
}

/// Drops what is finished.
struct Drain;

impl Complete for Drain {
    fn complete(&self, _cx: &BottomHalf, _cookie: u64, request: Request, _result: Result<(), Error>) {
        drop(request);
    }
}

/// The unit `lun` of the target `target`.
///
/// # Panics
/// If there can be no such unit.
pub fn at(target: u16, lun: u32) -> Address {
    Address { target, lun: Lun::new(lun).unwrap() }
}

/// A command with so many bytes of data, in or out.
pub fn command(
    collector: &Arc<Collector>,
    cookie: u64,
    to: Address,
    cdb: [u8; 10],
    (direction, bytes): (Direction, usize),
) -> Command {
    let data = if bytes == 0 { Data::None } else { buffer(bytes).into() };
    with_data(collector, cookie, to, cdb, direction, data)
}

/// A command with data of the caller's.
pub fn with_data(
    collector: &Arc<Collector>,
    cookie: u64,
    to: Address,
    cdb: [u8; 10],
    direction: Direction,
    data: Data,
) -> Command {
    let request = Request::new(Op::Read, cookie, 1, data, Completion::new(Arc::new(Drain), cookie));
    Command::new(to, Cdb::new(cdb), direction, request.accept(), Arc::clone(collector) as Arc<dyn Initiator>)
}

/// READ (10).
pub const fn read10(lba: u16, blocks: u16) -> [u8; 10] {
    let ([high, low], [lba_high, lba_low]) = (blocks.to_be_bytes(), lba.to_be_bytes());
    [READ_10, 0, 0, 0, lba_high, lba_low, 0, high, low, 0]
}

/// Submits a command and has it seen.
///
/// # Errors
/// As the host refuses it.
pub fn go(host: &dyn Host, command: Command) -> Result<Tag, Refused> {
    let tag = host.submit(command)?;
    host.commit();
    Ok(tag)
}

/// Clears the unit attentions that every unit has after power-on: one command for each of `luns` of target 0.
///
/// # Panics
/// If the host refuses one.
pub fn ready(task: &Task, host: &dyn Host, luns: &[u32], collector: &Arc<Collector>) {
    for &lun in luns {
        go(host, command(collector, 0, at(0, lun), TEST_UNIT_READY, NOTHING)).unwrap();
        collector.wait(task, 1);
    }
}

/// Gives a refused command's request an end.
pub fn end(refused: Refused) -> Refusal {
    drop(refused.command.into_request().give_back());
    refused.why
}
