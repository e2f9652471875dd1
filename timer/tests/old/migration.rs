//! FreeBSD's callouts before and after the commit that repaired migration between CPUs, December 2010 (source 002).
//!
//! Each CPU has its callouts under its lock; a callout says which CPU that is. What runs without giving the lock up is one step here, so the
//! lock itself shows only in the design that keeps two of them. Operations are programs that are stepped in any order.

use super::memory::{Link, List, Memory, Nodes, Ptr};
use super::waits::{Lock, Waits, Who};
use crate::watch::{Step, Violation, Watch};

/// How a callout gets to another CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Design {
    /// As it was: the new CPU is written down, the old one's lock given up, and all begins anew under the new one's.
    Retry,
    /// Under both locks, taken one after the other.
    BothLocks,
    /// With a mark in place of the CPU meanwhile, on which everybody else spins.
    Marker,
    /// The repair: a running callout's request is parked and carried out by the executor afterwards, unless somebody drains.
    Parked,
    /// The same without asking whether somebody drains.
    ParkedUnasked,
}

pub type C = Ptr<Callout>;

#[derive(Debug, Default)]
pub struct Callout {
    link: Link<C>,
    pending: bool,
    deferred: bool,
    time: u64,
    /// `None`: being moved.
    cpu: Option<usize>,
}

#[derive(Default)]
struct Cc {
    lock: Lock,
    wheel: List<C>,
    curr: Option<C>,
    /// The current callout was started or stopped since it was taken. The system does not know; the judge does.
    void: bool,
    waiting: bool,
    migration: Option<(usize, u64)>,
    /// The lock of the queue of those who sleep until something ends on this CPU; and these.
    sleepq: Lock,
    sleepers: Vec<Who>,
}

/// A program under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// `callout_reset_on`; `holding`: the CPU whose lock it holds between two steps, `moving`: the callout bears the mark.
    Reset { c: C, cpu: usize, time: u64, holding: Option<usize>, moving: bool },
    /// `callout_drain`; `sleepq`: the queue whose lock it holds, `asleep`: on which it sleeps.
    Drain { c: C, sleepq: Option<usize>, asleep: Option<usize>, rounds: u32 },
}

impl Op {
    pub fn reset(c: C, cpu: usize, time: u64) -> Self {
        Self::Reset { c, cpu, time, holding: None, moving: false }
    }
    pub fn drain(c: C) -> Self {
        Self::Drain { c, sleepq: None, asleep: None, rounds: 0 }
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Again,
    /// Somebody has to go on first.
    Blocked,
}
use Outcome::{Again, Blocked, Done};

pub struct Kernel {
    pub memory: Memory<Callout>,
    pub waits: Waits,
    pub watch: Watch,
    pub now: u64,
    pub design: Design,
    /// Drain looks again once it has the sleep queue's lock.
    pub looks_again: bool,
    /// Drain asks whether a callout runs also when it has removed it from the wheel: not so before 2015.
    pub asks_both: bool,
    cpus: Vec<Cc>,
}

impl Nodes<C> for Memory<Callout> {
    fn link(&mut self, c: C) -> Step<&mut Link<C>> {
        Ok(&mut self.at(c)?.link)
    }
}

impl Kernel {
    pub fn new(cpus: usize, design: Design) -> Self {
        let cpus = (0..cpus).map(|_| Cc::default()).collect();
        let (memory, waits, watch) = (Memory::new(), Waits::default(), Watch::new());
        Self { memory, waits, watch, now: 0, design, looks_again: true, asks_both: false, cpus }
    }

    pub fn callout(&mut self, cpu: usize) -> C {
        self.memory.alloc(Callout { cpu: Some(cpu), ..Callout::default() })
    }

    /// One step of a program.
    pub fn step(&mut self, who: Who, op: &mut Op) -> Step<Outcome> {
        match op {
            Op::Reset { c, cpu, time, holding, moving } => self.reset(who, *c, *cpu, *time, holding, moving),
            Op::Drain { c, sleepq, asleep, rounds } => self.drain(who, *c, sleepq, asleep, rounds),
        }
    }

