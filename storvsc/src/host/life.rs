//! Opening and closing a controller's channels: whatever waits for the host. Task context, one caller at a time.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use core::time::Duration;

use undercroft_block::Error;
use undercroft_block::scsi::Response;
use undercroft_hal::dma::DmaError;
use undercroft_hal::work::Turn;
use undercroft_hal::{Instant, Task, cpu};

use super::lane::{Lane, Life, Rings};
use super::{Agreed, Controller, Counters};
use crate::bus::{Offer, PATIENCE, poll};
use crate::defect::Defect;
use crate::{BusError, ProbeError};

/// How long sub-channels are waited for at first. Those that come later are taken into use as well.
const SUB_CHANNELS_PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 500 });

/// What the keeper is asked for: bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask(u32);

impl Ask {
    /// Something happened to the channels.
    pub(crate) const LOOK: Self = Self(1);
    /// Set the controller up anew.
    pub(crate) const RESET: Self = Self(2);
    /// Close it: nobody has it any more.
    pub(crate) const STOP: Self = Self(4);
    /// Close it: the host broke its contract.
    pub(crate) const BROKEN: Self = Self(8);
}

impl Controller {
    /// Asks the keeper for something. Any context.
    pub(crate) fn ask(&self, what: Ask) {
        self.asked.fetch_or(what.0, Ordering::AcqRel);
        self.keeper.schedule();
    }

    /// Why nothing goes on.
    pub(super) fn why(&self) -> ProbeError {
        if self.asked.load(Ordering::Acquire) & Ask::BROKEN.0 != 0 {
            ProbeError::Broken
        } else {
            ProbeError::Bus(BusError::Rescinded)
        }
    }

    /// Does what is asked for, unless somebody does already, who will.
    pub(super) fn keep(&self, cx: &Task) -> Turn {
        loop {
            if self.busy.swap(true, Ordering::AcqRel) {
                return Turn::Done;
            }
            loop {
                let asked = self.asked.swap(0, Ordering::AcqRel);
                if asked == 0 {
                    break;
                }
                self.act(cx, asked);
            }
            self.busy.store(false, Ordering::Release);
            // Asked between the last look and the end.
            if self.asked.load(Ordering::Acquire) == 0 {
                return Turn::Done;
            }
        }
    }

    fn act(&self, cx: &Task, asked: u32) {
        let is = |what: Ask| asked & what.0 != 0;
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        if is(Ask::BROKEN) {
            return self.end(cx, Error::Broken);
        }
        if is(Ask::STOP) || self.core.is_over(&self.offer) || !self.core.is_up() {
            return self.end(cx, Error::Removed);
        }
        if is(Ask::RESET) {
            self.reset(cx);
        }
        if is(Ask::LOOK) {
            self.close_rescinded(cx);
            self.attach(cx);
        }
    }

    /// Takes the controller into use: opens its channels and initialises it.
    pub(crate) fn bring_up(&self, cx: &Task) -> Result<Agreed, ProbeError> {
        self.busy.store(true, Ordering::Release);
        let agreed = self.open_all(cx);
        if agreed.is_err() {
            self.end(cx, Error::Removed);
        }
        self.busy.store(false, Ordering::Release);
        self.keeper.schedule();
        agreed
    }

    fn open_all(&self, cx: &Task) -> Result<Agreed, ProbeError> {
        self.open_lane(cx, &self.lanes[0], self.offer, Life::Starting)?;
        let agreed = self.initialise(cx)?;
        let (version, sub_channels) = (agreed.version, agreed.sub_channels);
        {
            let mut known = self.agreed.lock();
            // What its user was told stays true.
            let first = known.get_or_insert(agreed);
            if first.version != version {
                return Err(ProbeError::NoVersion);
            }
            first.sub_channels = sub_channels;
        }
        if !self.run(&self.lanes[0]) {
            return Err(self.why());
        }
        self.open.store(1, Ordering::Release);
        let started = Instant::now();
        loop {
            self.attach(cx);
            let all = self.open.load(Ordering::Acquire) > sub_channels;
            if all || started.elapsed() > SUB_CHANNELS_PATIENCE {
                break;
            }
            cx.run_pending();
            cpu::relax();
        }
        self.lanes.iter().for_each(|lane| lane.work.schedule());
        Ok(agreed)
    }

    /// `false`: it was rescinded or broken meanwhile.
    fn run(&self, lane: &Lane) -> bool {
        let mut state = lane.state.lock();
        let up = state.life == Life::Starting;
        if up {
            state.life = Life::Running;
        }
        up
    }

    /// Opens a lane's channel; less memory for its rings where there is little.
    fn open_lane(&self, cx: &Task, lane: &Lane, offer: Offer, life: Life) -> Result<(), BusError> {
        let (mut up, mut down) = (self.settings.pages_up.max(1), self.settings.pages_down.max(1));
        let opened = loop {
            match self.core.open(cx, offer, (up, down), (lane.cpu, &lane.work)) {
                Err(BusError::Memory(DmaError::NoMemory)) if up > 1 || down > 1 => {
                    (up, down) = ((up / 2).max(1), (down / 2).max(1));
                }
                opened => break opened?,
            }
        };
        let rings = Rings::new(&opened.ring, (offer.connection, offer.channel), self.defects);
        let old = {
            let mut state = lane.state.lock();
            state.life = life;
            state.broken = false;
            state.rings.replace(rings)
        };
        drop(old);
        let old = lane.opened.lock().replace(opened);
        drop(old);
        if self.core.is_over(&offer) {
            // Told before the lane knew its channel.
            lane.hold(offer.channel);
        }
        // What came before the rings were there.
        lane.work.schedule();
        Ok(())
    }

