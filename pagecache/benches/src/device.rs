//! A disk without a medium: each page that is read from it begins with its number, and what is written to it is lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use undercroft_block::{
    BlockDevice, Body, Features, Identity, InFlight, Info, Limits, Op, Refusal, Rejected, Request, Tag, Watcher,
};
use undercroft_hal::BottomHalf;
use undercroft_hal::dma::DmaConstraints;
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_pagecache::PAGE;

/// The disk. Requests are completed by a bottom half, in order.
pub struct Disk {
    identity: Identity,
    pages: u64,
    queue: Mutex<VecDeque<InFlight>>,
    work: BottomHalfWork,
}

impl Disk {
    /// A disk of so many pages, with blocks of a page.
    pub fn new(pages: u64) -> Arc<Self> {
        let identity = Identity {
            driver: "none",
            controller: "bench".into(),
            serial: String::new(),
            model: String::new(),
            interrupts: String::new(),
            transport: String::new(),
        };
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let work = BottomHalfWork::new(0, move |cx| {
                if let Some(disk) = this.upgrade() {
                    disk.complete(cx);
                }
                Turn::Done
            });
            Self { identity, pages, queue: Mutex::default(), work }
        })
    }

    fn complete(&self, cx: &BottomHalf) {
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(mut flight) = next else { return };
            let Body { op, lba, .. } = **flight.request();
            if op == Op::Read {
                let pages =
                    flight.data_mut().pieces_mut().iter_mut().flat_map(|piece| piece.bytes_mut().chunks_mut(PAGE));
                pages.zip(lba..).for_each(|(page, index)| page[..8].copy_from_slice(&index.to_le_bytes()));
            }
            flight.finish(cx, Ok(()));
        }
    }
}

impl BlockDevice for Disk {
    fn identity(&self) -> &Identity {
        &self.identity
    }
    fn info(&self) -> Info {
        Info {
            capacity: self.pages,
            block_size: PAGE as u32,
            physical_block_size: PAGE as u32,
            queues: 1,
            depth: 64,
            features: Features::empty(),
            limits: Limits {
                max_segments: 16,
                max_segment_bytes: 1 << 20,
                joint: 0,
                max_transfer_bytes: 1 << 20,
                max_discard_blocks: 0,
                max_write_zeroes_blocks: 0,
                dma: DmaConstraints::ANY,
            },
        }
    }
    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        if let Err(error) = request.check(&self.info()) {
            return Err(Rejected { request, why: Refusal::Invalid(error) });
        }
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(request.accept());
        Ok(Tag::from_bits(0))
    }
    fn commit(&self) {
        self.work.schedule();
    }
    fn watch(&self, _watcher: Arc<dyn Watcher>) {}
}
