//! FreeBSD's callouts as they were at the end of 2014, when a rewrite was proposed (source 000), on several CPUs.
//!
//! A callout is a field of its client's structure. Flags in it say `pending` and `active`; its CPU's record says which callout runs (`curr`),
//! whether it was cancelled while the executor waited for its lock (`cancel`), and whether somebody waits for its end. A callout that is moved
//! while it runs is parked in that record, and moved by the executor afterwards.

use super::memory::{Link, List, Memory, Nodes, Ptr};
use super::waits::{Lock, Who};
use crate::watch::{Step, Watch};

/// Which lock, if any, the executor takes before it calls the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// The client's: `callout_init_mtx`.
    ByExecutor,
    /// None: the handler takes the client's lock itself, then looks at the flags.
    ByHandler,
}

/// A client's structure: a connection with three timers.
#[derive(Debug, Default)]
pub struct Pcb {
    pub lock: Lock,
    pub refcount: i32,
    callouts: [Fields; 3],
}

#[derive(Debug, Default)]
struct Fields {
    link: Link<Callout>,
    pending: bool,
    active: bool,
    deferred_migration: bool,
    time: u64,
    cpu: usize,
}

/// The address of a callout: a field of a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Callout(pub Ptr<Pcb>, pub usize);

impl Callout {
    pub fn id(self) -> usize {
        self.0.id() * 4 + self.1
    }
}

/// Called at the end of a callout that is drained, with its connection.
pub type Completion = fn(&mut Kernel, Who, Ptr<Pcb>) -> Step;

/// A CPU's record, under its lock.
#[derive(Default)]
struct Cc {
    wheel: List<Callout>,
    curr: Option<Callout>,
    cancel: bool,
    waiting: bool,
    /// Where and for when the current callout is to be armed once its handler is done.
    migration: Option<(usize, u64)>,
    /// One place, as in the system that got this function first.
    drain: Option<(Completion, Ptr<Pcb>)>,
}

/// What the executor found once it had the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// The handler is to be called.
    Mine,
    /// It was cancelled meanwhile.
    Cancelled,
    /// Somebody holds the lock.
    NotYet,
}

pub struct Kernel {
    pub memory: Memory<Pcb>,
    pub waits: super::waits::Waits,
    pub watch: Watch,
    pub now: u64,
    pub locking: Locking,
    cpus: Vec<Cc>,
}

impl Nodes<Callout> for Memory<Pcb> {
    fn link(&mut self, c: Callout) -> Step<&mut Link<Callout>> {
        Ok(&mut self.at(c.0)?.callouts[c.1].link)
    }
}

impl Kernel {
    pub fn new(cpus: usize, locking: Locking) -> Self {
        let cpus = (0..cpus).map(|_| Cc::default()).collect();
        let (memory, waits, watch) = (Memory::new(), super::waits::Waits::default(), Watch::new());
        Self { memory, waits, watch, now: 0, locking, cpus }
    }

    fn at(&mut self, c: Callout) -> Step<&mut Fields> {
        Ok(&mut self.memory.at(c.0)?.callouts[c.1])
    }

    /// Takes the lock of a connection.
    pub fn lock(&mut self, who: Who, pcb: Ptr<Pcb>) -> Step<bool> {
        self.memory.at(pcb)?.lock.take(who, &mut self.waits)
    }

    pub fn unlock(&mut self, pcb: Ptr<Pcb>) -> Step {
        self.memory.at(pcb)?.lock.release();
        Ok(())
    }

    /// `callout_pending`.
    pub fn pending(&mut self, c: Callout) -> Step<bool> {
        Ok(self.at(c)?.pending)
    }

    /// `callout_active`.
    pub fn active(&mut self, c: Callout) -> Step<bool> {
        Ok(self.at(c)?.active)
    }

    fn add(&mut self, c: Callout, cpu: usize, time: u64) -> Step {
        let fields = self.at(c)?;
        (fields.pending, fields.active, fields.time, fields.cpu) = (true, true, time, cpu);
        self.cpus[cpu].wheel.insert(&mut self.memory, c)
    }

    fn unlink(&mut self, c: Callout) -> Step {
        let fields = self.at(c)?;
        (fields.pending, fields.active) = (false, false);
        let cpu = fields.cpu;
        self.cpus[cpu].wheel.remove(&mut self.memory, c)
    }

    /// `callout_reset_on`: whether something was cancelled.
    pub fn reset_on(&mut self, c: Callout, cpu: usize, time: u64) -> Step<bool> {
        let home = self.at(c)?.cpu;
        let mut cancelled = false;
        let running = self.cpus[home].curr == Some(c);
        if running {
            if self.locking == Locking::ByExecutor && !self.cpus[home].cancel {
                self.cpus[home].cancel = true;
                cancelled = true;
            }
            if self.cpus[home].waiting {
                // Somebody drains it: not armed, and nobody is told.
                return Ok(cancelled);
            }
        }
        self.watch.armed(c.id(), time)?;
        if self.at(c)?.pending {
            self.unlink(c)?;
            cancelled = true;
        }
        if home != cpu && running {
            self.cpus[home].migration = Some((cpu, time));
            self.at(c)?.deferred_migration = true;
            return Ok(cancelled);
        }
        self.add(c, cpu, time)?;
        Ok(cancelled)
    }

