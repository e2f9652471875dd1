//! What the tests share: a machine under Hyper-V, commands and their answers, requests and their completions.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::Mutex;

use undercroft_block::scsi::{
    Address, Cdb, Command, Direction, Host, HostEvent, HostWatcher, Initiator, Lun, Outcome, Refused, Response, Status,
};
use undercroft_block::{Complete, Completion, Data, Error, Op, Piece, Refusal, Request, Tag};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::ThisMachine;
use undercroft_hal::hyperv::Partition;
use undercroft_hal::{BottomHalf, Task, cpu};
use undercroft_hosts::hyperv::{Breach, Controller, Hyperv, Plugged};
use undercroft_hosts::scsi::{Lun as Unit, LunSettings, Target};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};

use crate::defect::Defects;
use crate::{ProbeError, Settings, Storvsc, VmBus};

pub(super) const GOOD: Defects = Defects::none();
pub(super) const TEST_UNIT_READY: [u8; 10] = [0; 10];
pub(super) const READ_10: u8 = 0x28;
pub(super) const NOTHING: (Direction, usize) = (Direction::None, 0);

/// A machine with one controller: a target 0 with units 0, 5 (of 4096-byte blocks) and 63, filled by the seeds 0, 5 and 63.
pub(super) struct Rig {
    pub(super) machine: Rc<Machine>,
    pub(super) host: Handle<Plugged>,
    pub(super) settings: Settings,
    /// The breaches that the guest may have committed.
    pub(super) allowed: fn(&Breach) -> bool,
    /// Whether memory may stay with the host.
    pub(super) leaks: bool,
}

pub(super) fn unit(seed: u64, block_size: u32) -> Unit {
    let settings = LunSettings { block_size, serial: format!("S{seed}"), ..LunSettings::default() };
    Unit::new(Disk::patterned(1 << 14, seed), settings)
}

impl Rig {
    pub(super) fn new(config: Config) -> Self {
        let machine = Machine::new(config);
        let settings = undercroft_hosts::hyperv::Settings {
            vps: config.cpus as u32,
            ..undercroft_hosts::hyperv::Settings::default()
        };
        let mut host = Hyperv::new(settings);
        let target = Target::new().with(0, unit(0, 512)).with(5, unit(5, 4096)).with(63, unit(63, 512));
        host.add_controller(Controller::scsi(1, target));
        let host = machine.add_window(Plugged::new(host), true);
        Self { machine, host, settings: Settings::default(), allowed: |_| false, leaks: false }
    }

    pub(super) fn schedule(schedule: Schedule) -> Self {
        Self::new(Config { schedule, ..Config::default() })
    }

    pub(super) fn cpus(cpus: usize, schedule: Schedule, seed: u64) -> Self {
        Self::new(Config { schedule, cpus, seed, ..Config::default() })
    }

    pub(super) fn with(self, f: impl FnOnce(&mut Hyperv)) -> Self {
        self.model(f);
        self
    }

    pub(super) fn settings(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut this = self;
        change(&mut this.settings);
        this
    }

    pub(super) fn model<R>(&self, f: impl FnOnce(&mut Hyperv) -> R) -> R {
        self.host.with(|plugged| f(&mut plugged.host))
    }

    /// Runs `f` with a connected bus, and checks afterwards that nothing is left and that the driver kept to the interface.
    pub(super) fn on_bus<R>(&self, defects: Defects, f: impl FnOnce(&Task, &VmBus) -> R) -> R {
        let run = || {
            self.machine.run(|task| {
                let partition = Partition::start(task, Arc::new(ThisMachine)).expect("starts");
                let bus = VmBus::with_defects(task, partition, &self.settings, defects).expect("connects");
                let result = f(task, &bus);
                drop(bus);
                settle(task);
                result
            })
        };
        let result = if self.leaks { undercroft_hal::hosted::leaks::allowed(run) } else { run() };
        self.check();
        result
    }

    pub(super) fn check(&self) {
        let mut breaches = self.model(|host| host.breaches().to_vec());
        breaches.retain(|breach| !(self.allowed)(breach));
        assert_eq!(breaches, []);
        if !self.leaks {
            assert_eq!(self.machine.live_dma_blocks(), 0, "DMA memory is left behind");
        }
    }

    pub(super) fn probe(&self, task: &Task, bus: &VmBus, defects: Defects) -> Result<Storvsc, ProbeError> {
        let offer = bus.offers()[0];
        Storvsc::with_defects(task, bus, &offer, self.settings, defects)
    }

    /// Runs `f` with a driver of the first controller.
    pub(super) fn run<R>(&self, defects: Defects, f: impl FnOnce(&Task, Arc<Storvsc>) -> R) -> R {
        self.on_bus(defects, |task, bus| {
            let driver = Arc::new(self.probe(task, bus, defects).expect("probes"));
            let result = f(task, driver);
            settle(task);
            result
        })
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) cookie: u64,
    pub(super) response: Response,
    pub(super) status: Status,
    pub(super) sense: Vec<u8>,
    pub(super) residual: u32,
    pub(super) data: Vec<u8>,
}

/// Called with the cookie of each answer.
type Hook = Arc<dyn Fn(u64) + Send + Sync>;

/// Collects what comes back.
#[derive(Default)]
pub(super) struct Collector {
    answers: Mutex<Vec<Answer>>,
    hook: Mutex<Option<Hook>>,
}

impl Collector {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn wait(&self, task: &Task, count: usize) -> Vec<Answer> {
        task.wait_until(|| self.answers.lock().unwrap().len() >= count);
        core::mem::take(&mut *self.answers.lock().unwrap())
    }

