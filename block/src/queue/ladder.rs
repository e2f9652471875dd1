//! The recovery ladder: what is done about requests whose deadline passed with the device. Each rung has its time; on the last one the device
//! is given up.

use core::time::Duration;

use undercroft_hal::{BottomHalf, Instant};

use super::broken::{self, Hazard};
use super::job::Place;
use super::shard::Shard;
use super::stats::QueueStats;
use crate::scsi::Managed;
use crate::{Error, InFlight, Recovery, Request, Tag};

/// The rungs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// The overdue requests are aborted, one by one.
    Abort,
    /// The disk is reset.
    Unit,
    /// Its bus is, or the queue that has an overdue request.
    Bus,
    /// Its controller is.
    Controller,
}

impl Rung {
    /// All of them, upwards.
    pub const ALL: [Self; 4] = [Self::Abort, Self::Unit, Self::Bus, Self::Controller];

    fn above(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }

    /// What the device is asked on a rung above the first.
    const fn recovery(self, overdue: Option<Tag>) -> Option<Recovery> {
        match self {
            Self::Abort => None,
            Self::Unit => Some(Recovery::ResetUnit),
            Self::Bus => Some(Recovery::ResetBus(overdue)),
            Self::Controller => Some(Recovery::ResetController),
        }
    }
}

/// Somebody is on the ladder.
#[derive(Debug)]
pub(super) struct Climb {
    pub rung: Rung,
    /// The device was asked and may still do it.
    pub hope: bool,
    /// When this rung has failed.
    pub until: Instant,
    began: Instant,
}

impl Climb {
    pub fn new(now: Instant, patience: Duration) -> Self {
        Self { rung: Rung::Abort, hope: false, until: now + patience, began: now }
    }

    /// Everything overdue has come back.
    pub fn note(&self, stats: &mut QueueStats) {
        if let Some(rung) = stats.rungs.get_mut(self.rung as usize) {
            rung.helped += 1;
            rung.longest = rung.longest.max(self.began.elapsed());
        }
    }
}

enum Step {
    Stay,
    Ask(Rung, Option<Tag>),
    GiveUp,
}

impl Shard {
    /// Asks for the end of one overdue request.
    pub(super) fn abort(&self, device: Option<Tag>) {
        // A request without a tag is on its way into the device: the next rung finds it.
        let answer = device.map_or(Managed::NoCommand, |tag| self.recover(Recovery::Abort(tag)));
        self.note_answer(Rung::Abort, answer);
    }

    fn recover(&self, what: Recovery) -> Managed {
        self.common.device.upgrade().map_or(Managed::Unsupported, |device| device.recover(what))
    }

    fn note_answer(&self, rung: Rung, answer: Managed) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let stats = &mut state.stats.rungs[rung as usize];
        if answer == Managed::Asked {
            stats.asked += 1;
        } else {
            stats.skipped += 1;
        }
        // What was overdue may have come back meanwhile, and the ladder with it.
        if let Some(climb) = state.climb.as_mut().filter(|climb| climb.rung == rung) {
            climb.hope |= answer == Managed::Asked;
        }
    }

    /// Goes up as far as it has to now.
    pub(super) fn climb(&self, cx: &BottomHalf) {
        loop {
            let step = self.step(Instant::now());
            match step {
                Step::Stay => return,
                Step::Ask(rung, overdue) => {
                    let overdue = overdue.and_then(|tag| self.device_tag(tag));
                    let answer = rung.recovery(overdue).map_or(Managed::Unsupported, |what| self.recover(what));
                    self.note_answer(rung, answer);
                }
                Step::GiveUp => return self.common.give_up(cx, Error::Broken),
            }
        }
    }

    fn step(&self, now: Instant) -> Step {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(climb) = &mut state.climb else { return Step::Stay };
        if climb.hope && now < climb.until {
            return Step::Stay;
        }
        let Some(rung) = climb.rung.above() else { return Step::GiveUp };
        (climb.rung, climb.hope) = (rung, false);
        climb.until = now + self.common.config.rungs[rung as usize];
        // What is sent during a reset would only be ended by it.
        if !core::mem::replace(&mut state.held, true) {
            self.common.hold(true);
        }
        Step::Ask(rung, state.overdue().find(|tag| self.device_tag(*tag).is_some()))
    }

    /// Ends everything here, with the device or not: it was given up.
    pub(super) fn abandon_all(&self, cx: &BottomHalf, why: Error) {
        let (capacity, held) = {
            let mut state = self.state.lock();
            (state.climb, state.victims) = (None, 0);
            (state.jobs.capacity(), core::mem::take(&mut state.held))
        };
        if held {
            self.common.hold(false);
        }
        for index in 0..capacity {
            if let Some((flight, error)) = self.abandon(index as u16, why) {
                self.deliver(cx, flight, Err(error));
            }
        }
    }

    /// The completion of whatever job is in slot `index`.
    fn abandon(&self, index: u16, why: Error) -> Option<(InFlight, Error)> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let tag = state.jobs.tag_at(index)?;
        if let Some(flight) = state.leave_line(tag) {
            let request = flight.give_back();
            return Some((state.close(tag, request).accept(), why));
        }
        if matches!(state.jobs.get(tag).map(|job| job.place), Some(Place::Merged)) {
            let request = state.take_kept(tag)?.give_back();
            return Some((state.close(tag, request).accept(), why));
        }
        let job = state.jobs.get_mut(tag).filter(|job| job.is_at_device())?;
        let kept = state.kept.get_mut(usize::from(index))?;
        // One for each slot, and a slot is given up once: nothing is taken after that.
        let (shell, parent) = (kept.shell.take()?, job.parent.take()?);
        let error = if job.victim { Error::TimedOut } else { why };
        let mut shell = Request::without_data(shell, (job.op, job.lba, job.blocks), parent);
        shell.fua = job.fua;
        // The device has the flush, not the data that was written before.
        if !broken::is(Hazard::StashKept) {
            shell.data = kept.stash.take().unwrap_or_default();
        }
        job.place = Place::Orphan;
        kept.members.clear();
        state.stats.orphans += 1;
        Some((shell.accept(), error))
    }
}
