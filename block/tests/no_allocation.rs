//! The path of a request allocates nothing: not on success, not on any error, not when it is sent again (X18, A-VSCSI-05, A-VSCSI-06,
//! A-VSCSI-07).
//!
//! What the guest's side allocates or frees between `submit` and the end of the completion is counted; the machine and the scripted host
//! are not the path under test.

use std::cell::Cell;
use std::sync::{Arc, Mutex, Weak};

use undercroft_block::queue::{self, BlockQueue};
use undercroft_block::scsi::{
    Command, Direction, Host, HostIdentity, HostInfo, HostWatcher, Outcome, Refused, Response, Status, scan,
};
use undercroft_block::{BlockDevice, Complete, Completion, Data, Error, Limits, Op, Piece, Refusal, Request, Tag};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::{TrapAlloc, trap};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Task};
use undercroft_hosts::{Config, Machine, Schedule};
use undercroft_timer::timers;

thread_local! {
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: TrapAlloc = TrapAlloc::strict();

/// Runs a part of the path, with what it allocates and frees counted.
fn on_the_path<R>(f: impl FnOnce() -> R) -> R {
    let (result, count) = trap::by_guest(f);
    SEEN.set(SEEN.get() + count);
    result
}

type Reply = (Response, u8, [u8; 3], u32);
const GOOD: Reply = (Response::Complete, 0, [0; 3], 0);

#[derive(Default)]
struct State {
    queue: [Option<Command>; 4],
    /// The next answers, last first; then everything succeeds.
    script: Vec<Reply>,
    full_once: bool,
}

/// A host with one disk of 64 blocks.
struct Scripted {
    identity: HostIdentity,
    info: HostInfo,
    state: Mutex<State>,
    work: BottomHalfWork,
}

impl Scripted {
    fn new(max_segments: u16) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let work = BottomHalfWork::new(0, move |cx| {
                if let Some(host) = this.upgrade() {
                    host.work(cx);
                }
                Turn::Done
            });
            let limits = Limits {
                max_segments,
                max_segment_bytes: 65_536,
                joint: 0,
                max_transfer_bytes: 65_536,
                max_discard_blocks: 0,
                max_write_zeroes_blocks: 0,
                dma: DmaConstraints::ANY,
            };
            let identity = HostIdentity {
                driver: "scripted",
                controller: String::new(),
                interrupts: String::new(),
                transport: String::new(),
            };
            let info = HostInfo { max_target: 0, max_lun: 0, queues: 1, depth: 4, depth_per_lun: 0, limits };
            Self { identity, info, state: Mutex::default(), work }
        })
    }

    fn work(&self, cx: &BottomHalf) {
        loop {
            let next = self.state.lock().unwrap().queue.iter_mut().find_map(Option::take);
            let Some(mut command) = next else { return };
            let (response, status, [key, asc, ascq], residual) =
                self.state.lock().unwrap().script.pop().unwrap_or_else(|| answer(&mut command));
            let sense = [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0];
            let sense = if key == 0 { &[][..] } else { &sense };
            let outcome = Outcome { response, status: Status(status), sense, residual };
            on_the_path(|| command.finish(cx, &outcome));
        }
    }
}

/// What a modest disk answers.
fn answer(command: &mut Command) -> Reply {
    let answer: &[u8] = match command.cdb().bytes() {
        [0xa0, ..] => &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0x12, 1, 0x00, ..] => &[0, 0, 0, 3, 0x00, 0xb0, 0xb2],
        [0x12, 1, 0xb0, ..] => &{
            let mut page = [0u8; 64];
            (page[1], page[3], page[23], page[27], page[43]) = (0xb0, 60, 8, 1, 8);
            page
        },
        [0x12, 1, 0xb2, ..] => &[0, 0xb2, 0, 4, 0, 0x80, 0, 0],
        [0x12, 0, ..] => &[0, 0, 5, 2, 31],
        [0x9e, ..] => &[0, 0, 0, 0, 0, 0, 0, 63, 0, 0, 2, 0, 0, 0, 0x80, 0],
        [0x5a, ..] => &[0, 9, 0, 0, 0, 0, 0, 0, 8, 1, 4],
        _ => return GOOD,
    };
    let bytes = command.bytes() as usize;
    assert_eq!(command.direction(), Direction::In);
    let answer = &answer[..answer.len().min(bytes)];
    command.pieces_mut()[0].bytes_mut()[..answer.len()].copy_from_slice(answer);
    (Response::Complete, 0, [0; 3], (bytes - answer.len()) as u32)
}