    /// Opens sub-channels that are offered and not in use.
    fn attach(&self, cx: &Task) {
        let wanted = self.agreed.lock().map_or(0, |agreed| usize::from(agreed.sub_channels));
        for index in usize::from(self.open.load(Ordering::Acquire)).max(1)..self.lanes.len().min(wanted + 1) {
            let in_use = |channel| {
                self.lanes.iter().any(|lane| lane.opened.lock().as_ref().is_some_and(|o| o.offer.channel == channel))
            };
            let offer = (0..).map_while(|nth| self.core.sub_channel(&self.offer, nth)).find(|o| !in_use(o.channel));
            let Some(offer) = offer else { return };
            let lane = &self.lanes[index];
            if let Err(error) = self.open_lane(cx, lane, offer, Life::Starting) {
                log::warn!("storvsc: sub-channel {} is not used: {error}", offer.sub_channel);
                return;
            }
            if !self.run(lane) {
                return;
            }
            self.open.store(index as u16 + 1, Ordering::Release);
            // What was submitted while the lanes changed places is published by its own bottom half.
            self.lanes.iter().for_each(|lane| lane.work.schedule());
        }
    }

    /// Closes sub-channels that were rescinded, and those behind them; the others are opened again.
    fn close_rescinded(&self, cx: &Task) {
        let broken = self.lanes.iter().skip(1).position(|lane| lane.state.lock().broken);
        let Some(first) = broken.map(|at| at + 1) else { return };
        self.open.fetch_min(first as u16, Ordering::AcqRel);
        for lane in self.lanes.iter().skip(first) {
            self.close_lane(cx, lane, Response::Reset);
        }
    }

    /// Closes a lane's channel and has what it had in flight finished. `false`: the host keeps its memory, and so the commands.
    fn close_lane(&self, cx: &Task, lane: &Lane, response: Response) -> bool {
        {
            let mut state = lane.state.lock();
            if state.life == Life::Vacant {
                return true;
            }
            state.life = Life::Closing;
        }
        let Some(opened) = lane.opened.lock().take() else { return false };
        if self.defects.has(Defect::EndsBeforeTorndown) {
            self.drain_lane(cx, lane, response);
        }
        let Ok(ring) = self.core.close(cx, opened) else { return false };
        let drained = self.drain_lane(cx, lane, response);
        drop(ring);
        drained
    }

    fn drain_lane(&self, cx: &Task, lane: &Lane, response: Response) -> bool {
        lane.state.lock().life = Life::Draining(response);
        lane.work.schedule();
        poll(cx, PATIENCE, || lane.state.lock().life == Life::Vacant)
    }

    /// Closes everything, the first channel last. `false`: the host keeps something.
    fn close_all(&self, cx: &Task, response: Response) -> bool {
        self.open.store(0, Ordering::Release);
        let mut clean = true;
        for lane in self.lanes.iter().rev() {
            clean &= self.close_lane(cx, lane, response);
        }
        clean
    }

    fn reset(&self, cx: &Task) {
        if !self.close_all(cx, Response::Reset) {
            return self.end(cx, Error::Broken);
        }
        match self.open_all(cx) {
            Ok(_) => Counters::count(&self.counters.resets),
            Err(error) => {
                log::error!("storvsc: the controller does not start again: {error}");
                self.end(cx, if self.core.is_over(&self.offer) { Error::Removed } else { Error::Broken });
            }
        }
    }

    /// Closes the controller for good.
    fn end(&self, cx: &Task, error: Error) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        self.end.lock().get_or_insert(error);
        let response = if error == Error::Broken { Response::Broken } else { Response::Removed };
        let clean = self.close_all(cx, response);
        self.clean.fetch_and(clean, Ordering::AcqRel);
        self.core.give_up(&self.offer);
        self.over.store(true, Ordering::Release);
        self.ended.store(true, Ordering::Release);
        // Its bottom half tells.
        self.lanes[0].work.schedule();
    }

    /// Has a lane's signals go to another CPU.
    pub(crate) fn move_to(&self, cx: &Task, index: usize, cpu: usize) -> Result<(), BusError> {
        let Some(lane) = self.lanes.get(index) else { return Err(BusError::TooMuch) };
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(BusError::TooMuch);
        }
        let taken = lane.opened.lock().take();
        let moved = match taken {
            Some(mut opened) => {
                let moved = self.core.move_to(cx, &mut opened, (cpu, &lane.work));
                *lane.opened.lock() = Some(opened);
                moved
            }
            None => Err(BusError::Down),
        };
        self.busy.store(false, Ordering::Release);
        self.keeper.schedule();
        moved
    }
}

/// Ends a controller that nobody has any more; owns it meanwhile.
pub(crate) fn farewell(controller: &Arc<Controller>, cx: &Task) -> Turn {
    controller.keep(cx);
    if !controller.ended.load(Ordering::Acquire) {
        return Turn::Again;
    }
    if !controller.clean.load(Ordering::Acquire) {
        // The host may still write to what its commands have.
        core::mem::forget(Arc::clone(controller));
    }
    Turn::Done
}
