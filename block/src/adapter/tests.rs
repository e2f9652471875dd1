//! Futures over a RAM disk.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hosts::{Config, Machine, Schedule};

use super::*;
use crate::testing::RamDisk;

const BLOCK: usize = 512;

fn buffer(blocks: usize, fill: u8) -> DmaBuf {
    let mut buf = DmaBuf::new(blocks * BLOCK, DmaConstraints::ANY).unwrap();
    buf.fill(fill);
    buf
}

fn on_every_schedule(test: impl Fn(&Task)) {
    for seed in 0..8 {
        for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
            let machine = Machine::new(Config { schedule, seed, ..Config::default() });
            machine.run(&test);
            assert_eq!(machine.live_dma_blocks(), 0, "all buffers are back");
        }
    }
}

#[test]
fn async_and_blocking_round_trips() {
    on_every_schedule(|cx| {
        let disk = Disk::new(RamDisk::new(vec![0; 64 * BLOCK], 512, 4), 4);
        cx.block_on(async {
            disk.write(3, buffer(2, 7)).await.unwrap();
            disk.flush().await.unwrap();
            let data = disk.read(4, buffer(2, 0)).await.unwrap();
            let bytes = data.pieces()[0].bytes();
            assert!(bytes[..BLOCK].iter().all(|byte| *byte == 7) && bytes[BLOCK..].iter().all(|byte| *byte == 0));
            disk.discard(0, 1).await.unwrap();
            assert_eq!(disk.write_zeroes(0, 1).await, Err(Error::Unsupported));
        });
        disk.write_blocking(cx, 9, buffer(1, 9)).unwrap();
        let data = disk.read_blocking(cx, 9, buffer(1, 0)).unwrap();
        assert_eq!(data.into_buf().unwrap()[0], 9);
        disk.flush_blocking(cx).unwrap();
    });
}

#[test]
fn errors_bring_the_buffers_back() {
    on_every_schedule(|cx| {
        let device = RamDisk::new(vec![0; 64 * BLOCK], 512, 4);
        let disk = Disk::new(device.clone(), 4);
        for (lba, blocks, error) in [(64, 1, Error::OutOfRange), (u64::MAX, 1, Error::OutOfRange)] {
            let failed = disk.read_blocking(cx, lba, buffer(blocks, 0)).unwrap_err();
            assert_eq!((failed.error, failed.data.len()), (error, blocks * BLOCK));
        }
        device.state.lock().unwrap().errors.push_back(Error::Medium);
        let failed = cx.block_on(disk.read(0, buffer(3, 0))).unwrap_err();
        assert_eq!((failed.error, failed.data.len()), (Error::Medium, 3 * BLOCK));
        let odd = DmaBuf::new(700, DmaConstraints::ANY).unwrap();
        assert_eq!(disk.write_blocking(cx, 0, odd).unwrap_err().error, Error::BadLength);
    });
}

#[test]
fn a_dropped_future_leaves_its_buffer_with_the_device() {
    for seed in 0..4 {
        let machine = Machine::new(Config { schedule: Schedule::RANDOM, seed, ..Config::default() });
        machine.run(|cx| {
            let device = RamDisk::new(vec![0; 64 * BLOCK], 512, 4);
            let disk = Disk::new(device.clone(), 2);
            device.state.lock().unwrap().held = true;
            let mut poll = Context::from_waker(Waker::noop());
            for round in 0..2 {
                let mut future = Box::pin(disk.write(round, buffer(1, 5)));
                assert!(future.as_mut().poll(&mut poll).is_pending());
                drop(future);
            }
            assert_eq!(machine.live_dma_blocks(), 2, "the device works on them");
            // Both slots are taken by what was abandoned: the next operation waits for one.
            let mut third = pin!(disk.read(0, buffer(1, 0)));
            assert!(third.as_mut().poll(&mut poll).is_pending());
            assert_eq!(device.state.lock().unwrap().log.len(), 2);
            device.release();
            cx.block_on(third).unwrap();
            assert_eq!(device.state.lock().unwrap().store[0], 5, "the abandoned write was done");
        });
        assert_eq!(machine.live_dma_blocks(), 0);
    }
}

