//! The callouts that the programme plays with: shared by all CPUs, private to one, and bound to a lock.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{BottomHalf, HardIrq, Instant, cpu};
use undercroft_timer::{Callout, Guarded, Level, Rest, StartError, Started, Stopped};

use super::watch::{Counts, Watch};
use super::{any, pause, soon};
use crate::pattern::Random;

/// A callout of any level.
pub(super) trait Subject: Send + Sync {
    fn start_on(&self, cpu: usize, at: Instant) -> Result<Started, StartError>;
    fn start_if_sooner(&self, at: Instant) -> Result<Option<Started>, StartError>;
    fn stop(&self) -> Stopped;
    fn drained(&self) -> Rest;
    fn is_armed(&self) -> bool;
    fn closed(self: Box<Self>) -> Rest;
}

impl<L: Level> Subject for Callout<L> {
    fn start_on(&self, cpu: usize, at: Instant) -> Result<Started, StartError> {
        self.start_on(cpu, at)
    }
    fn start_if_sooner(&self, at: Instant) -> Result<Option<Started>, StartError> {
        self.start_if_sooner(at)
    }
    fn stop(&self) -> Stopped {
        self.stop()
    }
    fn drained(&self) -> Rest {
        self.drained()
    }
    fn is_armed(&self) -> bool {
        self.is_armed()
    }
    fn closed(self: Box<Self>) -> Rest {
        (*self).closed()
    }
}

struct Seated {
    subject: Box<dyn Subject>,
    watch: Arc<Watch>,
}

impl Seated {
    fn new(counts: &Arc<Counts>, random: &mut Random) -> Arc<Self> {
        let watch = Watch::new(counts);
        let home = random.below(cpu::count() as u64) as usize;
        Arc::new(Self { subject: any(home, &watch, random), watch })
    }

    fn start(&self, random: &mut Random) {
        let at = soon(random);
        let accepted = if random.below(4) == 0 {
            self.subject.start_if_sooner(at).is_ok()
        } else {
            self.subject.start_on(random.below(cpu::count() as u64) as usize, at).is_ok()
        };
        self.watch.counts().started(accepted);
    }

    /// Closes it, once nobody else works with it.
    async fn close(mut this: Arc<Self>) {
        let Self { subject, watch } = loop {
            match Arc::try_unwrap(this) {
                Ok(alone) => break alone,
                Err(shared) => this = shared,
            }
            pause().await;
        };
        let _ = subject.closed().await;
        watch.close();
    }
}

/// Callouts that every CPU plays with.
pub(super) struct Seats {
    /// Empty only when the programme is over.
    seats: Vec<IrqSpinLock<Option<Arc<Seated>>>>,
    counts: Arc<Counts>,
}

impl Seats {
    pub(super) fn new(count: usize, counts: &Arc<Counts>, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let seat = |_| IrqSpinLock::new(Rank::DEVICE, Some(Seated::new(counts, &mut random)));
        Self { seats: (0..count).map(seat).collect(), counts: Arc::clone(counts) }
    }

    fn pick(&self, random: &mut Random) -> Option<Arc<Seated>> {
        self.seats[random.below(self.seats.len() as u64) as usize].lock().clone()
    }

    pub(super) fn start(&self, random: &mut Random) {
        if let Some(seated) = self.pick(random) {
            seated.start(random);
        }
    }

    pub(super) fn stop(&self, random: &mut Random) {
        if let Some(seated) = self.pick(random) {
            self.counts.stopped(seated.subject.stop());
        }
    }

    pub(super) async fn drain(&self, random: &mut Random) {
        if let Some(seated) = self.pick(random) {
            let _ = seated.subject.drained().await;
            self.counts.drained();
        }
    }

    pub(super) async fn replace(&self, random: &mut Random) {
        let at = random.below(self.seats.len() as u64) as usize;
        let fresh = Seated::new(&self.counts, random);
        self.put(at, Some(fresh)).await;
    }

    async fn put(&self, at: usize, fresh: Option<Arc<Seated>>) {
        let old = core::mem::replace(&mut *self.seats[at].lock(), fresh);
        if let Some(old) = old {
            Seated::close(old).await;
        }
    }

    /// Closes all of them.
    pub(super) async fn clear(&self) {
        for at in 0..self.seats.len() {
            self.put(at, None).await;
        }
    }
}

