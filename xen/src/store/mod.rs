//! xenstore: the data base by which domains tell each other of their devices.
//!
//! Source: Xen `docs/misc/xenstore.txt`, `docs/misc/xenstore-ring.txt`, `public/io/xs_wire.h`. Requests come from any task, one at a
//! time; replies and events come in a bottom half, and who watches is run in a task.

mod connection;
mod error;
mod incoming;
pub mod wire;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use undercroft_hal::Task;
use undercroft_hal::work::{TaskWork, Turn};
use undercroft_hal::xen::{Domain, Errno, EventChannel, Notifier, StartError};

pub use error::StoreError;

use connection::{Connection, number};
use wire::{Kind, MOST_PATH, MOST_RELATIVE_PATH};

/// The CPU that hears of the server.
const CPU: usize = 0;
/// Tries of a transaction that others come between, and of a list that changes.
const TRIES: u32 = 64;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// The tool stack has made no page or event channel, or it cannot be reached.
    NoStore(StartError),
    /// The event channel cannot be used.
    NoEvents(Errno),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStore(error) => error.fmt(f),
            Self::NoEvents(error) => write!(f, "the event channel of xenstore: {error}"),
        }
    }
}

impl core::error::Error for ConnectError {}

/// A transaction under way: what is read and written in it happens at once, or not at all.
#[derive(Debug, Clone, Copy)]
pub struct Transaction(u32);

impl Transaction {
    /// No transaction: each request by itself.
    pub const NONE: Self = Self(0);
}

/// A connection to xenstore.
pub struct Store {
    connection: Arc<Connection>,
    notifier: Notifier,
    channel: EventChannel,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl Store {
    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(cx: &Task, domain: &Domain) -> Result<Arc<Self>, ConnectError> {
        let (page, port) = domain.store().map_err(ConnectError::NoStore)?;
        let connection = Arc::new(Connection::new(page));
        let served = Arc::clone(&connection);
        let serve = move |_: &_, notifier: &Notifier| if served.serve(notifier) { Turn::Again } else { Turn::Done };
        let channel = EventChannel::adopt(cx, domain, port, CPU, serve).map_err(ConnectError::NoEvents)?;
        Ok(Arc::new(Self { connection, notifier: channel.notifier(), channel }))
    }

    /// Waits as task context does: spawned tasks run meanwhile, and may ask, too.
    fn ask(&self, cx: &Task, tx: Transaction, kind: Kind, body: &[&[u8]]) -> Result<Vec<u8>, StoreError> {
        cx.block_on(self.connection.exchange(&self.notifier, (kind, tx.0), body))
    }

    /// The value at `path` as a decimal number, for a spawned task.
    ///
    /// # Errors
    /// As [`Store::read_number`].
    pub async fn number(&self, path: &str) -> Result<u64, StoreError> {
        let body: [&[u8]; 2] = [checked(path)?, b"\0"];
        let value = self.connection.exchange(&self.notifier, (Kind::READ, Transaction::NONE.0), &body).await?;
        number(&value).ok_or(StoreError::BadValue("a number"))
    }

    /// As [`Store::number`], with `otherwise` for a path that there is not.
    ///
    /// # Errors
    /// As [`Store::read_number`].
    pub async fn number_or(&self, path: &str, otherwise: u64) -> Result<u64, StoreError> {
        match self.number(path).await {
            Err(StoreError::NotFound) => Ok(otherwise),
            other => other,
        }
    }

    /// As [`Store::write`], for a spawned task and outside transactions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set(&self, path: &str, value: &str) -> Result<(), StoreError> {
        let body: [&[u8]; 3] = [checked(path)?, b"\0", value.as_bytes()];
        self.connection.exchange(&self.notifier, (Kind::WRITE, Transaction::NONE.0), &body).await.map(drop)
    }

