//! The server of xenstore: what comes in the ring of requests, and what goes out in the other.

use std::collections::{BTreeMap, VecDeque};

use super::breach::{Breach, Log};
use super::consts::{PAGE, store};
use super::fault::StoreFault;
use super::memory::{self, u32_at};
use super::tree::{Transaction, Tree};
use crate::{Bus, Script};

/// A watch of the guest's.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// As it was said, and from the root.
    pub said: String,
    pub path: String,
    pub token: String,
}

/// Bytes for the guest, and when they may go.
#[derive(Debug)]
struct Outbound {
    bytes: VecDeque<u8>,
    at: u64,
    bytewise: bool,
    quiet: bool,
    /// The producer index jumps.
    jump: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Server {
    pub tree: Tree,
    pub watches: Vec<Watch>,
    pub transactions: BTreeMap<u32, Transaction>,
    pub next_transaction: u32,
    /// So many commits still fail.
    pub fail: u32,
    pub home: String,
    pub generation: u64,
    page: u64,
    inbox: Vec<u8>,
    outbox: VecDeque<Outbound>,
    /// The indices that are the server's own.
    consumed: u32,
    produced: u32,
    /// Notified since it last looked.
    pub kicked: bool,
    /// Takes and says nothing any more: the guest broke the protocol, or a fault the ring.
    dead: bool,
}

/// A request.
#[derive(Debug)]
pub(super) struct Message {
    pub kind: u32,
    pub request: u32,
    pub transaction: u32,
    pub body: Vec<u8>,
}

impl Server {
    pub fn new(domain: u16, frame: u64) -> Self {
        let home = format!("/local/domain/{domain}");
        let mut tree = Tree::default();
        tree.set(&format!("{home}/domid"), Some(domain.to_string().as_bytes()));
        tree.set(&format!("{home}/device/suspend/event-channel"), Some(b""));
        Self {
            tree,
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            next_transaction: 1,
            fail: 0,
            home,
            generation: 1,
            page: frame * PAGE,
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            consumed: 0,
            produced: 0,
            kicked: false,
            dead: false,
        }
    }

    /// A path from the root.
    pub fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') { path.into() } else { format!("{}/{path}", self.home) }
    }

    /// Takes what is in the ring of requests, as far as it was notified. Returns whole messages, and whether anything was taken.
    pub fn take(&mut self, bus: &Bus<'_>, log: &mut Log) -> (Option<Message>, bool) {
        if let Some(message) = self.message(log) {
            return (Some(message), true);
        }
        if self.dead || !self.kicked {
            return (None, false);
        }
        let taken = match self.read(bus) {
            Ok(0) => {
                self.kicked = false;
                return (None, false);
            }
            Ok(taken) => taken,
            Err(breach) => {
                log.breach(breach);
                self.dead = true;
                return (None, false);
            }
        };
        (self.message(log), taken > 0)
    }

    fn read(&mut self, bus: &Bus<'_>) -> Result<u32, Breach> {
        let (produced, consumed) =
            (memory::load(bus, self.page + store::REQ_PROD)?, memory::load(bus, self.page + store::REQ_CONS)?);
        let there = produced.wrapping_sub(self.consumed);
        if there > store::RING {
            return Err(Breach::StoreIndex(produced));
        }
        if consumed != self.consumed {
            return Err(Breach::HostsField("xenstore's req_cons"));
        }
        for _ in 0..there {
            let mut byte = [0];
            let at = u64::from(self.consumed % store::RING);
            memory::read(bus, self.page + store::REQ + at, &mut byte)?;
            self.inbox.push(byte[0]);
            self.consumed = self.consumed.wrapping_add(1);
        }
        memory::store(bus, self.page + store::REQ_CONS, self.consumed)?;
        Ok(there)
    }

    fn message(&mut self, log: &mut Log) -> Option<Message> {
        if self.inbox.len() < store::HEADER || self.dead {
            return None;
        }
        let length = u32_at(&self.inbox, 12) as usize;
        if length > store::PAYLOAD {
            log.breach(Breach::Store("a body of more than 4096 bytes"));
            self.dead = true;
            return None;
        }
        if self.inbox.len() < store::HEADER + length {
            return None;
        }
        let rest = self.inbox.split_off(store::HEADER + length);
        let whole = std::mem::replace(&mut self.inbox, rest);
        let (kind, request, transaction) = (u32_at(&whole, 0), u32_at(&whole, 4), u32_at(&whole, 8));
        Some(Message { kind, request, transaction, body: whole[store::HEADER..].to_vec() })
    }