/// A callout that one CPU alone plays with: what a drain promises can be held against it.
pub(super) struct Private {
    seated: Option<Arc<Seated>>,
}

impl Private {
    pub(super) fn new(counts: &Arc<Counts>, random: &mut Random) -> Self {
        Self { seated: Some(Seated::new(counts, random)) }
    }

    /// Starts it, perhaps stops it, drains it: and then it does not run.
    pub(super) async fn drain(&mut self, random: &mut Random) {
        let Some(seated) = &self.seated else { return };
        seated.start(random);
        for _ in 0..random.below(4) {
            pause().await;
        }
        if random.below(2) == 0 {
            seated.watch.counts().stopped(seated.subject.stop());
        }
        let _ = seated.subject.drained().await;
        let counts = seated.watch.counts();
        counts.drained();
        let runs = seated.watch.runs();
        if seated.watch.is_running() || seated.subject.is_armed() {
            counts.violation("a drain returned while the callout was armed or its handler ran");
        }
        for _ in 0..random.below(8) {
            pause().await;
        }
        if seated.watch.runs() != runs {
            counts.violation("a handler ran after a drain");
        }
    }

    pub(super) async fn end(&mut self) {
        if let Some(seated) = self.seated.take() {
            Seated::close(seated).await;
        }
    }
}

/// Whether the owner wants a run.
type Wanted = IrqSpinLock<bool>;

/// Callouts that are bound to a lock: what is stopped under it does not run.
pub(super) struct Exact {
    in_interrupt: Option<Guarded<Wanted, HardIrq>>,
    in_bottom_half: Option<Guarded<Wanted, BottomHalf>>,
    watches: [Arc<Watch>; 2],
}

impl Exact {
    pub(super) fn new(here: usize, counts: &Arc<Counts>) -> Self {
        let watches = [Watch::new(counts), Watch::new(counts)];
        Self { in_interrupt: Self::bound(here, &watches[0]), in_bottom_half: Self::bound(here, &watches[1]), watches }
    }

    fn bound<L: Level>(here: usize, watch: &Arc<Watch>) -> Option<Guarded<Wanted, L>>
    where
        Wanted: undercroft_timer::LockAt<L> + undercroft_timer::Lock<Data = bool>,
    {
        let attendant = watch.attend();
        let lock = Arc::new(IrqSpinLock::new(Rank::DEVICE, false));
        Guarded::new(here, lock, move |_, wanted: &mut bool, expiry: &_| {
            attendant.begin(expiry);
            if !core::mem::take(wanted) {
                attendant.counts().violation("a handler ran after an exact stop");
            }
            attendant.end();
        })
        .ok()
    }

    pub(super) fn play(&self, random: &mut Random) {
        let cpu = random.below(cpu::count() as u64) as usize;
        let (at, stop) = (soon(random), random.below(2) == 0);
        let counts = self.watches[0].counts();
        if random.below(2) == 0 {
            Self::move_of(self.in_interrupt.as_ref(), counts, cpu, at, stop);
        } else {
            Self::move_of(self.in_bottom_half.as_ref(), counts, cpu, at, stop);
        }
    }

    fn move_of<L: Level>(guarded: Option<&Guarded<Wanted, L>>, counts: &Counts, cpu: usize, at: Instant, stop: bool)
    where
        Wanted: undercroft_timer::LockAt<L>,
    {
        let Some(guarded) = guarded else { return };
        let mut wanted = guarded.bound_to().lock();
        if stop {
            match guarded.stop(&mut wanted) {
                Ok(stopped) if stopped.is_in_flight() => counts.violation("an exact stop found a run in flight"),
                Ok(_) => counts.exactly_stopped(),
                Err(_) => counts.violation("an exact stop did not know its lock"),
            }
            *wanted = false;
        } else {
            *wanted = true;
            counts.started(guarded.start_on(cpu, at).is_ok());
        }
    }

    pub(super) async fn end(self) {
        if let Some(guarded) = self.in_interrupt {
            let _ = guarded.closed().await;
        }
        if let Some(guarded) = self.in_bottom_half {
            let _ = guarded.closed().await;
        }
        self.watches.iter().for_each(|watch| watch.close());
    }
}
