//! What the owner of a machine does to it: controllers and disks that come, go and change; and what it asks of the host.

use super::channel::{Outbound, Taken};
use super::consts::{packet, srb, stor};
use super::srb::{Done, Srb, Work};
use super::turn::bytes;
use super::{Controller, Guest, Hyperv};
use crate::scsi::{Lun, Sense, Target};

impl Hyperv {
    pub(super) fn unsolicited(&mut self, id: u32, operation: u32, wants_answer: bool) {
        let mut payload = vec![0; 64];
        payload[..4].copy_from_slice(&operation.to_le_bytes());
        payload[4] = u8::from(wants_answer);
        // An id that no guest is likely to use.
        let transaction = 0xfeed_0000_0000_0000 + self.asked.len() as u64;
        if wants_answer {
            self.asked.push(transaction);
        }
        let bytes = bytes(packet::IN_BAND, u16::from(wants_answer), transaction, &payload, &[]);
        if let Some(open) = self.live(id) {
            open.outbox.push_back(Outbound { bytes, index: None, poke: None, quiet: false });
        }
    }

    fn primary(&self, controller: usize) -> Option<u32> {
        let mut all = self.channels.values().filter(|channel| !channel.rescinded && channel.sub_index == 0);
        all.find(|channel| channel.controller == Some(controller)).map(|channel| channel.id)
    }

    /// Asks the guest to look at a controller's bus again.
    pub fn enumerate(&mut self, controller: usize) {
        if let Some(id) = self.primary(controller) {
            self.unsolicited(id, stor::ENUMERATE, false);
        }
    }

    /// Adds a controller. It is offered with the others, or at once if the guest has them already. Returns its index.
    pub fn add_controller(&mut self, controller: Controller) -> usize {
        self.controllers.push(controller);
        let index = self.controllers.len() - 1;
        self.new_channel(Some(index), 0);
        index
    }

    /// Offers what was added while a guest was connected.
    pub fn offer_new(&mut self, guest: &dyn Guest) {
        let new = |id: &u32| self.channels.get(id).is_some_and(|c| !c.offered && !c.rescinded);
        for id in self.channels.keys().copied().filter(new).collect::<Vec<_>>() {
            self.offer(guest, id);
        }
    }

    /// Takes a controller out for good.
    pub fn remove_controller(&mut self, guest: &dyn Guest, controller: usize) {
        if let Some(it) = self.controllers.get_mut(controller) {
            it.gone = true;
        }
        if let Some(id) = self.primary(controller) {
            self.rescind(guest, id);
        }
    }

    /// A controller.
    pub fn controller(&mut self, index: usize) -> Option<&mut Controller> {
        self.controllers.get_mut(index)
    }

    /// Plugs in a disk while the machine runs, and tells the guest.
    pub fn add_lun(&mut self, controller: usize, target: u8, number: u16, lun: Lun) {
        if let Some(it) = self.controllers.get_mut(controller) {
            it.targets.entry(target).or_insert_with(Target::new).add(number, lun);
        }
        self.enumerate(controller);
    }

    /// Pulls a disk out while the machine runs, and tells the guest. What it had in hand is aborted.
    pub fn remove_lun(&mut self, controller: usize, target: u8, number: u16) -> Option<Lun> {
        let gone = self.controllers.get_mut(controller)?.targets.get_mut(&target)?.remove(number);
        self.abort(controller, |srb| srb.target == target && u16::from(srb.lun) == number);
        if self.knobs.tells_removal
            && let Some(id) = self.primary(controller)
        {
            self.unsolicited(id, stor::REMOVE, true);
        }
        self.enumerate(controller);
        gone
    }

    /// Changes a disk's size, in sectors of 512 bytes, with the unit attention for it.
    pub fn resize(&mut self, controller: usize, target: u8, number: u16, sectors: u64) {
        let target = self.controllers.get_mut(controller).and_then(|it| it.targets.get_mut(&target));
        if let Some(lun) = target.and_then(|target| target.lun(number)) {
            lun.resize(sectors);
        }
    }

    /// A unit attention, as after a reset, on target 0, unit 0.
    pub(super) fn attention(&mut self, controller: usize) {
        let target = self.controllers.get_mut(controller).and_then(|it| it.targets.get_mut(&0));
        if let Some(lun) = target.and_then(|target| target.lun(0)) {
            lun.attention(Sense::RESET);
        }
    }

    /// Ends requests in hand without performing them.
    pub(super) fn abort(&mut self, controller: usize, meant: impl Fn(&Srb) -> bool) {
        let of = |channel: &&super::channel::Channel| channel.controller == Some(controller);
        for id in self.channels.values().filter(of).map(|channel| channel.id).collect::<Vec<_>>() {
            let Some(open) = self.live(id) else { continue };
            let mut kept = Vec::new();
            let mut ended = Vec::new();
            for taken in std::mem::take(&mut open.taken) {
                match &taken.work {
                    Work::Command(srb) if meant(srb) => ended.push(taken),
                    _ => kept.push(taken),
                }
            }
            open.taken = kept;
            for taken in ended {
                if let Work::Command(srb) = &taken.work {
                    let payload = srb.answer(&Done::new(srb::ABORTED, 0));
                    self.complete(id, &Taken { faults: Vec::new(), ..taken }, &payload);
                }
            }
        }
    }

    /// When the host next does something by itself, in units of 100 ns.
    pub fn due(&self) -> Option<u64> {
        let waits = |taken: &Taken| if taken.behind > 0 { taken.due.max(taken.patience) } else { taken.due };
        let opens = self.channels.values().filter_map(|channel| channel.open.as_ref().filter(|open| !open.dead));
        let taken = opens.clone().flat_map(|open| &open.taken).filter(|taken| !taken.never).map(waits);
        let unstick = opens.filter_map(|open| open.unstick);
        let lists = self.channels.values().flat_map(|channel| channel.gpadls.values()).filter_map(|g| g.torn_down);
        let late = self.late.iter().map(|(at, _)| *at);
        let coming = self.coming.iter().map(|(at, ..)| *at);
        taken.chain(unstick).chain(lists).chain(late).chain(coming).chain(self.timer_due()).min()
    }

    /// What the host waits for, in words.
    pub fn words(&self) -> String {
        let mut text = format!("Hyper-V, {} messages waiting for a free slot", self.messages_waiting());
        for channel in self.channels.values() {
            if let Some(open) = &channel.open {
                let never = open.taken.iter().filter(|taken| taken.never).count();
                text += &format!(
                    "; channel {}: {} in hand ({never} never to be answered), {} to be sent{}{}",
                    channel.id,
                    open.taken.len(),
                    open.outbox.len(),
                    if open.outgoing.waits() { ", waits for room in the guest's ring" } else { "" },
                    if open.dead { ", dead" } else { "" },
                );
            }
        }
        if !self.breaches.is_empty() {
            text += &format!("; breaches {:?}", self.breaches);
        }
        text
    }
}
