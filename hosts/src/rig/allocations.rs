//! What a driver allocates from submit to completion.

use std::sync::{Arc, Mutex};

use undercroft_block::{BlockDevice, Complete, Completion, Data, Error, Op, Piece, Refusal, Request};
use undercroft_hal::hosted::trap;
use undercroft_hal::{BottomHalf, Task, cpu};

use super::buffer;

const SLOTS: usize = 8;
/// The operations of three rounds, with their blocks; a flush carries no data, so the request keeps it aside.
const ROUNDS: [(Op, u32); 3] = [(Op::Write, 2), (Op::Read, 2), (Op::Flush, 0)];

/// A request that is done, and how it went.
type Done = (Request, Result<(), Error>);

/// Takes finished requests in places made before. With `allocates` its completions do what they must not: the control.
struct Sink {
    places: [Mutex<Option<Done>>; SLOTS],
    allocates: bool,
}

impl Complete for Sink {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        if self.allocates {
            drop(std::hint::black_box(Box::new(cookie)));
        }
        *self.places[cookie as usize].lock().unwrap() = Some((request, result));
    }
}

/// Writes, reads and flushes, eight at a time, again and again; counts what the guest's side allocates and frees meanwhile. With `allocates`
/// the completions do: a check that sees nothing then sees nothing at all. The program's allocator is [`TrapAlloc`](undercroft_hal::hosted::TrapAlloc).
///
/// # Panics
/// If a request fails.
pub fn count(task: &Task, device: &dyn BlockDevice, allocates: bool) -> u64 {
    let sink = Arc::new(Sink { places: [const { Mutex::new(None) }; SLOTS], allocates });
    let block = device.info().block_size as usize;
    let make = |slot: usize| {
        // The end of a page and the beginning of another.
        let piece = |at: usize| Piece::new(buffer(4096), at, block);
        let data = Data::List(vec![piece(4096 - block), piece(0)]);
        let sink: Arc<dyn Complete> = sink.clone();
        Request::new(Op::Write, slot as u64 * 2, 2, data, Completion::new(sink, slot as u64))
    };
    let mut requests: [Option<Request>; SLOTS] = std::array::from_fn(|slot| Some(make(slot)));
    let mut aside: [Data; SLOTS] = Default::default();
    // What a scan left in line is freed first.
    task.run_pending();
    trap::by_guest(|| (0..12).for_each(|round| turn(task, device, &sink, round, &mut requests, &mut aside))).1
}

fn turn(
    task: &Task,
    device: &dyn BlockDevice,
    sink: &Sink,
    round: usize,
    requests: &mut [Option<Request>; SLOTS],
    aside: &mut [Data; SLOTS],
) {
    let (op, blocks) = ROUNDS[round % ROUNDS.len()];
    for (idle, aside) in requests.iter_mut().zip(aside) {
        let mut request = idle.take().unwrap();
        if (op == Op::Flush) != request.data.is_empty() {
            std::mem::swap(&mut request.data, aside);
        }
        (request.op, request.blocks) = (op, blocks);
        while let Err(rejected) = device.submit(request) {
            assert_eq!(rejected.why, Refusal::Full);
            request = rejected.request;
            device.commit();
            task.run_pending();
            cpu::relax();
        }
    }
    device.commit();
    for (idle, place) in requests.iter_mut().zip(&sink.places) {
        let mut done = None;
        task.wait_until(|| {
            done = place.lock().unwrap().take();
            done.is_some()
        });
        let (request, result) = done.unwrap();
        assert_eq!(result, Ok(()), "round {round}");
        *idle = Some(request);
    }
}
