//! The engine: what is on the cable, step by step. Bottom half.
//!
//! ```text
//! idle ──issue──▶ running ──finished──▶ idle
//!   ▲                │ timed out, out of step
//!   └──drives back── resetting ──not back──▶ the drive is dead
//! ```

use undercroft_block::{Error, InFlight};
use undercroft_hal::work::Turn;
use undercroft_hal::{BottomHalf, Instant, cpu};

use super::Channel;
use super::lane::Life;
use super::memory::Memory;
use super::plan::{Means, Plan};
use super::reset::Reset;
use crate::defect::{Defect, Defects};
use crate::identify::Identified;
use crate::registers::Registers;

/// Steps before others get a turn. A block of programmed I/O ends a turn, too.
const BUDGET: usize = 16;
/// How often a command that was cut off, or spoiled on the cable, is issued in all.
pub(super) const TRIES: u8 = 3;

/// A request that the engine works on.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) flight: InFlight,
    /// Bytes of its data that went over.
    pub(super) done: usize,
    /// How often its present command was issued.
    pub(super) tries: u8,
}

/// The command that is out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) drive: usize,
    pub(super) plan: Plan,
    /// Bytes moved by programmed I/O.
    pub(super) moved: usize,
    pub(super) due: Instant,
    /// Not a request's: the engine's own, to set a drive up.
    pub(super) own: bool,
}

/// What the cable is doing.
#[derive(Debug)]
pub(super) enum Phase {
    Idle,
    Running(Running),
    Resetting(Reset),
}

/// What to do after a step.
pub(super) enum Step {
    /// The next step.
    On,
    /// Wait for an interrupt or a submitter.
    Wait,
    /// Look again later.
    Poll,
    /// Enough for one turn.
    Rest,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(super) registers: Registers,
    pub(super) memory: Option<Memory>,
    pub(super) means: [Option<Means>; 2],
    pub(super) fronts: [Option<Front>; 2],
    /// Drives that are to be told SET MULTIPLE MODE again.
    pub(super) untold: [bool; 2],
    pub(super) phase: Phase,
    /// The drive that is asked first.
    pub(super) turn: usize,
    /// Since when a drive at rest is not ready.
    pub(super) unready: Option<Instant>,
    /// The drive that the device register names.
    pub(super) selected: Option<usize>,
    pub(super) defects: Defects,
}

impl Engine {
    pub(super) fn new(
        registers: Registers,
        drives: [Option<&Identified>; 2],
        memory: Option<Memory>,
        defects: Defects,
    ) -> Self {
        let dma = memory.is_some() && registers.has_master();
        Self {
            registers,
            memory,
            means: drives.map(|drive| drive.map(|drive| Means::of(drive, dma))),
            fronts: [None, None],
            untold: [false; 2],
            phase: Phase::Idle,
            turn: 0,
            unready: None,
            selected: None,
            defects,
        }
    }

    /// Goes on until there is nothing to do but to wait.
    pub(super) fn run(&mut self, channel: &Channel, cx: &BottomHalf) -> Turn {
        for _ in 0..BUDGET {
            if self.defects.has(Defect::FormatsOnHeap) {
                drop(core::hint::black_box(alloc::format!("{:?}", self.phase)));
            }
            match self.step(channel, cx) {
                Step::On => {}
                Step::Wait => return Turn::Done,
                Step::Rest => return Turn::Again,
                Step::Poll => {
                    cpu::relax();
                    return Turn::Again;
                }
            }
        }
        Turn::Again
    }

    fn step(&mut self, channel: &Channel, cx: &BottomHalf) -> Step {
        if self.sweep(channel, cx) {
            return Step::On;
        }
        let (wanted, ending, doubted, now, lives) = {
            let mut state = channel.state.lock();
            let lives = [state.lanes[0].life, state.lanes[1].life];
            let (wanted, doubted) = (core::mem::take(&mut state.reset), core::mem::take(&mut state.doubted));
            (wanted, state.ending, doubted, state.now.take(), lives)
        };
        if wanted && !matches!(self.phase, Phase::Resetting(_)) {
            return self.cut_off(channel, cx, Error::Reset, !ending);
        }
        if ending && let Some(drive) = self.fronts.iter().position(Option::is_some) {
            // A reset is on its way, so none of them is out.
            return self.finish(channel, cx, drive, Err(Error::Reset));
        }
        match &mut self.phase {
            Phase::Idle => self.next(channel, cx),
            Phase::Running(running) => {
                let mut running = *running;
                let drive = running.drive;
                if matches!(lives[drive], Life::Gone(_)) {
                    return self.cut_off(channel, cx, Error::Removed, true);
                }
                let verdict = self.look(channel, &mut running, now, doubted);
                self.phase = Phase::Running(running);
                self.judge(channel, cx, drive, verdict)
            }
            Phase::Resetting(reset) => {
                let mut reset = *reset;
                let step = reset.step(self);
                self.phase = Phase::Resetting(reset);
                match step {
                    Some(alive) => self.back(channel, cx, alive),
                    None => Step::Poll,
                }
            }
        }
    }

    pub(super) fn front_mut(&mut self, drive: usize) -> Option<&mut Front> {
        self.fronts[drive].as_mut()
    }

    /// Ends one request that waits and is not to be performed. Whether there was one.
    fn sweep(&mut self, channel: &Channel, cx: &BottomHalf) -> bool {
        let mut state = channel.state.lock();
        let gone = state.lanes.iter().any(|lane| matches!(lane.life, Life::Gone(_)));
        let ending = state.ending;
        if !state.sweep && !gone && !ending {
            return false;
        }
        let now = state.now;
        for lane in &mut state.lanes {
            let life = lane.life;
            let over = |flight: &InFlight| match (life, flight.request().deadline, now) {
                (Life::Gone(error), ..) => Some(error),
                _ if ending => Some(Error::NotStarted),
                (_, Some(deadline), Some(now)) if deadline <= now => Some(Error::TimedOut),
                _ => None,
            };
            if let Some((flight, error)) = lane.sweep(over) {
                drop(state);
                flight.finish(cx, Err(error));
                return true;
            }
        }
        state.sweep = false;
        false
    }

    /// The cable is free: the next command, of the drive whose turn it is.
    pub(super) fn next(&mut self, channel: &Channel, cx: &BottomHalf) -> Step {
        let first = if self.defects.has(Defect::FirstDriveFirst) { 0 } else { self.turn };
        for drive in [first, 1 - first] {
            if self.means[drive].is_none() {
                continue;
            }
            if self.untold[drive] {
                return self.tell_multiple(channel, cx, drive);
            }
            if self.fronts[drive].is_none() {
                let taken = channel.state.lock().lanes[drive].take();
                self.fronts[drive] = taken.map(|flight| Front { flight, done: 0, tries: 0 });
            }
            if self.fronts[drive].is_none() {
                continue;
            }
            let (unwanted, life) = {
                let state = channel.state.lock();
                (state.lanes[drive].abandon, state.lanes[drive].life)
            };
            if let Life::Gone(error) = life {
                return self.finish(channel, cx, drive, Err(error));
            }
            if unwanted {
                return self.finish(channel, cx, drive, Err(Error::Cancelled));
            }
            return self.issue(channel, cx, drive);
        }
        Step::Wait
    }
}
