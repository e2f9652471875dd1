//! What clients do to a callout: start, stop, drain, close, ask.

use alloc::boxed::Box;

use crate::broken::{self, Hazard};
use crate::clockwork::Clockwork;
use crate::completion::{self, Waiter};
use crate::node::{self, Open, Ref, Slack};
use crate::outcome::{StartError, Started, Stopped};
use crate::state::{State, Tag};

/// When a start applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Always,
    IfArmed,
    IfSooner,
}

/// A start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) at: u64,
    /// On another CPU's wheel than the one it is in.
    pub(crate) cpu: Option<u16>,
    /// The callout's own if there is none.
    pub(crate) slack: Option<Slack>,
    pub(crate) rule: Rule,
}

impl Request {
    #[inline]
    pub(crate) const fn at(at: u64) -> Self {
        Self { at, cpu: None, slack: None, rule: Rule::Always }
    }

    /// On the wheel of that CPU. One that cannot be there is refused later.
    pub(crate) fn on(cpu: usize, at: u64) -> Self {
        Self { cpu: Some(u16::try_from(cpu).unwrap_or(u16::MAX)), ..Self::at(at) }
    }
}

/// A callout on its way to another wheel, by whom it was sent. It arrives if it is still the same arming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Transit {
    pub(crate) cpu: usize,
    generation: u32,
}

impl Clockwork {
    /// Starts a callout whose home this is. If it is to go to another CPU's wheel, it does so when the caller lets it arrive there.
    #[inline(always)]
    pub(crate) fn start(
        &mut self,
        node: &Ref,
        request: Request,
    ) -> Result<(Option<Started>, Option<Transit>), StartError> {
        // Most starts are of this kind.
        if request.cpu.is_none()
            && request.rule != Rule::IfArmed
            && let Some(earlier) = self.shelf.start_idle(node, request.at, request.slack)
        {
            self.todo.alarm |= earlier;
            self.stats_mut().started += 1;
            return Ok((Some(Started::Armed), None));
        }
        self.start_any(node, request)
    }

    /// The same, whatever the callout is doing.
    #[inline(never)]
    fn start_any(&mut self, node: &Ref, request: Request) -> Result<(Option<Started>, Option<Transit>), StartError> {
        let here = node::cpu_of(self.shelf.id());
        let Some(mut open) = self.shelf.open(node) else { return Err(StartError::NoSuchCpu) };
        let tag = open.tag();
        if tag.has(Tag::CLOSED) && !broken::is(Hazard::StartsAfterClose) {
            return Err(StartError::Closed);
        }
        if tag.has(Tag::DRAINING) && !broken::is(Hazard::StartsWhileDraining) {
            return Err(StartError::Draining);
        }
        let armed_for = open.armed_for();
        let applies = match request.rule {
            Rule::Always => true,
            Rule::IfArmed => armed_for.is_some(),
            Rule::IfSooner => armed_for.is_none_or(|at| request.at < at),
        };
        if !applies {
            return Ok((None, None));
        }
        let to = request.cpu.filter(|_| !broken::is(Hazard::StaysWhereItIs));
        let cpu = to.map_or(here, usize::from);
        let slack = request.slack.unwrap_or_else(|| open.slack());
        let was_armed = tag.state() == State::Committed && armed_for.is_some() && !tag.has(Tag::NEXT);
        open.next_generation();
        open.set_missed(0);
        let linked = tag.has(Tag::NEXT) && broken::is(Hazard::ParkedTwice);
        if tag.state().is_in_flight() && !linked && !open.forgets_flight() {
            // The executor applies it when it is done: a callout in flight is its executor's (T-22, T-25).
            open.ask(request.at, slack);
            open.set_tag(tag.with(Tag::NEXT).with_next_cpu(cpu));
            let replaced = node.is_bound() && tag.state() == State::Committed;
            let started = if replaced { Started::Replaced } else { Started::ParkedInFlight };
            let stats = self.stats_mut();
            stats.started += 1;
            stats.cancelled += u64::from(was_armed);
            return Ok((Some(started), None));
        }
        let replaced = self.unlink(node);
        self.stats_mut().started += 1;
        self.stats_mut().cancelled += u64::from(replaced);
        let started = if replaced { Started::Replaced } else { Started::Armed };
        if let Some(mut open) = self.shelf.open(node) {
            open.ask(request.at, slack);
        }
        Ok((Some(started), self.place(node, cpu)))
    }

    /// Takes it off whatever it is linked in, or off its way. Whether it was armed.
    fn unlink(&mut self, node: &Ref) -> bool {
        let Some(mut open) = self.shelf.open(node) else { return false };
        let tag = open.tag();
        if tag.state() == State::Transit {
            open.set_tag(tag.with_state(State::Idle));
            return true;
        }
        self.shelf.disarm(node)
    }

    /// Links an idle callout in the wheel for what was asked, or sends it on its way to another.
    pub(super) fn place(&mut self, node: &Ref, cpu: usize) -> Option<Transit> {
        let id = self.shelf.id();
        let mut open = self.shelf.open(node)?;
        if cpu == node::cpu_of(id) {
            self.link(node);
            return None;
        }
        let (tag, generation) = (open.tag(), open.generation());
        open.set_tag(tag.with_state(State::Transit));
        open.move_to(node::wheel_of(id, cpu)).then_some(Transit { cpu, generation })
    }

    fn link(&mut self, node: &Ref) {
        self.todo.alarm |= self.shelf.arm(node);
    }

