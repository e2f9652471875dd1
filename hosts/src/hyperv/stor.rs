//! StorVSP: what it makes of the packets of a channel.

use super::channel::Taken;
use super::consts::{nt, packet, srb, stor};
use super::guest::{u16_at, u32_at};
use super::ring::Packet;
use super::srb::{Done, FIRST_LONG, Srb, Work, plain, srb_status};
use super::{Absent, Breach, Fault, Guest, Hyperv};
use crate::scsi::{Sense, Target, Unit};

/// How far initialisation got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Init {
    #[default]
    Idle,
    Begun,
    Versioned,
    Described,
    Ready,
}

const COMPLETION_WANTED: u16 = 1;
const MULTI_CHANNEL: u32 = 1;
/// The payload that there was before version 5.1.
const SHORT: usize = 48;
const LONG: usize = 64;

impl Hyperv {
    /// What is to be done for a packet. `None`: nothing. An error stops the channel.
    pub(super) fn begin(&mut self, guest: &dyn Guest, id: u32, packet: &Packet) -> Result<Option<Work>, Breach> {
        let channel = self.channels.get(&id);
        let Some(index) = channel.and_then(|channel| channel.controller) else { return Ok(None) };
        let primary = channel.is_some_and(|channel| channel.sub_index == 0);
        let bad = |what| Err(Breach::Packet(id, what));
        if packet.kind == packet::COMPLETION {
            let asked = self.asked.iter().position(|transaction| *transaction == packet.transaction);
            return match asked {
                Some(at) => {
                    self.asked.swap_remove(at);
                    Ok(None)
                }
                None => bad("the end of a transaction that the host did not begin"),
            };
        }
        let direct = packet.kind == packet::GPA_DIRECT;
        if !direct && packet.kind != packet::IN_BAND {
            return bad("an unknown type");
        }
        if packet.flags != COMPLETION_WANTED {
            return bad("flags other than completion wanted");
        }
        if !direct && !packet.extension.is_empty() {
            return bad("an extension in band");
        }
        let version = self.controllers[index].version;
        let payload = packet.payload.len();
        let right = match version {
            FIRST_LONG.. => payload == LONG,
            // Before a version is agreed on nobody knows which it is; and what initialises is whole in any version (Microsoft's own guest).
            0 => payload == SHORT || payload == LONG,
            _ if (stor::BEGIN_INIT..=stor::QUERY_PROPERTIES).contains(&u32_at(&packet.payload, 0)) => {
                payload == SHORT || payload == LONG
            }
            _ => payload == SHORT,
        };
        if !right {
            return Err(Breach::Stor("a payload of an impossible length"));
        }
        let (operation, flags) = (u32_at(&packet.payload, 0), u32_at(&packet.payload, 4));
        if flags != 1 {
            self.breaches.push(Breach::Stor("flags other than completion wanted"));
        }
        if direct && operation != stor::EXECUTE {
            return Err(Breach::Stor("a range with something that moves no data"));
        }
        match operation {
            stor::EXECUTE if self.controllers[index].init == Init::Ready => {
                let srb = Srb::read(packet, version, direct, &mut self.breaches)?;
                if srb.len > self.knobs.max_transfer as usize {
                    self.breaches.push(Breach::Stor("more data than the host moves at a time"));
                }
                Ok(Some(Work::Command(Box::new(srb))))
            }
            stor::RESET_LUN | stor::RESET_ADAPTER | stor::RESET_BUS if self.controllers[index].init == Init::Ready => {
                Ok(Some(Work::Reset { operation, target: packet.payload[18], payload }))
            }
            stor::BEGIN_INIT
            | stor::QUERY_VERSION
            | stor::QUERY_PROPERTIES
            | stor::SUB_CHANNELS
            | stor::END_INIT
            | stor::EXECUTE
            | stor::RESET_LUN
            | stor::RESET_ADAPTER
            | stor::RESET_BUS => {
                if !primary {
                    return Err(Breach::Stor("initialisation of a sub-channel"));
                }
                Ok(Some(Work::Answer(self.initialise(guest, index, operation, &packet.payload))))
            }
            _ => Err(Breach::Stor("an unknown operation")),
        }
    }

