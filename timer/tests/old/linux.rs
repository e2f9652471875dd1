//! Linux's timers in May 2000 (source 004): 2.2, the running mark of 2.3, and the patch that kept the running timers in an array.
//!
//! A timer lies in its client's memory, and its handler may do anything with it: add it, delete it, free it. All lists are under one lock,
//! which no step keeps. OpenBSD's delete, which waited unless it had removed something, is a variant.

use super::memory::{Link, List, Memory, Nodes, Ptr};
use super::waits::{Lock, Waits, Who};
use crate::watch::{Step, Violation, Watch};

/// How a delete learns of a handler that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delete {
    /// 2.2: not at all.
    Plain,
    /// 2.3.99, `del_timer_sync`: a mark in the timer, set by the executor and taken away by the handler (`timer_exit`).
    Mark,
    /// The patch: an array with a place for each CPU, outside of the timers. It made every delete wait.
    Array,
    /// OpenBSD's: as `Array`, unless the delete removed something.
    ArrayUnlessRemoved,
}

pub type T = Ptr<Timer>;

#[derive(Debug, Default)]
pub struct Timer {
    link: Link<T>,
    linked: bool,
    expires: u64,
    running: bool,
}

/// A delete under way.
#[derive(Debug, Clone, Copy)]
pub struct Deleting {
    timer: T,
    detached: bool,
}

pub struct Kernel {
    pub memory: Memory<Timer>,
    pub waits: Waits,
    pub watch: Watch,
    pub jiffies: u64,
    pub delete: Delete,
    /// A lock of the driver's.
    pub lock: Lock,
    list: List<T>,
    running: [Option<T>; 3],
    /// What an executor that keeps the next of its list while it calls a handler has kept.
    next: Option<T>,
}

impl Nodes<T> for Memory<Timer> {
    fn link(&mut self, timer: T) -> Step<&mut Link<T>> {
        Ok(&mut self.at(timer)?.link)
    }
}

impl Kernel {
    pub fn new(delete: Delete) -> Self {
        Self {
            memory: Memory::new(),
            waits: Waits::default(),
            watch: Watch::new(),
            jiffies: 0,
            delete,
            lock: Lock::default(),
            list: List::default(),
            running: [None; 3],
            next: None,
        }
    }

    /// A timer in its client's memory.
    pub fn init(&mut self) -> T {
        self.memory.alloc(Timer::default())
    }

    /// `add_timer`: what is due already goes where the executor looks first.
    pub fn add(&mut self, timer: T, expires: u64) -> Step {
        let fields = self.memory.at(timer)?;
        (fields.linked, fields.expires) = (true, expires);
        self.list.insert(&mut self.memory, timer)?;
        self.watch.armed(timer.id(), expires)
    }

    fn detach(&mut self, timer: T) -> Step<bool> {
        let linked = std::mem::take(&mut self.memory.at(timer)?.linked);
        if linked {
            self.list.remove(&mut self.memory, timer)?;
        }
        Ok(linked)
    }

    /// Begins a delete.
    pub fn deleting(&self, timer: T) -> Deleting {
        Deleting { timer, detached: false }
    }

    /// One step of a delete by `who`: `true` when it returns to its caller, who then takes the timer for gone.
    pub fn step(&mut self, who: Who, deleting: &mut Deleting) -> Step<bool> {
        let timer = deleting.timer;
        if !deleting.detached {
            let removed = self.detach(timer)?;
            deleting.detached = true;
            if self.delete == Delete::Plain || self.delete == Delete::ArrayUnlessRemoved && removed {
                return self.deleted(timer);
            }
            return Ok(false);
        }
        let by = match self.delete {
            // In the timer, whatever its memory is by now.
            Delete::Mark if self.memory.at(timer)?.running => Some(executor(0)),
            Delete::Mark => None,
            _ => self.running.iter().position(|at| at.is_some_and(|at| at.same_address(timer))).map(executor),
        };
        match by {
            Some(by) => self.waits.wait(who, by).map(|()| false),
            None => {
                self.waits.go_on(who);
                self.deleted(timer)
            }
        }
    }

    /// The caller goes on as if the timer were gone for good.
    fn deleted(&mut self, timer: T) -> Step<bool> {
        self.watch.over(timer.id())?;
        if self.memory.at(timer)?.linked {
            return self.watch.report(Violation::ArmedWhenOver);
        }
        Ok(true)
    }

    /// All steps of a delete that nobody disturbs.
    pub fn del(&mut self, who: Who, timer: T) -> Step<bool> {
        let mut deleting = self.deleting(timer);
        Ok(self.step(who, &mut deleting)? || self.step(who, &mut deleting)?)
    }

    /// The executor's first step: the first of the list that is due.
    pub fn take(&mut self, cpu: usize) -> Step<Option<T>> {
        for timer in self.list.walk(&mut self.memory)? {
            if self.memory.at(timer)?.expires <= self.jiffies {
                self.detach(timer)?;
                self.memory.at(timer)?.running = true;
                self.running[cpu] = Some(timer);
                return Ok(Some(timer));
            }
        }
        Ok(None)
    }

    /// The same for an executor that goes along its list, with a finger on the next.
    pub fn take_with_finger(&mut self, cpu: usize) -> Step<Option<T>> {
        let timer = match self.next.take() {
            Some(next) => next,
            None => match self.list.walk(&mut self.memory)?.first() {
                Some(&first) => first,
                None => return Ok(None),
            },
        };
        // Reads it, whether it is still there or not.
        self.memory.at(timer)?;
        let walked = self.list.walk(&mut self.memory)?;
        let at = walked.iter().position(|&at| at == timer);
        self.next = at.and_then(|at| walked.get(at + 1).copied());
        self.detach(timer)?;
        self.running[cpu] = Some(timer);
        Ok(Some(timer))
    }

    /// The handler's first line.
    pub fn enter(&mut self, timer: T) -> Step {
        self.watch.begins(timer.id(), self.jiffies)
    }

    /// `timer_exit`, which the handler calls as its last act but one.
    pub fn timer_exit(&mut self, timer: T) -> Step {
        self.memory.at(timer)?.running = false;
        Ok(())
    }

    /// The handler's last line.
    pub fn leave(&mut self, timer: T) -> Step {
        self.watch.ends(timer.id())
    }

    /// The executor's last step. It does not touch the timer, which may not be there any more.
    pub fn finish(&mut self, cpu: usize) {
        self.running[cpu] = None;
    }

    pub fn list_is_sound(&mut self) -> Step {
        self.list.walk(&mut self.memory).map(drop)
    }

    pub fn free(&mut self, timer: T) -> Step {
        self.memory.free(timer).map(drop)
    }
}

/// Who runs the timers of a CPU.
pub fn executor(cpu: usize) -> Who {
    ["executor 0", "executor 1", "executor 2"][cpu]
}
