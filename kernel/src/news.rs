//! What happens to disks, hosts and slots while the image runs, on its way from bottom halves and interrupts to the task that acts on it.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, Ordering};

use undercroft_block::scsi::{HostEvent, HostWatcher};
use undercroft_block::{Event, Watcher};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{TaskWork, Turn};
use undercroft_hal::{BottomHalf, cpu};

use crate::load::Load;

/// Wakes the task that acts on news. Any context.
pub(crate) struct Attention {
    wanted: AtomicBool,
    wake: TaskWork,
}

impl Attention {
    /// Of the calling CPU's task.
    pub(crate) fn new() -> Self {
        Self { wanted: AtomicBool::new(false), wake: TaskWork::new(cpu::current(), |_| Turn::Done) }
    }

    pub(crate) fn call(&self) {
        self.wanted.store(true, Ordering::Release);
        self.wake.schedule();
    }

    /// Makes the task look again at what it waits for.
    pub(crate) fn wake(&self) {
        self.wake.schedule();
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Begins to act. What happens from here on calls again.
    pub(crate) fn take(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }
}

impl HostWatcher for Attention {
    fn event(&self, _: &BottomHalf, event: HostEvent) {
        if matches!(event, HostEvent::Added(_) | HostEvent::Rescan | HostEvent::Gone) {
            self.call();
        }
    }
}

/// What has happened to one disk.
pub(crate) struct News {
    resized: AtomicBool,
    removed: AtomicBool,
    attention: Arc<Attention>,
    /// Who waits for room.
    load: IrqSpinLock<Weak<Load>>,
}

impl News {
    pub(crate) fn new(attention: Arc<Attention>) -> Self {
        let load = IrqSpinLock::new(Rank::BLOCK, Weak::new());
        Self { resized: AtomicBool::new(false), removed: AtomicBool::new(false), attention, load }
    }

    /// Says who waits for room from now on.
    pub(crate) fn set_load(&self, load: &Arc<Load>) {
        let before = core::mem::replace(&mut *self.load.lock(), Arc::downgrade(load));
        drop(before);
    }

    pub(crate) fn take_resized(&self) -> bool {
        self.resized.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }
}

impl Watcher for News {
    fn event(&self, cx: &BottomHalf, event: Event) {
        match event {
            Event::Room => {
                let load = self.load.lock().upgrade();
                if let Some(load) = load {
                    load.resume(cx);
                }
                return;
            }
            Event::Resized | Event::MediaChanged => self.resized.store(true, Ordering::Release),
            Event::Removed => self.removed.store(true, Ordering::Release),
            _ => return,
        }
        self.attention.call();
    }
}
