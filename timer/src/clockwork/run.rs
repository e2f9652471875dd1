//! What an executor does: the five steps.

use undercroft_hal::context::Kind;

use crate::broken::{self, Hazard};
use crate::clockwork::{Clockwork, RETRIES, RETRY, Transit, bit};
use crate::next::Next;
use crate::node::{self, Flight, Ref};
use crate::shelf::Stepped;
use crate::state::{State, Tag};

impl Clockwork {
    /// Moves what is due at `now` off the wheel, to the lists of its levels: at most 64 nodes of each wheel. Whether more is due.
    pub(crate) fn take_due(&mut self, now: u64) -> bool {
        let mut levels = 0;
        if self.retry_at.is_some_and(|at| at <= now) {
            let (again, more) = self.shelf.retry(RETRIES);
            self.retry_at = more.then_some(now);
            levels |= again;
        }
        let Stepped { levels: mut due, mut touched, mut more } = self.shelf.step(now);
        while more && broken::is(Hazard::StepsWithoutEnd) {
            let next = self.shelf.step(now);
            (due, touched, more) = (due | next.levels, touched + next.touched, next.more);
        }
        self.stats_mut().most_touched = self.stats_mut().most_touched.max(touched as u64);
        self.rouse(levels | due);
        more
    }

    /// Takes the first that is due at `level` into flight. From here on a stop answers that it is in flight.
    pub(crate) fn commit(&mut self, level: Kind) -> Option<Flight> {
        let flight = self.shelf.commit(level)?;
        self.stats_mut().in_flight += 1;
        Some(flight)
    }

    /// The handler begins. Of a lock-bound callout only if it was not stopped or replaced before its executor had the lock.
    pub(crate) fn enter(&mut self, flight: &mut Flight, now: u64) -> bool {
        let bound = flight.node().is_bound() && !broken::is(Hazard::StaleRuns);
        let stale = self.shelf.open(flight.node()).is_none_or(|open| open.generation() != flight.generation);
        if bound && stale {
            return false;
        }
        flight.advance(self.shelf.key(), State::Running);
        let stats = self.stats_mut();
        stats.fired += 1;
        stats.late(now.saturating_sub(flight.deadline));
        true
    }

    /// The handler returned, and wants `next`: which is a request like another, unless somebody changed his mind about the callout.
    pub(crate) fn leave(&mut self, flight: &mut Flight, next: Next, now: u64) {
        flight.advance(self.shelf.key(), State::Left);
        self.complete_early(flight);
        let here = node::cpu_of(self.shelf.id());
        let generation = flight.generation;
        let Some(mut open) = self.shelf.open(flight.node()) else { return };
        let tag = open.tag();
        let replaces = tag.has(Tag::NEXT) && broken::is(Hazard::PeriodReplacesStart);
        if !replaces && (open.generation() != generation || tag.has(Tag::NEXT | Tag::DRAINING | Tag::CLOSED)) {
            return;
        }
        let Some((at, missed)) = next.resolve(flight.nominal, now) else { return };
        open.next_generation();
        open.set_missed(missed);
        let slack = open.slack();
        open.ask(at, slack);
        open.set_tag(tag.with(Tag::NEXT).with_next_cpu(here));
        self.stats_mut().missed += missed;
    }

    /// In a control: who waits is told while the executor still has the callout and its lock.
    fn complete_early(&mut self, flight: &Flight) {
        if broken::is(Hazard::CompletesEarly)
            && let Some(mut open) = self.shelf.open(flight.node())
        {
            let waiters = open.waiters().take();
            self.complete(waiters);
        }
    }

    /// The run is over: this executor does not touch the callout any more, unless it has to be taken to another wheel. Those who wait are
    /// told, a request that waits is applied.
    pub(crate) fn finish(&mut self, flight: Flight) -> Option<(Ref, Transit)> {
        let node = flight.end(self.shelf.key());
        self.stats_mut().in_flight -= 1;
        let here = node::cpu_of(self.shelf.id());
        let mut transit = None;
        if let Some(mut open) = self.shelf.open(&node) {
            let tag = open.tag();
            let waiters = open.waiters().take();
            open.set_tag(tag.without(Tag::NEXT | Tag::DRAINING));
            let barred = tag.has(Tag::CLOSED | Tag::DRAINING)
                && !broken::is(Hazard::NextSurvivesDrain)
                && !broken::is(Hazard::StartsWhileDraining)
                && !broken::is(Hazard::StartsAfterClose);
            if tag.has(Tag::NEXT) && !barred {
                transit = self.place(&node, tag.next_cpu());
            }
            // All that wait for a run here: who waits for another looks, and registers again.
            let wake = if tag.has(Tag::DRAINING) { core::mem::take(&mut self.waiting) } else { 0 };
            let wake = if broken::is(Hazard::WakesHome) { u64::from(wake != 0) << here } else { wake };
            self.todo.wake |= wake;
            self.complete(waiters);
        }
        if let Some(transit) = transit {
            return Some((node, transit));
        }
        let dead = node.release();
        self.bury(dead);
        None
    }

    /// The lock that a committed callout runs with is held by somebody. It waits apart, due still, and does not keep others from running;
    /// if it is not wanted any more, this is the end of it.
    pub(crate) fn contend(&mut self, mut flight: Flight, now: u64) -> Option<(Ref, Transit)> {
        let wanted = self.shelf.open(flight.node()).is_some_and(|open| {
            let tag = open.tag();
            open.generation() == flight.generation && !tag.has(Tag::NEXT | Tag::DRAINING | Tag::CLOSED)
        });
        if !wanted {
            flight.advance(self.shelf.key(), State::Left);
            return self.finish(flight);
        }
        self.stats_mut().in_flight -= 1;
        self.stats_mut().contended += 1;
        let node = self.shelf.contend(flight);
        self.retry_at.get_or_insert(now.saturating_add(RETRY));
        self.todo.alarm = true;
        let dead = node.release();
        self.bury(dead);
        None
    }

    /// Whether an executor of `level` has something to do at `now`.
    pub(crate) fn has_work(&self, level: Kind, now: u64) -> bool {
        let housekeeping = level == Kind::BottomHalf && self.has_housekeeping();
        let retry = self.retry_at.is_some_and(|at| at <= now);
        housekeeping || retry || self.shelf.has_due(level) || self.shelf.wants_step(now)
    }

    /// Asks for another look by a level's executor.
    pub(crate) fn again(&mut self, level: Kind) {
        self.rouse(bit(level));
    }
}
