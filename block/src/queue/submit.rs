//! The way down: from a submitter to the device. Any context; no lock is held while the device is called.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use undercroft_hal::Instant;

use super::broken::{self, Hazard};
use super::job::{Place, Stage};
use super::part;
use super::shard::Shard;
use super::state::State;
use crate::{BlockDevice, Complete, Error, Features, InFlight, Info, Op, Refusal, Rejected, Request, Tag};

fn refuse(request: Request, why: Refusal) -> Rejected {
    Rejected { request, why }
}

/// What is to be sent next.
enum Pick {
    Nothing,
    /// The request, its tag, and the epoch before it is sent.
    Send(Request, Tag, u64),
    /// It can never be sent.
    Ended,
}

impl Shard {
    /// Takes a request of submitter `from`.
    #[inline]
    pub(super) fn submit(
        self: &Arc<Self>,
        device: &dyn BlockDevice,
        from: u8,
        mut request: Request,
    ) -> Result<Tag, Rejected> {
        let now = Instant::now();
        let latest = || Instant::from_nanos(now.as_nanos().saturating_add(self.common.timeout));
        let deadline = request.deadline.unwrap_or_else(latest);
        let emulate = request.fua && Self::must_flush_after(device, &request);
        let mut state = self.state.lock();
        if let Some(error) = state.dead {
            return Err(refuse(request, Refusal::Gone(error)));
        }
        if state.jobs.is_full() {
            state.refused |= 1 << from;
            return Err(refuse(request, Refusal::Full));
        }
        if emulate || state.waits > 0 || !self.may_send(&state, || now) {
            drop(state);
            return self.enqueue(device, from, request, deadline, emulate);
        }
        // What it breaks of the device's limits, the device says: that is rare, and looked at then.
        let Some((tag, job)) = state.admit() else { return Err(refuse(request, Refusal::Full)) };
        job.begin(from, &mut request, (Arc::clone(self) as Arc<dyn Complete>, tag), deadline, false);
        self.sending(tag);
        state.at_device += 1;
        let epoch = state.epoch;
        let arms = state.arms(deadline);
        drop(state);
        if arms {
            self.look_at(deadline);
        }
        match device.submit(request) {
            Ok(device) => {
                self.sent(tag, device);
                Ok(tag)
            }
            Err(rejected) => self.rejected(device, tag, rejected, epoch),
        }
    }

    /// Whether the device may be given one more now.
    #[inline]
    fn may_send(&self, state: &State, now: impl FnOnce() -> Instant) -> bool {
        state.may_send(now) && (self.common.holds.load(Ordering::Acquire) == 0 || broken::is(Hazard::SendsIntoReset))
    }

    fn must_flush_after(device: &dyn BlockDevice, request: &Request) -> bool {
        let features = device.info().features;
        request.op == Op::Write && features.contains(Features::VOLATILE_CACHE) && !features.contains(Features::FUA)
    }