impl Host for Scripted {
    fn identity(&self) -> &HostIdentity {
        &self.identity
    }
    fn info(&self) -> &HostInfo {
        &self.info
    }
    fn submit(&self, command: Command) -> Result<Tag, Refused> {
        let mut state = self.state.lock().unwrap();
        let full = std::mem::take(&mut state.full_once);
        match state.queue.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) if !full => {
                *slot = Some(command);
                Ok(Tag::from_bits(0))
            }
            _ => Err(Refused { command, why: Refusal::Full }),
        }
    }
    fn commit(&self) {
        // The simulated machine's own queues are not the path under test.
        trap::outside(|| self.work.schedule());
    }
    fn watch(&self, _: Arc<dyn HostWatcher>) {}
}

/// Keeps the finished request; the broken twin keeps a boxed copy of its result, as the historic completions did.
struct Sink {
    broken: bool,
    done: Mutex<Option<(Request, Result<(), Error>)>>,
    boxed: Mutex<Option<Box<Result<(), Error>>>>,
}

impl Complete for Sink {
    fn complete(&self, _: &BottomHalf, _: u64, request: Request, result: Result<(), Error>) {
        if self.broken {
            *self.boxed.lock().unwrap() = Some(Box::new(result));
        }
        assert!(self.done.lock().unwrap().replace((request, result)).is_none(), "completed twice");
    }
}

/// Runs every operation against every answer; the allocations seen on the path.
fn allocations_on_the_path(broken: bool, queued: bool) -> u64 {
    let mut replies = vec![GOOD, (Response::Complete, 0, [0; 3], 512), (Response::Complete, 2, [0; 3], 0)];
    replies.extend(Response::ALL.map(|response| (response, 0, [0; 3], 0)));
    replies.extend([0x04, 0x08, 0x18, 0x28, 0x30, 0x40, 0xff].map(|status| (Response::Complete, status, [0; 3], 0)));
    for (asc, ascq) in [(0, 0), (0x04, 0x01), (0x20, 0), (0x21, 0), (0x24, 0), (0x27, 0x07), (0x29, 0), (0x2a, 0x09)] {
        replies.extend((1..16).map(|key| (Response::Complete, 2, [key, asc, ascq], 0)));
    }
    SEEN.set(0);
    let machine = Machine::new(Config { schedule: Schedule::Lazy, ..Config::default() });
    machine.run(|cx| {
        timers::start_service(cx);
        // Behind a queue the requests are cut, too.
        let host = Scripted::new(if queued { 2 } else { 4 });
        let disk: Arc<dyn BlockDevice> = scan(cx, host.clone()).unwrap().disks.pop().expect("a disk");
        let disk = if queued { Arc::new(BlockQueue::new(disk, queue::Config::default())) } else { disk };
        let sink = Arc::new(Sink { broken, done: Mutex::default(), boxed: Mutex::default() });
        for reply in &replies {
            for op in [Op::Read, Op::Write, Op::Flush, Op::Discard, Op::WriteZeroes] {
                for times in [1, 3, 100] {
                    one((cx, &machine), &host, &*disk, &sink, op, *reply, times);
                }
            }
        }
    });
    assert_eq!(machine.live_dma_blocks(), 0);
    SEEN.get()
}

