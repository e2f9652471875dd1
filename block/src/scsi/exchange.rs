//! One command at a time, waited for: what the scan uses. Task context.

use alloc::sync::Arc;
use core::time::Duration;

use arrayvec::ArrayVec;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{TaskWork, Turn};
use undercroft_hal::{BottomHalf, Instant, Task, cpu};
use undercroft_timer::{Callout, Next};

use super::verdict::{Verdict, judge};
use super::{Address, Cdb, Command, Direction, Host, Initiator, Outcome, Refused, Response, Status};
use crate::broken::{self, Hazard};
use crate::{Complete, Completion, Data, Error, Op, Piece, Refusal, Request};

/// Bytes of sense data that are looked at: SPC-5 allows no more than 252, and what matters comes first.
const SENSE: usize = 96;
/// Bytes of the answer buffer.
pub(super) const ANSWER: usize = 4096;
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a unit may take to become ready.
const READY: Duration = Duration::from_secs(10);
/// How often a command is sent again at once.
const AT_ONCE: u32 = 10;

/// What came back, copied out of the driver's hands.
struct Answer {
    response: Response,
    status: Status,
    sense: ArrayVec<u8, SENSE>,
    residual: u32,
}

struct State {
    answer: Option<Answer>,
    request: Option<Request>,
    /// Nobody waits any more: a request that is kept would keep itself, by its completion.
    given_up: bool,
}

/// Takes the command back and wakes the waiting task.
struct Waiter {
    state: IrqSpinLock<State>,
    wake: TaskWork,
}

impl Initiator for Waiter {
    fn done(self: Arc<Self>, cx: &BottomHalf, command: Command, outcome: &Outcome<'_>) {
        let mut sense = ArrayVec::new();
        sense.extend(outcome.sense.iter().copied().take(SENSE));
        let answer = Answer { response: outcome.response, status: outcome.status, sense, residual: outcome.residual };
        self.state.lock().answer = Some(answer);
        command.request.finish(cx, Ok(()));
    }
}

impl Complete for Waiter {
    fn complete(&self, _cx: &BottomHalf, _cookie: u64, request: Request, _result: Result<(), Error>) {
        let late = {
            let mut state = self.state.lock();
            if state.given_up { Some(request) } else { state.request.replace(request) }
        };
        drop(late);
        // The task may wait on another CPU.
        self.wake.schedule();
    }
}

/// Sends commands to one host and waits for each.
pub(super) struct Exchange<'a> {
    cx: &'a Task,
    host: &'a Arc<dyn Host>,
    waiter: Arc<Waiter>,
    /// With the host while a command is under way, and for good if the host never answers.
    buffer: Option<DmaBuf>,
    constraints: DmaConstraints,
    /// Wakes the waiting task when the host has had its time.
    alarm: Callout<BottomHalf>,
    gone: Option<Error>,
}

impl<'a> Exchange<'a> {
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(cx: &'a Task, host: &'a Arc<dyn Host>) -> Result<Self, Error> {
        let waiter = Waiter {
            state: IrqSpinLock::new(Rank::BLOCK, State { answer: None, request: None, given_up: false }),
            wake: TaskWork::new(cpu::current(), |_| Turn::Done),
        };
        let (constraints, waiter) = (host.info().limits.dma, Arc::new(waiter));
        let waits = Arc::downgrade(&waiter);
        let alarm = Callout::new(cpu::current(), move |_: &BottomHalf, _: &_| {
            if let Some(waiter) = waits.upgrade() {
                waiter.wake.schedule();
            }
            Next::Done
        });
        Ok(Self { cx, host, waiter, buffer: None, constraints, alarm, gone: None })
    }

    /// Why the host takes nothing any more, once it has said so.
    pub fn gone(&self) -> Option<Error> {
        self.gone
    }