    /// Queues a message for the guest, or what the faults make of it.
    pub fn say(&mut self, now: u64, [kind, request, transaction]: [u32; 3], body: &[u8], faults: &[StoreFault]) {
        let mut body = body.to_vec();
        let (mut kind, mut request, mut length, mut at, mut times) = (kind, request, None, now, 1);
        let (mut bytewise, mut quiet, mut jump) = (false, false, None);
        for fault in faults {
            match *fault {
                StoreFault::Delay(nanos) => at += nanos,
                StoreFault::Drop => times = 0,
                StoreFault::Twice => times = 2,
                StoreFault::Kind(other) => kind = other,
                StoreFault::Request(other) => request = other,
                StoreFault::Length(other) => length = Some(other),
                StoreFault::Truncate(most) => body.truncate(usize::from(most)),
                StoreFault::Garbage(byte) => body.fill(byte),
                StoreFault::StrayEvent(token) => {
                    let event = [b"device\0", token.as_bytes(), b"\0"].concat();
                    self.say(now, [store::WATCH_EVENT, 0, 0], &event, &[]);
                }
                StoreFault::StrayReply => self.say(now, [store::READ, request.wrapping_add(7), 0], b"1", &[]),
                StoreFault::Bytewise => bytewise = true,
                StoreFault::NoEvent => quiet = true,
                StoreFault::Producer(by) => jump = Some(by),
                StoreFault::Refused(_) | StoreFault::Again => {}
            }
        }
        let header = [kind, request, transaction, length.unwrap_or(body.len() as u32)].map(u32::to_le_bytes).concat();
        for _ in 0..times {
            let bytes = header.iter().chain(&body).copied().collect();
            self.outbox.push_back(Outbound { bytes, at, bytewise, quiet, jump });
        }
    }

    /// Sends what there is room for. Returns whether anything was sent, and whether the guest is to be notified.
    pub fn send(&mut self, bus: &Bus<'_>, log: &mut Log) -> (bool, bool) {
        let (mut sent, mut notify) = (false, false);
        while let Some(next) = self.outbox.front_mut().filter(|next| !self.dead && next.at <= bus.now()) {
            let result = (|| -> Result<u32, Breach> {
                let (consumed, produced) =
                    (memory::load(bus, self.page + store::RSP_CONS)?, memory::load(bus, self.page + store::RSP_PROD)?);
                if produced != self.produced {
                    return Err(Breach::HostsField("xenstore's rsp_prod"));
                }
                let used = self.produced.wrapping_sub(consumed);
                let room = store::RING.checked_sub(used).ok_or(Breach::StoreIndex(consumed))?;
                let now = room.min(next.bytes.len() as u32).min(if next.bytewise { 1 } else { u32::MAX });
                for byte in next.bytes.drain(..now as usize) {
                    let at = u64::from(self.produced % store::RING);
                    memory::write(bus, self.page + store::RSP + at, &[byte])?;
                    self.produced = self.produced.wrapping_add(1);
                }
                let lie = next.jump.unwrap_or(0);
                self.produced = self.produced.wrapping_add(lie);
                memory::store(bus, self.page + store::RSP_PROD, self.produced)?;
                Ok(now)
            })();
            match result {
                Ok(0) => break,
                Ok(_) => {
                    sent = true;
                    notify |= !next.quiet;
                    self.dead |= next.jump.is_some();
                    let stop = next.bytewise;
                    if next.bytes.is_empty() {
                        self.outbox.pop_front();
                    }
                    if stop {
                        break;
                    }
                }
                Err(breach) => {
                    log.breach(breach);
                    self.dead = true;
                }
            }
        }
        (sent, notify)
    }

    pub fn due(&self) -> Option<u64> {
        self.outbox.front().map(|next| next.at)
    }

    /// Changes a value as the tool stack or a back end does; watches fire.
    pub fn set(&mut self, now: u64, path: &str, value: impl ToString, log: &mut Log) {
        self.tree.set(path, Some(value.to_string().as_bytes()));
        self.fire(now, path, log);
    }

    /// Removes a path as the tool stack does; watches fire.
    pub fn remove(&mut self, now: u64, path: &str, log: &mut Log) {
        let gone = self.tree.remove(path);
        self.fire_removed(now, path, &gone, log);
    }

    pub fn number(&self, path: &str) -> Option<u64> {
        std::str::from_utf8(self.tree.get(path)?).ok()?.parse().ok()
    }

    /// Tells those who watch `path` or what is above it.
    pub fn fire(&mut self, now: u64, path: &str, log: &mut Log) {
        self.generation += 1;
        for watch in self.watches.clone() {
            let below = path.strip_prefix(&watch.path).filter(|rest| rest.is_empty() || rest.starts_with('/'));
            if let Some(rest) = below {
                self.event(now, &format!("{}{rest}", watch.said), &watch.token, log);
            }
        }
    }

    /// As [`Server::fire`], and those who watch something below that is gone.
    pub fn fire_removed(&mut self, now: u64, path: &str, gone: &[String], log: &mut Log) {
        self.fire(now, path, log);
        for watch in self.watches.clone() {
            if watch.path != path && gone.contains(&watch.path) {
                self.event(now, &watch.said, &watch.token, log);
            }
        }
    }

    pub fn event(&mut self, now: u64, path: &str, token: &str, log: &mut Log) {
        log.counts.watch_events += 1;
        let body = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"].concat();
        self.say(now, [store::WATCH_EVENT, 0, 0], &body, &[]);
    }

    /// The next decision of the script.
    pub fn faults(script: &mut Script<StoreFault>) -> Vec<StoreFault> {
        script.next().unwrap_or_default()
    }
}
