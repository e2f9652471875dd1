//! Ends: of a command, of a request, of a reset, of a drive. Bottom half.

use core::sync::atomic::Ordering;

use undercroft_block::{Error, Event, Op};
use undercroft_hal::{BottomHalf, Instant};

use super::engine::{Engine, Front, Phase, Running, Step, TRIES};
use super::lane::Life;
use super::look::Verdict;
use super::plan::{Kind, Source};
use super::reset::Reset;
use super::{Channel, NEVER, count};
use crate::defect::Defect;

impl Engine {
    /// Acts on what a look at the command that is out has shown.
    pub(super) fn judge(&mut self, channel: &Channel, cx: &BottomHalf, drive: usize, verdict: Verdict) -> Step {
        match verdict {
            Verdict::Wait => Step::Wait,
            Verdict::Poll => Step::Poll,
            Verdict::Moved => Step::Rest,
            Verdict::Over(result) => self.over(channel, cx, drive, result),
            Verdict::Again(error) if self.tries_left(drive) => {
                log::warn!("drive {drive}: {error}; issued again");
                self.rest(channel);
                Step::On
            }
            Verdict::Again(error) => self.over(channel, cx, drive, Err(error)),
            Verdict::Late => {
                count(&channel.tally.timeouts);
                self.cut_off(channel, cx, Error::TimedOut, true)
            }
            Verdict::OutOfStep(error, again) => self.cut_off(channel, cx, error, again),
            Verdict::Vanished => {
                self.rest(channel);
                self.back(channel, cx, [false; 2])
            }
        }
    }

    pub(super) fn tries_left(&self, drive: usize) -> bool {
        self.fronts[drive].as_ref().is_some_and(|front| front.tries < TRIES)
    }

    /// Nothing is out any more, and the engine of the bus master is stopped.
    pub(super) fn rest(&mut self, channel: &Channel) {
        channel.due.store(NEVER, Ordering::Relaxed);
        self.registers.master_stop();
        if let Some(memory) = &mut self.memory {
            memory.take_back();
        }
        self.phase = Phase::Idle;
    }

    /// The command that is out has ended.
    pub(super) fn over(&mut self, channel: &Channel, cx: &BottomHalf, drive: usize, result: Result<(), Error>) -> Step {
        let Phase::Running(Running { plan, own, .. }) = self.phase else { return Step::On };
        self.rest(channel);
        if own {
            if result.is_err() {
                self.set_plain(drive);
            }
            return Step::On;
        }
        let Some(front) = &mut self.fronts[drive] else { return Step::On };
        if result.is_ok() {
            if plan.source == Source::Bounce
                && plan.kind == (Kind::Dma { to_memory: true })
                && let Some(memory) = &self.memory
            {
                memory.deliver(front.flight.data_mut(), front.done, plan.bytes);
            }
            front.done += plan.bytes;
            front.tries = 0;
        } else if self.defects.has(Defect::GoesOnAfterError) {
            front.done += plan.bytes;
            if front.done < front.flight.request().data.len() {
                return Step::On;
            }
        }
        if self.defects.has(Defect::BoxesErrors) && result.is_err() {
            drop(core::hint::black_box(alloc::boxed::Box::new(result)));
        }
        let request = front.flight.request();
        if result == Err(Error::ReadOnly)
            && request.op != Op::Read
            && let Some(drive) = &channel.drives[drive]
        {
            drive.read_only.store(true, Ordering::Relaxed);
        }
        // A part that failed ends the request: the rest is not issued.
        if result.is_err() || front.done >= request.data.len() {
            return self.finish(channel, cx, drive, result);
        }
        Step::On
    }

    /// Finishes a drive's front.
    pub(super) fn finish(
        &mut self,
        channel: &Channel,
        cx: &BottomHalf,
        drive: usize,
        result: Result<(), Error>,
    ) -> Step {
        let Some(front) = self.fronts[drive].take() else { return Step::On };
        if self.defects.has(Defect::CompletesAtFront) {
            front.flight.finish(cx, result);
            // What the completion submitted is taken for what was finished.
            let mut state = channel.state.lock();
            let _ = state.lanes[drive].finished();
            let next = state.lanes[drive].take();
            drop(state);
            if let Some(flight) = next {
                flight.finish(cx, result);
            }
            return Step::On;
        }
        let starved = channel.state.lock().lanes[drive].finished();
        front.flight.finish(cx, result);
        if starved {
            channel.tell(cx, drive, Event::Room);
        }
        Step::On
    }

    /// Cuts off what is out, if anything, and begins a reset of both drives. What was out is issued `again`, if that may be.
    pub(super) fn cut_off(&mut self, channel: &Channel, cx: &BottomHalf, why: Error, again: bool) -> Step {
        let out = if let Phase::Running(running) = &self.phase { Some(*running) } else { None };
        self.rest(channel);
        self.selected = None;
        count(&channel.tally.resets);
        log::warn!("resetting the drives of a channel: {why}");
        self.phase = Phase::Resetting(Reset::begin(self.registers));
        let Some(Running { drive, own: false, .. }) = out else { return Step::On };
        // On its own drive one command follows the other, so what was cut off may be issued again: nothing came after it. Not without end,
        // and not past the time that its submitter gave it.
        let late = |front: &Front| front.flight.request().deadline.is_some_and(|at| at <= Instant::now());
        let again = again && self.tries_left(drive) && !self.fronts[drive].as_ref().is_some_and(late);
        if again { Step::On } else { self.finish(channel, cx, drive, Err(why)) }
    }

    /// A reset is over, and these drives came back.
    pub(super) fn back(&mut self, channel: &Channel, cx: &BottomHalf, alive: [bool; 2]) -> Step {
        self.phase = Phase::Idle;
        if alive[0] && !alive[1] && self.means[1].is_some() {
            // The second is selected and busy, and the first cannot be selected until a reset has done so.
            self.phase = Phase::Resetting(Reset::begin(self.registers));
        }
        for (drive, alive) in alive.into_iter().enumerate() {
            let Some(means) = self.means[drive] else { continue };
            if alive {
                self.untold[drive] = means.multiple > 0 && !means.dma;
                continue;
            }
            log::error!("drive {drive} of a channel did not come back");
            self.means[drive] = None;
            let mut state = channel.state.lock();
            let ended = state.lanes[drive].life == Life::Running;
            if ended {
                state.lanes[drive].life = Life::Gone(Error::Broken);
            }
            drop(state);
            if self.fronts[drive].is_some() {
                self.finish(channel, cx, drive, Err(Error::TimedOut));
            }
            if ended {
                channel.tell(cx, drive, Event::Removed);
            }
        }
        if !matches!(self.phase, Phase::Resetting(_)) {
            self.take_again(channel, cx);
        }
        Step::On
    }

    /// Everything that a reset was to end has ended: requests are taken again, and those who were refused meanwhile are told.
    fn take_again(&self, channel: &Channel, cx: &BottomHalf) {
        let mut state = channel.state.lock();
        if !core::mem::take(&mut state.ending) {
            return;
        }
        let starved = state.lanes.each_mut().map(|lane| core::mem::take(&mut lane.starved));
        drop(state);
        for (drive, _) in starved.into_iter().enumerate().filter(|(_, starved)| *starved) {
            channel.tell(cx, drive, Event::Room);
        }
    }
}
