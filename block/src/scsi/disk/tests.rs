//! Disks over a scripted host.

mod flush;

use std::sync::Arc;

use undercroft_hal::Task;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};

use super::super::testing::{MockHost, Reply, Sink, Unit as Model, machine, one};
use super::super::{HostEvent, Response, ScsiDisk, Status};
use crate::{BlockDevice, Complete, Completion, Data, Error, Event, Features, Op, Refusal, Request, Watcher};

const SYNC_10: u8 = 0x35;
const SYNC_16: u8 = 0x91;
const TUR: u8 = 0x00;

/// One disk of 4096 blocks of 512 bytes, changed by `change` before the scan.
fn with_disk(change: impl FnOnce(&mut Model), test: impl FnOnce(&Task, &Arc<MockHost>, &Arc<ScsiDisk>, &Arc<Sink>)) {
    let machine = machine();
    machine.run(|cx| {
        let mut unit = Model::new(4096, 512);
        change(&mut unit);
        let host = MockHost::new(8, [(0, unit)]);
        let disk = one(cx, &host);
        host.unit(0, |unit| unit.log.clear());
        test(cx, &host, &disk, &Arc::new(Sink::default()));
    });
    assert_eq!(machine.live_dma_blocks(), 0, "all buffers are back");
}

fn buffer(len: usize, fill: u8) -> Data {
    let mut buf = DmaBuf::new(len, DmaConstraints::ANY).unwrap();
    buf.fill(fill);
    buf.into()
}

fn script(host: &MockHost, replies: impl IntoIterator<Item = Reply>) {
    host.unit(0, |unit| unit.script.extend(replies));
}

fn log(host: &MockHost) -> Vec<u8> {
    host.unit(0, |unit| std::mem::take(&mut unit.log))
}

#[test]
fn writes_and_reads_back_in_both_forms() {
    with_disk(
        |_| (),
        |cx, host, disk, sink| {
            let write = Request::new(Op::Write, 7, 4, buffer(2048, 0x5a), sink.completion(0));
            let (request, result) = sink.run(cx, &**disk, write);
            assert_eq!((result, request.lba, request.data.len()), (Ok(()), 7, 2048));
            let read = Request::new(Op::Read, 7, 4, buffer(2048, 0), sink.completion(0));
            let (request, result) = sink.run(cx, &**disk, read);
            assert_eq!(result, Ok(()));
            assert!(request.data.pieces()[0].bytes().iter().all(|byte| *byte == 0x5a));
            assert_eq!(log(host), [0x2a, 0x28]);
        },
    );
}

#[test]
fn what_is_invalid_is_refused_whole() {
    with_disk(
        |unit| unit.wp = true,
        |_, _, disk, sink| {
            for (request, error) in [
                (Request::new(Op::Read, 4096, 1, buffer(512, 0), sink.completion(0)), Error::OutOfRange),
                (Request::new(Op::Read, u64::MAX, 2, buffer(1024, 0), sink.completion(0)), Error::OutOfRange),
                (Request::new(Op::Read, 0, 2, buffer(512, 0), sink.completion(0)), Error::BadLength),
                (Request::new(Op::Write, 0, 1, buffer(512, 0), sink.completion(0)), Error::ReadOnly),
                (Request::new(Op::Discard, 0, 1, Data::None, sink.completion(0)), Error::ReadOnly),
            ] {
                let (op, lba, len) = (request.op, request.lba, request.data.len());
                let rejected = disk.submit(request).unwrap_err();
                assert_eq!(rejected.why, Refusal::Invalid(error));
                assert_eq!((rejected.request.op, rejected.request.lba, rejected.request.data.len()), (op, lba, len));
            }
        },
    );
}

#[test]
fn a_vscsi_08_completes_once_whatever_the_answer() {
    for op in [Op::Read, Op::Write, Op::Flush, Op::Discard, Op::WriteZeroes] {
        for response in Response::ALL {
            for status in [0x00, 0x02, 0x04, 0x08, 0x18, 0x28, 0x30, 0x40, 0x77] {
                for sense in
                    [Reply::good(), Reply::sense(3, 0x11, 0), Reply::sense(5, 0x20, 0), Reply::sense(6, 0x29, 0)]
                {
                    // The status is not looked at without an answer, nor the sense without CHECK CONDITION.
                    let looked_at = response == Response::Complete || status <= 2;
                    if !looked_at || (status != 2 && !sense.sense.is_empty()) {
                        continue;
                    }
                    with_disk(
                        |_| (),
                        |cx, host, disk, sink| {
                            let reply = Reply { response, status: Status(status), sense: sense.sense, residual: 0 };
                            script(host, std::iter::repeat_n(reply, 200));
                            let result = sink.simple(cx, &**disk, op, 0, u32::from(op != Op::Flush));
                            let good = response == Response::Complete && matches!(status, 0x00 | 0x04);
                            // A flush that is refused in both forms by a device that claims a cache is an error, too.
                            assert_eq!(result.is_ok(), good, "{op:?} {response:?} {status:#x}: {result:?}");
                        },
                    );
                }
            }
        }
    }
}

