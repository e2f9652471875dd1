//! How the command that is out stands: a look at the registers. Bottom half.

use undercroft_block::{Error, Op};
use undercroft_hal::Instant;

use super::engine::{Engine, Running};
use super::plan::Kind;
use super::{Channel, count, pieces};
use crate::defect::Defect;
use crate::wire::{ErrorBits, MasterStatus, Status};

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not over; its interrupt will come.
    Wait,
    /// Not over, and nothing will announce what it waits for.
    Poll,
    /// A block went over.
    Moved,
    /// Over.
    Over(Result<(), Error>),
    /// Over, with an error that another try may mend.
    Again(Error),
    /// Its time is over.
    Late,
    /// Drive and driver do not agree on where they are: only a reset helps. Whether another try may.
    OutOfStep(Error, bool),
    /// All registers read as ones: nobody is there.
    Vanished,
}

/// What an error register means for a command.
pub(super) fn decode(error: ErrorBits, op: Option<Op>) -> Verdict {
    let writes = matches!(op, Some(Op::Write | Op::Discard | Op::WriteZeroes));
    let meaning = [
        (ErrorBits::ICRC, Error::Transport),
        (ErrorBits::UNC_WP, if writes { Error::ReadOnly } else { Error::Medium }),
        (ErrorBits::MC, Error::NotReady),
        (ErrorBits::IDNF, Error::Medium),
        (ErrorBits::MCR, Error::NotReady),
        (ErrorBits::NM, Error::NotReady),
        (ErrorBits::ABRT, Error::Hardware),
    ];
    let found = meaning.iter().find(|(bit, _)| error.contains(*bit)).map_or(Error::Medium, |(_, error)| *error);
    if found == Error::Transport { Verdict::Again(found) } else { Verdict::Over(Err(found)) }
}

impl Engine {
    /// Looks at the command that is out, if there is a reason to: an interrupt, the time, a drive that will not interrupt, or somebody's doubt.
    pub(super) fn look(
        &mut self,
        channel: &Channel,
        running: &mut Running,
        now: Option<Instant>,
        doubted: bool,
    ) -> Verdict {
        let called = channel.signals.take();
        let late = now.is_some_and(|now| now >= running.due);
        // A drive does not interrupt for the first block that it takes. The engine's own command has nobody with a deadline.
        let silent = running.own || running.plan.kind == Kind::PioOut && running.moved == 0;
        let polled_late = silent && Instant::now() >= running.due;
        if !called && !late && !silent && !doubted {
            return Verdict::Wait;
        }
        let verdict = match running.plan.kind {
            Kind::Dma { .. } => self.look_dma(running, called),
            Kind::PioIn => self.look_in(running),
            Kind::PioOut => self.look_out(running),
            Kind::None => self.look_plain(running),
        };
        match verdict {
            Verdict::Wait if called && !late => {
                count(&channel.tally.early);
                if silent { Verdict::Poll } else { Verdict::Wait }
            }
            Verdict::Wait if late || polled_late => Verdict::Late,
            Verdict::Wait if silent => Verdict::Poll,
            Verdict::Wait | Verdict::Vanished => verdict,
            over => {
                if (late || doubted) && !called {
                    count(&channel.tally.lost);
                }
                over
            }
        }
    }

    fn op(&mut self, running: &Running) -> Option<Op> {
        self.front_mut(running.drive).map(|front| front.flight.request().op)
    }

    /// How a command ended that the drive says is over: by its status, which takes the interrupt back.
    fn ended(&mut self, running: &Running) -> Option<Verdict> {
        let status = self.registers.status();
        if status.contains(Status::DF) {
            return Some(Verdict::Over(Err(Error::Hardware)));
        }
        if status.contains(Status::ERR) {
            let op = self.op(running);
            return Some(decode(self.registers.error(), op));
        }
        None
    }

    /// What is wrong with a status already, or not yet right. `wants`: the drive may ask for data.
    fn still(&self, wants: bool) -> Option<Verdict> {
        let status = self.registers.alternate();
        if status == Status::all() {
            return Some(Verdict::Vanished);
        }
        if status.contains(Status::BSY) {
            return Some(Verdict::Wait);
        }
        let failed = status.intersects(Status::ERR | Status::DF);
        (status.contains(Status::DRQ) && !wants && !failed).then_some(Verdict::Wait)
    }