    /// As [`Collector::wait`], for what ends by the passing of time.
    pub(super) fn spin(&self, task: &Task, count: usize) -> Vec<Answer> {
        for _ in 0..5_000_000 {
            if self.count() >= count {
                break;
            }
            task.run_pending();
            cpu::relax();
        }
        assert!(self.count() >= count, "{} of {count} commands came back", self.count());
        core::mem::take(&mut *self.answers.lock().unwrap())
    }

    pub(super) fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// Has `hook` called, in the bottom half, with the cookie of each answer.
    pub(super) fn on_answer(&self, hook: impl Fn(u64) + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub(super) fn forget_hook(&self) {
        *self.hook.lock().unwrap() = None;
    }
}

impl Initiator for Collector {
    fn done(self: Arc<Self>, cx: &BottomHalf, command: Command, outcome: &Outcome<'_>) {
        let data = command.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect();
        // The cookie travels as the block number, which nobody looks at.
        let request = command.into_request();
        let answer = Answer {
            cookie: request.request().lba,
            response: outcome.response,
            status: outcome.status,
            sense: outcome.sense.to_vec(),
            residual: outcome.residual,
            data,
        };
        let hook = self.hook.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(answer.cookie);
        }
        self.answers.lock().unwrap().push(answer);
        request.finish(cx, Ok(()));
    }
}

pub(super) fn at(target: u16, lun: u32) -> Address {
    Address { target, lun: Lun::new(lun).unwrap() }
}

/// Drops what is finished.
struct Drain;

impl Complete for Drain {
    fn complete(&self, _cx: &BottomHalf, _cookie: u64, request: Request, _result: Result<(), Error>) {
        drop(request);
    }
}

/// A command with `bytes` of data, in or out.
pub(super) fn command(
    collector: &Arc<Collector>,
    cookie: u64,
    to: Address,
    cdb: [u8; 10],
    (direction, bytes): (Direction, usize),
) -> Command {
    let data = if bytes == 0 { Data::None } else { buffer(bytes).into() };
    with_data(collector, cookie, to, cdb, direction, data)
}

pub(super) fn with_data(
    collector: &Arc<Collector>,
    cookie: u64,
    to: Address,
    cdb: [u8; 10],
    direction: Direction,
    data: Data,
) -> Command {
    let request = Request::new(Op::Read, cookie, 1, data, Completion::new(Arc::new(Drain), cookie));
    Command::new(to, Cdb::new(cdb), direction, request.accept(), Arc::clone(collector) as Arc<dyn Initiator>)
}

pub(super) const fn read10(lba: u16, blocks: u16) -> [u8; 10] {
    let ([high, low], [lba_high, lba_low]) = (blocks.to_be_bytes(), lba.to_be_bytes());
    [READ_10, 0, 0, 0, lba_high, lba_low, 0, high, low, 0]
}

pub(super) fn go(driver: &Storvsc, command: Command) -> Result<Tag, Refused> {
    let tag = driver.submit(command)?;
    driver.commit();
    Ok(tag)
}

/// Clears the unit attentions that every unit has after power-on: three commands.
pub(super) fn ready(task: &Task, driver: &Storvsc, collector: &Arc<Collector>) {
    for lun in [0, 5, 63] {
        go(driver, command(collector, 0, at(0, lun), TEST_UNIT_READY, NOTHING)).unwrap();
        collector.wait(task, 1);
    }
}

/// Gives a refused command's request an end.
pub(super) fn end(refused: Refused) -> Refusal {
    drop(refused.command.into_request().give_back());
    refused.why
}

/// A request that is done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) cookie: u64,
    pub(super) request: Request,
    pub(super) result: Result<(), Error>,
}

/// Collects completions and events.
#[derive(Debug, Default)]
pub(super) struct Sink {
    done: Mutex<Vec<Done>>,
    pub(super) host_events: Mutex<Vec<HostEvent>>,
}

impl Sink {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn to(self: &Arc<Self>, cookie: u64) -> Completion {
        Completion::new(self.clone(), cookie)
    }

    pub(super) fn count(&self) -> usize {
        self.done.lock().unwrap().len()
    }

    pub(super) fn wait(&self, task: &Task, count: usize) -> Vec<Done> {
        task.wait_until(|| self.count() >= count);
        core::mem::take(&mut *self.done.lock().unwrap())
    }

    pub(super) fn events(&self) -> Vec<HostEvent> {
        self.host_events.lock().unwrap().clone()
    }
}

impl Complete for Sink {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        self.done.lock().unwrap().push(Done { cookie, request, result });
    }
}

impl HostWatcher for Sink {
    fn event(&self, _cx: &BottomHalf, event: HostEvent) {
        self.host_events.lock().unwrap().push(event);
    }
}

pub(super) fn buffer(bytes: usize) -> DmaBuf {
    DmaBuf::new(bytes, DmaConstraints::ANY).expect("memory")
}

pub(super) fn read(lba: u64, blocks: u32, block_size: u32, completion: Completion) -> Request {
    Request::new(Op::Read, lba, blocks, buffer((blocks * block_size) as usize).into(), completion)
}

pub(super) fn write(lba: u64, fill: &[u8], block_size: u32, completion: Completion) -> Request {
    let mut buf = buffer(fill.len());
    buf.copy_from_slice(fill);
    Request::new(Op::Write, lba, fill.len() as u32 / block_size, buf.into(), completion)
}

pub(super) fn bytes(request: &Request) -> Vec<u8> {
    request.data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect()
}

/// Pieces of 512 bytes that lie apart.
pub(super) fn pieces(count: usize) -> Vec<Piece> {
    (0..count).map(|n| Piece::new(buffer(1024), n % 2 * 512, 512)).collect()
}

/// Lets everything that is pending happen.
pub(super) fn settle(task: &Task) {
    for _ in 0..3000 {
        task.run_pending();
        cpu::relax();
    }
}