fn one(
    (cx, machine): (&Task, &Machine),
    host: &Scripted,
    disk: &dyn BlockDevice,
    sink: &Arc<Sink>,
    op: Op,
    reply: Reply,
    times: usize,
) {
    // Three pieces: the transfer has chunks in the middle of which it can fail (X18).
    let piece = || Piece::from(DmaBuf::new(512, DmaConstraints::ANY).unwrap());
    let data =
        if matches!(op, Op::Read | Op::Write) { Data::List((0..3).map(|_| piece()).collect()) } else { Data::None };
    {
        let mut state = host.state.lock().unwrap();
        state.script = vec![reply; times];
        state.full_once = times == 3;
    }
    let mut request = Request::new(op, 1, 3, data, Completion::new(sink.clone(), 0));
    request.fua = times == 3;
    on_the_path(|| disk.submit(request)).expect("taken");
    disk.commit();
    let mut looks = 0;
    cx.wait_until(|| {
        looks += 1;
        assert!(looks < 100_000, "no end: {op:?} {reply:?} {times}");
        // Pauses between tries are long in real time; here it flies.
        machine.advance(20_000_000);
        sink.done.lock().unwrap().is_some()
    });
    let finished = sink.done.lock().unwrap().take();
    let (request, result) = finished.unwrap();
    assert_eq!((request.lba, request.data.pieces().len()), (1, if request.data.is_empty() { 0 } else { 3 }));
    if reply == GOOD {
        assert_eq!(result, Ok(()));
    }
    host.state.lock().unwrap().script.clear();
}

#[test]
fn x18_no_allocation_from_submit_to_completion() {
    assert_eq!(allocations_on_the_path(false, false), 0);
}

#[test]
fn x18_no_allocation_behind_a_queue() {
    assert_eq!(allocations_on_the_path(false, true), 0);
}

/// Takes any number of requests; the broken twin counts its list as the path's.
struct Many {
    broken: bool,
    done: Mutex<Vec<Request>>,
}

impl Complete for Many {
    fn complete(&self, _: &BottomHalf, _: u64, request: Request, result: Result<(), Error>) {
        assert_eq!(result, Ok(()));
        let take = || self.done.lock().unwrap().push(request);
        if self.broken { take() } else { trap::outside(take) }
    }
}

fn allocations_of_merged_requests(broken: bool) -> u64 {
    SEEN.set(0);
    Machine::new(Config { schedule: Schedule::Lazy, ..Config::default() }).run(|cx| {
        timers::start_service(cx);
        let disk = scan(cx, Scripted::new(8)).unwrap().disks.pop().expect("a disk");
        let queue = BlockQueue::new(disk, queue::Config::default());
        let sink = Arc::new(Many { broken, done: Mutex::default() });
        for round in 1..4 {
            let requests: Vec<_> = (0..24)
                .map(|lba| {
                    let buf = DmaBuf::new(512, DmaConstraints::ANY).unwrap();
                    Request::new(Op::Write, lba, 1, Piece::from(buf).into(), Completion::new(sink.clone(), lba))
                })
                .collect();
            for request in requests {
                on_the_path(|| queue.submit(request).map(drop)).expect("taken");
            }
            queue.commit();
            cx.wait_until(|| sink.done.lock().unwrap().len() == 24);
            assert!(queue.stats().merged >= round * 10, "{:?}", queue.stats());
            sink.done.lock().unwrap().clear();
        }
    });
    SEEN.get()
}

#[test]
fn x18_no_allocation_when_requests_are_merged() {
    assert_eq!(allocations_of_merged_requests(false), 0);
}

#[test]
fn x18_no_allocation_when_requests_are_merged_control() {
    assert!(allocations_of_merged_requests(true) > 0, "the check must catch a completion that allocates");
}

#[test]
fn x18_no_allocation_from_submit_to_completion_control() {
    for queued in [false, true] {
        assert!(allocations_on_the_path(true, queued) > 0, "the check must catch a completion that allocates");
    }
}
