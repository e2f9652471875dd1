//! What lies under the queue's lock: the jobs, who is next, how much the device takes. Nothing here calls out.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::time::Duration;

use undercroft_hal::Instant;

use super::broken::{self, Hazard};
use super::job::{Job, Kept, Place, Stage};
use super::ladder::Climb;
use super::merge::{self, Lists};
use super::stats::QueueStats;
use crate::{Blank, Error, InFlight, Request, Slab, Tag};

/// A time that does not come.
pub(super) const NEVER: Instant = Instant::from_nanos(u64::MAX);
/// The pauses after BUSY.
const SHORTEST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(100);

pub(super) struct State {
    pub jobs: Slab<Job>,
    /// By slot.
    pub kept: Box<[Kept]>,
    /// Who waits, by submitter. Never grow.
    pub waiting: Box<[VecDeque<Tag>]>,
    pub waits: usize,
    pub lists: Lists,
    /// The submitter whose turn is next.
    turn: usize,
    /// Whose completion a bottom half is to run.
    pub ended: VecDeque<Tag>,
    pub at_device: u32,
    /// What the device is given at once: at most `depth`, less after BUSY.
    pub limit: u32,
    depth: u32,
    /// Successes since the limit was changed.
    good: u32,
    /// Counts what may have made room in the device.
    pub epoch: u64,
    /// The device has refused, and has not made room since.
    pub full: bool,
    /// How often in a row.
    pub refusals: u8,
    /// The device was busy: nothing is sent before.
    pub backoff: Option<Instant>,
    pause: Duration,
    pub climb: Option<Climb>,
    /// Overdue requests at the device.
    pub victims: u32,
    /// A reset is under way: nothing is sent.
    pub held: bool,
    /// Nothing is taken any more.
    pub dead: Option<Error>,
    /// The earliest time that the callout was started for.
    pub armed_for: Instant,
    /// Requests are back in line of which the callout may not know.
    pub relook: bool,
    /// Submitters that were refused: a bit for each.
    pub refused: u32,
    pub stats: QueueStats,
}

impl State {
    pub fn new(number: u16, capacity: u16, submitters: usize, depth: u32) -> Self {
        let line = || VecDeque::with_capacity(usize::from(capacity));
        Self {
            jobs: Slab::new(number, capacity),
            kept: (0..capacity).map(|_| Kept { shell: Some(Blank::new()), ..Kept::default() }).collect(),
            waiting: (0..submitters).map(|_| line()).collect(),
            waits: 0,
            lists: merge::lists(depth),
            turn: 0,
            ended: line(),
            at_device: 0,
            limit: depth,
            depth,
            good: 0,
            epoch: 0,
            full: false,
            refusals: 0,
            backoff: None,
            pause: Duration::ZERO,
            climb: None,
            victims: 0,
            held: false,
            dead: None,
            armed_for: NEVER,
            relook: false,
            refused: 0,
            stats: QueueStats::default(),
        }
    }

    /// Whether the device may be given one more now.
    #[inline]
    pub fn may_send(&self, now: impl FnOnce() -> Instant) -> bool {
        self.at_device < self.limit
            && !self.full
            && !self.held
            && self.dead.is_none()
            && self.backoff.is_none_or(|until| now() >= until)
    }

    /// Takes a new request's job in; `None` if there is no room.
    #[inline(always)]
    pub fn admit(&mut self) -> Option<(Tag, &mut Job)> {
        self.stats.accepted += u64::from(!self.jobs.is_full());
        self.jobs.begin(|| Job::NONE)
    }

    /// Puts a job in its submitter's line.
    pub fn line_up(&mut self, tag: Tag, first: bool) {
        let Some(job) = self.jobs.get(tag) else { return };
        let Some(line) = self.waiting.get_mut(usize::from(job.from)) else { return };
        if first {
            line.push_front(tag);
        } else {
            line.push_back(tag);
        }
        self.waits += 1;
        self.stats.most_waiting = self.stats.most_waiting.max(self.waits as u32);
    }

    /// Puts a request that is not to go now in line.
    pub fn put_off(&mut self, tag: Tag, request: Request, first: bool) {
        if let (Some(job), Some(kept)) = (self.jobs.get_mut(tag), self.kept.get_mut(usize::from(tag.index()))) {
            job.place = Place::Waiting;
            kept.flight = Some(request.accept());
            self.line_up(tag, first);
        } else {
            debug_assert!(false, "a request without a job");
        }
    }

