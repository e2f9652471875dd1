//! What a volume does about itself: memory that comes and goes, ticks, a device that changes its size.

use undercroft_block::{Error, Features};
use undercroft_hal::Instant;
use undercroft_hal::dma::DmaPages;

use super::state::State;
use super::writeback::TICKS;
use crate::broken::{self, Hazard};
use crate::state::PageState;
use crate::table::{MOST_INDICES, PAGE};

impl State {
    /// Memory for pages has come, or there is none. What comes back is not needed.
    pub(super) fn grown(&mut self, chunk: Option<DmaPages>) -> Option<DmaPages> {
        self.wants = self.wants.saturating_sub(1);
        let back = match chunk {
            Some(chunk) => self.table.put_chunk(chunk),
            None if broken::is(Hazard::MemoryIgnored) => {
                self.table.pretend_chunk();
                None
            }
            None => {
                // Until the next tick pages are evicted instead.
                (self.short, self.wants) = (true, 0);
                None
            }
        };
        if self.wants == 0 {
            self.retry_stalled();
            if let Some(plan) = self.plan.take() {
                self.read_ahead(plan);
            }
        }
        back
    }

    /// When the callout is to run next: for a tick, or when a pause after failures is over.
    pub(super) fn alarm(&mut self) -> Option<Instant> {
        if self.table.unwritten() == 0 && !self.short || self.dead.is_some() {
            self.back.next_tick = None;
            return None;
        }
        let now = Self::now();
        let tick = *self.back.next_tick.get_or_insert(now + self.config.tick);
        Some(self.back.paused_until.filter(|until| *until > now).map_or(tick, |until| until.min(tick)))
    }

    /// The callout ran.
    pub(super) fn ticked(&mut self, now: Instant) {
        if let Some(at) = self.back.next_tick.filter(|at| now >= *at) {
            self.back.next_tick = None;
            // A machine that was stopped makes up for the ticks that it missed.
            let missed = now.since(at).as_nanos() / self.config.tick.as_nanos().max(1);
            for _ in 0..=missed.min(TICKS as u128) {
                self.back.ticks(&mut self.table);
            }
            self.short = false;
            self.retry_stalled();
        }
    }

    /// Whether there is any point in a write.
    pub(crate) fn may_write(&self) -> Result<(), Error> {
        match self.dead {
            Some(error) => Err(error),
            None if self.features.contains(Features::READ_ONLY) => Err(Error::ReadOnly),
            None => Ok(()),
        }
    }

    /// The device has another size. A page that it had in part only, and now has more of, is forgotten if it is clean; if it is not, the new size counts
    /// when the device says so again.
    pub(super) fn resized(&mut self, end: u64) {
        let cut = !self.device_end.is_multiple_of(PAGE as u64) && end > self.device_end;
        if let Some(slot) = self.table.find(self.device_end / PAGE as u64).filter(|_| cut) {
            if self.table.state(slot) != PageState::Clean || self.table.pins(slot) > 0 {
                return;
            }
            self.table.change(slot, PageState::Free);
        }
        let end = end.min(MOST_INDICES * PAGE as u64);
        self.device_end = end;
        self.end = end;
    }

    /// Another budget, in pages. What is over it is given back chunk by chunk ([`Table::spare_chunk`](crate::table::Table::spare_chunk)).
    pub(super) fn set_budget(&mut self, pages: u32) {
        let config = self.config;
        self.table.allow(pages);
        self.streams.allow(config.ahead.min(pages.min(config.pages) / 2));
        self.back.set_budget(&config, pages.min(config.pages));
        self.short = false;
    }
}
