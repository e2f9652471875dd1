//! A disk's back end: what it says in xenstore, and how it comes and goes.

use super::breach::Breach;
use super::consts::{BACKEND, blkif, state};
use super::ring::Ring;
use super::{Xen, consts};
use crate::{Bus, Disk};

/// What a back end is like.
#[derive(Debug, Clone)]
pub struct VbdSettings {
    /// The number by which the tool stack calls it: 51712 is `xvda`.
    pub number: u32,
    /// Bytes of a block: 512 to 4096.
    pub sector_size: u32,
    /// Bytes of a physical block.
    pub physical_sector_size: u32,
    /// Nothing may be written.
    pub read_only: bool,
    /// Rings at most.
    pub queues: u32,
    /// Pages of a ring at most, as a power of two. `None`: it does not say.
    pub ring_order: Option<u32>,
    /// Segments of an indirect request at most; 0: there are none.
    pub indirect: u32,
    /// Keeps grants mapped.
    pub persistent: bool,
    /// Offers flushes.
    pub flush: bool,
    /// Offers barriers.
    pub barrier: bool,
    /// Offers discards.
    pub discard: bool,
    /// Offers secure ones.
    pub secure: bool,
    /// What `device-type` says.
    pub kind: &'static str,
}

impl Default for VbdSettings {
    /// As Linux's on a raw file.
    fn default() -> Self {
        Self {
            number: 51712,
            sector_size: 512,
            physical_sector_size: 512,
            read_only: false,
            queues: 1,
            ring_order: Some(4),
            indirect: 256,
            persistent: true,
            flush: true,
            barrier: true,
            discard: true,
            secure: false,
            kind: "disk",
        }
    }
}

/// What requests are held against.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub sector_size: u32,
    pub read_only: bool,
    pub indirect: u32,
    pub secure: bool,
    offered: Vec<u8>,
    pub refuses: &'static [u8],
}

impl Shape {
    fn new(settings: &VbdSettings, refuses: &'static [u8]) -> Self {
        let mut offered = vec![blkif::READ, blkif::WRITE];
        offered.extend(settings.flush.then_some(blkif::FLUSH));
        offered.extend(settings.barrier.then_some(blkif::BARRIER));
        offered.extend(settings.discard.then_some(blkif::DISCARD));
        let VbdSettings { sector_size, read_only, indirect, secure, .. } = *settings;
        Self { sector_size, read_only, indirect, secure, offered, refuses }
    }

    pub fn offers(&self, operation: u8) -> bool {
        self.offered.contains(&operation)
    }
}

/// A disk and its back end.
#[derive(Debug)]
pub(super) struct Vbd {
    pub number: u32,
    pub settings: VbdSettings,
    pub shape: Shape,
    pub disk: Disk,
    /// The largest that the disk ever was.
    pub most_sectors: u64,
    /// The state that it is in. `None`: nobody is there.
    pub state: Option<u64>,
    /// What the front end said last.
    pub front: u64,
    pub rings: Vec<Ring>,
    pub persistent: bool,
    pub persistent_most: usize,
    /// The tool stack wants it to stay.
    pub online: bool,
    /// When the next step is due.
    pub next: u64,
    /// What a back end that died has still mapped, and until when.
    pub ghosts: Vec<(u64, Ring)>,
}

pub(super) fn backend_home(domain: u16) -> String {
    format!("/local/domain/{BACKEND}/backend/vbd/{domain}")
}

/// What a front end is told wrongly costs it its connection.
fn complain(xen: &mut Xen, what: &'static str) -> Option<(Vec<Ring>, bool)> {
    xen.log.breach(Breach::Rings(what));
    None
}

/// Something in xenstore was changed by the guest: perhaps a front end's state.
pub(super) fn noticed(xen: &mut Xen, bus: &Bus<'_>, path: &str) {
    for index in 0..xen.vbds.len() {
        let front = xen.front_path(index);
        if path != format!("{front}/state") {
            continue;
        }
        let said = xen.server.number(path).unwrap_or(state::UNKNOWN);
        let delay = xen.knobs.state_delay;
        let vbd = &mut xen.vbds[index];
        let before = std::mem::replace(&mut vbd.front, said);
        let back = vbd.state.unwrap_or(state::UNKNOWN);
        let follows = match said {
            state::INITIALISING => before == said || back != state::CONNECTED || before == state::UNKNOWN,
            state::INITIALISED => before == state::INITIALISING,
            // A back end may be gone before that is known.
            state::CONNECTED => before == state::INITIALISED,
            state::CLOSING => before <= state::CLOSING,
            state::CLOSED => before == state::CLOSING || before == said || before == state::INITIALISING,
            _ => false,
        };
        if !follows && before != said {
            xen.log.breach(Breach::State(before, said));
        }
        vbd.next = bus.now() + delay;
    }
}

