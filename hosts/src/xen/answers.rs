//! What xenstore answers.

use super::breach::Breach;
use super::consts::store;
use super::fault::StoreFault;
use super::store::{Message, Server, Watch};
use super::tree::{Change, Transaction, is_path};
use super::{Xen, device};
use crate::Bus;

type Answer = Result<Vec<u8>, &'static str>;

const OK: &[u8] = b"OK\0";

/// The parts of a body, each with a zero behind it.
fn parts(body: &[u8]) -> Option<Vec<&str>> {
    let text = std::str::from_utf8(body.strip_suffix(b"\0")?).ok()?;
    Some(text.split('\0').collect())
}

impl Xen {
    /// Answers a request. The front end's states are looked at as they are written.
    pub(super) fn answer(&mut self, bus: &Bus<'_>, message: &Message) {
        self.log.counts.store_requests += 1;
        let faults = Server::faults(&mut self.faults.replies);
        let refused = faults.iter().find_map(|fault| match fault {
            StoreFault::Refused(name) => Some(*name),
            StoreFault::Again => Some("EAGAIN"),
            _ => None,
        });
        let answer = match refused {
            Some(name) => Err(name),
            None => self.perform_store(bus, message),
        };
        let Message { kind, request, transaction, .. } = *message;
        let fired = std::mem::take(&mut self.fired);
        match answer {
            Ok(body) if body.len() <= store::PAYLOAD => {
                self.server.say(bus.now(), [kind, request, transaction], &body, &faults);
            }
            Ok(_) => self.server.say(bus.now(), [store::ERROR, request, transaction], b"E2BIG\0", &faults),
            Err(name) => {
                if name == "EINVAL" {
                    self.log.breach(Breach::Store("what it says or names"));
                }
                let body = [name.as_bytes(), b"\0"].concat();
                self.server.say(bus.now(), [store::ERROR, request, transaction], &body, &faults);
            }
        }
        // Watches fire behind the reply.
        for change in fired {
            self.fire(bus, &change);
        }
    }

    fn fire(&mut self, bus: &Bus<'_>, change: &(String, Vec<String>)) {
        self.server.fire_removed(bus.now(), &change.0, &change.1, &mut self.log);
        device::noticed(self, bus, &change.0);
    }

    fn perform_store(&mut self, bus: &Bus<'_>, message: &Message) -> Answer {
        let Message { kind, transaction, ref body, .. } = *message;
        if transaction != 0 && !self.server.transactions.contains_key(&transaction) {
            self.log.breach(Breach::Store("a transaction that there is not"));
            return Err("ENOENT");
        }
        let one = || parts(body).filter(|parts| parts.len() == 1).map(|parts| parts[0].to_owned()).ok_or("EINVAL");
        let path = |this: &Self, said: &str| {
            if !is_path(said) {
                return Err("EINVAL");
            }
            let path = this.server.absolute(said);
            if this.may_read(&path) { Ok(path) } else { Err("EACCES") }
        };
        match kind {
            store::READ => {
                let path = path(self, &one()?)?;
                self.look(transaction, &path).ok_or("ENOENT")
            }
            store::DIRECTORY => {
                let path = path(self, &one()?)?;
                Ok(self.names(transaction, &path).ok_or("ENOENT")?.0)
            }
            store::DIRECTORY_PART => self.part(transaction, body, path),
            store::GET_DOMAIN_PATH => Ok(format!("/local/domain/{}\0", one()?).into_bytes()),
            store::WATCH => self.watch(bus, body),
            store::UNWATCH => self.unwatch(body),
            store::RESET_WATCHES => {
                self.server.watches.clear();
                Ok(OK.to_vec())
            }
            store::TRANSACTION_START => {
                if transaction != 0 || body.as_slice() != b"\0" {
                    return Err("EINVAL");
                }
                if self.server.transactions.len() >= 10 {
                    return Err("ENOSPC");
                }
                let number = self.server.next_transaction;
                self.server.next_transaction += 1;
                let begun = Transaction::new(&self.server.tree);
                self.server.transactions.insert(number, begun);
                Ok(format!("{number}\0").into_bytes())
            }
            store::TRANSACTION_END => self.end_transaction(transaction, body),
            store::WRITE => {
                let at = body.iter().position(|&byte| byte == 0).ok_or("EINVAL")?;
                let said = std::str::from_utf8(&body[..at]).map_err(|_| "EINVAL")?;
                let path = path(self, said)?;
                self.change(transaction, Change::Set(path, Some(body[at + 1..].to_vec())))
            }
            store::MKDIR => {
                let path = path(self, &one()?)?;
                self.change(transaction, Change::Set(path, None))
            }
            store::RM => {
                let path = path(self, &one()?)?;
                let above = path.rsplit_once('/').map_or("", |(above, _)| above).to_owned();
                if self.look(transaction, &path).is_none() && self.look(transaction, &above).is_none() {
                    return Err("ENOENT");
                }
                self.change(transaction, Change::Remove(path))
            }
            _ => {
                self.log.breach(Breach::Store("a type that there is not"));
                Err("ENOSYS")
            }
        }
    }

