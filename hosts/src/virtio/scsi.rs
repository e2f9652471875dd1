//! virtio-scsi (virtio 1.2, 5.6): control, event and request queues around [`crate::scsi`].

use std::collections::{BTreeMap, VecDeque};

use super::consts::feature as ring;
use super::{Breach, Cancel, Fault, Model, Outcome, Request};
use crate::scsi::{Reply, Sense, Target, Unit, status};

mod bit {
    pub const INOUT: u64 = 1 << 0;
    pub const HOTPLUG: u64 = 1 << 1;
    pub const CHANGE: u64 = 1 << 2;
}

/// Response codes (5.6.6.1, 5.6.6.2).
mod response {
    pub const OK: u8 = 0;
    pub const OVERRUN: u8 = 1;
    pub const ABORTED: u8 = 2;
    pub const BAD_TARGET: u8 = 3;
    pub const RESET: u8 = 4;
    pub const FAILURE: u8 = 9;
    pub const REJECTED: u8 = 11;
    pub const INCORRECT_LUN: u8 = 12;
}

const CONTROL: u16 = 0;
const EVENTS: u16 = 1;

const LUN_AND_TAG: usize = 16;
const HEADER: usize = 19;
const RESPONSE: usize = 12;
const SENSE_SIZE_OFFSET: usize = 20;
const CDB_SIZE_OFFSET: usize = 24;
const EVENT_LEN: u32 = 16;
const EVENTS_MISSED: u32 = 1 << 31;

/// What the device says of itself in its configuration.
#[derive(Debug, Clone, Copy)]
pub struct ScsiLimits {
    /// Request queues.
    pub queues: u32,
    /// The size of every queue.
    pub queue_size: u16,
    /// The most segments of data in a request.
    pub seg_max: u32,
    /// The most sectors of 512 bytes in a request.
    pub max_sectors: u32,
    /// The most commands for a unit at once.
    pub cmd_per_lun: u32,
    /// The highest target number.
    pub max_target: u16,
    /// The highest logical unit number.
    pub max_lun: u32,
}

impl Default for ScsiLimits {
    /// One request queue; queues of 128; 126 segments; 255 targets; 16384 units.
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: 128,
            seg_max: 126,
            max_sectors: 0xffff,
            cmd_per_lun: 128,
            max_target: 255,
            max_lun: 16383,
        }
    }
}

/// Something that the device tells through the event queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScsiEvent {
    /// A unit appeared, or should be looked at again.
    Rescan(u8, u16),
    /// A unit went away.
    Removed(u8, u16),
    /// A unit was reset.
    HardReset(u8, u16),
    /// A unit's parameters changed, with additional sense code and qualifier.
    Changed(u8, u16, u8, u8),
    /// Anything: event, logical unit and reason as the driver finds them.
    Raw(u32, [u8; 8], u32),
}

/// A virtio SCSI host adapter with its targets.
#[derive(Debug, Default)]
pub struct Scsi {
    /// The targets, by number.
    pub targets: BTreeMap<u8, Target>,
    /// What it says of itself.
    pub limits: ScsiLimits,
    /// What task management functions are answered, if not by doing them.
    pub management_response: Option<u8>,
    /// Task management functions are never answered.
    pub management_deaf: bool,
    events: VecDeque<ScsiEvent>,
    missed: bool,
    features: u64,
    sense_size: u32,
    cdb_size: u32,
    managed: u64,
}

impl Scsi {
    /// An adapter with one target, number 0.
    pub fn new(target: Target) -> Self {
        Self { targets: [(0, target)].into(), ..Self::default() }
    }

    /// A target.
    pub fn target(&mut self, number: u8) -> Option<&mut Target> {
        self.targets.get_mut(&number)
    }

    /// Tells the driver something, if it accepted the feature for it, and as soon as it has provided a buffer; what finds no buffer is lost, and
    /// the driver is told that something was.
    pub fn event(&mut self, event: ScsiEvent) {
        let needs = if matches!(event, ScsiEvent::Changed(..)) { bit::CHANGE } else { bit::HOTPLUG };
        if self.features & needs != 0 {
            self.events.push_back(event);
        }
    }

    /// Task management functions received.
    pub fn managed(&self) -> u64 {
        self.managed
    }

    /// The target and unit that a request's first 8 bytes name (5.6.6.1): 1, the target, and a single-level number.
    fn address(bytes: &[u8]) -> Option<(u8, Unit)> {
        let bytes: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
        match bytes {
            [1, target, high, low, 0, 0, 0, 0] => {
                // A flat number below 256 is as good as a peripheral one.
                Some((target, Unit::decode([high, low, 0, 0, 0, 0, 0, 0])))
            }
            [0xc1, 0x01, target, ..] => Some((target, Unit::ReportLuns)),
            _ => None,
        }
    }

    fn encode(target: u8, lun: u16) -> [u8; 8] {
        let [high, low] = lun.to_be_bytes();
        [1, target, 0x40 | high, low, 0, 0, 0, 0]
    }

