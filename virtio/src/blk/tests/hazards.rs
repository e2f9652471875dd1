//! The audit's hazards, each with a twin of the driver that has it: the same check that passes on the driver catches the twin.

use undercroft_block::Complete;
use undercroft_block::Refusal;
use undercroft_hal::BottomHalf;
use undercroft_hal::context::Kind;
use undercroft_hal::work::{BottomHalfWork, Turn};

use super::*;

const GOOD: Defects = Defects::none();

/// Passes completions on, and wakes the first CPU, whose task waits for those of another.
struct Waker {
    sink: Arc<Sink>,
    wake: BottomHalfWork,
}

impl Complete for Waker {
    fn complete(&self, cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        self.sink.complete(cx, cookie, request, result);
        self.wake.schedule();
    }
}

/// Two queues, two CPUs: each queue's completions run in a bottom half of its own CPU.
fn completes_at_home(defects: Defects) {
    let rig = Rig::with(Config { cpus: 2, ..Config::default() }, BlkLimits { queues: 2, ..BlkLimits::default() });
    rig.run_with(defects, |task, driver| {
        let sink = Sink::new();
        let waker = Arc::new(Waker { sink: sink.clone(), wake: BottomHalfWork::new(0, |_: &BottomHalf| Turn::Done) });
        assert_eq!(driver.info().queues, 2);
        for queue in 0..2 {
            let device = &driver.running.device;
            super::super::submit::submit(device, queue, read(7, 1, 512, Completion::new(waker.clone(), 0))).unwrap();
            device.queue(queue).unwrap().commit();
            let done = sink.wait(task, 1).remove(0);
            assert_eq!(done.context, (Kind::BottomHalf, queue), "completed elsewhere");
        }
    });
}

#[test]
fn a_vq_01_each_queue_completes_in_its_own_context() {
    completes_at_home(GOOD);
}

#[test]
fn a_vq_01_each_queue_completes_in_its_own_context_control() {
    let message = says(|| completes_at_home(Defects::one(Defect::OneHomeForAll)));
    assert!(message.contains("completed elsewhere"), "{message}");
}

/// Interrupts arrive at any call of the bottom half that drains; everything comes back once. Whether the guest ever hung.
fn hangs(defects: Defects) -> bool {
    (0..60).any(|seed| {
        let schedule = Schedule::Random { work: 20, deliver: 60 };
        let rig = Rig::with(Config { seed, schedule, ..Config::default() }, BlkLimits::default());
        let outcome = rig.machine.try_run(|task| {
            let driver = rig.probe(task, defects).map_err(|error| format!("{error}"))?;
            let sink = Sink::new();
            let mut cookies = Vec::new();
            for round in 0..12u64 {
                let batch = 1 + round % 7;
                for n in 0..batch {
                    driver.submit(read(round * 8 + n, 1, 512, sink.to(round * 8 + n))).expect("room");
                }
                driver.commit();
                for done in sink.wait(task, batch as usize) {
                    assert_eq!(bytes(&done.request), pattern(done.cookie, 1));
                    assert!(!cookies.contains(&done.cookie), "completed twice");
                    cookies.push(done.cookie);
                }
            }
            drop(driver);
            settle(task);
            Ok::<(), String>(())
        });
        // A hang is what the machine says when the guest halts and nothing can wake it; silence at the probe is the same with a clock.
        !matches!(outcome, Ok(Ok(())))
    })
}

#[test]
fn a_vq_02_interrupts_between_the_steps_of_a_drain() {
    assert!(!hangs(GOOD));
}

#[test]
fn a_vq_02_interrupts_between_the_steps_of_a_drain_control() {
    assert!(hangs(Defects::one(Defect::NoSecondLook)));
}

/// Drops the driver inside the first completion.
struct Remover {
    driver: std::sync::Mutex<Option<VirtioBlk>>,
    sink: Arc<Sink>,
}

impl Complete for Remover {
    fn complete(&self, cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        let driver = self.driver.lock().unwrap().take();
        drop(driver);
        self.sink.complete(cx, cookie, request, result);
    }
}

fn removed_in_completion(defects: Defects) {
    for schedule in [Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule).faults(FaultScript::none().from(8, Fault::Never));
        let sink = Sink::new();
        let remover = Arc::new(Remover { driver: std::sync::Mutex::default(), sink: Arc::clone(&sink) });
        let device = std::cell::RefCell::new(None);
        rig.run_with(defects, |task, driver| {
            *device.borrow_mut() = Some(Arc::downgrade(&driver.running.device));
            for cookie in 0..20 {
                driver.submit(read(cookie, 1, 512, Completion::new(remover.clone(), cookie))).unwrap();
            }
            let queues = Arc::clone(&driver.running.device);
            *remover.driver.lock().unwrap() = Some(driver);
            queues.queue(0).unwrap().commit();
            drop(queues);
            let mut done = sink.wait(task, 20);
            done.sort_by_key(|done| done.cookie);
            assert!(done.iter().map(|done| done.cookie).eq(0..20), "each once");
            assert!(done.iter().all(|done| matches!(done.result, Ok(()) | Err(Error::Removed))));
            assert!(done.iter().any(|done| done.result == Err(Error::Removed)));
            settle(task);
        });
        assert!(device.take().unwrap().upgrade().is_none(), "the device is freed");
    }
}