    /// All steps of a program that nobody disturbs.
    pub fn run(&mut self, who: Who, mut op: Op) -> Step<Outcome> {
        for _ in 0..10 {
            match self.step(who, &mut op)? {
                Again => {}
                end => return Ok(end),
            }
        }
        Ok(Blocked)
    }

    fn reset(
        &mut self,
        who: Who,
        c: C,
        cpu: usize,
        time: u64,
        holding: &mut Option<usize>,
        moving: &mut bool,
    ) -> Step<Outcome> {
        if *moving {
            *moving = false;
            self.memory.at(c)?.cpu = Some(cpu);
            return self.insert(c, cpu, time);
        }
        if let Some(old) = *holding {
            if !self.cpus[cpu].lock.take(who, &mut self.waits)? {
                return Ok(Blocked);
            }
            self.memory.at(c)?.cpu = Some(cpu);
            self.cpus[old].lock.release();
            self.cpus[cpu].lock.release();
            *holding = None;
            return self.insert(c, cpu, time);
        }
        let Some(home) = self.memory.at(c)?.cpu else { return Ok(Blocked) };
        let running = self.cpus[home].curr == Some(c);
        if running && self.cpus[home].waiting {
            return Ok(Done);
        }
        self.unlink(c)?;
        if home == cpu {
            return self.insert(c, cpu, time);
        }
        match self.design {
            Design::Retry => self.memory.at(c)?.cpu = Some(cpu),
            Design::BothLocks => {
                self.cpus[home].lock.take(who, &mut self.waits)?;
                *holding = Some(home);
            }
            Design::Parked | Design::ParkedUnasked if running => {
                self.cpus[home].migration = Some((cpu, time));
                self.memory.at(c)?.deferred = true;
                self.watch.armed(c.id(), time)?;
                return Ok(Done);
            }
            Design::Marker | Design::Parked | Design::ParkedUnasked => {
                self.memory.at(c)?.cpu = None;
                *moving = true;
            }
        }
        Ok(Again)
    }

    fn unlink(&mut self, c: C) -> Step<bool> {
        let in_flight = self.cpus.iter_mut().filter(|cc| cc.curr == Some(c));
        in_flight.for_each(|cc| cc.void = true);
        let callout = self.memory.at(c)?;
        let (home, pending) = (callout.cpu, std::mem::take(&mut callout.pending));
        if let (true, Some(home)) = (pending, home) {
            self.cpus[home].wheel.remove(&mut self.memory, c)?;
        }
        Ok(pending)
    }

    fn insert(&mut self, c: C, cpu: usize, time: u64) -> Step<Outcome> {
        self.watch.armed(c.id(), time)?;
        let callout = self.memory.at(c)?;
        (callout.pending, callout.time) = (true, time);
        self.cpus[cpu].wheel.insert(&mut self.memory, c)?;
        Ok(Done)
    }

    /// `callout_stop`: whether anything was stopped, which is all that it tells. `None`: blocked.
    pub fn stop(&mut self, c: C) -> Step<Option<bool>> {
        if self.memory.at(c)?.cpu.is_none() {
            return Ok(None);
        }
        let parked = std::mem::take(&mut self.memory.at(c)?.deferred);
        Ok(Some(self.unlink(c)? || parked))
    }