    /// Sends a command whose answer may have `allocation` bytes (at most [`ANSWER`]), again as long as the unit has something to say first, and gives the
    /// bytes of the answer that really came.
    ///
    /// # Errors
    /// The command's error; [`Error::TimedOut`] if the host does not answer.
    pub fn read(&mut self, address: Address, cdb: Cdb, allocation: usize) -> Result<&[u8], Error> {
        let started = Instant::now();
        let mut at_once = 0;
        loop {
            let (verdict, moved) = self.once(address, cdb, allocation.min(ANSWER))?;
            match verdict {
                Verdict::Done => {
                    let whole: &[u8] = self.buffer.as_deref().unwrap_or(&[]);
                    return Ok(&whole[..moved.min(whole.len())]);
                }
                Verdict::Again(_) if at_once < AT_ONCE => at_once += 1,
                Verdict::Later(_) if started.elapsed() < READY => self.pause(),
                Verdict::Again(error) | Verdict::Later(error) | Verdict::Failed(error) => return Err(error),
            }
        }
    }

    /// Lets others work for a moment.
    fn pause(&self) {
        let until = Instant::now() + Duration::from_millis(10);
        while Instant::now() < until {
            self.cx.run_pending();
            cpu::relax();
        }
    }

    fn once(&mut self, address: Address, cdb: Cdb, allocation: usize) -> Result<(Verdict, usize), Error> {
        let mut buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => DmaBuf::new(ANSWER, self.constraints).map_err(|_| Error::NoMemory)?,
        };
        // What an answer leaves out reads as zero, not as the answer before (a recycled buffer carries stale state).
        buffer.fill(0);
        let (direction, data) = if allocation == 0 {
            // The buffer stays here.
            self.buffer = Some(buffer);
            (Direction::None, Data::None)
        } else {
            (Direction::In, Data::One(Piece::new(buffer, 0, allocation)))
        };
        let completion = Completion::new(Arc::clone(&self.waiter) as Arc<dyn Complete>, 0);
        let mut request = Request::new(Op::Read, 0, 0, data, completion);
        let deadline = Instant::now() + PATIENCE;
        request.deadline = Some(deadline);
        let initiator = Arc::clone(&self.waiter) as Arc<dyn Initiator>;
        let mut command = Command::new(address, cdb, direction, request.accept(), initiator);
        loop {
            match self.host.submit(command) {
                Ok(_) => break,
                Err(Refused { command: back, why: Refusal::Full }) if Instant::now() < deadline => {
                    command = back;
                    self.pause();
                }
                Err(Refused { command, why }) => {
                    self.keep(command.request.give_back());
                    return Err(match why {
                        Refusal::Full => Error::Busy,
                        Refusal::Invalid(error) => error,
                        Refusal::Gone(error) => *self.gone.insert(error),
                    });
                }
            }
        }
        self.host.commit();
        let waiter = &self.waiter;
        if !broken::is(Hazard::NoDeadlines) {
            // A tick later, so that the time has passed when it is looked at. Refused to nobody: it is neither closed nor drained.
            let _ = self.alarm.start_at(deadline + Duration::from_micros(1));
        }
        self.cx.wait_until(|| waiter.state.lock().request.is_some() || Instant::now() > deadline);
        let _ = self.alarm.stop();
        let (answer, request) = {
            let mut state = waiter.state.lock();
            state.given_up = state.request.is_none();
            (state.answer.take(), state.request.take())
        };
        let (Some(answer), Some(request)) = (answer, request) else {
            // The host keeps the buffer until it answers or is reset. A late answer must not be taken for the next command's.
            *self = Self::new(self.cx, self.host)?;
            return Err(Error::TimedOut);
        };
        self.keep(request);
        let outcome = Outcome {
            response: answer.response,
            status: answer.status,
            sense: &answer.sense,
            residual: answer.residual,
        };
        // An underrun is how a device says that its answer is shorter than it could be: no error here.
        let moved = allocation.saturating_sub(outcome.residual as usize);
        Ok((judge(&outcome).0, moved))
    }

    fn keep(&mut self, mut request: Request) {
        if let Data::One(piece) = core::mem::take(&mut request.data) {
            self.buffer = Some(piece.into_buf());
        }
    }
}