    /// `callout_stop`: whether something was cancelled, which is also what a client learns of whether the handler runs.
    pub fn stop(&mut self, c: Callout) -> Step<bool> {
        let home = self.at(c)?.cpu;
        if self.at(c)?.pending {
            self.unlink(c)?;
            return Ok(true);
        }
        self.at(c)?.active = false;
        let cc = &mut self.cpus[home];
        if cc.curr != Some(c) {
            return Ok(false);
        }
        if self.locking == Locking::ByExecutor && !cc.cancel {
            cc.cancel = true;
            return Ok(true);
        }
        Ok(std::mem::take(&mut self.at(c)?.deferred_migration))
    }

    /// `callout_drain`: `true` when it is over, `false` when `who` sleeps until [`Kernel::finish`].
    pub fn drain(&mut self, who: Who, c: Callout) -> Step<bool> {
        let home = self.at(c)?.cpu;
        if self.at(c)?.pending {
            self.unlink(c)?;
        } else if self.cpus[home].curr == Some(c) {
            self.cpus[home].waiting = true;
            self.waits.wait(who, executor(home))?;
            return Ok(false);
        }
        self.watch.over(c.id())?;
        Ok(true)
    }

    /// `callout_async_drain`: whether `completion` will be called.
    pub fn drain_async(&mut self, c: Callout, completion: Completion) -> Step<bool> {
        let home = self.at(c)?.cpu;
        if self.at(c)?.pending {
            self.unlink(c)?;
        } else if self.cpus[home].curr == Some(c) {
            self.cpus[home].drain = Some((completion, c.0));
            return Ok(true);
        }
        Ok(false)
    }

    /// Step 1 of the executor: a callout that is due is taken off the wheel, and the CPU's lock given up.
    pub fn take_due(&mut self, cpu: usize) -> Step<Option<Callout>> {
        for c in self.cpus[cpu].wheel.walk(&mut self.memory)? {
            if self.at(c)?.time <= self.now {
                self.cpus[cpu].wheel.remove(&mut self.memory, c)?;
                self.at(c)?.pending = false;
                let cc = &mut self.cpus[cpu];
                (cc.curr, cc.cancel) = (Some(c), false);
                return Ok(Some(c));
            }
        }
        Ok(None)
    }

    /// Step 2: the lock, taken by the executor or by the handler's first lines. The address of the lock was read long ago.
    pub fn enter(&mut self, cpu: usize, c: Callout) -> Step<Locked> {
        if !self.lock(executor(cpu), c.0)? {
            return Ok(Locked::NotYet);
        }
        if self.locking == Locking::ByExecutor && std::mem::replace(&mut self.cpus[cpu].cancel, true) {
            self.unlock(c.0)?;
            return Ok(Locked::Cancelled);
        }
        if self.locking == Locking::ByHandler {
            let fields = self.at(c)?;
            if fields.pending || !fields.active {
                self.unlock(c.0)?;
                return Ok(Locked::Cancelled);
            }
            fields.active = false;
        }
        self.watch.begins(c.id(), self.now)?;
        Ok(Locked::Mine)
    }

    /// Step 3: the handler works on its connection and returns.
    pub fn leave(&mut self, c: Callout) -> Step {
        self.unlock(c.0)?;
        self.watch.ends(c.id())
    }

    /// Step 4: the record is cleared, who waits is woken, what is parked is moved.
    pub fn finish(&mut self, cpu: usize) -> Step {
        let cc = &mut self.cpus[cpu];
        let (curr, waiting, drain) = (cc.curr.take(), std::mem::take(&mut cc.waiting), cc.drain.take());
        let migration = cc.migration.take();
        if let (Some((to, time)), Some(c), false) = (migration, curr, waiting)
            && std::mem::take(&mut self.at(c)?.deferred_migration)
        {
            self.add(c, to, time)?;
        }
        if let Some((completion, pcb)) = drain {
            completion(self, executor(cpu), pcb)?;
        }
        Ok(())
    }

    /// Whether all wheels can be walked.
    pub fn wheels_are_sound(&mut self) -> Step {
        self.cpus.iter().try_for_each(|cc| cc.wheel.walk(&mut self.memory).map(drop))
    }

    /// Frees a connection, callouts and all. Nothing asks what they are doing.
    pub fn free(&mut self, pcb: Ptr<Pcb>) -> Step {
        self.memory.free(pcb).map(drop)
    }
}

/// The thread that runs a CPU's callouts.
pub fn executor(cpu: usize) -> Who {
    ["executor 0", "executor 1", "executor 2"][cpu]
}
