//! Finding the logical units behind a host. Task context, except where a function says otherwise.
//!
//! A unit's address is claimed before it is asked anything, under one lock: two scans at the same time cannot make two disks of one unit
//! (X26).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{BottomHalf, Task};
use zerocopy::big_endian::U32;

use super::disk::{ScsiDisk, Unit};
use super::exchange::{ANSWER, Exchange};
use super::probe::{self, ProbeError};
use super::wire::{LunList, OpCode, ReportLuns};
use super::{Address, Host, HostEvent, HostWatcher, Lun};
use crate::{BlockDevice, Error};

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// New disks, in order of target and of the target's own list.
    pub disks: Vec<Arc<ScsiDisk>>,
    /// Units that are no disks, and why.
    pub others: Vec<(Address, ProbeError)>,
}

enum Claim {
    /// Somebody is asking it.
    Probing,
    /// It is a disk, as long as anybody has it.
    Disk(Weak<Unit>),
    /// Nobody's. Its place stays, for another address: what is walked with the lock dropped in between must not move (X16).
    Vacant,
}

/// Which addresses are taken. The host's watcher: it knows the units but not the host, so that nothing keeps itself alive.
struct Roster {
    claims: IrqSpinLock<Vec<(Address, Claim)>>,
}

impl Roster {
    /// Takes an address; `false` if it is taken.
    fn claim(&self, address: Address) -> bool {
        loop {
            // Allocate outside the lock.
            let want = self.claims.lock().len() + 1;
            let mut grown = Vec::with_capacity(want * 2);
            let mut claims = self.claims.lock();
            let free = |claim: &Claim| match claim {
                Claim::Disk(unit) => unit.strong_count() == 0,
                Claim::Vacant => true,
                Claim::Probing => false,
            };
            let known = claims.iter().position(|(taken, claim)| *taken == address && !matches!(claim, Claim::Vacant));
            if known.is_some_and(|at| !free(&claims[at].1)) {
                return false;
            }
            if let Some(at) = known.or_else(|| claims.iter().position(|(_, claim)| free(claim))) {
                let before = core::mem::replace(&mut claims[at], (address, Claim::Probing));
                drop(claims);
                drop(before);
                return true;
            }
            if claims.len() < claims.capacity() {
                claims.push((address, Claim::Probing));
                return true;
            }
            if grown.capacity() > claims.len() {
                grown.append(&mut claims);
                grown.push((address, Claim::Probing));
                let old = core::mem::replace(&mut *claims, grown);
                drop(claims);
                drop(old);
                return true;
            }
        }
    }

    /// The claimed address is a disk, or free again.
    fn settle(&self, address: Address, unit: Option<&Arc<Unit>>) {
        let mut claims = self.claims.lock();
        let theirs = |(taken, claim): &(Address, Claim)| *taken == address && !matches!(claim, Claim::Vacant);
        let Some(at) = claims.iter().position(theirs) else { return };
        #[cfg(test)]
        if MOVES_ENTRIES.get() && unit.is_none() {
            let before = claims.swap_remove(at);
            drop(claims);
            return drop(before);
        }
        let now = unit.map_or(Claim::Vacant, |unit| Claim::Disk(Arc::downgrade(unit)));
        let before = core::mem::replace(&mut claims[at].1, now);
        drop(claims);
        drop(before);
    }

    fn unit(&self, at: usize) -> Option<Option<Arc<Unit>>> {
        let claims = self.claims.lock();
        let (_, claim) = claims.get(at)?;
        Some(if let Claim::Disk(unit) = claim { unit.upgrade() } else { None })
    }
}

impl HostWatcher for Roster {
    fn event(&self, cx: &BottomHalf, event: HostEvent) {
        let mut at = 0;
        while let Some(unit) = self.unit(at) {
            if let Some(unit) = unit {
                unit.host_event(cx, event);
            }
            at += 1;
        }
        if let HostEvent::Removed(address) = event {
            // The address may be used again by another device.
            self.settle(address, None);
        }
    }
}

/// A host and the disks that were found behind it.
pub struct Bus {
    host: Arc<dyn Host>,
    roster: Arc<Roster>,
}

impl Bus {
    /// Becomes the host's watcher.
    pub fn new(host: Arc<dyn Host>) -> Self {
        let roster = Arc::new(Roster { claims: IrqSpinLock::new(Rank::CACHE, Vec::new()) });
        host.watch(Arc::clone(&roster) as Arc<dyn HostWatcher>);
        Self { host, roster }
    }

