//! The ring against another end that is played here.

use core::sync::atomic::Ordering;

use undercroft_hal::dma::{Coherent, DmaConstraints};
use undercroft_hal::hosted::Cpus;
use zerocopy::FromZeros;

use super::ring::{Ring, TooManyResponses};
use super::wire::{Discard, ENTRY, Response, ring};

fn memory() -> Box<Coherent> {
    Box::new(Coherent::new(4096, DmaConstraints::ANY).unwrap())
}

fn request(id: u64) -> Discard {
    Discard { id, ..Discard::new_zeroed() }
}

/// Answers all requests that are shown.
fn answer(memory: &Coherent, entries: u32) -> u32 {
    let from = memory.atomic_u32(ring::RESPONSES_PRODUCED).load(Ordering::Relaxed);
    let to = memory.atomic_u32(ring::REQUESTS_PRODUCED).load(Ordering::Relaxed);
    let mut at = from;
    while at != to {
        let place = ring::ENTRIES + (at % entries) as usize * ENTRY;
        let id: u64 = memory.read(place + 8);
        memory.write(place, Response { id, ..Response::new_zeroed() });
        at = at.wrapping_add(1);
    }
    memory.atomic_u32(ring::RESPONSES_PRODUCED).store(to, Ordering::Relaxed);
    to.wrapping_sub(from)
}

/// X11: indices run past 2^32 as past any other number.
#[test]
fn x11_indices_run_past_their_end() {
    Cpus::new(1).run(0, |_| {
        let shared = memory();
        let host = std::sync::Arc::new(*shared);
        let mut ring = Ring::new(std::sync::Arc::clone(&host)).begin_at(u32::MAX - 40);
        let entries = ring.entries();
        assert_eq!(entries, 32);
        let mut next = 0;
        for round in 0..40u32 {
            let count = round % entries + 1;
            (0..count).for_each(|index| ring.put(request(next + u64::from(index))));
            assert_eq!(ring.free(), entries - count);
            let _ = ring.publish();
            assert_eq!(answer(&host, entries), count);
            for index in 0..count {
                assert_eq!(ring.take().unwrap().unwrap().id, next + u64::from(index));
            }
            assert_eq!(ring.take().map(|response| response.is_none()), Ok(true));
            assert!(!ring.arm());
            next += u64::from(count);
        }
    });
}

/// X11: an index of the other end's that jumps.
#[test]
fn x11_more_responses_than_requests_are_a_breach() {
    Cpus::new(1).run(0, |_| {
        for jump in [2, 33, 1 << 31, u32::MAX] {
            let host = std::sync::Arc::new(*memory());
            let mut ring = Ring::new(std::sync::Arc::clone(&host));
            ring.put(request(7));
            let _ = ring.publish();
            host.atomic_u32(ring::RESPONSES_PRODUCED).store(jump, Ordering::Relaxed);
            assert_eq!(ring.take().map(|response| response.map(|response| response.id)), Err(TooManyResponses));
        }
    });
}

#[test]
fn the_other_end_is_notified_when_it_asked_to_be() {
    Cpus::new(1).run(0, |_| {
        let host = std::sync::Arc::new(*memory());
        let mut ring = Ring::new(std::sync::Arc::clone(&host));
        assert!(!ring.publish(), "nothing was put in");
        ring.put(request(1));
        assert!(ring.publish(), "it waits for the first");
        ring.put(request(2));
        assert!(!ring.publish(), "it is at work and has not asked again");
        host.atomic_u32(ring::REQUEST_EVENT).store(4, Ordering::Relaxed);
        ring.put(request(3));
        assert!(!ring.publish(), "it wants to hear of the fourth");
        ring.put(request(4));
        ring.put(request(5));
        assert!(ring.publish());
    });
}

#[test]
fn a_response_between_the_last_look_and_arming_is_seen() {
    Cpus::new(1).run(0, |_| {
        let host = std::sync::Arc::new(*memory());
        let mut ring = Ring::new(std::sync::Arc::clone(&host));
        ring.put(request(1));
        let _ = ring.publish();
        assert_eq!(ring.take().map(|response| response.is_none()), Ok(true));
        answer(&host, 32);
        assert!(ring.arm());
        assert_eq!(host.atomic_u32(ring::RESPONSE_EVENT).load(Ordering::Relaxed), 1);
    });
}

/// A ring for another end begins at zero, knows no request of before, and tells what was shown from what was not.
#[test]
fn a_ring_that_is_restarted_is_empty() {
    Cpus::new(1).run(0, |_| {
        let host = std::sync::Arc::new(*memory());
        let mut ring = Ring::new(std::sync::Arc::clone(&host)).begin_at(u32::MAX - 1);
        let entries = ring.entries();
        let places: Vec<u32> = (0..4)
            .map(|id| {
                let at = ring.next();
                ring.put(request(id));
                if id == 2 {
                    let _ = ring.publish();
                }
                at
            })
            .collect();
        assert_eq!(places.iter().map(|at| ring.is_shown(*at)).collect::<Vec<_>>(), [true, true, true, false]);
        assert_eq!(answer(&host, entries), 3);
        ring.restart();
        assert_eq!(ring.free(), entries);
        assert_eq!(
            ring.take().map(|response| response.is_none()),
            Ok(true),
            "nothing of before is taken for an answer"
        );
        ring.put(request(9));
        assert!(ring.publish(), "the other end asks to be told of the first");
        assert_eq!(answer(&host, entries), 1);
        assert_eq!(ring.take().unwrap().unwrap().id, 9);
        let before = ring.replace(std::sync::Arc::new(*memory()));
        assert_eq!((ring.free(), ring.take().map(|response| response.is_none())), (entries, Ok(true)));
        drop(before);
    });
}