    /// The value at `path`. A path that does not begin with a slash is below the domain's own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(&self, cx: &Task, tx: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        self.ask(cx, tx, Kind::READ, &[checked(path)?, b"\0"])
    }

    /// The value at `path` as text.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::BadValue`] if it is not UTF-8.
    pub fn read_text(&self, cx: &Task, tx: Transaction, path: &str) -> Result<String, StoreError> {
        String::from_utf8(self.read(cx, tx, path)?).map_err(|_| StoreError::BadValue("text"))
    }

    /// The value at `path` as a decimal number.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::BadValue`] if it is none.
    pub fn read_number(&self, cx: &Task, tx: Transaction, path: &str) -> Result<u64, StoreError> {
        number(&self.read(cx, tx, path)?).ok_or(StoreError::BadValue("a number"))
    }

    /// As [`Store::read_number`], with `otherwise` for a path that there is not.
    ///
    /// # Errors
    /// As [`Store::read_number`].
    pub fn read_number_or(&self, cx: &Task, path: &str, otherwise: u64) -> Result<u64, StoreError> {
        match self.read_number(cx, Transaction::NONE, path) {
            Err(StoreError::NotFound) => Ok(otherwise),
            other => other,
        }
    }

    /// Sets the value at `path`, which is made with all above it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn write(&self, cx: &Task, tx: Transaction, path: &str, value: impl fmt::Display) -> Result<(), StoreError> {
        let value = value.to_string();
        self.ask(cx, tx, Kind::WRITE, &[checked(path)?, b"\0", value.as_bytes()]).map(drop)
    }

    /// Removes `path` and all below it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove(&self, cx: &Task, tx: Transaction, path: &str) -> Result<(), StoreError> {
        self.ask(cx, tx, Kind::REMOVE, &[checked(path)?, b"\0"]).map(drop)
    }

    /// The names below `path`, however many.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Unsteady`] if they change each time before all are read.
    pub fn list(&self, cx: &Task, tx: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        match self.ask(cx, tx, Kind::DIRECTORY, &[checked(path)?, b"\0"]) {
            // What the server says of a list that is longer than a message.
            Err(StoreError::Refused(name)) if name == "E2BIG" => self.list_in_parts(cx, tx, path),
            other => names(&other?),
        }
    }

    fn list_in_parts(&self, cx: &Task, tx: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        for _ in 0..TRIES {
            let mut whole = Vec::new();
            let mut generation: Option<Vec<u8>> = None;
            loop {
                let offset = whole.len().to_string();
                let part =
                    self.ask(cx, tx, Kind::DIRECTORY_PART, &[checked(path)?, b"\0", offset.as_bytes(), b"\0"])?;
                let (now, names) = split(&part).ok_or(StoreError::Broken)?;
                if generation.get_or_insert_with(|| now.to_vec()) != now {
                    break;
                }
                // The end is an empty name behind the last.
                if let Some(last) = names.strip_suffix(b"\0")
                    && (last.is_empty() || last.ends_with(b"\0"))
                {
                    whole.extend_from_slice(last);
                    return self::names(&whole);
                }
                if names.is_empty() {
                    return Err(StoreError::Broken);
                }
                whole.extend_from_slice(names);
            }
        }
        Err(StoreError::Unsteady)
    }

    /// Does what `work` does in one transaction, again for as long as others come between.
    ///
    /// # Errors
    /// What `work` returned, or [`StoreError`]; [`StoreError::Again`] if others came between each time.
    pub fn transaction<T>(
        &self,
        cx: &Task,
        mut work: impl FnMut(Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 0..TRIES {
            let begun = self.ask(cx, Transaction::NONE, Kind::TRANSACTION_START, &[b"\0"])?;
            let name = begun.strip_suffix(b"\0").unwrap_or(&begun);
            let tx = number(name).and_then(|tx| u32::try_from(tx).ok()).ok_or(StoreError::Broken)?;
            let result = work(Transaction(tx));
            let verdict: &[u8] = if result.is_ok() { b"T\0" } else { b"F\0" };
            let ended = self.ask(cx, Transaction(tx), Kind::TRANSACTION_END, &[verdict]);
            match (result, ended) {
                (Ok(_) | Err(StoreError::Again), Err(StoreError::Again)) | (Err(StoreError::Again), Ok(_)) => {}
                (Ok(value), Ok(_)) => return Ok(value),
                (Ok(_), Err(error)) | (Err(error), _) => return Err(error),
            }
        }
        Err(StoreError::Again)
    }

    /// Has `changed` run, in task context of `cpu`, after each change at or below `path`, several being one, and once at first. It may be run
    /// while another request is waited for on the same stack: it must not ask and wait itself, but tell somebody who does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn watch(
        self: &Arc<Self>,
        cx: &Task,
        path: &str,
        cpu: usize,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Result<Watch, StoreError> {
        let checked = checked(path)?;
        let work = Arc::new(TaskWork::new(cpu, move |_| {
            changed();
            Turn::Done
        }));
        let token = self.connection.add_watcher(work)?;
        let watch = Watch { store: Arc::clone(self), path: path.into(), token };
        self.ask(cx, Transaction::NONE, Kind::WATCH, &[checked, b"\0", watch.token_text().as_bytes(), b"\0"])?;
        Ok(watch)
    }
}

/// A watch. Dropped, its function does not start any more; [`Watch::end`] tells the server, too.
pub struct Watch {
    store: Arc<Store>,
    path: String,
    token: usize,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("path", &self.path).field("token", &self.token).finish_non_exhaustive()
    }
}

impl Watch {
    fn token_text(&self) -> String {
        self.token.to_string()
    }

    /// Takes the watch back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn end(self, cx: &Task) -> Result<(), StoreError> {
        let token = self.token_text();
        let body: [&[u8]; 4] = [self.path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.store.ask(cx, Transaction::NONE, Kind::UNWATCH, &body).map(drop)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.store.connection.remove_watcher(self.token);
    }
}

/// A path as it goes into a message.
fn checked(path: &str) -> Result<&[u8], StoreError> {
    let most = if path.starts_with('/') { MOST_PATH } else { MOST_RELATIVE_PATH };
    if path.len() > most {
        return Err(StoreError::TooLong);
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
    let is_path = !path.is_empty() && path.bytes().all(good) && !path.contains("//");
    if is_path { Ok(path.as_bytes()) } else { Err(StoreError::BadPath) }
}

/// Before the first zero, and behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// A list of names, each with a zero behind it.
fn names(bytes: &[u8]) -> Result<Vec<String>, StoreError> {
    let parts = bytes.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    parts.map(|name| String::from_utf8(name.to_vec()).map_err(|_| StoreError::BadValue("a name"))).collect()
}