    /// The drive has asked for an interrupt, or has not yet (BM 3.1, the table of active and interrupt).
    fn look_dma(&mut self, running: &Running, called: bool) -> Verdict {
        let master = self.registers.master_status().unwrap_or(MasterStatus::all());
        let trusting = self.defects.has(Defect::TrustsInterrupts);
        if let Some(verdict) = self.still(false)
            && !trusting
        {
            return verdict;
        }
        let failed = self.registers.alternate().intersects(Status::ERR | Status::DF);
        // A drive at rest without having asked for an interrupt has not finished: its table may have been too short.
        let asked = called || master.contains(MasterStatus::INTERRUPT) || self.defects.has(Defect::TrustsIdle);
        if !asked && !failed {
            return Verdict::Wait;
        }
        self.registers.master_stop();
        if let Some(verdict) = self.ended(running) {
            return self.settled(verdict);
        }
        if self.defects.has(Defect::TrustsDrive) {
            return Verdict::Over(Ok(()));
        }
        if master.contains(MasterStatus::ERROR) {
            return Verdict::Over(Err(Error::Transport));
        }
        if master.contains(MasterStatus::ACTIVE) && !trusting {
            // The drive is done before the table is.
            return Verdict::Over(Err(Error::ShortTransfer));
        }
        Verdict::Over(Ok(()))
    }

    /// A drive that has ended a command must not want data any more: if it does, only a reset brings it back.
    fn settled(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Over(Err(error)) if self.registers.alternate().contains(Status::DRQ) => {
                Verdict::OutOfStep(error, false)
            }
            verdict => verdict,
        }
    }

    fn look_in(&mut self, running: &mut Running) -> Verdict {
        if let Some(verdict) = self.still(true) {
            return verdict;
        }
        if let Some(verdict) = self.ended(running) {
            return self.settled(verdict);
        }
        if !self.registers.alternate().contains(Status::DRQ) {
            return Verdict::Wait;
        }
        self.move_block(running, true);
        while self.defects.has(Defect::MovesAllBlocks) && running.moved < running.plan.bytes {
            if self.registers.alternate().contains(Status::DRQ) {
                self.move_block(running, true);
            }
        }
        if running.moved < running.plan.bytes {
            return Verdict::Moved;
        }
        // The last block has no interrupt after it (ATA 9.5).
        self.registers.pause();
        let status = self.registers.alternate();
        if status.contains(Status::DRQ) && !status.contains(Status::BSY) {
            return Verdict::OutOfStep(Error::Transport, true);
        }
        Verdict::Over(Ok(()))
    }

    fn look_out(&mut self, running: &mut Running) -> Verdict {
        if let Some(verdict) = self.still(true) {
            return verdict;
        }
        if let Some(verdict) = self.ended(running) {
            return self.settled(verdict);
        }
        let wants = self.registers.alternate().contains(Status::DRQ);
        if running.moved < running.plan.bytes {
            if !wants {
                return Verdict::Wait;
            }
            self.move_block(running, false);
            return Verdict::Moved;
        }
        if wants { Verdict::OutOfStep(Error::Transport, true) } else { Verdict::Over(Ok(())) }
    }

    fn look_plain(&mut self, running: &Running) -> Verdict {
        if let Some(verdict) = self.still(true) {
            return verdict;
        }
        if let Some(verdict) = self.ended(running) {
            return self.settled(verdict);
        }
        if self.registers.alternate().contains(Status::DRQ) {
            return Verdict::OutOfStep(Error::Transport, true);
        }
        Verdict::Over(Ok(()))
    }

    /// Moves one block of programmed I/O.
    fn move_block(&mut self, running: &mut Running, inward: bool) {
        let registers = self.registers;
        let len = running.plan.block.min(running.plan.bytes - running.moved);
        let Some(front) = self.front_mut(running.drive) else { return };
        let skip = front.done + running.moved;
        if inward {
            pieces::each_mut(front.flight.data_mut(), skip, len, |_, bytes| registers.read_data(bytes));
        } else {
            pieces::each(&front.flight.request().data, skip, len, |_, bytes| registers.write_data(bytes));
        }
        running.moved += len;
    }
}