    /// Takes a request that has to wait, or that is more than one to the device.
    fn enqueue(
        self: &Arc<Self>,
        device: &dyn BlockDevice,
        from: u8,
        mut request: Request,
        deadline: Instant,
        emulate: bool,
    ) -> Result<Tag, Rejected> {
        if let Err(error) = part::possible(&request, &device.info()) {
            return Err(refuse(request, Refusal::Invalid(error)));
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        // Nobody may have all of what waits while others use the queue too.
        let line = state.waiting.get(usize::from(from)).map_or(0, VecDeque::len);
        let share = state.jobs.capacity() / self.common.made.load(Ordering::Relaxed).max(1);
        if state.jobs.is_full() || line >= share.max(1) && !broken::is(Hazard::NoTurns) {
            state.refused |= 1 << from;
            return Err(refuse(request, Refusal::Full));
        }
        let Some((tag, job)) = state.admit() else { return Err(refuse(request, Refusal::Full)) };
        job.begin(from, &mut request, (Arc::clone(self) as Arc<dyn Complete>, tag), deadline, emulate);
        state.stats.waited += 1;
        state.put_off(tag, request, false);
        let arms = state.arms(deadline);
        drop(guard);
        if arms {
            self.look_at(deadline);
        }
        self.pump();
        Ok(tag)
    }

    /// The device did not take a request that went straight to it.
    #[cold]
    fn rejected(&self, device: &dyn BlockDevice, tag: Tag, rejected: Rejected, epoch: u64) -> Result<Tag, Rejected> {
        let Rejected { request, why } = rejected;
        let why = match why {
            Refusal::Full => {
                self.no_room(tag, request, epoch);
                self.pump();
                return Ok(tag);
            }
            Refusal::Invalid(Error::TooLarge) => match part::possible(&request, &device.info()) {
                Ok(()) => {
                    self.take_back(tag, |state| state.put_off(tag, request, true));
                    self.pump();
                    return Ok(tag);
                }
                Err(error) => Refusal::Invalid(error),
            },
            why => why,
        };
        let request = {
            let mut state = self.state.lock();
            state.at_device -= 1;
            state.epoch += 1;
            if matches!(state.jobs.get(tag).map(|job| &job.place), Some(Place::Orphan)) {
                // The device was given up in between, and the submitter told.
                state.jobs.remove(tag);
                return Ok(tag);
            }
            state.stats.accepted -= 1;
            state.close(tag, request)
        };
        // It had a place that somebody else may have waited for.
        self.pump();
        Err(refuse(request, why))
    }

    /// Does `f` unless the job was given up while it was on its way to the device.
    fn take_back(&self, tag: Tag, f: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        state.at_device -= 1;
        if !matches!(state.jobs.get(tag).map(|job| &job.place), Some(Place::Orphan)) {
            return f(&mut state);
        }
        state.jobs.remove(tag);
        // What `f` holds is freed without the lock.
        drop(state);
    }

    /// The device has no room for a request: it waits, first in its line.
    fn no_room(&self, tag: Tag, mut request: Request, epoch: u64) {
        self.take_back(tag, |state| {
            let members = state.unmerge(tag, &mut request);
            // They did not go together after all.
            state.stats.merged = state.stats.merged.saturating_sub(members.len() as u64);
            state.return_all(&members);
            if let (Some(job), Some(kept)) = (state.jobs.get(tag), state.kept.get_mut(usize::from(tag.index()))) {
                job.unshape(kept, &mut request);
            }
            state.put_off(tag, request, true);
            // Room that came since was before the refusal was known: then it is tried again, and else it will be announced.
            let full = state.epoch == epoch || broken::is(Hazard::RoomMissed);
            // Room that another shard's request leaves is not in our count. Either it sees that we starve, or we see the room.
            state.refusals = state.refusals.saturating_add(1);
            state.full = full && (self.common.is_one || state.refusals > 1);
            if !self.common.is_one {
                self.common.starved.store(true, Ordering::SeqCst);
            }
        });
    }

    /// Sends what waits, as long as the device takes it. Any context.
    pub(super) fn pump(&self) {
        // Without this there is no call to the device, and mostly there is nothing.
        if self.state.lock().waits == 0 {
            return;
        }
        // Gone: what waits ends in a bottom half.
        let Some(device) = self.common.device.upgrade() else { return };
        let mut any = false;
        loop {
            match self.pick(&*device) {
                Pick::Nothing => break,
                Pick::Ended => self.work.schedule(),
                Pick::Send(request, tag, epoch) => match device.submit(request) {
                    Ok(device) => {
                        any = true;
                        self.sent(tag, device);
                    }
                    Err(Rejected { request, why: Refusal::Full }) => self.no_room(tag, request, epoch),
                    Err(Rejected { mut request, why: Refusal::Invalid(error) | Refusal::Gone(error) }) => {
                        self.take_back(tag, |state| {
                            let members = state.unmerge(tag, &mut request);
                            state.settle(&members, Err(error));
                            if let (Some(job), false) = (state.jobs.get_mut(tag), members.is_empty()) {
                                job.alone = true;
                                state.put_off(tag, request, true);
                            } else {
                                state.end_later(tag, request.accept(), Err(error));
                            }
                        });
                        self.work.schedule();
                    }
                },
            }
        }
        if any {
            device.commit();
        }
    }

    fn pick(&self, device: &dyn BlockDevice) -> Pick {
        if self.state.lock().waits == 0 {
            return Pick::Nothing;
        }
        let info = device.info();
        let mut state = self.state.lock();
        if !self.may_send(&state, Instant::now) {
            return Pick::Nothing;
        }
        let Some(tag) = state.pick() else { return Pick::Nothing };
        self.sending(tag);
        state.prepare(tag, &info)
    }

    /// Asks that a request end soon.
    pub(super) fn cancel(&self, tag: Tag) -> bool {
        let device = {
            let mut state = self.state.lock();
            if let Some(flight) = state.leave_line(tag) {
                state.end_later(tag, flight, Err(Error::Cancelled));
                None
            } else {
                let Some(job) = state.jobs.get_mut(tag) else { return false };
                job.cancelled = true;
                if !job.is_at_device() {
                    return false;
                }
                let Some(device) = self.device_tag(tag) else { return false };
                Some(device)
            }
        };
        match device {
            Some(device) => self.common.device.upgrade().is_some_and(|below| below.cancel(device)),
            None => {
                self.work.schedule();
                true
            }
        }
    }
}

impl State {
    /// A bottom half will complete it.
    pub(super) fn end_later(&mut self, tag: Tag, flight: InFlight, result: Result<(), Error>) {
        if let (Some(job), Some(kept)) = (self.jobs.get_mut(tag), self.kept.get_mut(usize::from(tag.index()))) {
            if broken::is(Hazard::ForgottenHalfWay) {
                core::mem::forget(flight);
                return;
            }
            job.place = Place::Ended(result);
            kept.flight = Some(flight);
            self.ended.push_back(tag);
        }
    }

    /// Makes a waiting request what is sent next of it.
    fn prepare(&mut self, tag: Tag, info: &Info) -> Pick {
        let epoch = self.epoch;
        let Some(flight) = self.take_kept(tag) else { return Pick::Nothing };
        let mut request = flight.give_back();
        let (Some(job), Some(kept)) = (self.jobs.get_mut(tag), self.kept.get_mut(usize::from(tag.index()))) else {
            self.end_later(tag, request.accept(), Err(Error::Broken));
            return Pick::Ended;
        };
        let next = if job.stage == Stage::Flush { Ok(0) } else { part::next(&request, job.done, info) };
        let part = match next {
            Ok(part) if !broken::is(Hazard::PartTooLong) => Ok(part),
            Ok(_) => Ok(job.blocks - job.done),
            Err(error) => Err(error),
        };
        let shaped = part.and_then(|part| {
            if job.shape(kept, &mut request, part, info.block_size) { Ok(part) } else { Err(Error::BadLength) }
        });
        match shaped {
            Ok(part) => {
                if job.stage == Stage::Flush {
                    self.stats.flushes += 1;
                } else if part < job.blocks {
                    self.stats.split += u64::from(job.done == 0);
                    self.stats.parts += 1;
                }
                if part == job.blocks {
                    self.merge(tag, &mut request, info);
                }
                self.at_device += 1;
                Pick::Send(request, tag, epoch)
            }
            Err(error) => {
                self.end_later(tag, request.accept(), Err(error));
                Pick::Ended
            }
        }
    }
}
