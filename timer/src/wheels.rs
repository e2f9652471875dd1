//! All CPUs' wheels: which lock to take, and what is to be done when it is free again.
//!
//! A callout's home is read without a lock and looked at again under it: who finds another home there goes on to that. Two wheels' locks are
//! never held together (T-23), and nobody waits for a callout on its way between two (T-11, T-24).

use alloc::boxed::Box;

use undercroft_hal::context::Kind;

use crate::broken::{self, Hazard};
use crate::clockwork::{Clockwork, Request, Todo, Transit};
use crate::completion::Waiter;
use crate::node::{self, Ref, Slack};
use crate::outcome::{StartError, Started, Stopped};
use crate::port::Port;
use crate::shim::{IrqOff, Lock, LockGuard};
use crate::state::Tag;
use crate::stats::Stats;

/// See the module.
pub(crate) struct Wheels<P> {
    cpus: Box<[Lock<Clockwork>]>,
    /// The first wheel's.
    first: u32,
    pub(crate) port: P,
}

/// One CPU's wheel, locked.
pub(crate) struct Locked<'a> {
    pub(crate) cpu: usize,
    pub(crate) w: LockGuard<'a, Clockwork>,
}

impl<P: Port> Wheels<P> {
    /// Wheels for that many CPUs. Allocates.
    pub(crate) fn new(cpus: usize, port: P) -> Self {
        let now = port.now();
        let mut first = 0;
        let cpus = node::new_keys(cpus).map(|key| {
            if node::cpu_of(key.id()) == 0 {
                first = key.id();
            }
            Lock::new(Clockwork::new(key, now))
        });
        let cpus = cpus.collect();
        Self { cpus, first, port }
    }

    pub(crate) const fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// The wheel that callouts made for CPU `cpu` belong to at first.
    pub(crate) fn home(&self, cpu: usize) -> u32 {
        node::wheel_of(self.first, cpu % self.cpus.len().max(1))
    }