#[test]
fn more_operations_than_slots_and_room_all_end() {
    on_every_schedule(|cx| {
        for (slots, depth) in [(1, 4), (4, 1), (16, 3), (3, 16)] {
            let device = RamDisk::new(vec![0; 64 * BLOCK], 512, depth);
            device.state.lock().unwrap().last_first = true;
            let disk = Disk::new(device, slots);
            let mut futures: Vec<_> = (0..20).map(|lba| Box::pin(disk.write(lba, buffer(1, lba as u8)))).collect();
            // A join of all: woken for one, all are polled.
            cx.block_on(poll_fn(|poll| {
                futures.retain_mut(|future| future.as_mut().poll(poll).map(Result::unwrap).is_pending());
                if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            }));
        }
    });
}

use std::future::poll_fn;

#[test]
fn a_future_dropped_while_waiting_for_room_frees_its_slot() {
    on_every_schedule(|cx| {
        let device = RamDisk::new(vec![0; 64 * BLOCK], 512, 1);
        let disk = Disk::new(device.clone(), 2);
        device.state.lock().unwrap().held = true;
        let mut poll = Context::from_waker(Waker::noop());
        let mut first = Box::pin(disk.read(0, buffer(1, 0)));
        assert!(first.as_mut().poll(&mut poll).is_pending());
        let mut second = Box::pin(disk.read(1, buffer(1, 0)));
        assert!(second.as_mut().poll(&mut poll).is_pending(), "refused: waits for room");
        drop(second);
        device.release();
        cx.block_on(first).unwrap();
        disk.read_blocking(cx, 2, buffer(1, 0)).unwrap();
        assert_eq!(device.state.lock().unwrap().log.len(), 2);
    });
}

#[test]
fn two_cpus_wake_each_other() {
    let machine = Machine::new(Config { cpus: 2, ..Config::default() });
    machine.run(|cx| {
        let disk: Arc<Disk> = Arc::new(Disk::new(RamDisk::new(vec![0; 64 * BLOCK], 512, 4), 4));
        for lba in 0..64 {
            disk.read_blocking(cx, lba, buffer(1, 1)).unwrap();
        }
    });
}

thread_local! {
    /// The negative control of X16: the list is walked until it is empty, though those who are woken come back to it.
    pub(super) static WALKS_UNTIL_EMPTY: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Queues again as soon as it is woken, as an executor that polls at once would; and leaves when it was woken often enough.
struct Returner {
    slots: Arc<Slots>,
    woken: std::sync::atomic::AtomicU32,
}

impl std::task::Wake for Returner {
    fn wake(self: Arc<Self>) {
        let before = self.woken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(before < 100, "the list of those who wait never ends: who is woken comes back to it");
        let epoch = self.slots.epoch();
        assert!(!self.slots.changed(epoch, Waiter::Future(self.clone().into())), "nothing has happened since");
    }
}

/// Those who wait for room are woken one by one with the lock dropped in between, and queue again meanwhile: each is woken once for each
/// time that something made room, and nobody is lost.
fn woken_waiters_come_back() {
    let machine = Machine::new(Config::default());
    machine.run(|_| {
        let slots = Arc::new(Slots::new(4));
        let waiters: Vec<_> =
            (0..3).map(|_| Arc::new(Returner { slots: slots.clone(), woken: Default::default() })).collect();
        let epoch = slots.epoch();
        for waiter in &waiters {
            assert!(!slots.changed(epoch, Waiter::Future(waiter.clone().into())));
        }
        for round in 1..4 {
            drop(slots.reserve());
            let woken: Vec<_> =
                waiters.iter().map(|waiter| waiter.woken.load(std::sync::atomic::Ordering::Relaxed)).collect();
            assert_eq!(woken, [round; 3], "each once");
        }
    });
}

#[test]
fn x16_waiters_that_come_back_while_the_list_is_walked() {
    woken_waiters_come_back();
}

#[test]
#[should_panic(expected = "the list of those who wait never ends")]
fn x16_waiters_that_come_back_control() {
    WALKS_UNTIL_EMPTY.set(true);
    woken_waiters_come_back();
}