impl Xen {
    pub(super) fn front_path(&self, index: usize) -> String {
        format!("{}/device/vbd/{}", self.server.home, self.vbds[index].number)
    }

    pub(super) fn back_path(&self, index: usize) -> String {
        format!("{}/{}", backend_home(self.settings.domain), self.vbds[index].number)
    }

    /// Adds a disk as the tool stack does, before the guest starts or while it runs. Returns its index.
    pub fn add_vbd(&mut self, now: u64, disk: Disk, settings: VbdSettings) -> usize {
        disk.set_read_only(settings.read_only);
        let index = self.vbds.len();
        self.vbds.push(Vbd {
            number: settings.number,
            shape: Shape::new(&settings, self.knobs.refuses),
            most_sectors: disk.sectors(),
            disk,
            state: Some(state::INITIALISING),
            front: state::INITIALISING,
            rings: Vec::new(),
            persistent: false,
            persistent_most: 0,
            online: true,
            next: now,
            ghosts: Vec::new(),
            settings,
        });
        let (front, back) = (self.front_path(index), self.back_path(index));
        let vbd = &self.vbds[index].settings;
        let (number, kind, mode) = (vbd.number, vbd.kind, if vbd.read_only { "r" } else { "w" });
        let pairs = [
            (&back, "frontend", front.clone()),
            (&back, "frontend-id", self.settings.domain.to_string()),
            (&back, "online", "1".into()),
            (&back, "mode", mode.into()),
            (&back, "device-type", kind.into()),
            (&back, "state", "1".into()),
            (&front, "backend", back.clone()),
            (&front, "backend-id", BACKEND.to_string()),
            (&front, "virtual-device", number.to_string()),
            (&front, "device-type", kind.into()),
            (&front, "trusted", "1".into()),
            (&front, "state", "1".into()),
        ];
        for (place, name, value) in pairs {
            self.server.set(now, &format!("{place}/{name}"), value, &mut self.log);
        }
        index
    }

    /// Writes what the back end says.
    fn say(&mut self, bus: &Bus<'_>, index: usize, name: &str, value: impl ToString) {
        let path = format!("{}/{name}", self.back_path(index));
        self.server.set(bus.now(), &path, value, &mut self.log);
    }

    pub(super) fn go(&mut self, bus: &Bus<'_>, index: usize, state: u64) {
        let delay = self.knobs.state_delay;
        self.vbds[index].state = Some(state);
        self.vbds[index].next = bus.now() + delay;
        self.say(bus, index, "state", state);
    }

    /// A step of the back end's coming and going, if one is due. Returns whether there was one.
    pub(super) fn step_backend(&mut self, bus: &Bus<'_>, index: usize) -> bool {
        let vbd = &self.vbds[index];
        let Some(back) = vbd.state.filter(|_| vbd.next <= bus.now()) else { return false };
        match (back, vbd.front) {
            (state::INITIALISING, _) => self.offer(bus, index),
            (state::INIT_WAIT | state::INITIALISED, state::INITIALISED | state::CONNECTED) => {
                match self.connect(bus, index) {
                    Some((rings, persistent)) => {
                        let vbd = &mut self.vbds[index];
                        (vbd.rings, vbd.persistent) = (rings, persistent);
                        self.describe(bus, index);
                        self.go(bus, index, state::CONNECTED);
                    }
                    None => self.go(bus, index, state::CLOSING),
                }
            }
            (state::INIT_WAIT..=state::CONNECTED, state::CLOSING) => self.go(bus, index, state::CLOSING),
            (state::INIT_WAIT..=state::CLOSING, state::CLOSED) => {
                self.release(index);
                self.go(bus, index, state::CLOSED);
                if !self.vbds[index].online {
                    self.forget(bus, index);
                }
            }
            // It is to be used again.
            (state::CLOSED, state::INITIALISING) if vbd.online => self.offer(bus, index),
            _ => return false,
        }
        true
    }

    fn offer(&mut self, bus: &Bus<'_>, index: usize) {
        let settings = self.vbds[index].settings.clone();
        self.say(bus, index, "hotplug-status", "connected");
        if settings.indirect > 0 {
            self.say(bus, index, "feature-max-indirect-segments", settings.indirect);
        }
        self.say(bus, index, "multi-queue-max-queues", settings.queues);
        if let Some(order) = settings.ring_order {
            self.say(bus, index, "max-ring-page-order", order);
        }
        self.go(bus, index, state::INIT_WAIT);
    }