    /// Looks at every target, and makes a disk of each unit that is one and is not known yet.
    ///
    /// # Errors
    /// Only what concerns the whole host: no memory, or the host is gone.
    pub fn scan(&self, cx: &Task) -> Result<Scan, Error> {
        let mut exchange = Exchange::new(cx, &self.host)?;
        let mut found = Scan::default();
        for target in 0..=self.host.info().max_target {
            match self.luns(&mut exchange, target) {
                Ok(luns) => {
                    for lun in luns {
                        self.look(&mut exchange, Address { target, lun }, &mut found);
                    }
                }
                Err(error) if exchange.gone() == Some(error) || error == Error::NoMemory => return Err(error),
                // No such target.
                Err(Error::Removed) => {}
                Err(error) => found.others.push((Address { target, lun: Lun::ZERO }, error.into())),
            }
        }
        Ok(found)
    }

    /// Reads a disk's capacity again, after [`crate::Event::Resized`].
    ///
    /// # Errors
    /// As for a new disk; the disk keeps the capacity that it had.
    pub fn refresh(&self, cx: &Task, disk: &ScsiDisk) -> Result<(), ProbeError> {
        let mut exchange = Exchange::new(cx, &self.host)?;
        let capacity = probe::capacity(&mut exchange, disk.address(), u8::MAX)?;
        if capacity.block_size != disk.info().block_size {
            return Err(ProbeError::BlockSize(capacity.block_size));
        }
        disk.unit().resize(capacity.blocks);
        Ok(())
    }

    fn look(&self, exchange: &mut Exchange<'_>, address: Address, found: &mut Scan) {
        #[cfg(test)]
        if CHECK_THEN_ACT.get() {
            return self.look_check_then_act(exchange, address, found);
        }
        if !self.roster.claim(address) {
            return;
        }
        let probed = probe::probe(exchange, &self.host, address);
        self.roster.settle(address, probed.as_ref().ok());
        match probed {
            Ok(unit) => found.disks.push(Arc::new(ScsiDisk::new(unit))),
            Err(error) => found.others.push((address, error)),
        }
    }

    /// The negative control of X26: asks first, claims afterwards, as the historic code did.
    #[cfg(test)]
    fn look_check_then_act(&self, exchange: &mut Exchange<'_>, address: Address, found: &mut Scan) {
        let known = (0..).map_while(|at| self.roster.unit(at)).flatten().any(|unit| unit.address == address);
        if !known && let Ok(unit) = probe::probe(exchange, &self.host, address) {
            let _ = self.roster.claim(address);
            self.roster.settle(address, Some(&unit));
            found.disks.push(Arc::new(ScsiDisk::new(unit)));
        }
    }

    /// The target's own list of its units, in its order, without repetitions, each at most the host's highest.
    fn luns(&self, exchange: &mut Exchange<'_>, target: u16) -> Result<Vec<Lun>, Error> {
        let cdb = ReportLuns {
            op: OpCode::REPORT_LUNS,
            reserved: 0,
            select: 0,
            reserved2: [0; 3],
            allocation: U32::new(ANSWER as u32),
            reserved3: 0,
            control: 0,
        };
        let only_zero = Vec::from([Lun::ZERO]);
        match exchange.read(Address { target, lun: Lun::ZERO }, cdb.into(), ANSWER) {
            Ok(answer) => {
                let Some(list) = LunList::parse(answer) else { return Ok(only_zero) };
                let max = self.host.info().max_lun;
                let mut luns = Vec::new();
                for lun in list.luns().filter(|lun| lun.number() <= max) {
                    if !luns.contains(&lun) {
                        luns.push(lun);
                    }
                }
                if list.is_cut() {
                    log::warn!("target {target} has more logical units than are looked at");
                }
                Ok(luns)
            }
            // From before SPC-2: one unit.
            Err(Error::Unsupported) => Ok(only_zero),
            Err(error) => Err(error),
        }
    }
}

/// Scans a host once. Hotplug needs a [`Bus`] that is kept.
///
/// # Errors
/// As [`Bus::scan`].
pub fn scan(cx: &Task, host: Arc<dyn Host>) -> Result<Scan, Error> {
    Bus::new(host).scan(cx)
}

#[cfg(test)]
std::thread_local! {
    static CHECK_THEN_ACT: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
    /// The negative control of X16: what leaves the roster is replaced by the last of it.
    static MOVES_ENTRIES: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
