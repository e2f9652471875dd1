//! NetBSD's callouts in July 2003 (source 001), on one CPU: what keeps code apart is the priority level that it runs at.
//!
//! `softclock` takes a callout off its list at the clock's level, then lowers the level and calls the handler, which raises it again to its
//! own. Whatever waited for the lower level runs in between. The two cures of the discussion can be switched on.

use super::memory::{Link, List, Memory, Nodes, Ptr};
use crate::watch::{Step, Watch};

/// Priority levels, from low to high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ipl {
    SoftClock,
    SoftNet,
    Clock,
}

/// What was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// The system as it was: stop says nothing.
    None,
    /// 1: a callout has the level at which it is to be called, and the level is lowered to that.
    Level(Ipl),
    /// 2: stop tells whether the handler is being called, and handlers say when they are safe.
    Ack,
}

/// What a handler does beside its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// Acknowledges once it has raised the level, under cure 2.
    Right,
    /// Acknowledges, lowers its level for a while, and goes on.
    LowersLater,
    /// Never acknowledges.
    Forgets,
}

/// A connection with its retransmission timer.
#[derive(Debug, Default)]
pub struct Tcb {
    link: Link<Ptr<Tcb>>,
    pending: bool,
    invoking: bool,
    time: u64,
    /// The last user has gone while the handler was being called: under cure 2 the handler frees.
    closing: bool,
    retransmissions: u32,
}

/// What an interrupt does.
pub type Interrupt = fn(&mut Kernel, Ptr<Tcb>) -> Step;

pub struct Kernel {
    pub memory: Memory<Tcb>,
    pub watch: Watch,
    pub now: u64,
    pub cure: Cure,
    pub handler: Handler,
    /// The next interrupt of the network, and before how many more points at which it could strike it does.
    pub interrupt: Option<(usize, Interrupt, Ptr<Tcb>)>,
    ipl: Ipl,
    todo: List<Ptr<Tcb>>,
}

impl Nodes<Ptr<Tcb>> for Memory<Tcb> {
    fn link(&mut self, node: Ptr<Tcb>) -> Step<&mut Link<Ptr<Tcb>>> {
        Ok(&mut self.at(node)?.link)
    }
}

impl Kernel {
    pub fn new(cure: Cure) -> Self {
        Self {
            memory: Memory::new(),
            watch: Watch::new(),
            now: 0,
            cure,
            handler: Handler::Right,
            interrupt: None,
            ipl: Ipl::SoftClock,
            todo: List::default(),
        }
    }

    /// Raises the level, returning the one before.
    fn raise(&mut self, to: Ipl) -> Ipl {
        let before = self.ipl;
        self.ipl = before.max(to);
        before
    }

    /// Lowers the level: `splx`, `spllower`. What was kept off by the old one and is not by the new strikes now.
    fn lower(&mut self, to: Ipl) -> Step {
        self.ipl = self.ipl.min(to);
        if self.ipl >= Ipl::SoftNet {
            return Ok(());
        }
        match self.interrupt.take() {
            Some((0, interrupt, tcb)) => {
                let before = self.raise(Ipl::SoftNet);
                interrupt(self, tcb)?;
                self.ipl = before;
            }
            Some((more, interrupt, tcb)) => self.interrupt = Some((more - 1, interrupt, tcb)),
            None => {}
        }
        Ok(())
    }

    /// `callout_reset`: takes back that the handler is being called, if it is.
    pub fn reset(&mut self, tcb: Ptr<Tcb>, time: u64) -> Step {
        let level = self.raise(Ipl::Clock);
        self.watch.armed(tcb.id(), time)?;
        let fields = self.memory.at(tcb)?;
        (fields.time, fields.invoking) = (time, false);
        if !std::mem::replace(&mut fields.pending, true) {
            self.todo.insert(&mut self.memory, tcb)?;
        }
        self.lower(level)
    }

    /// `callout_stop`: whether the handler is being called, which only cure 2 has.
    pub fn stop(&mut self, tcb: Ptr<Tcb>) -> Step<bool> {
        let level = self.raise(Ipl::Clock);
        if std::mem::take(&mut self.memory.at(tcb)?.pending) {
            self.todo.remove(&mut self.memory, tcb)?;
        }
        let invoking = self.memory.at(tcb)?.invoking && self.cure == Cure::Ack;
        self.lower(level)?;
        Ok(invoking)
    }

    /// The end of a connection, without an ear for what stop says.
    pub fn close_unasked(&mut self, tcb: Ptr<Tcb>) -> Step {
        self.stop(tcb)?;
        self.memory.free(tcb).map(drop)
    }

    /// The end of a connection as cure 2 wants it.
    pub fn close(&mut self, tcb: Ptr<Tcb>) -> Step {
        if self.stop(tcb)? {
            self.memory.at(tcb)?.closing = true;
            return Ok(());
        }
        self.memory.free(tcb).map(drop)
    }

    /// The executor, once.
    pub fn softclock(&mut self) -> Step {
        let level = self.raise(Ipl::Clock);
        for tcb in self.todo.walk(&mut self.memory)? {
            // An interrupt may have taken it away since.
            if !self.memory.at(tcb).is_ok_and(|fields| fields.pending) || self.memory.at(tcb)?.time > self.now {
                continue;
            }
            self.todo.remove(&mut self.memory, tcb)?;
            let fields = self.memory.at(tcb)?;
            (fields.pending, fields.invoking) = (false, true);
            // The window: from here until the handler has raised the level.
            let at = match self.cure {
                Cure::Level(at) => at,
                Cure::None | Cure::Ack => level,
            };
            self.lower(at)?;
            self.retransmit(tcb)?;
            self.raise(Ipl::Clock);
        }
        self.lower(level)
    }

    /// The handler: it must not run together with the network's interrupt.
    fn retransmit(&mut self, tcb: Ptr<Tcb>) -> Step {
        let level = self.raise(Ipl::SoftNet);
        let fields = self.memory.at(tcb)?;
        self.watch.begins(tcb.id(), self.now)?;
        if self.handler != Handler::Forgets {
            fields.invoking = false;
        }
        if fields.closing && self.handler != Handler::Forgets {
            self.watch.ends(tcb.id())?;
            self.memory.free(tcb)?;
            return self.lower(level);
        }
        if self.handler == Handler::LowersLater {
            self.lower(level)?;
            self.raise(Ipl::SoftNet);
        }
        self.memory.at(tcb)?.retransmissions += 1;
        self.watch.ends(tcb.id())?;
        if self.handler == Handler::Right {
            let next = self.now + 100;
            self.reset(tcb, next)?;
        }
        self.lower(level)
    }

    /// `callout_init` by whoever thinks that the block is its own.
    pub fn init(&mut self, tcb: Ptr<Tcb>) -> Step {
        *self.memory.at(tcb)? = Tcb::default();
        Ok(())
    }

    /// Whether the list can be walked.
    pub fn wheel_is_sound(&mut self) -> Step {
        self.todo.walk(&mut self.memory).map(drop)
    }
}
