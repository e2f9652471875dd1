//! Finding the logical units behind a host. Task context, except where a function says otherwise.
//!
//! A unit's address is claimed before it is asked anything, under one lock: two scans at the same time cannot make two disks of one unit
//! (X26).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{BottomHalf, Task};
use zerocopy::big_endian::U32;

use super::disk::{ScsiDisk, Unit};
use super::exchange::{ANSWER, Exchange};
use super::probe::{self, ProbeError};
use super::wire::{LunList, OpCode, ReportLuns};
use super::{Address, Host, HostEvent, HostWatcher, Lun};
use crate::{BlockDevice, Error};

/// What a scan found. Disks that were known and are not there any more are told so ([`Event::Removed`](crate::Event::Removed)).
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
    /// How often the host said that something came, or that it does not know what.
    changes: AtomicU32,
    /// Who else is told of the host's events.
    watcher: IrqSpinLock<Option<Arc<dyn HostWatcher>>>,
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

    /// The disks of a target.
    fn disks(&self, target: u16) -> Vec<Arc<Unit>> {
        (0..).map_while(|at| self.unit(at)).flatten().filter(|unit| unit.address.target == target).collect()
    }

    /// A disk is not there any more. Another that has its address meanwhile keeps it.
    fn leave(&self, unit: &Arc<Unit>) {
        unit.vanish();
        let mut claims = self.claims.lock();
        let theirs =
            |claim: &Claim| matches!(claim, Claim::Disk(weak) if core::ptr::eq(weak.as_ptr(), Arc::as_ptr(unit)));
        let Some((_, claim)) = claims.iter_mut().find(|(_, claim)| theirs(claim)) else { return };
        let before = core::mem::replace(claim, Claim::Vacant);
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
        match event {
            // The address may be used again by another device.
            HostEvent::Removed(address) => self.settle(address, None),
            HostEvent::Added(_) | HostEvent::Rescan => {
                self.changes.fetch_add(1, Ordering::AcqRel);
            }
            _ => {}
        }
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
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
        let roster = Arc::new(Roster {
            claims: IrqSpinLock::new(Rank::CACHE, Vec::new()),
            changes: AtomicU32::new(0),
            watcher: IrqSpinLock::new(Rank::CACHE, None),
        });
        host.watch(Arc::clone(&roster) as Arc<dyn HostWatcher>);
        Self { host, roster }
    }

    /// How often the host said that something was added, or that it lost count: when this changes, scan again. Any context.
    pub fn changes(&self) -> u32 {
        self.roster.changes.load(Ordering::Acquire)
    }

    /// Sets who is told of the host's events after the disks were, replacing the one before. It may schedule a scan. Task or bottom-half context.
    pub fn watch(&self, watcher: Arc<dyn HostWatcher>) {
        // Dropped after the lock: the last reference may run anything.
        let before = self.roster.watcher.lock().replace(watcher);
        drop(before);
    }

    /// Looks at every target, makes a disk of each unit that is one and is not known yet, and tells the disks that are not there any more.
    /// Several may run at a time: each new disk is in what one of them found.
    ///
    /// # Errors
    /// Only what concerns the whole host: no memory, or the host is gone.
    pub fn scan(&self, cx: &Task) -> Result<Scan, Error> {
        let mut exchange = Exchange::new(cx, &self.host)?;
        let mut found = Scan::default();
        for target in 0..=self.host.info().max_target {
            // Before the question: what another scan finds after it is not missing from the answer.
            let known = self.roster.disks(target);
            match self.luns(&mut exchange, target) {
                Ok((luns, whole)) => {
                    let missing = known.iter().filter(|unit| whole && !luns.contains(&unit.address.lun));
                    missing.for_each(|unit| self.roster.leave(unit));
                    for lun in luns {
                        self.look(&mut exchange, Address { target, lun }, &mut found);
                    }
                }
                Err(error) if exchange.gone() == Some(error) || error == Error::NoMemory => return Err(error),
                // No such target.
                Err(Error::Removed) => known.iter().for_each(|unit| self.roster.leave(unit)),
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
            Ok(unit) => found.disks.push(Arc::new(ScsiDisk::new(unit, &self.host))),
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
            found.disks.push(Arc::new(ScsiDisk::new(unit, &self.host)));
        }
    }

    /// The target's own list of its units, in its order, without repetitions, each at most the host's highest; and whether it is all of them.
    fn luns(&self, exchange: &mut Exchange<'_>, target: u16) -> Result<(Vec<Lun>, bool), Error> {
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
                let Some(list) = LunList::parse(answer) else { return Ok((only_zero, false)) };
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
                Ok((luns, !list.is_cut()))
            }
            // From before SPC-2: one unit.
            Err(Error::Unsupported) => Ok((only_zero, false)),
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
