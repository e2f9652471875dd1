//! [`NextOfN`]: many logical timers on one callout, which is armed for the soonest of them.
//!
//! A connection or a queue has a handful of timers that are moved and cleared all the time and nearly never fire. One callout to close and to
//! wait for, then, and no race between them: their handler runs once at a time (lesson 6 of `docs/callouts.md`).

use alloc::sync::Arc;

use undercroft_hal::BottomHalf;
use undercroft_hal::Task;
use undercroft_hal::clock::Instant;
use undercroft_hal::sync::{IrqSpinLock, Rank};

use crate::callout::Callout;
use crate::expiry::Expiry;
use crate::level::Level;
use crate::outcome::{DrainError, StartError, Stopped};

const NEVER: u64 = u64::MAX;

/// The deadlines; taken before a wheel's lock.
type Deadlines<const N: usize> = IrqSpinLock<[u64; N]>;

/// `N` logical timers, by index.
pub struct NextOfN<const N: usize, L: Level = BottomHalf> {
    deadlines: Arc<Deadlines<N>>,
    callout: Callout<L>,
}

/// Takes the first timer that is due.
fn take_due<const N: usize>(deadlines: &Deadlines<N>, ran: &mut [bool; N], now: u64) -> Option<usize> {
    let mut deadlines = deadlines.lock();
    let left = deadlines.iter_mut().zip(ran).enumerate().filter(|(_, (_, ran))| !**ran);
    let (index, (at, ran)) = left.min_by_key(|(_, (at, _))| **at)?;
    (*at <= now && *at != NEVER).then(|| {
        *at = NEVER;
        *ran = true;
        index
    })
}

fn soonest<const N: usize>(deadlines: &[u64; N]) -> Option<Instant> {
    deadlines.iter().copied().filter(|&at| at != NEVER).min().map(Instant::from_nanos)
}

impl<const N: usize, L: Level> NextOfN<N, L> {
    /// Makes timers for CPU `home`, none of them set. The handler is told which of them is due. Allocates: bottom half or task.
    pub fn new(home: usize, mut handler: impl FnMut(&L::Token, usize, &Expiry) + Send + 'static) -> Self {
        let deadlines = Arc::new(IrqSpinLock::new(Rank::new(39), [NEVER; N]));
        let theirs = Arc::clone(&deadlines);
        let callout = Callout::new(home, move |cx: &L::Token, expiry: &Expiry| {
            // Each at most once in a run: one that its handler sets again for now is for the next.
            let mut ran = [false; N];
            while let Some(index) = take_due(&theirs, &mut ran, expiry.now().as_nanos()) {
                handler(cx, index, expiry);
            }
            // With the deadlines locked nobody sets an earlier one between the look and the start.
            let deadlines = theirs.lock();
            if let Some(at) = soonest(&deadlines) {
                // It fails when the callout is closed or drained: then nothing is to be armed.
                let _ = expiry.callout().start_if_sooner(at);
            }
        });
        Self { deadlines, callout }
    }

    /// Sets timer `index` to a time; what it was set to is replaced. Any context.
    ///
    /// # Errors
    /// [`StartError`]: they are closed or being drained; or there is no such timer, as [`StartError::Closed`].
    pub fn set(&self, index: usize, at: Instant) -> Result<(), StartError> {
        let mut deadlines = self.deadlines.lock();
        let Some(deadline) = deadlines.get_mut(index) else { return Err(StartError::Closed) };
        let before = core::mem::replace(deadline, at.as_nanos());
        let answer = self.callout.start_if_sooner(at);
        if answer.is_err()
            && let Some(deadline) = deadlines.get_mut(index)
        {
            *deadline = before;
        }
        answer.map(|_| ())
    }

    /// Clears timer `index`. What it was set to, if it was and has not been taken up yet. The callout stays armed, and finds nothing to do. Any context.
    pub fn clear(&self, index: usize) -> Option<Instant> {
        let before = core::mem::replace(self.deadlines.lock().get_mut(index)?, NEVER);
        (before != NEVER).then(|| Instant::from_nanos(before))
    }

    /// What timer `index` is set to. Any context.
    pub fn when(&self, index: usize) -> Option<Instant> {
        let at = *self.deadlines.lock().get(index)?;
        (at != NEVER).then(|| Instant::from_nanos(at))
    }

    /// Clears all and waits until the handler is not in flight.
    ///
    /// # Errors
    /// As [`Callout::drain`].
    pub fn drain(&self, cx: &Task) -> Result<Stopped, DrainError> {
        *self.deadlines.lock() = [NEVER; N];
        self.callout.drain(cx)
    }

    /// As [`Callout::close`].
    ///
    /// # Errors
    /// As [`Callout::close`].
    pub fn close(self, cx: &Task) -> Result<(), DrainError> {
        self.callout.close(cx)
    }

    /// The callout, for what can be done to all at once.
    pub const fn callout(&self) -> &Callout<L> {
        &self.callout
    }
}

impl<const N: usize, L: Level> core::fmt::Debug for NextOfN<N, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NextOfN").field("timers", &N).finish_non_exhaustive()
    }
}