    fn command(&mut self, request: &mut Request<'_>, faults: &[Fault]) -> Result<Outcome, Breach> {
        let header = HEADER + self.cdb_size as usize;
        let response = RESPONSE + self.sense_size as usize;
        let (readable, writable) = (request.chain().readable() as usize, request.chain().writable() as usize);
        if readable < header || writable < response {
            return Err(Breach::Request("5.6.6.1: no room for the request or the response"));
        }
        let (out, into) = (readable - header, writable - response);
        request.require(
            out == 0 || into == 0 || self.features & bit::INOUT != 0,
            "5.6.6.1: data in both directions without INOUT",
        );
        let segments = request.chain().buffers.len().saturating_sub(2);
        request.require(segments <= self.limits.seg_max as usize, "5.6.4: more segments than seg_max");
        let bytes = request.read_vec(0, header)?;
        let cdb = &bytes[HEADER..];
        let mut code = response::OK;
        let mut reply = Reply::default();
        let mut moved = 0;
        let target = Self::address(&bytes).and_then(|(target, unit)| Some((self.targets.get_mut(&target)?, unit)));
        let forced = faults.iter().find_map(|fault| match *fault {
            Fault::Error => Some((response::FAILURE, Reply::default())),
            Fault::Status(code) => Some((code, Reply::default())),
            Fault::Sense(key, asc, ascq) => Some((response::OK, Reply::check(Sense::new(key, asc, ascq)))),
            Fault::ScsiStatus(status) => Some((response::OK, Reply { status, ..Reply::default() })),
            _ => None,
        });
        match (forced, target) {
            (Some(forced), _) => (code, reply) = forced,
            (None, None) => code = response::BAD_TARGET,
            (None, Some((target, unit))) => {
                let wants = target.transfer(unit, cdb);
                if wants.out > out || wants.into > into {
                    code = response::OVERRUN;
                } else {
                    let data = request.read_vec(header as u64, wants.out)?;
                    reply = target.execute(unit, cdb, &data);
                    moved = if reply.status == status::GOOD { wants.out + reply.data.len() } else { 0 };
                }
            }
        }
        request.write(response as u64, &reply.data)?;
        if faults.contains(&Fault::NoStatus) {
            return Ok(Outcome::Done((response + reply.data.len()) as u32));
        }
        let sense = reply.sense.map_or_else(Vec::new, |sense| sense.fixed().to_vec());
        let sense = &sense[..sense.len().min(self.sense_size as usize)];
        let residual = (out + into).saturating_sub(moved);
        let said =
            faults.iter().find_map(|fault| if let Fault::SaysSense(bytes) = fault { Some(*bytes) } else { None });
        let mut answer = said.unwrap_or(sense.len() as u32).to_le_bytes().to_vec();
        answer.extend((residual as u32).to_le_bytes());
        answer.extend([0, 0, reply.status, code]);
        answer.extend(sense);
        request.write(0, &answer)?;
        Ok(Outcome::Done((response + reply.data.len()) as u32))
    }

    /// A request on the control queue (5.6.6.2).
    fn control(&mut self, request: &mut Request<'_>) -> Result<Outcome, Breach> {
        const TASK_MANAGEMENT: u32 = 0;
        let readable = request.chain().readable();
        let kind: u32 = {
            let mut kind = [0; 4];
            request.read(0, &mut kind)?;
            u32::from_le_bytes(kind)
        };
        if kind != TASK_MANAGEMENT {
            // Asynchronous notification: a query or a subscription; no events of that kind exist.
            request.write(0, &[0, 0, 0, 0, response::OK])?;
            return Ok(Outcome::Done(5));
        }
        if readable != 24 || request.chain().writable() != 1 {
            return Err(Breach::Request("5.6.6.2: a task management request of the wrong size"));
        }
        self.managed += 1;
        if self.management_deaf {
            return Ok(Outcome::Keep);
        }
        let bytes = request.read_vec(0, 24)?;
        let (answer, cancel) = match self.management_response {
            Some(answer) => (answer, None),
            None => self.manage(&bytes),
        };
        request.write(0, &[answer])?;
        Ok(cancel.map_or(Outcome::Done(1), |cancel| Outcome::DoneAfter(cancel, 1)))
    }

    fn manage(&mut self, bytes: &[u8]) -> (u8, Option<Cancel>) {
        const ABORT_TASK: u8 = 0;
        const ABORT_TASK_SET: u8 = 1;
        const CLEAR_TASK_SET: u8 = 3;
        const NEXUS_RESET: u8 = 4;
        const UNIT_RESET: u8 = 5;
        let Some((number, unit)) = Self::address(&bytes[8..]) else {
            return (response::INCORRECT_LUN, None);
        };
        let Some(target) = self.targets.get_mut(&number) else { return (response::BAD_TARGET, None) };
        let tag = u64::from_le_bytes(bytes[16..24].try_into().unwrap_or_default());
        let Unit::Number(lun) = unit else { return (response::INCORRECT_LUN, None) };
        let Some(found) = target.lun(lun) else { return (response::INCORRECT_LUN, None) };
        let cancel = Cancel { target: number, lun: Some(lun), tag: None, response: response::ABORTED };
        let cancel = match bytes[4] {
            ABORT_TASK => Cancel { tag: Some(tag), ..cancel },
            ABORT_TASK_SET | CLEAR_TASK_SET => cancel,
            UNIT_RESET => {
                found.reset();
                Cancel { response: response::RESET, ..cancel }
            }
            NEXUS_RESET => {
                target.reset();
                Cancel { lun: None, response: response::RESET, ..cancel }
            }
            _ => return (response::REJECTED, None),
        };
        (response::OK, Some(cancel))
    }
}