#[test]
fn transient_conditions_are_retried_and_bounded() {
    let attention = || Reply::sense(6, 0x2a, 1);
    with_disk(
        |_| (),
        |cx, host, disk, sink| {
            let becoming_ready = || Reply::sense(2, 0x04, 0x01);
            script(host, [attention(), attention(), becoming_ready(), becoming_ready()]);
            assert_eq!(sink.simple(cx, &**disk, Op::Read, 0, 1), Ok(()));
            assert_eq!(log(host), [0x28; 5]);
            script(host, std::iter::repeat_n(becoming_ready(), 1000));
            assert_eq!(sink.simple(cx, &**disk, Op::Read, 0, 1), Err(Error::NotReady));
            assert!(log(host).len() < 100, "bounded");
            host.unit(0, |unit| unit.script.clear());
            // A queue before the disk knows when to try again.
            for busy in [Reply::status(Status::BUSY), Reply::status(Status::TASK_SET_FULL)] {
                script(host, [busy]);
                assert_eq!(sink.simple(cx, &**disk, Op::Read, 0, 1), Err(Error::Busy));
            }
            let _ = log(host);
            script(host, std::iter::repeat_n(attention(), 1000));
            assert_eq!(sink.simple(cx, &**disk, Op::Read, 0, 1), Err(Error::NotReady));
            assert!(log(host).len() < 20, "bounded");
            host.unit(0, |unit| unit.script.clear());
            script(host, std::iter::repeat_n(Reply::response(Response::Busy), 1000));
            assert_eq!(sink.simple(cx, &**disk, Op::Write, 0, 1), Err(Error::Busy));
            assert_eq!(log(host).len(), 1, "it is the queue's to try again");
        },
    );
}

#[test]
fn an_underrun_is_short() {
    with_disk(
        |_| (),
        |cx, host, disk, sink| {
            for residual in [1, 512, u32::MAX] {
                script(host, [Reply { residual, ..Reply::good() }]);
                assert_eq!(sink.simple(cx, &**disk, Op::Read, 0, 1), Err(Error::ShortTransfer));
                script(host, [Reply { residual, ..Reply::sense(1, 0x17, 1) }]);
                assert_eq!(
                    sink.simple(cx, &**disk, Op::Write, 0, 1),
                    Err(Error::ShortTransfer),
                    "recovered, but short"
                );
            }
        },
    );
}

#[test]
fn no_cache_command_and_no_cache_is_remembered() {
    with_disk(
        |unit| {
            unit.wce = false;
            unit.unknown = vec![SYNC_10, SYNC_16];
        },
        |cx, host, disk, sink| {
            assert!(!disk.info().features.contains(Features::VOLATILE_CACHE));
            assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Ok(()));
            assert_eq!(log(host), [SYNC_10, SYNC_16]);
            assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Ok(()));
            assert_eq!(log(host), [TUR], "remembered");
            // A device that is not there does not confirm a flush, cache or not.
            script(host, [Reply::response(Response::BadTarget)]);
            assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Err(Error::Removed));
            log(host);
            // Its mode parameters changed: there may be a cache now.
            script(host, [Reply::sense(6, 0x2a, 1)]);
            assert_eq!(sink.simple(cx, &**disk, Op::Read, 0, 1), Ok(()));
            log(host);
            assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Ok(()));
            assert_eq!(log(host), [SYNC_10, SYNC_16]);
        },
    );
}

#[test]
fn only_the_long_form_is_known() {
    with_disk(
        |unit| unit.unknown = vec![SYNC_10],
        |cx, host, disk, sink| {
            for expected in [&[SYNC_10, SYNC_16][..], &[SYNC_16]] {
                assert_eq!(sink.simple(cx, &**disk, Op::Flush, 0, 0), Ok(()));
                assert_eq!(log(host), expected);
            }
        },
    );
}