    /// The next to be sent: the submitters take turns.
    pub fn pick(&mut self) -> Option<Tag> {
        let count = self.waiting.len();
        for step in 0..count {
            let at = if broken::is(Hazard::NoTurns) { step } else { (self.turn + step) % count };
            if let Some(tag) = self.waiting.get_mut(at).and_then(VecDeque::pop_front) {
                self.turn = (at + 1) % count;
                self.waits -= 1;
                return Some(tag);
            }
        }
        None
    }

    /// Takes a waiting job's request out of line. The job stays.
    pub fn leave_line(&mut self, tag: Tag) -> Option<InFlight> {
        let job = self.jobs.get_mut(tag)?;
        if job.place != Place::Waiting {
            return None;
        }
        let line = self.waiting.get_mut(usize::from(job.from))?;
        let at = line.iter().position(|waits| *waits == tag)?;
        line.remove(at);
        self.waits -= 1;
        self.take_kept(tag)
    }

    /// Takes a request that is not with the device out of its slot. The job stays.
    pub fn take_kept(&mut self, tag: Tag) -> Option<InFlight> {
        let job = self.jobs.get_mut(tag)?;
        job.place = Place::Device;
        self.kept.get_mut(usize::from(tag.index()))?.flight.take()
    }

    /// A job ends: its request is its submitter's again.
    pub fn close(&mut self, tag: Tag, mut request: Request) -> Request {
        if let Some(mut job) = self.jobs.remove(tag) {
            if let (Some(kept), false) = (self.kept.get_mut(usize::from(tag.index())), broken::is(Hazard::NotRestored))
            {
                job.unshape(kept, &mut request);
            }
            if let Some(parent) = job.parent.take() {
                request.give_back_to(parent);
            }
        }
        request
    }

    /// The device has done one.
    #[inline]
    pub fn went_well(&mut self) {
        if self.limit < self.depth {
            self.good += 1;
            if self.good >= self.limit {
                (self.good, self.limit) = (0, self.limit + 1);
            }
        }
        (self.backoff, self.pause) = (None, Duration::ZERO);
    }

    /// The device was busy: it gets fewer at once, and some peace.
    pub fn went_busy(&mut self, now: Instant) {
        self.stats.busy += 1;
        // Several that were under way together are told the same thing: it counts once.
        if self.backoff.is_none_or(|until| now >= until) {
            self.limit = (self.limit.min(self.at_device + 1) / 2).max(1);
            self.good = 0;
            self.pause = (self.pause * 2).clamp(SHORTEST, LONGEST);
        }
        self.backoff = Some(now + self.pause);
    }

    /// Whether the callout has to be started for `at`.
    #[inline]
    pub fn arms(&mut self, at: Instant) -> bool {
        let sooner = at < self.armed_for;
        if sooner {
            self.armed_for = at;
        }
        sooner
    }

    /// When somebody has to look next.
    pub fn next_look(&self) -> Instant {
        let mut next = self.backoff.unwrap_or(NEVER);
        if let Some(climb) = &self.climb {
            next = next.min(climb.until);
        }
        for index in 0..self.jobs.capacity() {
            let job = self.jobs.tag_at(index as u16).and_then(|tag| self.jobs.get(tag));
            if let Some(job) = job
                && (job.place == Place::Waiting || job.is_at_device() && !job.victim)
            {
                next = next.min(job.deadline);
            }
        }
        next
    }

    /// The slots of requests that are overdue at the device.
    pub fn overdue(&self) -> impl Iterator<Item = Tag> + '_ {
        (0..self.jobs.capacity())
            .filter_map(|index| self.jobs.tag_at(index as u16))
            .filter(|tag| self.jobs.get(*tag).is_some_and(|job| job.victim && job.is_at_device()))
    }

    /// An overdue request has come back, or is not waited for any more. `true`: it was the last.
    pub fn one_less_overdue(&mut self) -> bool {
        self.victims = self.victims.saturating_sub(1);
        if self.victims > 0 {
            return false;
        }
        self.held = false;
        self.climb.take().is_some_and(|climb| {
            climb.note(&mut self.stats);
            true
        })
    }

    /// The stage of a job, and whether it has more to send, after a part went well.
    pub fn advance(job: &mut Job) -> bool {
        match job.stage {
            Stage::Flush => false,
            Stage::Transfer => {
                job.done += job.part;
                if job.done < job.blocks {
                    return true;
                }
                if !job.emulate || broken::is(Hazard::FakeDurable) {
                    return false;
                }
                job.stage = Stage::Flush;
                true
            }
        }
    }
}