    #[track_caller]
    pub(crate) fn lock(&self, cpu: usize) -> Option<Locked<'_>> {
        Some(Locked { cpu, w: self.cpus.get(cpu)?.lock() })
    }

    /// Locks a callout's home. None for a callout of another machine.
    // In its callers, so that what it answers stays in registers.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn lock_home(&self, node: &Ref) -> Option<Locked<'_>> {
        // Most are at home on the CPU that calls. A guess, so that a processor need not wait for the node's line to know which lock to
        // take: it finds out while the lock is being taken.
        let here = self.port.current();
        if node.home() == node::wheel_of(self.first, here) {
            let w = self.cpus.get(here)?.lock();
            if node.home() == node::wheel_of(self.first, here) {
                return Some(Locked { cpu: here, w });
            }
        }
        self.lock_wherever(node)
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn lock_wherever(&self, node: &Ref) -> Option<Locked<'_>> {
        loop {
            let home = node.home();
            let cpu = node::cpu_of(home);
            if node::wheel_of(self.first, cpu) != home {
                return None;
            }
            let w = self.cpus.get(cpu)?.lock();
            if node.home() == home {
                return Some(Locked { cpu, w });
            }
        }
    }

    /// Does what an operation left to do, and unlocks. The alarm is set before the lock goes (W-09).
    #[inline(always)]
    pub(crate) fn unlock(&self, locked: Locked<'_>) {
        if locked.w.todo.is_nothing() {
            return;
        }
        self.unlock_and_do(locked);
    }

    #[inline(never)]
    fn unlock_and_do(&self, locked: Locked<'_>) {
        let Locked { cpu, mut w } = locked;
        let Todo { alarm, rouse, wake } = w.take_todo();
        let kick = alarm && self.set_alarm(cpu, &mut w);
        drop(w);
        if kick && !broken::is(Hazard::NoKick) {
            self.port.kick(cpu);
        }
        if rouse != 0 || wake != 0 {
            self.rouse(cpu, rouse, wake);
        }
    }

    /// Sets the alarm of `cpu` to the next event if that is earlier. `true`: that CPU is to be kicked, and does it itself.
    #[inline(never)]
    fn set_alarm(&self, cpu: usize, w: &mut Clockwork) -> bool {
        if w.serving || !self.port.is_ready() {
            return false;
        }
        let Some(at) = w.wanted_alarm() else { return false };
        let moved = !(w.alarm.is_some() && broken::is(Hazard::AlarmNotMoved));
        let earlier = w.alarm.is_none_or(|set| at < set) && moved;
        if !earlier {
            return false;
        }
        if self.port.current() == cpu {
            w.alarm = Some(at);
            if !(broken::is(Hazard::PastAlarmSkipped) && at <= self.port.now()) {
                self.port.set_alarm(at);
            }
            return false;
        }
        // One kick is as good as two: the CPU looks at its wheel after this lock was free.
        !core::mem::replace(&mut w.kicked, true)
    }

    fn rouse(&self, cpu: usize, levels: u8, wake: u64) {
        for kind in [Kind::BottomHalf, Kind::Task] {
            if levels & 1 << kind as u8 != 0 {
                self.port.schedule(cpu, kind);
            }
        }
        let mut left = wake;
        while left != 0 {
            self.port.kick(left.trailing_zeros() as usize);
            left &= left - 1;
        }
    }

    #[inline]
    pub(crate) fn start(&self, node: &Ref, request: Request) -> Result<Option<Started>, StartError> {
        if request.cpu.is_some_and(|cpu| usize::from(cpu) >= self.cpus.len()) {
            return Err(StartError::NoSuchCpu);
        }
        // Between two wheels nobody but other CPUs comes between: the way is short.
        let _off = request.cpu.map(|_| IrqOff::new());
        let mut locked = self.lock_home(node).ok_or(StartError::NoSuchCpu)?;
        let answer = locked.w.start(node, request);
        if broken::is(Hazard::BothLocks)
            && let Ok((_, Some(transit))) = answer
        {
            self.arrive(node, transit);
        }
        self.unlock(locked);
        let (started, transit) = answer?;
        if let Some(transit) = transit {
            self.arrive(node, transit);
        }
        Ok(started)
    }

    /// The second half of a way to another wheel.
    pub(crate) fn arrive(&self, node: &Ref, transit: Transit) {
        if let Some(mut locked) = self.lock(transit.cpu) {
            locked.w.arrive(node, transit);
            self.unlock(locked);
        }
    }

    /// The same for an executor, which gives up its reference.
    pub(crate) fn arrive_last(&self, node: Ref, transit: Transit) {
        let Some(mut locked) = self.lock(transit.cpu) else { return };
        locked.w.arrive(&node, transit);
        let dead = node.release();
        locked.w.bury(dead);
        self.unlock(locked);
    }

    #[inline]
    pub(crate) fn stop(&self, node: &Ref, exact: bool) -> Stopped {
        let Some(mut locked) = self.lock_home(node) else { return Stopped::NotArmed };
        let stopped = locked.w.stop(node, exact);
        self.unlock(locked);
        stopped
    }

    /// Begins a drain or a close for a task of CPU `cpu`, which then waits until [`Self::is_over`].
    pub(crate) fn drain_on(&self, node: &Ref, close: bool, cpu: Option<usize>) -> Option<Draining> {
        let mut locked = self.lock_home(node)?;
        let home = locked.cpu;
        let (stopped, flight) = locked.w.begin_drain(node, close);
        if let (Some(_), Some(cpu)) = (flight, cpu) {
            locked.w.wait_on(node, cpu);
        }
        self.unlock(locked);
        Some(Draining { stopped, flight, home })
    }

    /// Begins a drain or a close, with `waiter` to be told when the run in flight is over; given back if there is none.
    pub(crate) fn drain_with(&self, node: &Ref, close: bool, waiter: Box<Waiter>) -> Option<Box<Waiter>> {
        self.drain_answered(node, close, waiter).1
    }

    /// The same, with the stop's answer.
    pub(crate) fn drain_answered(
        &self,
        node: &Ref,
        close: bool,
        waiter: Box<Waiter>,
    ) -> (Stopped, Option<Box<Waiter>>) {
        let Some(mut locked) = self.lock_home(node) else { return (Stopped::NotArmed, Some(waiter)) };
        let (stopped, flight) = locked.w.begin_drain(node, close);
        if broken::is(Hazard::RegisteredLate) {
            self.unlock(locked);
            let Some(again) = self.lock_home(node) else { return (stopped, Some(waiter)) };
            locked = again;
        }
        let back = if flight.is_some() {
            locked.w.wait_with(node, waiter);
            None
        } else {
            Some(waiter)
        };
        self.unlock(locked);
        (stopped, back)
    }

    /// Has a completion run on this CPU that waits for nothing any more.
    pub(crate) fn complete(&self, waiter: Box<Waiter>) {
        if let Some(mut locked) = self.lock(self.port.current()) {
            locked.w.complete(Some(waiter));
            self.unlock(locked);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_over(&self, node: &Ref, flight: u32) -> bool {
        if broken::is(Hazard::FinishedEarly) {
            return !node.is_shared();
        }
        self.lock_home(node).is_none_or(|mut locked| locked.w.is_over(node, flight))
    }

    /// Closes a callout whose handle goes, and lets go of the handle's reference.
    pub(crate) fn let_go(&self, node: Ref) {
        let Some(mut locked) = self.lock_home(&node) else { return };
        let _ = locked.w.begin_drain(&node, true);
        let dead = node.release();
        locked.w.bury(dead);
        self.unlock(locked);
    }

    /// Lets go of a reference, of a callout that was closed.
    pub(crate) fn release(&self, node: Ref) {
        if let Some(mut locked) = self.lock_home(&node) {
            let dead = node.release();
            locked.w.bury(dead);
            self.unlock(locked);
        }
    }

    /// The same for a task of CPU `cpu`, which is kicked when it may have become so.
    pub(crate) fn is_over_for(&self, node: &Ref, flight: u32, cpu: usize) -> bool {
        self.lock_home(node).is_none_or(|mut locked| {
            let over = locked.w.is_over(node, flight);
            if !over {
                locked.w.wait_on(node, cpu);
            }
            over
        })
    }

    pub(crate) fn generation(&self, node: &Ref) -> Option<u32> {
        let mut locked = self.lock_home(node)?;
        Some(locked.w.shelf.open(node)?.generation())
    }

    /// What it is armed for, and whether its handler is in flight.
    pub(crate) fn status(&self, node: &Ref) -> (Option<u64>, bool) {
        let Some(mut locked) = self.lock_home(node) else { return (None, false) };
        let status = locked.w.shelf.open(node).map(|open| (open.armed_for(), open.tag().state().is_in_flight()));
        status.unwrap_or((None, false))
    }

    /// Sets the slack of starts that name none.
    pub(crate) fn set_slack(&self, node: &Ref, slack: Slack) {
        if let Some(mut locked) = self.lock_home(node)
            && let Some(mut open) = locked.w.shelf.open(node)
        {
            open.set_slack(slack);
        }
    }

    /// Has it never set the alarm. Only before it is started.
    pub(crate) fn set_deferrable(&self, node: &Ref) {
        if let Some(mut locked) = self.lock_home(node)
            && let Some(mut open) = locked.w.shelf.open(node)
            && open.tag().state() == crate::state::State::Idle
        {
            let tag = open.tag();
            open.set_tag(tag.with(Tag::DEFERRABLE));
        }
    }

    pub(crate) fn stats(&self, cpu: usize) -> Stats {
        self.lock(cpu).map_or_else(Stats::default, |locked| locked.w.stats())
    }

    pub(crate) fn next_event(&self, cpu: usize) -> Option<u64> {
        self.lock(cpu)?.w.next_event()
    }
}

/// A drain that has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draining {
    pub(crate) stopped: Stopped,
    /// The run to wait for.
    pub(crate) flight: Option<u32>,
    /// Where it runs.
    pub(crate) home: usize,
}