    fn describe(&mut self, bus: &Bus<'_>, index: usize) {
        let settings = self.vbds[index].settings.clone();
        let sectors = self.vbds[index].disk.sectors();
        let flag = u32::from;
        self.say(bus, index, "feature-flush-cache", flag(settings.flush));
        self.say(bus, index, "feature-barrier", flag(settings.barrier));
        if settings.discard {
            self.say(bus, index, "feature-discard", 1);
            self.say(bus, index, "discard-granularity", 4096);
            self.say(bus, index, "discard-alignment", 0);
            self.say(bus, index, "discard-secure", flag(settings.secure));
        }
        self.say(bus, index, "feature-persistent", flag(settings.persistent));
        self.say(bus, index, "sectors", sectors);
        self.say(bus, index, "info", if settings.read_only { 4 } else { 0 });
        self.say(bus, index, "sector-size", settings.sector_size);
        self.say(bus, index, "physical-sector-size", settings.physical_sector_size);
    }

    /// Maps what the front end told of.
    fn connect(&mut self, bus: &Bus<'_>, index: usize) -> Option<(Vec<Ring>, bool)> {
        let front = self.front_path(index);
        let settings = self.vbds[index].settings.clone();
        let number = |this: &Self, name: &str| this.server.number(&format!("{front}/{name}"));
        if self.server.tree.get(&format!("{front}/protocol")) != Some(b"x86_64-abi") {
            return complain(self, "another protocol");
        }
        let queues = number(self, "multi-queue-num-queues").unwrap_or(1);
        let order = number(self, "ring-page-order");
        if queues == 0 || queues > u64::from(settings.queues) {
            return complain(self, "more rings than were offered, or none");
        }
        if order.is_some_and(|order| order > u64::from(settings.ring_order.unwrap_or(0))) {
            return complain(self, "larger rings than were offered");
        }
        let mut rings = Vec::new();
        for queue in 0..queues {
            let place = if queues == 1 { String::new() } else { format!("queue-{queue}/") };
            let references: Option<Vec<u64>> = match order {
                None => number(self, &format!("{place}ring-ref")).map(|one| vec![one]),
                Some(order) => (0..1 << order).map(|at| number(self, &format!("{place}ring-ref{at}"))).collect(),
            };
            let port = number(self, &format!("{place}event-channel"));
            let (Some(references), Some(port)) = (references, port) else {
                return complain(self, "no references, or no event channel");
            };
            match self.attach(bus, &references, port as u32) {
                Ok(ring) => rings.push(ring),
                Err(breach) => {
                    self.log.breach(breach);
                    rings.into_iter().for_each(|ring| self.let_go(ring));
                    return None;
                }
            }
        }
        let persistent = settings.persistent && number(self, "feature-persistent") == Some(1);
        self.vbds[index].persistent_most = self.knobs.persistent_most;
        Some((rings, persistent))
    }

    fn attach(&mut self, bus: &Bus<'_>, references: &[u64], port: u32) -> Result<Ring, Breach> {
        let end = self.ports.ports.get_mut(&port).ok_or(Breach::NoSuchPort(port))?;
        if end.end != super::events::End::Unbound(Self::backend_domain()) {
            return Err(Breach::Rings("an event channel that is not for the back end"));
        }
        end.end = super::events::End::Backend;
        let references: Vec<u32> = references.iter().map(|reference| *reference as u32).collect();
        let mut pages = Vec::new();
        for (at, reference) in references.iter().enumerate() {
            match self.grants.map(bus, *reference, true, &mut self.log) {
                Ok(page) => pages.push(page),
                Err(breach) => {
                    for reference in &references[..at] {
                        self.grants.unmap(*reference, true, &mut self.log);
                    }
                    return Err(breach);
                }
            }
        }
        Ring::attach(bus, pages, references, port)
    }

    /// The back end lets go of everything: what it has taken is performed, and not answered.
    pub(super) fn release(&mut self, index: usize) {
        for ring in std::mem::take(&mut self.vbds[index].rings) {
            self.let_go(ring);
        }
    }

    pub(super) fn let_go(&mut self, ring: Ring) {
        for taken in &ring.taken {
            for (reference, writes) in &taken.request.held {
                self.grants.unmap(*reference, *writes, &mut self.log);
            }
        }
        for reference in ring.kept.iter().chain(&ring.references) {
            self.grants.unmap(*reference, true, &mut self.log);
        }
        self.unbind(ring.port);
    }

    /// The back end's end of an event channel closes: somebody else may connect to the guest's.
    pub(super) fn unbind(&mut self, port: u32) {
        if let Some(port) = self.ports.ports.get_mut(&port) {
            port.end = super::events::End::Unbound(consts::BACKEND);
        }
    }

    /// The tool stack removes both ends from xenstore.
    pub(super) fn forget(&mut self, bus: &Bus<'_>, index: usize) {
        self.vbds[index].state = None;
        for path in [self.back_path(index), self.front_path(index)] {
            self.server.remove(bus.now(), &path, &mut self.log);
        }
    }
}
