//! What a test leaves behind: DMA memory, interrupt handlers, and whatever else it is told to watch.
//!
//! [`run`](super::run) checks every machine at its end, so every test of a driver does. [`LeakCheck`] is for a part of a test, and for
//! what only the test knows: slots of a slab, say. The host's own heap is [`trap::assert_no_leak`](super::trap::assert_no_leak)'s.

use std::boxed::Box;
use std::cell::Cell;
use std::vec::Vec;

use crate::context::Task;
use crate::{dma, irq};

std::thread_local!(static ALLOWED: Cell<bool> = const { Cell::new(false) });

/// Runs `f`, whose machines may leave things behind: for a test that leaks on purpose.
pub fn allowed<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALLOWED.set(self.0);
        }
    }
    let _restore = Restore(ALLOWED.replace(true));
    f()
}

struct Watched<'a> {
    what: &'a str,
    before: u64,
    count: Box<dyn Fn() -> u64 + 'a>,
}

/// Remembers what there is, and panics at its end if there is more then.
#[must_use = "it checks when it is dropped"]
pub struct LeakCheck<'a> {
    task: &'a Task,
    watched: Vec<Watched<'a>>,
}

impl core::fmt::Debug for LeakCheck<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LeakCheck").field("watched", &self.watched.len()).finish()
    }
}

impl<'a> LeakCheck<'a> {
    /// Begins with DMA memory and interrupt handlers.
    pub fn new(task: &'a Task) -> Self {
        Self { task, watched: Vec::new() }
            .watch("blocks of DMA memory", || dma::stats().live_blocks)
            .watch("bytes of DMA memory", || dma::stats().live_bytes)
            .watch("interrupt handlers", || irq::handlers() as u64)
    }

    /// Watches one more number, which must not have grown at the end.
    pub fn watch(mut self, what: &'a str, count: impl Fn() -> u64 + 'a) -> Self {
        self.watched.push(Watched { what, before: count(), count: Box::new(count) });
        self
    }

    fn leaks(&self) -> Vec<String> {
        let grown = |watched: &Watched<'_>| {
            let more = (watched.count)().saturating_sub(watched.before);
            (more > 0).then(|| format!("{more} {}", watched.what))
        };
        self.watched.iter().filter_map(grown).collect()
    }
}

impl Drop for LeakCheck<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() || ALLOWED.get() {
            return;
        }
        // Work that is still queued keeps what it works on.
        for _ in 0..64 {
            if self.leaks().is_empty() {
                return;
            }
            self.task.run_pending();
        }
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "leaked: {}", leaks.join(", "));
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::dma::{DmaBuf, DmaConstraints};
    use crate::hosted::Cpus;

    fn run(f: impl FnOnce(&Task)) {
        Cpus::new(1).run(0, |task| {
            let _check = LeakCheck::new(task);
            f(task);
        });
    }

    fn buffer() -> DmaBuf {
        DmaBuf::new(100, DmaConstraints::ANY).unwrap()
    }

    #[test]
    fn what_is_freed_is_no_leak() {
        run(|task| {
            drop(buffer());
            drop(irq::message(task, 0, |_| irq::Handled::Yes));
            let count = Cell::new(3);
            let _check = LeakCheck::new(task).watch("slots", || count.get());
            count.set(2);
        });
    }

    #[test]
    #[should_panic = "leaked: 1 blocks of DMA memory, 100 bytes of DMA memory"]
    fn a_buffer_that_is_forgotten_control() {
        run(|_| core::mem::forget(buffer()));
    }

    #[test]
    #[should_panic = "leaked: 1 interrupt handlers"]
    fn a_handler_that_is_forgotten_control() {
        run(|task| core::mem::forget(irq::message(task, 0, |_| irq::Handled::Yes)));
    }

    #[test]
    #[should_panic = "leaked: 2 slots"]
    fn a_slot_that_is_kept_control() {
        run(|task| {
            let count = Cell::new(3);
            let _check = LeakCheck::new(task).watch("slots", || count.get());
            count.set(5);
        });
    }

    #[test]
    fn leaks_on_purpose_are_let_through() {
        allowed(|| run(|_| core::mem::forget(buffer())));
    }
}
