//! The bottom half: completions, messages, and what is left after a reset.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use undercroft_block::scsi::{Address, Command, HostEvent, Lun, Outcome, Response};
use undercroft_block::{Error, Tag};
use undercroft_hal::BottomHalf;
use undercroft_hal::sync::IrqSpinGuard;
use undercroft_hal::work::Turn;

use super::{Adapter, Life, State};
use crate::defect::{Defect, Defects};
use crate::outcome::{self, Answer, reads_or_writes};
use crate::tables::SENSE;
use crate::wire::rings::{Completion, Message, MessageKind};

/// Commands finished before others get a turn.
const BUDGET: usize = 64;

/// The unit that a message names, if it names one.
fn unit(message: &Message, defects: Defects) -> Option<Address> {
    let target = u8::try_from(message.target.get()).ok()?;
    let mut lun = message.lun;
    if defects.has(Defect::OneByteLun) {
        lun[0] = 0;
    }
    let (lun, _) = Lun::from_bytes(lun)?;
    (message.bus.get() == 0).then_some(Address { target: u16::from(target), lun })
}

impl Adapter {
    /// Finishes what the device has returned.
    pub(super) fn service(&self, cx: &BottomHalf) -> Turn {
        let mut budget = BUDGET;
        loop {
            let mut state = self.state.lock();
            match state.life {
                Life::Running => state.serving = true,
                Life::Quiet => {}
                // Whoever resets it schedules this when that is done.
                Life::Resetting | Life::Stopping => return Turn::Done,
                Life::Dead(error) => {
                    drop(state);
                    return self.end(cx, error);
                }
            }
            if budget == 0 && !self.defects.has(Defect::NoBudget) {
                self.end_batch(cx, state);
                return Turn::Again;
            }
            budget = budget.saturating_sub(1);
            let in_flight = state.in_flight.len() as u32;
            match state.rings.completion(in_flight) {
                #[cfg(test)]
                Ok(Some(first)) if self.defects.has(Defect::DrainsBackwards) => {
                    let mut list = arrayvec::ArrayVec::<_, 256>::from_iter([first]);
                    while let Ok(Some(next)) = state.rings.completion(in_flight - list.len() as u32) {
                        list.push(next);
                    }
                    drop(state);
                    while let Some(last) = list.pop() {
                        let state = self.state.lock();
                        if let Some(tag) = state.known(last.context.get(), self.defects) {
                            self.completed(cx, state, tag, &last);
                        }
                    }
                }
                Ok(Some(completion)) => match state.known(completion.context.get(), self.defects) {
                    Some(tag) => self.completed(cx, state, tag, &completion),
                    None => {
                        drop(state);
                        log::error!("pvscsi: a completion of a command that is not in flight");
                        self.stop(Error::Broken);
                    }
                },
                Ok(None) if state.life == Life::Quiet => {
                    let left = state.in_flight.remove_any();
                    drop(state);
                    match left {
                        Some(command) if self.defects.has(Defect::ForgetsAtReset) => core::mem::forget(command),
                        Some(command) => command.finish(cx, &Outcome::failed(Response::Reset)),
                        None => self.resume(cx),
                    }
                }
                Ok(None) => match state.rings.message() {
                    Ok(Some(message)) => {
                        drop(state);
                        self.message(cx, &message);
                    }
                    Ok(None) if budget + 1 == BUDGET && self.defects.has(Defect::ExpectsCompletion) => {
                        drop(state);
                        self.stop(Error::Broken);
                    }
                    Ok(None) => {
                        self.end_batch(cx, state);
                        return Turn::Done;
                    }
                    Err(_) => {
                        drop(state);
                        log::error!("pvscsi: more messages than there is room for");
                        self.stop(Error::Broken);
                    }
                },
                Err(_) => {
                    drop(state);
                    log::error!("pvscsi: more completions than commands in flight");
                    self.stop(Error::Broken);
                }
            }
        }
    }

    /// A batch ends: what its completions sent is published, and whoever found no room is told that there is some.
    fn end_batch(&self, cx: &BottomHalf, mut state: IrqSpinGuard<'_, State>) {
        if state.life != Life::Running {
            return;
        }
        state.serving = false;
        let starved = core::mem::take(&mut state.starved);
        let kick = state.rings.publish();
        drop(state);
        self.kick(kick);
        if starved {
            self.tell(cx, HostEvent::Room);
        }
    }

    #[inline]
    fn completed(&self, cx: &BottomHalf, mut state: IrqSpinGuard<'_, State>, tag: Tag, completion: &Completion) {
        let Some(command) = state.in_flight.remove(tag) else { return };
        let blocks = reads_or_writes(command.cdb().opcode());
        let answer = outcome::read(completion, command.bytes(), blocks, self.defects);
        if answer.has_sense {
            let sense = state.tables.take_sense(tag.index(), self.defects.has(Defect::KeepsSense));
            drop(state);
            let mut len = completion.sense_len.get() as usize;
            if !self.defects.has(Defect::TrustsSenseLength) {
                len = len.min(SENSE);
            }
            return self.finish(cx, command, answer, &sense[..len]);
        }
        if self.defects.has(Defect::CompletesUnderLock) {
            return self.finish(cx, command, answer, &[]);
        }
        drop(state);
        self.finish(cx, command, answer, &[]);
    }

    #[inline]
    fn finish(&self, cx: &BottomHalf, command: Command, answer: Answer, sense: &[u8]) {
        let Answer { response, status, residual, .. } = answer;
        #[cfg(test)]
        if self.defects.has(Defect::ResendsBusy) && status == undercroft_block::scsi::Status::BUSY {
            let Ok(_) = self.submit(command, (u16::MAX, u32::MAX)) else { panic!("no room to send it again") };
            return;
        }
        command.finish(cx, &Outcome { response, status, sense, residual });
    }

    /// A unit came or went.
    #[cold]
    fn message(&self, cx: &BottomHalf, message: &Message) {
        self.counters.messages.fetch_add(1, Ordering::Relaxed);
        let unit = unit(message, self.defects);
        let event = match (MessageKind(message.kind.get()), unit) {
            (MessageKind::ADDED, Some(unit)) => HostEvent::Added(unit),
            (MessageKind::REMOVED, Some(unit)) => HostEvent::Removed(unit),
            _ if self.defects.has(Defect::StopsAtUnknown) => return self.stop(Error::Broken),
            // Something came or went, or something else happened: whoever looks will see.
            _ => {
                self.counters.unclear.fetch_add(1, Ordering::Relaxed);
                HostEvent::Rescan
            }
        };
        self.tell(cx, event);
    }

    /// Finishes what a dead adapter had in flight.
    fn end(&self, cx: &BottomHalf, error: Error) -> Turn {
        let response = match error {
            Error::Removed => Response::Removed,
            Error::Broken => Response::Broken,
            _ => Response::Reset,
        };
        for _ in 0..BUDGET {
            let Some(command) = self.state.lock().in_flight.remove_any() else {
                if !self.over_told.swap(true, Ordering::AcqRel) {
                    self.tell(cx, HostEvent::Gone);
                }
                return Turn::Done;
            };
            command.finish(cx, &Outcome::failed(response));
        }
        Turn::Again
    }
}

/// Runs what is left of a removed adapter until nothing is; owns it meanwhile.
pub(super) fn farewell(adapter: &Arc<Adapter>, cx: &BottomHalf) -> Turn {
    let life = adapter.state.lock().life;
    if let Life::Dead(error) = life { adapter.end(cx, error) } else { Turn::Again }
}