#[test]
fn a_vq_03_a_completion_may_remove_the_device() {
    removed_in_completion(GOOD);
}

#[test]
fn a_vq_03_a_completion_may_remove_the_device_control() {
    assert!(caught(|| removed_in_completion(Defects::one(Defect::CompletesUnderLock))));
}

/// Fails each allocation of the set-up in turn: a typed error, nothing left, and the device is reset.
fn every_allocation_fails_once(defects: Defects) {
    for n in 0.. {
        let limits = BlkLimits { queues: 2, ..BlkLimits::default() };
        let rig = Rig::with(Config { cpus: 2, ..Config::default() }, limits);
        rig.machine.fail_dma_after(n);
        let over = rig.machine.run(|task| match rig.probe(task, defects) {
            Ok(_) => true,
            Err(ProbeError::Memory(_)) => false,
            Err(other) => panic!("allocation {n}: {other}"),
        });
        if over {
            assert!(n >= 6, "ring, tables and frames are allocated");
            return;
        }
        assert_eq!(rig.machine.live_dma_blocks(), 0, "allocation {n}");
        assert_eq!(rig.host.with(|host| host.status() & 4), 0, "DRIVER_OK in spite of failure {n}");
    }
}

#[test]
fn a_vblk_01_set_up_without_memory() {
    every_allocation_fails_once(GOOD);
}

#[test]
fn a_vblk_01_set_up_without_memory_control() {
    assert!(caught(|| every_allocation_fails_once(Defects::one(Defect::LeaksOnFailure))));
}

/// From the first request on there is no memory to be had for DMA; a chain's parts are all there already.
fn works_without_memory(defects: Defects) {
    let rig = Rig::new(BlkLimits::default());
    rig.run_with(defects, |task, driver| {
        let sink = Sink::new();
        let requests: Vec<_> = (0..100).map(|n| scattered(n, &[512, 1024, 512], sink.to(n))).collect();
        rig.machine.fail_dma_after(0);
        for request in requests {
            driver.submit(request).expect("nothing is allocated");
        }
        driver.commit();
        let done = sink.wait(task, 100);
        assert!(done.iter().all(|done| done.result == Ok(())));
    });
}

#[test]
fn a_vblk_02_a_request_allocates_nothing() {
    works_without_memory(GOOD);
}

#[test]
fn a_vblk_02_a_request_allocates_nothing_control() {
    assert!(caught(|| works_without_memory(Defects::one(Defect::AllocatesPerRequest))));
}

/// The driver goes with requests in flight that the device never answers; each finishes once, with its buffers, from a bottom half.
fn removed_in_flight(defects: Defects) {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule).faults(FaultScript::none().from(5, Fault::Never));
        rig.run_with(defects, |task, driver| {
            let sink = Sink::new();
            for cookie in 0..30 {
                go(&driver, read(cookie, 1, 512, sink.to(cookie))).unwrap();
            }
            drop(driver);
            settle(task);
            let mut done = sink.take();
            done.sort_by_key(|done| done.cookie);
            assert!(done.iter().map(|done| done.cookie).eq(0..30), "each once");
            assert!(done.iter().all(|done| done.context.0 == Kind::BottomHalf && !done.request.data.is_empty()));
            assert!(done.iter().filter(|done| done.result == Err(Error::Removed)).count() >= 20);
        });
    }
}

#[test]
fn a_vblk_03_removal_with_requests_in_flight() {
    removed_in_flight(GOOD);
}

#[test]
fn a_vblk_03_removal_with_requests_in_flight_control() {
    assert!(caught(|| removed_in_flight(Defects::one(Defect::ForgetsAtRemoval))));
}

/// Every status that a device can write, and none.
fn statuses(defects: Defects) {
    let expect = [
        (Fault::Status(0), Ok(())),
        (Fault::Status(1), Err(Error::Medium)),
        (Fault::Status(2), Err(Error::Unsupported)),
        (Fault::Status(3), Err(Error::Medium)),
        (Fault::Status(0x80), Err(Error::Medium)),
        (Fault::NoStatus, Err(Error::Broken)),
        (Fault::Status(0xff), Err(Error::Broken)),
    ];
    for (fault, result) in expect {
        // The serial number first, then one good read that leaves OK in the frame.
        let rig = Rig::new(BlkLimits::default()).faults(FaultScript::none().at(2, fault));
        rig.run_with(defects, |task, driver| {
            let sink = Sink::new();
            for cookie in [1, 2] {
                go(&driver, read(cookie, 1, 512, sink.to(cookie))).unwrap();
                let done = sink.wait(task, 1).remove(0);
                assert_eq!(done.result, if cookie == 1 { Ok(()) } else { result }, "{fault:?}");
            }
            settle(task);
            assert_eq!(sink.count(), 0, "once");
        });
    }
}