#[test]
fn force_unit_access_by_flag_or_by_flush() {
    for dpofua in [true, false] {
        with_disk(
            |unit| unit.dpofua = dpofua,
            |cx, host, disk, sink| {
                assert_eq!(disk.info().features.contains(Features::FUA), dpofua);
                let write = || {
                    let mut request = Request::new(Op::Write, 1, 1, buffer(512, 1), sink.completion(0));
                    request.fua = true;
                    request
                };
                assert_eq!(sink.run(cx, &**disk, write()).1, Ok(()));
                assert_eq!(log(host), if dpofua { vec![0x2a] } else { vec![0x2a, SYNC_10] });
                if !dpofua {
                    script(host, [Reply::good(), Reply::sense(4, 0, 0)]);
                    let (request, result) = sink.run(cx, &**disk, write());
                    assert_eq!((result, request.data.len()), (Err(Error::Hardware), 512), "the flush behind it failed");
                }
            },
        );
    }
}

#[test]
fn discards_and_writes_zeroes() {
    with_disk(
        |unit| unit.store.fill(0xaa),
        |cx, host, disk, sink| {
            let info = disk.info();
            assert!(info.features.contains(Features::DISCARD | Features::WRITE_ZEROES));
            assert_eq!((info.limits.max_discard_blocks, info.limits.max_write_zeroes_blocks), (64, 32));
            for round in 0..10u64 {
                // The parameter buffers go round: an UNMAP list must not show up in the zeroes.
                assert_eq!(sink.simple(cx, &**disk, Op::Discard, 8 + round, 2), Ok(()));
                assert_eq!(sink.simple(cx, &**disk, Op::WriteZeroes, 100 + round * 2, 2), Ok(()));
            }
            host.unit(0, |unit| {
                assert!(unit.store[8 * 512..19 * 512].iter().all(|byte| *byte == 0xdd));
                assert!(unit.store[100 * 512..120 * 512].iter().all(|byte| *byte == 0));
                assert!(unit.store[120 * 512..].iter().all(|byte| *byte == 0xaa));
            });
            let too_many = Request::new(Op::Discard, 0, 65, Data::None, sink.completion(0));
            assert_eq!(disk.submit(too_many).unwrap_err().why, Refusal::Invalid(Error::TooLarge));
        },
    );
    with_disk(
        |unit| {
            unit.pages.insert(0xb2, vec![0, 0xb2, 0, 4, 0, 0x40, 0, 0]);
        },
        |cx, host, disk, sink| {
            assert_eq!(sink.simple(cx, &**disk, Op::Discard, 0, 1), Ok(()));
            assert_eq!(log(host), [0x93], "by WRITE SAME with UNMAP");
        },
    );
}

#[derive(Default)]
struct Events(std::sync::Mutex<Vec<Event>>);

