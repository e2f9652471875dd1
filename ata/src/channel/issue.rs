//! Sending commands: what of a request comes next, and whether the drive is ready for it. Bottom half.

use core::sync::atomic::Ordering;

use undercroft_block::{Error, Features, Op};
use undercroft_hal::{BottomHalf, Duration, Instant, cpu};

use super::engine::{Engine, Phase, Running, Step, TRIES};
use super::plan::{Kind, Plan, Source, plan};
use super::{Channel, count};
use crate::defect::Defect;
use crate::registers::TaskFile;
use crate::wire::{Command, Status};

/// How long a command may take; a drive that slept needs time to spin up.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a drive at rest may take to be ready for a command.
const READY_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });

impl Engine {
    /// Issues the next command of a drive's front.
    pub(super) fn issue(&mut self, channel: &Channel, cx: &BottomHalf, drive: usize) -> Step {
        let (Some(means), Some(front)) = (self.means[drive], &self.fronts[drive]) else { return Step::On };
        let request = front.flight.request();
        if request.op == Op::Flush {
            let cached = channel.info(drive).is_some_and(|info| info.features.contains(Features::VOLATILE_CACHE));
            if !cached || self.defects.has(Defect::FakesFlush) {
                // Nothing is cached: what was written is durable.
                return self.finish(channel, cx, drive, Ok(()));
            }
            if means.flush.is_none() {
                return self.finish(channel, cx, drive, Err(Error::Unsupported));
            }
        }
        if self.defects.has(Defect::BoxesRequests) {
            drop(core::hint::black_box(alloc::boxed::Box::new(request.lba)));
        }
        let deadline = request.deadline;
        let plan = plan(&means, request, front.done, self.defects);
        if let Some(step) = self.unready(channel, cx, drive) {
            return step;
        }
        if !self.prepare(drive, &plan) {
            return self.finish(channel, cx, drive, Err(Error::NoMemory));
        }
        if let Some(front) = &mut self.fronts[drive] {
            front.tries += 1;
            if front.tries > 1 {
                count(&channel.tally.again);
            }
        }
        let due = Instant::now() + COMMAND_TIMEOUT;
        self.send(channel, Running { drive, plan, moved: 0, due: deadline.map_or(due, |at| at.min(due)), own: false });
        self.turn = 1 - drive;
        Step::On
    }

    /// Selects a drive; what to do instead if it is not ready for a command.
    pub(super) fn unready(&mut self, channel: &Channel, cx: &BottomHalf, drive: usize) -> Option<Step> {
        if self.selected.replace(drive) != Some(drive) {
            self.registers.select(drive);
        }
        let status = self.registers.alternate();
        if status == Status::all() {
            return Some(self.back(channel, cx, [false; 2]));
        }
        if !status.intersects(Status::BSY | Status::DRQ) {
            self.unready = None;
            return None;
        }
        let since = *self.unready.get_or_insert_with(Instant::now);
        if since.elapsed() < READY_TIMEOUT {
            return Some(Step::Poll);
        }
        self.unready = None;
        if core::mem::take(&mut self.untold[drive]) {
            // It does without.
            self.set_plain(drive);
        } else if let Some(front) = &mut self.fronts[drive] {
            front.tries += 1;
            if front.tries >= TRIES {
                let _ = self.finish(channel, cx, drive, Err(Error::Busy));
            }
        }
        Some(self.cut_off(channel, cx, Error::Busy, true))
    }

    /// Sets the bus master's table up.
    pub(super) fn prepare(&mut self, drive: usize, plan: &Plan) -> bool {
        let Kind::Dma { to_memory } = plan.kind else { return true };
        let (Some(memory), Some(front)) = (&mut self.memory, &self.fronts[drive]) else { return false };
        let request = front.flight.request();
        match plan.source {
            Source::Request => memory.describe(&request.data, front.done, plan.bytes, self.defects),
            Source::Ranges => {
                memory.ranges(request.lba, request.blocks);
            }
            Source::Bounce => {
                if !memory.bounce(&request.data, front.done, plan.bytes, to_memory) {
                    return false;
                }
            }
        }
        self.registers.master_prepare(memory.table(), to_memory);
        true
    }

    pub(super) fn send(&mut self, channel: &Channel, running: Running) {
        // What came before this command does not speak of it.
        let _ = channel.signals.take();
        channel.due.store(running.due.as_nanos(), Ordering::Relaxed);
        self.registers.issue(running.drive, &running.plan.task);
        if let Kind::Dma { to_memory } = running.plan.kind {
            self.registers.master_start(to_memory);
        }
        while self.defects.has(Defect::WaitsInPlace) && self.registers.alternate().contains(Status::BSY) {
            cpu::relax();
        }
        self.phase = Phase::Running(running);
    }

    /// After a reset a drive knows of no block of several sectors any more.
    pub(super) fn tell_multiple(&mut self, channel: &Channel, cx: &BottomHalf, drive: usize) -> Step {
        if let Some(step) = self.unready(channel, cx, drive) {
            return step;
        }
        self.untold[drive] = false;
        let count = self.means[drive].map_or(0, |means| means.multiple);
        let plan = Plan {
            task: TaskFile::plain(Command::SET_MULTIPLE_MODE, 0, count),
            kind: Kind::None,
            source: Source::Request,
            bytes: 0,
            block: 0,
        };
        self.send(channel, Running { drive, plan, moved: 0, due: Instant::now() + COMMAND_TIMEOUT, own: true });
        Step::On
    }

    /// Has a drive's programmed I/O done sector by sector from now on.
    pub(super) const fn set_plain(&mut self, drive: usize) {
        if let Some(means) = &mut self.means[drive] {
            means.multiple = 0;
        }
    }
}