    /// The guest reads below its own place, and what its back ends say.
    fn may_read(&self, path: &str) -> bool {
        let below = |place: &str| path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
        below(&self.server.home) || below(&device::backend_home(self.settings.domain))
    }

    fn may_write(&self, path: &str) -> bool {
        ["device/", "data", "control", "error", "drivers", "attr", "feature"]
            .iter()
            .any(|place| path.starts_with(&format!("{}/{place}", self.server.home)))
    }

    fn look(&mut self, transaction: u32, path: &str) -> Option<Vec<u8>> {
        match self.server.transactions.get_mut(&transaction) {
            Some(transaction) => {
                transaction.touch(path);
                transaction.now.get(path).map(<[u8]>::to_vec)
            }
            None => self.server.tree.get(path).map(<[u8]>::to_vec),
        }
    }

    fn names(&mut self, transaction: u32, path: &str) -> Option<(Vec<u8>, u64)> {
        let generation = self.server.generation;
        let tree = match self.server.transactions.get_mut(&transaction) {
            Some(transaction) => {
                transaction.touch(path);
                &transaction.now
            }
            None => &self.server.tree,
        };
        let names = tree.list(path)?.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
        Some((names, generation))
    }

    fn part(
        &mut self,
        transaction: u32,
        body: &[u8],
        path: impl Fn(&Self, &str) -> Result<String, &'static str>,
    ) -> Answer {
        let parts = parts(body).filter(|parts| parts.len() == 2).ok_or("EINVAL")?;
        let path = path(self, parts[0])?;
        let offset: usize = parts[1].parse().map_err(|_| "EINVAL")?;
        let (names, generation) = self.names(transaction, &path).ok_or("ENOENT")?;
        let rest = names.get(offset..).ok_or("EINVAL")?;
        let mut answer = format!("{generation}\0").into_bytes();
        let room = (store::PAYLOAD - answer.len()).min(self.settings.part);
        // Whole names only, then a byte that says that there are no more.
        if rest.len() < room {
            answer.extend_from_slice(rest);
            answer.push(0);
        } else {
            let end = rest[..room].iter().rposition(|&byte| byte == 0).map_or(0, |at| at + 1);
            answer.extend_from_slice(&rest[..end]);
        }
        Ok(answer)
    }

    fn watch(&mut self, bus: &Bus<'_>, body: &[u8]) -> Answer {
        let parts = parts(body).filter(|parts| parts.len() == 2).ok_or("EINVAL")?;
        let (said, token) = (parts[0].to_owned(), parts[1].to_owned());
        if !is_path(&said) {
            return Err("EINVAL");
        }
        let path = self.server.absolute(&said);
        if self.server.watches.iter().any(|watch| watch.path == path && watch.token == token) {
            return Err("EEXIST");
        }
        // It fires at once, before or behind the reply: here before.
        self.server.event(bus.now(), &said, &token, &mut self.log);
        self.server.watches.push(Watch { said, path, token });
        Ok(OK.to_vec())
    }

    fn unwatch(&mut self, body: &[u8]) -> Answer {
        let parts = parts(body).filter(|parts| parts.len() == 2).ok_or("EINVAL")?;
        let path = self.server.absolute(parts[0]);
        let before = self.server.watches.len();
        self.server.watches.retain(|watch| watch.path != path || watch.token != parts[1]);
        if self.server.watches.len() == before { Err("ENOENT") } else { Ok(OK.to_vec()) }
    }

    fn change(&mut self, transaction: u32, change: Change) -> Answer {
        let path = match &change {
            Change::Set(path, _) | Change::Remove(path) => path.clone(),
        };
        if !self.may_write(&path) {
            self.log.breach(Breach::StoreDenied);
            return Err("EACCES");
        }
        let Some(transaction) = self.server.transactions.get_mut(&transaction) else {
            self.apply(change);
            return Ok(OK.to_vec());
        };
        transaction.touch(&path);
        match &change {
            Change::Set(path, value) => transaction.now.set(path, value.as_deref()),
            Change::Remove(path) => drop(transaction.now.remove(path)),
        }
        transaction.changes.push(change);
        Ok(OK.to_vec())
    }

    fn apply(&mut self, change: Change) {
        let fired = match change {
            Change::Set(path, value) => {
                self.server.tree.set(&path, value.as_deref());
                (path, Vec::new())
            }
            Change::Remove(path) => {
                let gone = self.server.tree.remove(&path);
                (path, gone)
            }
        };
        self.fired.push(fired);
    }

    fn end_transaction(&mut self, number: u32, body: &[u8]) -> Answer {
        let Some(transaction) = self.server.transactions.remove(&number) else { return Err("ENOENT") };
        match body {
            b"F\0" => return Ok(OK.to_vec()),
            b"T\0" => {}
            _ => return Err("EINVAL"),
        }
        if self.server.fail > 0 || !transaction.holds(&self.server.tree) {
            self.server.fail = self.server.fail.saturating_sub(1);
            self.log.counts.again += 1;
            return Err("EAGAIN");
        }
        transaction.changes.into_iter().for_each(|change| self.apply(change));
        Ok(OK.to_vec())
    }
}
