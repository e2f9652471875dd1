//! What the tool stack asks of the domain as a whole: to power off, to start again, to stand still.
//!
//! Source: Xen `docs/misc/xenstore-paths.pandoc` ("control/shutdown"). An order is a word at a path that is watched; whoever follows it empties the
//! path first. Task context.

use alloc::sync::Arc;

use undercroft_hal::Task;

use crate::store::{Store, StoreError, Transaction, Watch};

const PATH: &str = "control/shutdown";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// To power off.
    PowerOff,
    /// To end, and be started again.
    Reboot,
    /// To be stopped and written to a file, or moved to another machine.
    Suspend,
    /// Something that this crate does not know.
    Other,
}

impl Order {
    fn of(word: &[u8]) -> Option<Self> {
        match word {
            b"" => None,
            b"poweroff" | b"halt" => Some(Self::PowerOff),
            b"reboot" => Some(Self::Reboot),
            b"suspend" => Some(Self::Suspend),
            _ => Some(Self::Other),
        }
    }
}

/// Has `changed` run, as [`Store::watch`] says, when there may be an order.
///
/// # Errors
/// [`StoreError`].
pub fn watch(
    cx: &Task,
    store: &Arc<Store>,
    cpu: usize,
    changed: impl Fn() + Send + Sync + 'static,
) -> Result<Watch, StoreError> {
    store.watch(cx, PATH, cpu, changed)
}

/// The order that there is, if there is one. Taking it tells the tool stack that it will be followed, but for [`Order::Suspend`] and what is not
/// known: those stay, and the tool stack gives up in its own time.
///
/// # Errors
/// [`StoreError`].
pub fn take(cx: &Task, store: &Store) -> Result<Option<Order>, StoreError> {
    let word = match store.read(cx, Transaction::NONE, PATH) {
        Err(StoreError::NotFound) => return Ok(None),
        other => other?,
    };
    let order = Order::of(&word);
    if let Some(Order::PowerOff | Order::Reboot) = order {
        store.write(cx, Transaction::NONE, PATH, "")?;
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn words_are_orders() {
        for (word, order) in [
            ("", None),
            ("poweroff", Some(Order::PowerOff)),
            ("halt", Some(Order::PowerOff)),
            ("reboot", Some(Order::Reboot)),
            ("suspend", Some(Order::Suspend)),
            ("\0", Some(Order::Other)),
        ] {
            assert_eq!(Order::of(word.as_bytes()), order, "{word}");
        }
    }
}
