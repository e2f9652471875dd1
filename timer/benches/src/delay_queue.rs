//! tokio's queue of delays, with a clock that stands still but for the measurement.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use crate::subject::Subject;

/// The queue, in a runtime of its own.
pub struct Delays {
    queue: DelayQueue<u32>,
    epoch: Instant,
    now: u64,
    keys: Vec<Option<Key>>,
    runtime: Runtime,
}

impl Subject for Delays {
    const NAME: &'static str = "tokio-util 0.7.20 DelayQueue";
    fn make(room: u32) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let entered = runtime.enter();
        let (queue, epoch) = (DelayQueue::new(), Instant::now());
        drop(entered);
        Self { queue, epoch, now: 0, keys: vec![None; room as usize], runtime }
    }
    fn start(&mut self, id: u32, at: u64) {
        let _entered = self.runtime.enter();
        self.keys[id as usize] = Some(self.queue.insert_at(id, self.epoch + Duration::from_millis(at)));
    }
    fn stop(&mut self, id: u32) {
        let _entered = self.runtime.enter();
        if let Some(key) = self.keys[id as usize].take() {
            self.queue.remove(&key);
        }
    }
    fn expire(&mut self, to: u64, due: &mut Vec<u32>) {
        let by = Duration::from_millis(to - self.now);
        self.now = to;
        self.runtime.block_on(tokio::time::advance(by));
        let _entered = self.runtime.enter();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(expired)) = self.queue.poll_expired(&mut context) {
            due.push(expired.into_inner());
        }
    }
    fn next(&mut self) -> Option<u64> {
        let key = self.queue.peek()?;
        Some((self.queue.deadline(&key) - self.epoch).as_millis() as u64)
    }
}