    fn initialise(&mut self, guest: &dyn Guest, index: usize, operation: u32, request: &[u8]) -> Vec<u8> {
        let most = self.knobs.sub_channels;
        let controller = &mut self.controllers[index];
        let mut answer = plain(request.len(), nt::OK);
        let multi = controller.version >= FIRST_LONG && most > 0;
        match (operation, controller.init) {
            (stor::BEGIN_INIT, Init::Idle) => controller.init = Init::Begun,
            (stor::QUERY_VERSION, Init::Begun) => {
                let version = u16_at(request, 12);
                answer[12..14].copy_from_slice(&version.to_le_bytes());
                if self.knobs.stor_versions.contains(&version) {
                    controller.version = version;
                    controller.init = Init::Versioned;
                } else {
                    answer[8..12].copy_from_slice(&nt::REVISION.to_le_bytes());
                }
            }
            (stor::QUERY_PROPERTIES, Init::Versioned) => {
                if multi {
                    answer[16..18].copy_from_slice(&most.to_le_bytes());
                    answer[20..24].copy_from_slice(&MULTI_CHANNEL.to_le_bytes());
                }
                answer[24..28].copy_from_slice(&self.knobs.max_transfer.to_le_bytes());
                controller.init = Init::Described;
            }
            (stor::SUB_CHANNELS, Init::Described | Init::Ready) => {
                let count = u16_at(request, 12);
                if count > most || !multi {
                    self.breaches.push(Breach::Stor("more sub-channels than there are"));
                    return plain(request.len(), nt::INVALID_PARAMETER);
                }
                let at = guest.now() + self.knobs.sub_channels_after;
                self.coming.extend((1..=count).map(|sub| (at, index, sub)));
            }
            (stor::END_INIT, Init::Described) => controller.init = Init::Ready,
            _ => {
                self.breaches.push(Breach::InitOrder(operation));
                return plain(request.len(), nt::INVALID_STATE);
            }
        }
        answer
    }

