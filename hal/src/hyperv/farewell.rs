//! What is said to the host when the system panics: it must not go on writing to memory that the next stage uses.
//!
//! Any context; takes no lock but by trying, allocates nothing, waits for a bounded time.

use alloc::sync::Arc;
use core::fmt;

use super::partition::{Inner, MESSAGES_CPU, Partition};
use crate::cpu;
use crate::sync::{IrqSpinLock, Rank};
use crate::system;

/// Times that the message is posted to a host that is busy, and looks at the slot for the answer.
const TRIES: u32 = 100;
const LOOKS: u32 = 1_000_000;

/// A message, and what its answer begins with.
#[derive(Clone, Copy)]
struct Words {
    connection: u32,
    kind: u32,
    payload: [u8; 8],
    answer: u32,
}

/// Who has what to say at the end. Part of the system's state.
pub(crate) struct Registered(IrqSpinLock<Option<(Arc<Inner>, Words)>>);

impl Registered {
    pub(crate) const fn new() -> Self {
        Self(IrqSpinLock::new(Rank::new(50), None))
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").finish_non_exhaustive()
    }
}

/// Forgets it, if it is of `inner`.
pub(super) fn forget(inner: &Arc<Inner>) {
    let gone = system::with(|system| {
        let mut registered = system.hyperv.0.lock();
        if registered.as_ref().is_some_and(|(theirs, _)| Arc::ptr_eq(theirs, inner)) { registered.take() } else { None }
    });
    drop(gone);
}

/// Says what was registered by [`Partition::on_panic`], on the way down, and waits for the answer where it can be seen. For a panic
/// handler: any context, once.
pub fn last_words() {
    system::with(|system| {
        let Some(registered) = system.hyperv.0.try_lock() else { return };
        let Some((inner, words)) = &*registered else { return };
        let post = || inner.post_by(&inner.last_input, words.connection, words.kind, &words.payload);
        let posted = (0..TRIES).any(|_| match post() {
            Err(error) if error.is_busy() => {
                (0..1000).for_each(|_| core::hint::spin_loop());
                false
            }
            _ => true,
        });
        if !posted {
            return;
        }
        let Some(synic) = inner.cpus.get(MESSAGES_CPU) else { return };
        for _ in 0..LOOKS {
            // Only the slot's own CPU can ask for the message behind.
            let message = if cpu::current() == MESSAGES_CPU {
                synic.take_message(&*inner.hypervisor)
            } else {
                synic.take_without_eom()
            };
            if message.is_some_and(|message| message.payload().starts_with(&words.answer.to_le_bytes())) {
                return;
            }
            core::hint::spin_loop();
        }
    });
}

impl Partition {
    /// Has `payload` posted when the system panics, and the answer that begins with the 32-bit number `answer` waited for, for a bounded time.
    pub fn on_panic(&self, connection: u32, kind: u32, payload: [u8; 8], answer: u32) {
        let words = Words { connection, kind, payload, answer };
        let mine = Some((Arc::clone(self.inner()), words));
        let before = system::with(|system| core::mem::replace(&mut *system.hyperv.0.lock(), mine));
        drop(before);
    }
}
