//! The way up: what becomes of a request that the device has finished. Bottom half.

use core::sync::atomic::Ordering;

use undercroft_hal::{BottomHalf, Instant};

use super::broken::{self, Hazard};
use super::job::{Job, Place};
use super::shard::Shard;
use super::state::State;
use crate::{Complete, Error, InFlight, Request, Tag};

/// How often a request that resets ended is sent again.
const RESENDS: u8 = 3;

enum After {
    /// Its submitter's completion runs.
    Finish(InFlight, Result<(), Error>),
    /// There is more to do for it.
    Again,
    /// Its submitter knows already.
    Dropped(Request),
}

impl Complete for Shard {
    fn complete(&self, cx: &BottomHalf, cookie: u64, mut request: Request, result: Result<(), Error>) {
        let tag = Tag::from_bits(cookie);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.at_device = state.at_device.saturating_sub(1);
        state.epoch += 1;
        (state.full, state.refusals) = (false, 0);
        let straight = |job: &mut Job| if job.is_straight() { job.parent.take() } else { None };
        if result.is_ok()
            && let Some(parent) = state.jobs.end_with(tag, straight)
        {
            // Most of them.
            state.went_well();
            state.stats.completed += 1;
            let more = state.waits > 0 || state.refused != 0;
            drop(guard);
            if self.common.starved.load(Ordering::SeqCst) {
                self.common.feed();
            }
            request.give_back_to(parent);
            request.hand_over(cx, Ok(()));
            if more {
                self.pump();
                self.tell_room(cx);
            }
            return;
        }
        let held = state.held;
        let after = state.completed(tag, request, result);
        let backoff = state.backoff;
        let mut look = backoff;
        if core::mem::take(&mut state.relook) {
            // Deadlines that nobody looked at while others led.
            look = Some(state.next_look());
        }
        let look = look.filter(|until| state.arms(*until));
        let more = state.waits > 0 || state.refused != 0;
        let ended = !state.ended.is_empty();
        let released = held && !state.held;
        drop(guard);
        if self.common.starved.load(Ordering::SeqCst) {
            self.common.feed();
        }
        if released {
            self.common.hold(false);
        }
        if let Some(until) = look {
            self.look_at(until);
        }
        match after {
            After::Finish(flight, result) => self.deliver(cx, flight, result),
            After::Again => {}
            After::Dropped(request) if broken::is(Hazard::OrphanKept) => core::mem::forget(request),
            After::Dropped(request) => drop(request),
        }
        if ended {
            // Those that went with it, and who else waits for that.
            self.deliver_ended(cx);
            self.work.schedule();
        }
        if more {
            self.pump();
            self.tell_room(cx);
        }
    }
}

impl State {
    fn completed(&mut self, tag: Tag, mut request: Request, result: Result<(), Error>) -> After {
        let Some(job) = self.jobs.get_mut(tag) else {
            debug_assert!(false, "a request came back twice");
            return After::Dropped(request);
        };
        if matches!(job.place, Place::Orphan) && !broken::is(Hazard::LateAnswerCounts) {
            self.jobs.remove(tag);
            self.stats.orphans_returned += 1;
            return After::Dropped(request);
        }
        let members = self.unmerge(tag, &mut request);
        self.settle(&members, result);
        self.relook |= !members.is_empty() && result.is_err();
        let Some(job) = self.jobs.get_mut(tag) else { return After::Dropped(request) };
        if let (Some(kept), true) =
            (self.kept.get_mut(usize::from(tag.index())), result.is_ok() || !broken::is(Hazard::NotRestored))
        {
            job.unshape(kept, &mut request);
        }
        let victim = core::mem::take(&mut job.victim);
        let again = match result {
            Ok(()) => Self::advance(job),
            Err(error) => {
                job.last = Some(error);
                job.alone |= !members.is_empty();
                job.is_worth_again(error) || !members.is_empty() && !victim
            }
        };
        let cancelled = job.cancelled;
        let dead = self.dead;
        let late = victim || Instant::now() >= job.deadline;
        if result.is_ok() {
            self.went_well();
            self.stats.late += u64::from(victim);
        } else if result == Err(Error::Busy) {
            self.went_busy(Instant::now());
        }
        if victim {
            let _ = self.one_less_overdue();
        }
        let end = match (result, again) {
            // Its submitter did not cancel it.
            (Err(Error::Cancelled), false) if !victim && !cancelled => Err(Error::Reset),
            (result, false) if !(victim && is_ours(result)) => result,
            (_, _) if cancelled => Err(Error::Cancelled),
            (Err(Error::Busy), true) if late => Err(Error::Busy),
            (_, true) if dead.is_some() => dead.map_or(Ok(()), Err),
            (_, true) if !late => {
                self.stats.resent += u64::from(result.is_err_and(|error| error != Error::Busy));
                self.put_off(tag, request, true);
                return After::Again;
            }
            _ => Err(Error::TimedOut),
        };
        After::Finish(self.close(tag, request).accept(), end)
    }
}

/// Whether an overdue request ended because recovery ended it.
fn is_ours(result: Result<(), Error>) -> bool {
    matches!(result, Err(Error::Cancelled | Error::Reset | Error::NotStarted))
}

impl super::job::Job {
    /// Whether a request that failed is sent again.
    fn is_worth_again(&mut self, error: Error) -> bool {
        match error {
            Error::Busy => !broken::is(Hazard::BusyFails),
            // Nothing of it was done: whatever it is, it may be sent again.
            Error::NotStarted => {
                self.resent += 1;
                self.resent <= RESENDS
            }
            // Cancelled, but not by its submitter: a reset that another request needed.
            Error::Reset | Error::Cancelled if !self.cancelled => {
                let safe = self.is_safe_again() || broken::is(Hazard::FlushSentAgain);
                self.resent += 1;
                safe && self.resent <= RESENDS
            }
            _ => false,
        }
    }
}