    /// Offers the sub-channels whose time has come.
    pub(super) fn offer_sub_channels(&mut self, guest: &dyn Guest) -> bool {
        let now = guest.now();
        let all = std::mem::take(&mut self.coming);
        let (due, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, ..)| *at <= now);
        self.coming = later;
        for &(_, controller, sub) in &due {
            let id = self.new_channel(Some(controller), sub);
            self.offer(guest, id);
        }
        !due.is_empty()
    }

    /// Performs what was taken; the answer's payload.
    pub(super) fn perform(&mut self, guest: &dyn Guest, id: u32, taken: &Taken) -> Vec<u8> {
        match &taken.work {
            Work::Answer(bytes) => bytes.clone(),
            Work::Command(srb) => {
                let mut done = self.execute(guest, id, srb, &taken.faults).unwrap_or_else(|breach| {
                    self.breaches.push(breach);
                    Done::new(srb::ERROR, 0)
                });
                for fault in &taken.faults {
                    match *fault {
                        Fault::SaysMoved(bytes) => done.moved = bytes,
                        Fault::SaysSense(bytes) => done.sense_len = bytes,
                        _ => {}
                    }
                }
                srb.answer(&done)
            }
            Work::Reset { operation, target, payload } => {
                self.reset(id, *operation, *target);
                plain(*payload, nt::OK)
            }
        }
    }

    fn reset(&mut self, id: u32, operation: u32, number: u8) {
        let Some(index) = self.channels.get(&id).and_then(|channel| channel.controller) else { return };
        let one = operation == stor::RESET_LUN;
        for (_, target) in self.controllers[index].targets.iter_mut().filter(|(at, _)| !one || **at == number) {
            target.reset();
        }
        if self.knobs.resets_abort {
            self.abort(index, |srb| !one || srb.target == number);
        }
    }

    fn execute(&mut self, guest: &dyn Guest, id: u32, srb: &Srb, faults: &[Fault]) -> Result<Done, Breach> {
        for fault in faults {
            match *fault {
                Fault::Status(status, scsi) => return Ok(Done::new(status, scsi)),
                Fault::Busy => return Ok(Done::new(srb::BUSY, 8)),
                Fault::Sense(key, asc, ascq) => return Ok(checked(Sense::new(key, asc, ascq), srb)),
                _ => {}
            }
        }
        let channel = self.channels.get(&id);
        let Some(index) = channel.and_then(|channel| channel.controller) else { return Ok(Done::default()) };
        let ide = self.controllers[index].ide.is_some();
        let number = if ide { 0 } else { srb.target };
        let unit = Unit::Number(u16::from(srb.lun));
        let code = srb.cdb[0];
        let mut none = Target::new();
        let target = self.controllers[index].targets.get_mut(&number);
        let present = target.as_ref().is_some_and(|target| target.has(u16::from(srb.lun)));
        if !(present || code == REPORT_LUNS && srb.lun == 0) {
            return absent(guest, srb, self.knobs.absent);
        }
        let target = target.unwrap_or(&mut none);
        let wants = target.transfer(unit, &srb.cdb);
        if wants.out > 0 && srb.reads || wants.into > 0 && srb.writes {
            return Err(Breach::Stor("data in the other direction than the command's"));
        }
        if wants.out > srb.len || moves_blocks(code) && wants.into > srb.len {
            return Ok(checked(Sense::OUT_OF_RANGE, srb));
        }
        let short =
            faults.iter().find_map(|fault| if let Fault::Short(by) = *fault { Some(by as usize) } else { None });
        let data = srb.fetch(guest, wants.out)?;
        if let (Some(by), true) = (short, wants.out > 0) {
            // Half of a write is none.
            let moved = wants.out.saturating_sub(by) as u32;
            return Ok(Done { moved, ..Done::new(srb::SUCCESS, 0) });
        }
        // OpenVMM goes by the buffer alone here.
        let mut cdb = srb.cdb.clone();
        if code == REPORT_LUNS && cdb.len() >= 10 {
            cdb[6..10].copy_from_slice(&(srb.len as u32).to_be_bytes());
        }
        let mut reply = target.execute(unit, &cdb, &data);
        reply.data.truncate(srb.len);
        let keep = reply.data.len().saturating_sub(short.unwrap_or(0));
        reply.data.truncate(keep);
        srb.fill(guest, &reply.data)?;
        if let Some(sense) = reply.sense {
            return Ok(checked(sense, srb));
        }
        let moved = if reply.status == 0 { (wants.out + keep) as u32 } else { 0 };
        Ok(Done { moved, ..Done::new(srb_status(reply.status, None), reply.status) })
    }
}

const REPORT_LUNS: u8 = 0xa0;
const INQUIRY: u8 = 0x12;

/// READ and WRITE.
fn moves_blocks(code: u8) -> bool {
    matches!(code, 0x08 | 0x0a | 0x28 | 0x2a | 0x88 | 0x8a | 0xa8 | 0xaa)
}

/// CHECK CONDITION, with the sense data in the answer unless the guest wants none.
fn checked(sense: Sense, srb: &Srb) -> Done {
    const CHECK_CONDITION: u8 = 2;
    let status = srb_status(CHECK_CONDITION, Some(sense.key));
    if srb.sense_room == 0 {
        return Done::new(status, CHECK_CONDITION);
    }
    Done { sense: sense.fixed().to_vec(), ..Done::new(status | srb::AUTOSENSE, CHECK_CONDITION) }
}

fn absent(guest: &dyn Guest, srb: &Srb, style: Absent) -> Result<Done, Breach> {
    let inquiry = srb.cdb[0] == INQUIRY;
    let vital = srb.cdb[1] & 1 != 0;
    let mut moved = 0;
    if inquiry && !vital {
        let mut data = vec![0; 36];
        (data[0], data[4]) = (0x7f, 31);
        data.truncate(srb.len);
        srb.fill(guest, &data)?;
        moved = data.len() as u32;
    }
    Ok(match style {
        Absent::Invalid if inquiry && !vital => Done { moved, ..Done::new(srb::SUCCESS, 0) },
        Absent::Invalid if inquiry => Done::new(srb::INVALID_REQUEST, 2),
        Absent::Invalid => Done::new(srb::INVALID_LUN, 2),
        Absent::InvalidWithSense => {
            let done = checked(Sense::NO_UNIT, srb);
            Done { srb: srb::INVALID_LUN | done.srb & srb::AUTOSENSE, moved, ..done }
        }
    })
}