#[test]
fn a_vblk_04_every_status() {
    statuses(GOOD);
}

#[test]
fn a_vblk_04_every_status_control() {
    let message = says(|| statuses(Defects::one(Defect::StatusNotPreset)));
    assert!(message.contains("NoStatus"), "{message}");
}

/// A device with blocks of 4096 bytes: sectors and capacity stay units of 512.
fn big_blocks(defects: Defects) {
    let rig = Rig::new(BlkLimits { block_size: 4096, physical_exponent: 0, ..BlkLimits::default() });
    rig.run_with(defects, |task, driver| {
        let info = driver.info();
        assert_eq!((info.capacity, info.block_size, info.physical_block_size), (1 << 13, 4096, 4096));
        let sink = Sink::new();
        for lba in [0, 1, 77, (1 << 13) - 1] {
            go(&driver, read(lba, 1, 4096, sink.to(lba))).unwrap();
            let done = sink.wait(task, 1).remove(0);
            assert_eq!((done.result, bytes(&done.request)), (Ok(()), pattern(8 * lba, 8)));
            go(&driver, write(lba, &[lba as u8; 4096], 4096, sink.to(lba))).unwrap();
            assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
            assert_eq!(rig.disk.read_sector(8 * lba + 7), [lba as u8; 512]);
        }
        let refused = driver.submit(read(1 << 13, 1, 4096, sink.to(0))).unwrap_err();
        assert_eq!(refused.why, Refusal::Invalid(Error::OutOfRange));
    });
}

#[test]
fn x19_sectors_are_512_bytes() {
    big_blocks(GOOD);
}

#[test]
fn x19_sectors_are_512_bytes_control() {
    assert!(caught(|| big_blocks(Defects::one(Defect::ScalesSectors))));
}

fn features_refused(defects: Defects) {
    let rig = Rig::new(BlkLimits::default());
    rig.host.with(|host| host.knobs.refuse_features = true);
    rig.machine.run(|task| {
        assert_eq!(rig.probe(task, defects).err(), Some(ProbeError::FeaturesRefused));
    });
    assert_eq!(rig.host.with(|host| host.breaches()), []);
    assert_eq!(rig.machine.live_dma_blocks(), 0);
}

#[test]
fn x24_features_ok_is_read_back() {
    features_refused(GOOD);
}

#[test]
fn x24_features_ok_is_read_back_control() {
    assert!(caught(|| features_refused(Defects::one(Defect::TrustsFeatures))));
}

/// Puts a mark among the completions when it runs.
struct Marker {
    sink: Arc<Sink>,
    mark: BottomHalfWork,
}

impl Complete for Marker {
    fn complete(&self, cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        if cookie == 0 {
            self.mark.schedule();
        }
        self.sink.complete(cx, cookie, request, result);
    }
}

/// 200 requests come back at once; another bottom half that becomes ready meanwhile gets its turn among them.
fn a_pass_is_bounded(defects: Defects) {
    let rig = Rig::schedule(Schedule::Lazy);
    rig.run_with(defects, |task, driver| {
        let sink = Sink::new();
        let at_mark = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (seen, counted) = (Arc::clone(&at_mark), Arc::clone(&sink));
        let mark = BottomHalfWork::new(0, move |_: &BottomHalf| {
            seen.store(counted.count(), std::sync::atomic::Ordering::Relaxed);
            Turn::Done
        });
        let marker = Arc::new(Marker { sink: sink.clone(), mark });
        for cookie in 0..200 {
            driver.submit(read(cookie, 1, 512, Completion::new(marker.clone(), cookie))).unwrap();
        }
        driver.commit();
        task.wait_until(|| sink.count() == 200);
        settle(task);
        // What came back holds its completion, which holds what came back.
        sink.take();
        let at_mark = at_mark.load(std::sync::atomic::Ordering::Relaxed);
        assert!((1..100).contains(&at_mark), "the other bottom half waited for {at_mark} completions");
    });
}

#[test]
fn a_vscsi_11_a_pass_is_bounded() {
    a_pass_is_bounded(GOOD);
}

#[test]
fn a_vscsi_11_a_pass_is_bounded_control() {
    assert!(caught(|| a_pass_is_bounded(Defects::one(Defect::NoBudget))));
}
