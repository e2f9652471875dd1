//! Whether a queue's bottom half is at work, for submitters that would ring the doorbell.
//!
//! While it is at work it publishes at its end whatever was added meanwhile, so that a batch of completions that submit again gets one
//! doorbell. The flag is written under the queue's lock and read without. A submitter has added under that lock before it reads. If it reads
//! that the bottom half is at work, then the end of that work, whose critical section clears the flag and publishes, comes after the adding: had
//! it come before, the lock would have shown the flag cleared. Any context.

#[cfg(not(all(loom, test)))]
use core::sync::atomic::{AtomicBool, Ordering};
#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicBool, Ordering};

/// See the module.
#[derive(Debug)]
pub(super) struct Serving(AtomicBool);

impl Serving {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Whether what the caller has added will be published without it.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The bottom half begins or ends. With the queue's lock held, in the critical section that publishes at the end.
    #[inline]
    pub(super) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

#[cfg(all(loom, test))]
mod tests {
    use super::*;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    #[derive(Default)]
    struct Ring {
        added: u32,
        published: u32,
    }

    /// Two submitters and a bottom half: nothing that was added stays unpublished when all are done.
    fn all_is_published(clears_late: bool) {
        loom::model(move || {
            let queue = Arc::new((Serving::new(), Mutex::new(Ring::default())));
            let submit = |queue: &(Serving, Mutex<Ring>)| {
                queue.1.lock().unwrap().added += 1;
                if queue.0.is_on() {
                    return;
                }
                let mut ring = queue.1.lock().unwrap();
                if !queue.0.is_on() {
                    ring.published = ring.added;
                }
            };
            let theirs = Arc::clone(&queue);
            let other = thread::spawn(move || submit(&theirs));
            let theirs = Arc::clone(&queue);
            let bottom_half = thread::spawn(move || {
                let (serving, ring) = &*theirs;
                let guard = ring.lock().unwrap();
                serving.set(true);
                drop(guard);
                // Its completion submits again.
                submit(&theirs);
                let mut guard = ring.lock().unwrap();
                if !clears_late {
                    serving.set(false);
                }
                guard.published = guard.added;
                drop(guard);
                if clears_late {
                    serving.set(false);
                }
            });
            submit(&queue);
            other.join().unwrap();
            bottom_half.join().unwrap();
            let ring = queue.1.lock().unwrap();
            assert_eq!(ring.published, ring.added, "added and never published");
        });
    }

    #[test]
    fn loom_what_is_added_while_the_bottom_half_works_is_published() {
        all_is_published(false);
    }

    #[test]
    #[should_panic(expected = "added and never published")]
    fn loom_what_is_added_while_the_bottom_half_works_is_published_control() {
        all_is_published(true);
    }
}
