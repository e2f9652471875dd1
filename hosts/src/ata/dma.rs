//! A channel's DMA: a drive's data by way of the table, with what the script wants in its middle.

use super::bus_master::INTERRUPT;
use super::drive::{Way, Work, status};
use super::{Channel, Fault};
use crate::{Bus, SECTOR};

impl Channel {
    /// An interrupt that means nothing, in the middle of a command, if the script wants one.
    pub(super) fn disturb(&mut self, index: usize) -> bool {
        let Some(work) = self.drives[index].as_mut().and_then(|drive| drive.work.as_mut()) else { return false };
        let (spurious, glitch) = (work.has(Fault::Spurious), work.has(Fault::Glitch));
        if work.disturbed || !(spurious || glitch) {
            return false;
        }
        work.disturbed = true;
        self.pulse = true;
        if glitch {
            self.bus_master.status |= INTERRUPT;
        }
        true
    }

    /// Moves data by DMA, as far as the turn's budget goes.
    pub(super) fn dma(&mut self, bus: &Bus<'_>, index: usize) -> bool {
        if !self.bus_master.active() || index != self.selected {
            return false;
        }
        let Some(drive) = self.drives[index].as_mut() else { return false };
        let Some(mut work) = drive.work.take() else { return false };
        if work.way == Way::DmaIn && work.moved == 0 && work.code != 0x06 {
            // A bad sector ends the data before it.
            if let Err(good) = drive.load(work.sector, &mut work.data) {
                work.faults.push(Fault::ErrorAfter((good / SECTOR) as u16, super::drive::UNC));
            }
        }
        drive.status = status::BSY | status::DRDY;
        let first = work.moved == 0;
        let stop = work.find(|fault| match fault {
            Fault::ErrorAfter(sectors, error) => Some((usize::from(*sectors) * SECTOR, Some(*error))),
            Fault::Short(bytes) => Some((work.data.len().saturating_sub(*bytes as usize), None)),
            _ => None,
        });
        let stall = work.find(|fault| if let Fault::Stalls(at) = fault { Some(*at) } else { None });
        let end = stop.map_or(work.data.len(), |(at, _)| at.min(work.data.len()));
        // A transfer that is to be disturbed has a middle.
        let disturbs = [Fault::Spurious, Fault::Glitch, Fault::BusError].iter().any(|fault| work.has(*fault));
        let most = if disturbs && first { SECTOR } else { bus.budget().saturating_mul(SECTOR) };
        let end_now = stall.map_or(end, |at| at.min(end));
        let mut left = most.min(end_now - work.moved.min(end_now));
        while left > 0 {
            let Some((addr, len)) = self.bus_master.next(left) else { break };
            let moved = work.moved;
            let part = &mut work.data[moved..moved + len];
            let result = if work.way == Way::DmaIn { bus.write(addr, part) } else { bus.read(addr, part) };
            if let Err(bad) = result {
                self.breaches.push(bad.into());
                self.bus_master.fail();
                drive.abort(super::drive::ABRT);
                return true;
            }
            work.moved += len;
            left -= len;
        }
        if work.has(Fault::BusError) {
            self.bus_master.fail();
            drive.done();
            return true;
        }
        if work
            .find(|fault| if let Fault::Stalls(at) = fault { (work.moved >= *at).then_some(()) } else { None })
            .is_some()
        {
            self.bus_master.stop();
            drive.status = status::READY;
            return true;
        }
        if work.moved < end {
            let starved = self.bus_master.exhausted();
            drive.work = Some(work);
            self.disturb(index);
            return !starved;
        }
        self.end_dma(index, work, stop.and_then(|(_, error)| error));
        true
    }

    fn end_dma(&mut self, index: usize, work: Work, error: Option<u8>) {
        self.bus_master.exhausted();
        let Some(drive) = self.drives[index].as_mut() else { return };
        if let Some(error) = error {
            return drive.abort(error);
        }
        if work.find(|fault| if let Fault::Short(_) = fault { Some(()) } else { None }).is_some() {
            return drive.done();
        }
        drive.complete_dma(&work);
        if work.has(Fault::DrqStuck) {
            drive.status |= status::DRQ;
        }
        drive.intrq &= !work.has(Fault::NoInterrupt);
    }
}
