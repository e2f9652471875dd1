//! The model among threads: processors hand it what their guest does, one thread gives it its turns.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use undercroft_hosts::hyperv::{Guest, Hyperv, Interrupt};

use crate::memory::Ram;

/// What the model does in one turn of a channel before others get theirs.
const BATCH: usize = 64;
/// The longest that the thread sleeps without being asked.
const LONGEST: Duration = Duration::from_secs(3600);

struct State {
    model: Hyperv,
    asked: bool,
    /// Breaches that were told.
    told: usize,
}

/// How an interrupt gets into the guest.
pub type Raise = Box<dyn Fn(Interrupt) + Send + Sync>;

/// The host.
pub struct Host {
    state: Mutex<State>,
    wake: Condvar,
    /// The guest's memory, and the time.
    pub ram: Ram,
    raise: Raise,
}

impl Host {
    /// A host whose interrupts are put into the guest by `raise`, from any thread.
    pub fn new(model: Hyperv, ram: Ram, raise: Raise) -> Self {
        Self { state: Mutex::new(State { model, asked: false, told: 0 }), wake: Condvar::new(), ram, raise }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the model, and what follows of it: interrupts at once, work by the other thread.
    pub fn with<R>(&self, work: impl FnOnce(&mut Hyperv, &dyn Guest) -> R) -> R {
        let mut state = self.lock();
        let result = work(&mut state.model, &self.ram);
        state.asked = true;
        self.after(&mut state);
        drop(state);
        self.wake.notify_one();
        result
    }

    /// Puts interrupts into the guest and says what it did wrong.
    fn after(&self, state: &mut State) {
        state.model.take_interrupts().into_iter().for_each(&self.raise);
        for breach in &state.model.breaches()[state.told..] {
            eprintln!("undercroft-vmm: the guest breaks the interface: {breach:?}");
        }
        state.told = state.model.breaches().len();
    }

    /// Gives the model its turns, for ever.
    pub fn serve(&self) -> ! {
        let mut state = self.lock();
        loop {
            state.asked = false;
            let progress = state.model.work(&self.ram, BATCH);
            self.after(&mut state);
            if progress {
                // Others get the lock in between.
                drop(state);
                state = self.lock();
                continue;
            }
            if state.asked {
                continue;
            }
            let now = self.ram.now();
            let sleep = state.model.due().map_or(LONGEST, |due| Duration::from_nanos(due.saturating_sub(now) * 100));
            let waited = self.wake.wait_timeout(state, sleep.max(Duration::from_nanos(100)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What was counted, in words.
    pub fn counts(&self) -> String {
        let state = self.lock();
        format!("{:?}; breaches {:?}", state.model.counts(), state.model.breaches())
    }
}
