//! Data in every shape, and rings that go round.

use undercroft_block::Refusal;
use undercroft_block::scsi::{Direction, Host, Response, Status};
use undercroft_hosts::pvscsi::Knobs;
use undercroft_hosts::virtio::Order;
use undercroft_hosts::{Config, Schedule};

use super::*;

#[test]
fn tables_of_every_length_read_and_write() {
    for no_chains in [false, true] {
        for count in [1, 2, 3, 127, 128, 129, 130, 254, 255] {
            let rig = Rig::knobs(Schedule::Eager, Knobs { no_chains, ..Knobs::default() });
            rig.run(GOOD, |task, driver| {
                let collector = Collector::new();
                ready(task, &*driver, &LUNS, &collector);
                let mut data = pieces(count);
                for (n, piece) in data.iter_mut().enumerate() {
                    piece.bytes_mut().fill(n as u8);
                }
                let [high, low] = (count as u16).to_be_bytes();
                let write10 = [0x2a, 0, 0, 0, 0, 10, 0, high, low, 0];
                go(&*driver, with_pieces(&collector, 1, write10, Direction::Out, data)).unwrap();
                let written = collector.wait(task, 1).remove(0);
                assert_eq!((written.response, written.status), (Response::Complete, Status::GOOD));
                go(&*driver, with_pieces(&collector, 2, read10(10, count as u16), Direction::In, pieces(count)))
                    .unwrap();
                let read = collector.wait(task, 1).remove(0);
                assert_eq!((read.response, read.residual), (Response::Complete, 0));
                assert!(read.data.chunks(512).enumerate().all(|(n, b)| b.iter().all(|b| *b == n as u8)), "{count}");
            });
        }
    }
}

#[test]
fn the_largest_transfers_at_full_depth() {
    let config = Config { ram: 192 << 20, schedule: Schedule::Lazy, ..Config::default() };
    let knobs = Knobs { order: Order::Random, ..Knobs::default() };
    let rig = Rig::new(config, undercroft_hosts::pvscsi::Layout::MsiX, knobs);
    rig.run(GOOD, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        let depth = u64::from(driver.info().depth);
        for n in 0..depth {
            // The simulated machine is slow with many thousands of buffers.
            let blocks = if n % 8 == 0 { 255 } else { 2 };
            let full = with_pieces(&collector, n, read10(1, blocks), Direction::In, pieces(blocks.into()));
            driver.submit(full).map_err(|refused| refused.why).unwrap();
        }
        let refused = go(&*driver, command(&collector, 0, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap_err();
        assert_eq!(end(refused), Refusal::Full);
        driver.commit();
        let answers = collector.wait(task, depth as usize);
        let expected = pattern(0, 1, 255);
        assert!(answers.iter().all(|answer| answer.data == expected[..answer.data.len()]));
        // Eight MiB in one piece.
        let whole = command(&collector, 0, at(0, 0), read10(0, 16384), (Direction::In, 8 << 20));
        go(&*driver, whole).unwrap();
        assert_eq!(collector.wait(task, 1)[0].data, pattern(0, 0, 16384));
        let more = command(&collector, 0, at(0, 0), read10(0, 16384), (Direction::In, (8 << 20) + 512));
        assert_eq!(end(go(&*driver, more).unwrap_err()), Refusal::Invalid(undercroft_block::Error::TooLarge));
    });
}

/// Each ring goes round a hundred thousand times and more; sixteen-bit generations wrap.
#[test]
fn rings_that_go_round_a_hundred_thousand_entries() {
    let rig = Rig::schedule(Schedule::Lazy);
    rig.run(GOOD, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        let mut cookies = 0u64;
        while cookies < 100_000 {
            let batch = 1 + cookies % 200;
            for _ in 0..batch {
                driver.submit(command(&collector, cookies, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
                cookies += 1;
            }
            driver.commit();
            let answers = collector.wait(task, batch as usize);
            assert!(
                answers.iter().all(|answer| (answer.response, answer.status) == (Response::Complete, Status::GOOD))
            );
            let mut seen: Vec<_> = answers.iter().map(|answer| answer.cookie).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(cookies - batch..cookies), "each once");
        }
    });
}

/// One slot, used again and again, so that the half of its generation that travels wraps.
#[test]
fn a_generation_that_wraps() {
    let rig = Rig::schedule(Schedule::Lazy);
    rig.run(GOOD, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        for n in 0..70_000 {
            go(&*driver, command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
            assert_eq!(collector.wait(task, 1)[0].cookie, n);
        }
    });
}
