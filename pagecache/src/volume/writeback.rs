//! Write-back: which dirty pages go when, and what becomes of them.
//!
//! A dirty page goes when a sync wants it, when somebody waits for room, when too many are dirty, or when it is old; with its dirty neighbours,
//! as many as a transfer takes. After a failure only syncs and those that wait for room have anything written until the pause is over.

use undercroft_block::Error;
use undercroft_hal::Instant;
use undercroft_hal::clock::Duration;

use super::state::State;
use crate::broken::{self, Hazard};
use crate::config::Config;
use crate::io::{Io, Stage};
use crate::state::PageState;
use crate::table::{NONE, Place, Table};

/// Ticks that are remembered.
pub(super) const TICKS: usize = 16;

/// Whether an epoch is `upto` or before it.
pub(crate) const fn is_within(epoch: u32, upto: u32) -> bool {
    upto.wrapping_sub(epoch) as i32 >= 0
}

/// When to write back.
#[derive(Debug)]
pub(crate) struct WriteBack {
    /// Pages that may be dirty or on their way, and dirty ones from which on there is write-back in any case.
    limit: u32,
    background: u32,
    age: u8,
    retry: (Duration, Duration),
    /// The epochs of the last ticks.
    ticks: [u32; TICKS],
    tick: usize,
    /// Pages of this epoch and before are old.
    old: u32,
    /// A sync of the whole volume wants pages of this epoch and before.
    pub(crate) wanted: Option<u32>,
    /// When the next tick is; none is to come if nothing is dirty.
    pub(crate) next_tick: Option<Instant>,
    /// The pause after failures, and when it is over.
    pause: Option<Duration>,
    pub(crate) paused_until: Option<Instant>,
    /// Everything is to be written: nobody has the volume any more.
    pub(crate) hurry: bool,
}

impl WriteBack {
    pub(crate) fn new(config: &Config) -> Self {
        let never = 0u32.wrapping_sub(1);
        let mut this = Self {
            limit: 0,
            background: 0,
            age: config.age.clamp(1, TICKS as u8 - 1),
            retry: config.retry,
            ticks: [never; TICKS],
            tick: 0,
            old: never,
            wanted: None,
            next_tick: None,
            pause: None,
            paused_until: None,
            hurry: false,
        };
        this.set_budget(config, config.pages);
        this
    }

    /// The bounds for a budget of `pages`.
    pub(crate) fn set_budget(&mut self, config: &Config, pages: u32) {
        let percent = |percent: u8| (u64::from(pages) * u64::from(percent.min(100)) / 100) as u32;
        self.limit = percent(config.dirty_percent).max(1);
        self.background = percent(config.background_percent).min(self.limit - 1);
    }

    /// Whether so much is dirty that writers wait.
    pub(crate) fn is_over(&self, table: &Table) -> bool {
        table.unwritten() >= self.limit && !broken::is(Hazard::NoLimit)
    }

    /// A tick: what was dirty `age` ticks ago is old now.
    pub(crate) fn ticks(&mut self, table: &mut Table) {
        self.ticks[self.tick] = table.epoch;
        table.epoch = table.epoch.wrapping_add(1);
        self.tick = (self.tick + 1) % TICKS;
        self.old = self.ticks[(self.tick + TICKS - usize::from(self.age)) % TICKS];
    }

    fn succeeded(&mut self) {
        (self.pause, self.paused_until) = (None, None);
    }

    fn failed(&mut self, now: Instant) {
        let pause = self.pause.map_or(self.retry.0, |pause| pause.saturating_mul(2)).clamp(self.retry.0, self.retry.1);
        (self.pause, self.paused_until) = (Some(pause), Some(now + pause));
    }
}