impl Watcher for Events {
    fn event(&self, _cx: &undercroft_hal::BottomHalf, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

#[test]
fn a_full_disk_gives_back_and_tells_of_room() {
    with_disk(
        |_| (),
        |cx, _, disk, sink| {
            let events = Arc::new(Events::default());
            disk.watch(events.clone());
            let read = |cookie| Request::new(Op::Read, 0, 1, buffer(512, 0), sink.completion(cookie));
            let mut taken = 0;
            let refused = loop {
                match disk.submit(read(taken)) {
                    Ok(_) => taken += 1,
                    Err(rejected) => break rejected,
                }
            };
            assert_eq!((taken, refused.why), (8, Refusal::Full));
            disk.commit();
            cx.wait_until(|| sink.done.lock().unwrap().len() == 8);
            assert_eq!(*events.0.lock().unwrap(), [Event::Room]);
            assert!(disk.submit(refused.request).is_ok());
            disk.commit();
            cx.wait_until(|| sink.done.lock().unwrap().len() == 9);
            // The finished requests name the sink that holds them.
            sink.done.lock().unwrap().clear();
        },
    );
}

/// Submits the next request from inside the completion of the last.
struct Chain {
    disk: Arc<ScsiDisk>,
    left: std::sync::atomic::AtomicU32,
    this: std::sync::Weak<Chain>,
    depth: std::sync::atomic::AtomicU32,
}

impl Complete for Chain {
    fn complete(&self, _: &undercroft_hal::BottomHalf, _: u64, mut request: Request, result: Result<(), Error>) {
        use std::sync::atomic::Ordering::Relaxed;
        assert_eq!(result, Ok(()));
        assert_eq!(self.depth.fetch_add(1, Relaxed), 0, "no completion inside another");
        if self.left.fetch_sub(1, Relaxed) > 1 {
            request.set_completion(Completion::new(self.this.upgrade().unwrap(), 0));
            self.disk.submit(request).expect("the slot of the command that is done is free");
            self.disk.commit();
        }
        self.depth.fetch_sub(1, Relaxed);
    }
}

#[test]
fn a_completion_may_submit_on_a_queue_of_one() {
    let machine = machine();
    machine.run(|cx| {
        let host = MockHost::new(1, [(0, Model::new(64, 512))]);
        let disk = one(cx, &host);
        let chain =
            Arc::new_cyclic(|this| Chain { disk: disk.clone(), left: 500.into(), this: this.clone(), depth: 0.into() });
        disk.submit(Request::new(Op::Read, 0, 1, buffer(512, 0), Completion::new(chain.clone(), 0))).unwrap();
        disk.commit();
        cx.wait_until(|| chain.left.load(std::sync::atomic::Ordering::Relaxed) == 0);
    });
    assert_eq!(machine.live_dma_blocks(), 0);
}

#[test]
fn removal_is_told_and_then_nothing_is_taken() {
    with_disk(
        |_| (),
        |cx, host, disk, sink| {
            let events = Arc::new(Events::default());
            disk.watch(events.clone());
            let told = {
                let host = Arc::clone(host);
                let address = disk.address();
                undercroft_hal::work::BottomHalfWork::new(0, move |cx| {
                    host.event(cx, HostEvent::Changed(address, 0x2a, 0x09));
                    host.event(cx, HostEvent::Removed(address));
                    undercroft_hal::work::Turn::Done
                })
            };
            // The roster lives with the bus; `scan` has dropped it, but the host keeps its watcher.
            told.schedule();
            cx.run_pending();
            assert_eq!(*events.0.lock().unwrap(), [Event::Resized, Event::Removed]);
            let read = Request::new(Op::Read, 0, 1, buffer(512, 0), sink.completion(0));
            assert_eq!(disk.submit(read).unwrap_err().why, Refusal::Gone(Error::Removed));
        },
    );
}

#[test]
fn a_parked_command_outlives_its_disk() {
    let machine = machine();
    machine.run(|cx| {
        let host = MockHost::new(2, [(0, Model::new(64, 512))]);
        let disk = one(cx, &host);
        let sink = Arc::new(Sink::default());
        script(&host, [Reply::sense(2, 0x04, 0x01), Reply::sense(2, 0x04, 0x01)]);
        disk.submit(Request::new(Op::Read, 0, 1, buffer(512, 0), sink.completion(0))).unwrap();
        disk.commit();
        cx.run_pending();
        drop(disk);
        cx.wait_until(|| !sink.done.lock().unwrap().is_empty());
        let done = std::mem::take(&mut *sink.done.lock().unwrap());
        assert_eq!(done[0].2, Ok(()));
    });
    assert_eq!(machine.live_dma_blocks(), 0);
}

/// A command is to be sent again and the host takes none, until a task has set it up anew; which the task must get to.
fn waits_for_room(end: HostEvent) {
    let machine = machine();
    let result = machine.run(|cx| {
        let host = MockHost::new(2, [(0, Model::new(64, 512))]);
        let disk = one(cx, &host);
        let sink = Arc::new(Sink::default());
        script(&host, [Reply::sense(6, 0x29, 0)]);
        disk.submit(Request::new(Op::Read, 0, 1, buffer(512, 0), sink.completion(0))).unwrap();
        host.state.lock().unwrap().full = true;
        disk.commit();
        for _ in 0..1000 {
            cx.run_pending();
            undercroft_hal::cpu::relax();
        }
        assert!(sink.done.lock().unwrap().is_empty());
        assert_eq!(host.state.lock().unwrap().refused, 1);
        host.state.lock().unwrap().full = false;
        let teller = Arc::clone(&host);
        let told = undercroft_hal::work::BottomHalfWork::new(0, move |cx| {
            teller.event(cx, end);
            undercroft_hal::work::Turn::Done
        });
        told.schedule();
        cx.wait_until(|| !sink.done.lock().unwrap().is_empty());
        sink.done.lock().unwrap().remove(0).2
    });
    assert_eq!(machine.live_dma_blocks(), 0);
    assert_eq!(result, if end == HostEvent::Room { Ok(()) } else { Err(Error::Removed) });
}

#[test]
fn what_is_sent_again_waits_for_room() {
    waits_for_room(HostEvent::Room);
    waits_for_room(HostEvent::Gone);
}

#[test]
#[should_panic(expected = "a command that waits for room asks for it over and over")]
fn what_is_sent_again_waits_for_room_control() {
    crate::broken::with(crate::broken::Hazard::AsksForRoom, || waits_for_room(HostEvent::Room));
}