impl Model for Scsi {
    fn device_id(&self) -> u16 {
        8
    }

    fn class(&self) -> (u8, u8, u8) {
        (0x01, 0x00, 0x00)
    }

    fn features(&self) -> u64 {
        ring::INDIRECT | ring::EVENT_IDX | ring::RING_RESET | bit::HOTPLUG | bit::CHANGE
    }

    fn queues(&self) -> Vec<u16> {
        vec![self.limits.queue_size; 2 + self.limits.queues as usize]
    }

    fn config(&self) -> Vec<u8> {
        let limits = &self.limits;
        let words = [
            limits.queues,
            limits.seg_max,
            limits.max_sectors,
            limits.cmd_per_lun,
            EVENT_LEN,
            self.sense_size,
            self.cdb_size,
        ];
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        // One channel.
        bytes.extend(0u16.to_le_bytes());
        bytes.extend(limits.max_target.to_le_bytes());
        bytes.extend(limits.max_lun.to_le_bytes());
        bytes
    }

    fn write_config(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Breach> {
        let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        match offset {
            SENSE_SIZE_OFFSET if bytes.len() == 4 => self.sense_size = value,
            CDB_SIZE_OFFSET if bytes.len() == 4 => self.cdb_size = value,
            _ => return Err(Breach::Request("5.6.4: wrote a read-only field of the configuration")),
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.features = 0;
        self.sense_size = 96;
        self.cdb_size = 32;
        self.events.clear();
        self.missed = false;
        self.targets.values_mut().for_each(Target::reset);
    }

    fn negotiated(&mut self, features: u64) {
        self.features = features;
    }

    fn scripted(&self, queue: u16) -> bool {
        queue > EVENTS
    }

    fn execute(&mut self, queue: u16, request: &mut Request<'_>, faults: &[Fault]) -> Result<Outcome, Breach> {
        match queue {
            CONTROL => self.control(request),
            EVENTS => {
                request.require(request.chain().readable() == 0, "5.6.6.3: an event buffer that is not writable");
                request.require(
                    request.chain().writable() >= u64::from(EVENT_LEN),
                    "5.6.6.3: an event buffer shorter than event_info_size",
                );
                Ok(Outcome::Keep)
            }
            _ => self.command(request, faults),
        }
    }

    fn cancel(&mut self, queue: u16, request: &mut Request<'_>, what: &Cancel) -> Result<Option<u32>, Breach> {
        if queue <= EVENTS || request.chain().readable() < LUN_AND_TAG as u64 {
            return Ok(None);
        }
        let bytes = request.read_vec(0, LUN_AND_TAG)?;
        let tag = u64::from_le_bytes(bytes[8..].try_into().unwrap_or_default());
        let Some((target, Unit::Number(lun))) = Self::address(&bytes) else { return Ok(None) };
        let meant = target == what.target
            && what.lun.is_none_or(|wanted| wanted == lun)
            && what.tag.is_none_or(|wanted| wanted == tag);
        if !meant {
            return Ok(None);
        }
        request.write(0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, what.response])?;
        Ok(Some(RESPONSE as u32 + self.sense_size))
    }

    fn event(&mut self, room: &dyn Fn(u16) -> bool) -> Option<(u16, Vec<u8>)> {
        const TRANSPORT_RESET: u32 = 1;
        const PARAMETER_CHANGE: u32 = 3;
        if !room(EVENTS) {
            self.missed |= !self.events.is_empty();
            self.events.clear();
            return None;
        }
        let (event, lun, reason) = match self.events.pop_front() {
            Some(ScsiEvent::HardReset(target, lun)) => (TRANSPORT_RESET, Self::encode(target, lun), 0),
            Some(ScsiEvent::Rescan(target, lun)) => (TRANSPORT_RESET, Self::encode(target, lun), 1),
            Some(ScsiEvent::Removed(target, lun)) => (TRANSPORT_RESET, Self::encode(target, lun), 2),
            Some(ScsiEvent::Changed(target, lun, asc, ascq)) => {
                (PARAMETER_CHANGE, Self::encode(target, lun), u32::from(asc) | u32::from(ascq) << 8)
            }
            Some(ScsiEvent::Raw(event, lun, reason)) => (event, lun, reason),
            None if self.missed => (0, [0; 8], 0),
            None => return None,
        };
        let flag = if std::mem::take(&mut self.missed) { EVENTS_MISSED } else { 0 };
        let mut bytes = (event | flag).to_le_bytes().to_vec();
        bytes.extend(lun);
        bytes.extend(reason.to_le_bytes());
        Some((EVENTS, bytes))
    }
}