    fn drain(
        &mut self,
        who: Who,
        c: C,
        sleepq: &mut Option<usize>,
        asleep: &mut Option<usize>,
        rounds: &mut u32,
    ) -> Step<Outcome> {
        if let Some(cpu) = *asleep {
            if self.cpus[cpu].sleepers.contains(&who) {
                return Ok(Blocked);
            }
            (*asleep, *sleepq) = (None, None);
            if self.cpus[cpu].curr != Some(c) {
                // What it slept for is over: it asks nothing else.
                return self.drained(c);
            }
        }
        let Some(home) = self.memory.at(c)?.cpu else { return Ok(Blocked) };
        let removed = self.unlink(c)?;
        if removed && !self.asks_both || self.cpus[home].curr != Some(c) {
            if let Some(cpu) = sleepq.take() {
                self.cpus[cpu].sleepq.release();
            }
            return self.drained(c);
        }
        let Some(locked) = *sleepq else {
            // The CPU's lock is given up for the sleep queue's; then all is looked at again.
            if !self.cpus[home].sleepq.take(who, &mut self.waits)? {
                return Ok(Blocked);
            }
            *sleepq = Some(home);
            if !self.looks_again {
                // Or it is not, and the thread goes to sleep in its next step.
                self.cpus[home].sleepers.push(who);
                self.cpus[home].sleepq.release();
                (*asleep, *sleepq) = (Some(home), None);
            }
            return Ok(Again);
        };
        *rounds += 1;
        if *rounds > 3 {
            // It began to wait for one run, and would wait for a fourth.
            return self.watch.report(Violation::WaitsForAnother);
        }
        self.cpus[home].waiting = true;
        self.cpus[home].sleepers.push(who);
        *asleep = Some(home);
        if locked != home {
            // Sleeping gives up the queue's lock: this queue's, which it does not hold.
            return self.watch.report(Violation::LockLeak);
        }
        self.cpus[home].sleepq.release();
        Ok(Again)
    }

    fn drained(&mut self, c: C) -> Step<Outcome> {
        self.watch.over(c.id())?;
        if self.memory.at(c)?.pending {
            return self.watch.report(Violation::ArmedWhenOver);
        }
        Ok(Done)
    }

    /// The executor's step 1.
    pub fn take_due(&mut self, cpu: usize) -> Step<Option<C>> {
        if self.cpus[cpu].curr.is_some() {
            return Ok(None);
        }
        for c in self.cpus[cpu].wheel.walk(&mut self.memory)? {
            if self.memory.at(c)?.time <= self.now {
                self.cpus[cpu].wheel.remove(&mut self.memory, c)?;
                self.memory.at(c)?.pending = false;
                (self.cpus[cpu].curr, self.cpus[cpu].void) = (Some(c), false);
                return Ok(Some(c));
            }
        }
        Ok(None)
    }

    /// The handler's first line.
    pub fn enter(&mut self, cpu: usize, c: C) -> Step {
        self.memory.at(c)?;
        if self.cpus[cpu].void { self.watch.begins_superseded(c.id()) } else { self.watch.begins(c.id(), self.now) }
    }

    /// The handler's last line.
    pub fn leave(&mut self, c: C) -> Step {
        self.memory.at(c)?;
        self.watch.ends(c.id())
    }

    /// The executor's last step.
    pub fn finish(&mut self, cpu: usize) -> Step {
        let cc = &mut self.cpus[cpu];
        let curr = cc.curr.take();
        let waiting = std::mem::take(&mut cc.waiting);
        let migration = cc.migration.take();
        if let (Some((to, time)), Some(c)) = (migration, curr)
            && (!waiting || self.design == Design::ParkedUnasked)
            && std::mem::take(&mut self.memory.at(c)?.deferred)
        {
            self.memory.at(c)?.cpu = Some(to);
            self.insert(c, to, time)?;
        }
        if waiting {
            if self.cpus[cpu].sleepq.holder().is_some() {
                return self.watch.report(Violation::LockLeak);
            }
            self.cpus[cpu].sleepers.clear();
        }
        Ok(())
    }

    pub fn linked(&mut self, cpu: usize) -> Step<usize> {
        self.cpus[cpu].wheel.walk(&mut self.memory).map(|all| all.len())
    }

    pub fn free(&mut self, c: C) -> Step {
        self.memory.free(c).map(drop)
    }
}