impl State {
    /// Begins a write-back, if there is one to begin and a transfer for it.
    pub(super) fn begin_write(&mut self) -> bool {
        let Some(at) = self.writes.iter().position(|io| io.is_free()) else { return false };
        let Some(slot) = self.next_to_write() else { return false };
        let (first, count) = self.run_around(slot, self.writes[at].pages.len() as u64);
        let Some(mut buf) = self.writes[at].buf.take() else { return false };
        for (offset, part) in buf.chunks_exact_mut(crate::table::PAGE).take(count as usize).enumerate() {
            let Some(slot) = self.table.find(first + offset as u64) else { continue };
            part.copy_from_slice(self.table.bytes(slot));
            self.writes[at].pages[offset] = (slot, self.table.page(slot).since);
            self.table.change(slot, PageState::Writing);
        }
        let io = &mut self.writes[at];
        (io.buf, io.stage, io.first, io.count) = (Some(buf), Stage::Queued, first, count);
        true
    }

    /// Whether a write-back can begin now.
    pub(super) fn can_write(&self) -> bool {
        self.writes.iter().any(Io::is_free) && self.next_to_write().is_some()
    }

    /// The page that is to be written next.
    fn next_to_write(&self) -> Option<u32> {
        if self.dead.is_some() {
            return None;
        }
        if let Some(slot) = self.first_idle(Place::Urgent) {
            return Some(slot);
        }
        // A mapped page first: it is due only if a sync or its age asks for it.
        let oldest = [self.first_idle(Place::Mapped), self.first_idle(Place::Dirty)];
        oldest.into_iter().flatten().find(|slot| self.is_due(*slot))
    }

    /// Whether a dirty page is to be written now.
    fn is_due(&self, slot: u32) -> bool {
        let (since, mapped) = (self.table.page(slot).since, self.table.is_mapped(slot));
        let wanted = self.back.wanted.is_some_and(|upto| is_within(since, upto)) || self.demand && !mapped;
        let paused = self.back.paused_until.is_some_and(|until| Self::now() < until);
        // What failed has been dated anew, but is not young.
        let pressing =
            self.back.hurry || self.back.pause.is_some() || self.table.list(Place::Dirty).len > self.back.background;
        wanted || !paused && (is_within(since, self.back.old) || !mapped && pressing)
    }

    /// The oldest page of a list that is not being written: fewer than a transfer's worth of each transfer are before it.
    fn first_idle(&self, place: Place) -> Option<u32> {
        let mut slot = self.table.list(place).head;
        while slot != NONE && self.table.state(slot) != PageState::Dirty {
            slot = self.table.next(slot);
        }
        (slot != NONE).then_some(slot)
    }

    /// The run of dirty pages around one: its first index and its length.
    fn run_around(&self, slot: u32, most: u64) -> (u64, u32) {
        let index = self.table.page(slot).index;
        let is_dirty = |index| self.table.find(index).is_some_and(|slot| self.table.state(slot) == PageState::Dirty);
        let (mut first, mut end) = (index, index + 1);
        while end - first < most && is_dirty(end) {
            end += 1;
        }
        while end - first < most && first > 0 && is_dirty(first - 1) {
            first -= 1;
        }
        (first, (end - first) as u32)
    }

    /// A page of a write-back is written, or not.
    pub(super) fn wrote(&mut self, io: usize, at: usize, result: Result<(), Error>) {
        // From here on this run does not have the page any more, which may be sent again before the whole run has been gone through.
        let (slot, since) = core::mem::replace(&mut self.writes[io].pages[at], (NONE, 0));
        let to = match (self.table.state(slot), result) {
            // What is changed through a mapping is seen by nobody: it stays dirty.
            (PageState::Writing, Ok(())) if self.table.is_mapped(slot) => PageState::Dirty,
            (PageState::Writing, Ok(())) => PageState::Clean,
            (PageState::Writing, Err(_)) if broken::is(Hazard::FailedWriteClean) => PageState::Clean,
            _ => PageState::Dirty,
        };
        let index = self.table.page(slot).index;
        self.table.change(slot, to);
        self.attempted(index, slot, since, result);
        self.wake(slot);
    }

    /// A write-back is over.
    pub(super) fn write_ended(&mut self, result: Result<(), Error>) {
        match result {
            Ok(()) => {
                self.back.succeeded();
                self.retry_stalled();
            }
            Err(error) => {
                self.counts.write_errors += 1;
                self.back.failed(Self::now());
                self.errors.note(error);
                self.fail_stalled(error);
            }
        }
    }
}
