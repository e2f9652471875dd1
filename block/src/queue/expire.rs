//! Deadlines: the queue's callout, which runs when the earliest of them has come.
//!
//! It is started for a time only if that is earlier than the one it was started for last, and looks at all requests when it runs: with one
//! timeout for all, that is once per timeout, not once per request.

use undercroft_hal::{BottomHalf, Instant};

use super::broken::{self, Hazard};
use super::job::Place;
use super::ladder::Climb;
use super::shard::Shard;
use super::state::NEVER;
use crate::{Error, InFlight, Tag};

enum Overdue {
    /// It never got to the device, or not wholly.
    Waiting(InFlight, Error),
    AtDevice(Tag),
}

impl Shard {
    /// Has the callout run at `at`, if it is not to run before.
    pub(super) fn look_at(&self, at: Instant) {
        if at < NEVER && !broken::is(Hazard::NoDeadlines) {
            // Closed: the queue is gone. Draining is not done.
            let _ = self.callout.start_if_sooner(at);
        }
    }

    /// The callout's handler.
    pub(super) fn expire(&self, cx: &BottomHalf) {
        {
            let mut state = self.state.lock();
            state.armed_for = NEVER;
            if state.backoff.is_some_and(|until| Instant::now() >= until) {
                state.backoff = None;
            }
        }
        let mut index = 0;
        while let Some(overdue) = self.next_overdue(&mut index) {
            match overdue {
                Overdue::Waiting(flight, error) => self.deliver(cx, flight, Err(error)),
                Overdue::AtDevice(tag) => self.abort(self.device_tag(tag)),
            }
        }
        self.climb(cx);
        self.pump();
        self.tell_room(cx);
        let next = {
            let mut state = self.state.lock();
            let next = state.next_look();
            state.arms(next).then_some(next)
        };
        if let Some(next) = next {
            self.look_at(next);
        }
    }

    /// The next overdue request from slot `index` on.
    fn next_overdue(&self, index: &mut usize) -> Option<Overdue> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let now = Instant::now();
        while *index < state.jobs.capacity() {
            let tag = state.jobs.tag_at(*index as u16);
            *index += 1;
            let Some(tag) = tag else { continue };
            let Some(job) = state.jobs.get_mut(tag).filter(|job| now >= job.deadline) else { continue };
            match job.place {
                Place::Waiting => {
                    let error = job.last.unwrap_or(Error::TimedOut);
                    let Some(flight) = state.leave_line(tag) else { continue };
                    let request = flight.give_back();
                    state.stats.overdue += 1;
                    return Some(Overdue::Waiting(state.close(tag, request).accept(), error));
                }
                Place::Device if !job.victim => {
                    job.victim = true;
                    state.victims += 1;
                    state.stats.overdue += 1;
                    let patience = self.common.config.rungs[0];
                    state.climb.get_or_insert_with(|| Climb::new(now, patience));
                    return Some(Overdue::AtDevice(tag));
                }
                _ => {}
            }
        }
        None
    }
}