    /// A callout arrives that was sent here, unless somebody stopped, replaced or moved it on meanwhile.
    pub(crate) fn arrive(&mut self, node: &Ref, transit: Transit) {
        let Some(open) = self.shelf.open(node) else { return };
        let stands = open.tag().state() == State::Transit && open.generation() == transit.generation;
        let unchecked = open.tag().state() == State::Idle && broken::is(Hazard::TransitUnchecked);
        if stands || unchecked {
            self.link(node);
        }
    }

    /// Stops a callout. `exact`: the caller holds the lock that the handler runs with.
    #[inline]
    pub(crate) fn stop(&mut self, node: &Ref, exact: bool) -> Stopped {
        // Most stops are of this kind.
        if self.shelf.stop_armed(node) {
            self.stats_mut().cancelled += 1;
            return Stopped::Cancelled;
        }
        let (stopped, in_flight) = self.cancel(node);
        let Some(open) = self.shelf.open(node) else { return Stopped::NotArmed };
        let over = open.tag().state() == State::Left;
        // With the lock held, a handler that was in flight has returned, or will not start.
        if exact && in_flight && over { Stopped::of(stopped.is_cancelled(), false) } else { stopped }
    }

    /// Cancels what is armed. The answer, and whether an executor has the callout.
    #[inline(never)]
    fn cancel(&mut self, node: &Ref) -> (Stopped, bool) {
        let bound = node.is_bound();
        let Some(mut open) = self.shelf.open(node) else { return (Stopped::NotArmed, false) };
        let tag = open.tag();
        if !tag.state().is_in_flight() {
            if tag.state() == State::Idle {
                return (Stopped::NotArmed, false);
            }
            open.next_generation();
            self.unlink(node);
            self.stats_mut().cancelled += 1;
            return (Stopped::Cancelled, false);
        }
        let armed = open.armed_for().is_some();
        if !broken::is(Hazard::PeriodSurvivesStop) {
            open.next_generation();
        }
        if !broken::is(Hazard::NextSurvivesStop) {
            open.set_tag(tag.without(Tag::NEXT));
        }
        self.stats_mut().cancelled += u64::from(armed);
        // A lock-bound handler that has not got its lock will not run for a generation that is over.
        let will_run = !(bound && tag.state() == State::Committed);
        (Stopped::of(armed, will_run), true)
    }

    /// Begins a drain, or a close: cancels what is armed and keeps it from being armed again, until the run in flight is over or for ever.
    /// The answer, and which run is in flight.
    pub(crate) fn begin_drain(&mut self, node: &Ref, close: bool) -> (Stopped, Option<u32>) {
        let had_next = self.shelf.open(node).is_some_and(|open| open.tag().has(Tag::NEXT));
        let (stopped, in_flight) = self.cancel(node);
        let Some(mut open) = self.shelf.open(node) else { return (stopped, None) };
        let mut tag = open.tag();
        if close {
            tag = tag.with(Tag::CLOSED);
            open.next_generation();
        }
        if in_flight {
            tag = tag.with(Tag::DRAINING);
        }
        if had_next && broken::is(Hazard::NextSurvivesDrain) {
            tag = tag.with(Tag::NEXT);
        }
        open.set_tag(tag);
        let flight = open.flight();
        self.stats_mut().drains += u64::from(in_flight);
        let waits = in_flight
            && !broken::is(Hazard::DrainDoesNotWait)
            && !(broken::is(Hazard::RemovedMeansIdle) && stopped.is_cancelled());
        (stopped, waits.then_some(flight))
    }

    /// Has a completion run when the run in flight is over. To be called in the critical section of [`Self::begin_drain`].
    pub(crate) fn wait_with(&mut self, node: &Ref, waiter: Box<Waiter>) {
        if let Some(mut open) = self.shelf.open(node) {
            if broken::is(Hazard::OneWaiter) {
                open.waiters().take();
            }
            completion::push(open.waiters(), waiter);
        }
    }

    /// Has a CPU kicked when the run in flight is over. As above.
    pub(crate) fn wait_on(&mut self, node: &Ref, cpu: usize) {
        if self.shelf.open(node).is_some() {
            self.waiting |= 1 << (cpu % 64);
        }
    }

    /// Whether the run of that generation is over. Another wheel's answer is yes: a callout in flight does not move.
    pub(crate) fn is_over(&mut self, node: &Ref, flight: u32) -> bool {
        let Some(open) = self.shelf.open(node) else { return true };
        let same = open.flight() == flight || broken::is(Hazard::WaitsForAnyRun);
        !(open.tag().state().is_in_flight() && same)
    }
}

impl Open<'_> {
    /// In a control: the note that it is in flight is erased.
    fn forgets_flight(&mut self) -> bool {
        let forgets = broken::is(Hazard::StartErasesFlight) || broken::is(Hazard::MovedInFlight);
        #[cfg(test)]
        if forgets {
            self.force_idle();
        }
        forgets
    }

    /// What it is armed for: in a wheel, due, on its way, or as a request that waits for a run to end. A lock-bound callout that waits
    /// for its lock is armed still.
    #[inline]
    pub(crate) fn armed_for(&self) -> Option<u64> {
        let tag = self.tag();
        match tag.state() {
            State::Idle => None,
            State::Armed | State::Due | State::Transit => Some(self.asked()),
            _ if tag.has(Tag::NEXT) && !broken::is(Hazard::ParkedIsNotArmed) => Some(self.asked()),
            State::Committed if self.node().is_bound() && self.flight() == self.generation() => Some(self.asked()),
            _ => None,
        }
    }
}
