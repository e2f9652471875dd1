//! A SCSI host for tests: units that do what a disk does, with scripted answers before.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use undercroft_hal::dma::DmaConstraints;
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Task};
use undercroft_hosts::Machine;

use super::wire::OpCode;
use super::*;
use crate::{Complete, Completion, Data, Error, Limits, Op, Refusal, Request, Tag};

/// What the host answers.
#[derive(Debug, Clone)]
pub struct Reply {
    pub response: Response,
    pub status: Status,
    pub sense: Vec<u8>,
    pub residual: u32,
}

impl Reply {
    pub fn good() -> Self {
        Self { response: Response::Complete, status: Status::GOOD, sense: Vec::new(), residual: 0 }
    }
    pub fn response(response: Response) -> Self {
        Self { response, ..Self::good() }
    }
    pub fn status(status: Status) -> Self {
        Self { status, ..Self::good() }
    }
    pub fn sense(key: u8, asc: u8, ascq: u8) -> Self {
        let sense = vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0];
        Self { status: Status::CHECK_CONDITION, sense, ..Self::good() }
    }
}

/// A logical unit.
pub struct Unit {
    pub blocks: u64,
    pub block_size: u32,
    pub store: Vec<u8>,
    pub kind: u8,
    pub version: u8,
    pub serial: Vec<u8>,
    pub wce: bool,
    pub wp: bool,
    pub dpofua: bool,
    /// Operation codes that it does not know.
    pub unknown: Vec<u8>,
    /// VPD pages, whole.
    pub pages: BTreeMap<u8, Vec<u8>>,
    /// Answers before any other.
    pub script: VecDeque<Reply>,
    /// Operation codes that it was sent.
    pub log: Vec<u8>,
    /// The commands themselves.
    pub commands: Vec<Vec<u8>>,
    /// The most bytes of standard data that INQUIRY may ask for.
    pub inquiry_most: u16,
}

impl Unit {
    pub fn new(blocks: u64, block_size: u32) -> Self {
        let mut pages = BTreeMap::new();
        let mut limits = vec![0, 0xb0, 0, 0x3c];
        limits.resize(64, 0);
        limits[20..24].copy_from_slice(&64u32.to_be_bytes());
        limits[24..28].copy_from_slice(&1u32.to_be_bytes());
        limits[36..44].copy_from_slice(&32u64.to_be_bytes());
        pages.insert(0xb0, limits);
        pages.insert(0xb2, vec![0, 0xb2, 0, 4, 0, 0x80, 0, 0]);
        Self {
            blocks,
            block_size,
            store: vec![0; (blocks.min(4096) * u64::from(block_size)) as usize],
            kind: 0,
            version: 5,
            serial: b"UNIT".to_vec(),
            wce: true,
            wp: false,
            dpofua: false,
            unknown: Vec::new(),
            pages,
            script: VecDeque::new(),
            log: Vec::new(),
            commands: Vec::new(),
            inquiry_most: u16::MAX,
        }
    }

    fn read(&self, cdb: &[u8]) -> Option<Vec<u8>> {
        Some(match cdb[0] {
            0x12 if cdb[1] & 1 == 1 => match cdb[2] {
                0x00 => {
                    let mut codes = vec![0, 0x80];
                    codes.extend(self.pages.keys());
                    let mut page = vec![0, 0, 0, codes.len() as u8];
                    page.extend(codes);
                    page
                }
                0x80 => {
                    let mut page = vec![0, 0x80, 0, self.serial.len() as u8];
                    page.extend(&self.serial);
                    page
                }
                page => self.pages.get(&page)?.clone(),
            },
            0x12 => {
                let mut data = vec![self.kind, 0, self.version, 2, 31, 0, 0, 0];
                data.extend(b"VENDOR  PRODUCT         0001");
                data
            }
            0x25 => {
                let last = u32::try_from(self.blocks.wrapping_sub(1)).unwrap_or(u32::MAX);
                [last.to_be_bytes(), self.block_size.to_be_bytes()].concat()
            }
            0x9e => {
                let mut data = self.blocks.wrapping_sub(1).to_be_bytes().to_vec();
                data.extend(self.block_size.to_be_bytes());
                data.extend([0, 3, 0x80]);
                data.resize(32, 0);
                data
            }
            0x5a => {
                let mut data = vec![0, 26, 0, u8::from(self.wp) << 7 | u8::from(self.dpofua) << 4, 0, 0, 0, 0];
                data.extend([8, 18, u8::from(self.wce) << 2]);
                data.resize(28, 0);
                data
            }
            _ => return None,
        })
    }

    fn range(&self, cdb: &[u8]) -> (usize, usize) {
        let be = |bytes: &[u8]| bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let (lba, blocks) = match cdb.len() {
            10 => (be(&cdb[2..6]), be(&cdb[7..9])),
            _ => (be(&cdb[2..10]), be(&cdb[10..14])),
        };
        ((lba * u64::from(self.block_size)) as usize, (blocks * u64::from(self.block_size)) as usize)
    }

    fn run(&mut self, cdb: &[u8], data: &mut [u8]) -> Reply {
        self.log.push(cdb[0]);
        self.commands.push(cdb.to_vec());
        if cdb[0] == 0x12 {
            let allocation = u16::from_be_bytes([cdb[3], cdb[4]]);
            assert_eq!(usize::from(allocation), data.len(), "the command and its data do not agree");
            if cdb[1] & 1 == 0 && allocation > self.inquiry_most {
                return Reply::sense(5, 0x24, 0);
            }
        }
        if let Some(reply) = self.script.pop_front() {
            return reply;
        }
        if self.unknown.contains(&cdb[0]) {
            return Reply::sense(5, 0x20, 0);
        }
        match cdb[0] {
            0x00 | 0x35 | 0x91 => {}
            0x28 | 0x88 => {
                let (at, len) = self.range(cdb);
                data.copy_from_slice(&self.store[at..at + len]);
            }
            0x2a | 0x8a => {
                let (at, len) = self.range(cdb);
                self.store[at..at + len].copy_from_slice(data);
            }
            0x42 => {
                assert_eq!((data.len(), &data[..4]), (24, &[0, 22, 0, 16][..]));
                let block = u64::from_be_bytes(data[8..16].try_into().unwrap()) * u64::from(self.block_size);
                let len = u32::from_be_bytes(data[16..20].try_into().unwrap()) * self.block_size;
                self.store[block as usize..][..len as usize].fill(0xdd);
            }
            0x93 => {
                assert_eq!(data.len(), self.block_size as usize);
                let (at, len) = self.range(cdb);
                for block in self.store[at..at + len].chunks_mut(data.len()) {
                    block.copy_from_slice(data);
                }
            }
            _ => {
                let Some(answer) = self.read(cdb) else { return Reply::sense(5, 0x20, 0) };
                let len = answer.len().min(data.len());
                data[..len].copy_from_slice(&answer[..len]);
                return Reply { residual: (data.len() - len) as u32, ..Reply::good() };
            }
        }
        Reply::good()
    }
}

#[derive(Default)]
pub struct State {
    pub units: BTreeMap<Address, Unit>,
    /// What REPORT LUNS says instead of the truth.
    pub report: Option<Vec<u8>>,
    pub queue: VecDeque<Command>,
    pub submitted: usize,
    pub gone: Option<Error>,
    /// Commands that are taken and never answered.
    pub silent: bool,
    /// Takes no command; and how often it has said so.
    pub full: bool,
    pub refused: usize,
    /// Called, once, when an INQUIRY arrives.
    pub on_inquiry: Option<Box<dyn FnOnce() + Send>>,
}

pub struct MockHost {
    identity: HostIdentity,
    pub info: HostInfo,
    pub state: Mutex<State>,
    pub watcher: Mutex<Option<Arc<dyn HostWatcher>>>,
    work: BottomHalfWork,
}

pub const LIMITS: Limits = Limits {
    max_segments: 8,
    max_segment_bytes: 1 << 20,
    joint: 0,
    max_transfer_bytes: 1 << 20,
    max_discard_blocks: 0,
    max_write_zeroes_blocks: 0,
    dma: DmaConstraints::ANY,
};

impl MockHost {
    pub fn new(depth: u32, units: impl IntoIterator<Item = (u32, Unit)>) -> Arc<Self> {
        let units =
            units.into_iter().map(|(lun, unit)| (Address { target: 0, lun: Lun::new(lun).unwrap() }, unit)).collect();
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            Self {
                identity: HostIdentity {
                    driver: "mock",
                    controller: "test".into(),
                    interrupts: "none".into(),
                    transport: String::new(),
                },
                info: HostInfo { max_target: 3, max_lun: 0x3fff, queues: 1, depth, depth_per_lun: 0, limits: LIMITS },
                state: Mutex::new(State { units, ..State::default() }),
                watcher: Mutex::new(None),
                work: BottomHalfWork::new(0, move |cx| {
                    if let Some(host) = this.upgrade() {
                        host.work(cx);
                    }
                    Turn::Done
                }),
            }
        })
    }

    /// Changes a unit.
    pub fn unit<R>(&self, lun: u32, f: impl FnOnce(&mut Unit) -> R) -> R {
        let address = Address { target: 0, lun: Lun::new(lun).unwrap() };
        f(self.state.lock().unwrap().units.get_mut(&address).unwrap())
    }

    pub fn event(&self, cx: &BottomHalf, event: HostEvent) {
        let watcher = self.watcher.lock().unwrap().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }

    fn work(&self, cx: &BottomHalf) {
        loop {
            let mut state = self.state.lock().unwrap();
            if state.silent {
                return;
            }
            let Some(mut command) = state.queue.pop_front() else { return };
            let (reply, hook) = state.run(&mut command);
            drop(state);
            if let Some(hook) = hook {
                hook();
            }
            let Reply { response, status, sense, residual } = reply;
            command.finish(cx, &Outcome { response, status, sense: &sense, residual });
        }
    }
}

type Hook = Option<Box<dyn FnOnce() + Send>>;

impl State {
    fn run(&mut self, command: &mut Command) -> (Reply, Hook) {
        let cdb = command.cdb().bytes().to_vec();
        assert_eq!(
            cdb.len(),
            if cdb[0] < 0x20 {
                6
            } else if cdb[0] < 0x80 {
                10
            } else if cdb[0] < 0xa0 {
                16
            } else {
                12
            }
        );
        let address = command.address();
        let mut data: Vec<u8> = command.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect();
        let hook = if cdb[0] == 0x12 { self.on_inquiry.take() } else { None };
        let reply = if cdb[0] == OpCode::REPORT_LUNS.0 {
            if address.target != 0 {
                return (Reply::response(Response::BadTarget), hook);
            }
            let answer = self.report.clone().unwrap_or_else(|| {
                let mut answer = ((self.units.len() * 8) as u32).to_be_bytes().to_vec();
                answer.extend([0; 4]);
                answer.extend(self.units.keys().flat_map(|address| address.lun.to_bytes()));
                answer
            });
            let len = answer.len().min(data.len());
            data[..len].copy_from_slice(&answer[..len]);
            Reply { residual: (data.len() - len) as u32, ..Reply::good() }
        } else {
            match self.units.get_mut(&address) {
                Some(unit) => unit.run(&cdb, &mut data),
                None => return (Reply::response(Response::BadTarget), hook),
            }
        };
        if command.direction() == Direction::In {
            let mut rest = &data[..];
            for piece in command.pieces_mut() {
                let (now, later) = rest.split_at(piece.len());
                piece.bytes_mut().copy_from_slice(now);
                rest = later;
            }
        }
        (reply, hook)
    }
}

impl Host for MockHost {
    fn identity(&self) -> &HostIdentity {
        &self.identity
    }
    fn info(&self) -> &HostInfo {
        &self.info
    }
    fn submit(&self, command: Command) -> Result<Tag, Refused> {
        let mut state = self.state.lock().unwrap();
        if let Some(error) = state.gone {
            return Err(Refused { command, why: Refusal::Gone(error) });
        }
        if state.full {
            state.refused += 1;
            assert!(state.refused < 100, "a command that waits for room asks for it over and over");
            return Err(Refused { command, why: Refusal::Full });
        }
        if state.queue.len() >= self.info.depth as usize {
            return Err(Refused { command, why: Refusal::Full });
        }
        state.submitted += 1;
        state.queue.push_back(command);
        Ok(Tag::from_bits(state.submitted as u64))
    }
    fn commit(&self) {
        self.work.schedule();
    }
    fn watch(&self, watcher: Arc<dyn HostWatcher>) {
        *self.watcher.lock().unwrap() = Some(watcher);
    }
}

/// A completion: the cookie, the request and its result.
pub type Done = (u64, Request, Result<(), Error>);

/// Collects completions.
#[derive(Default)]
pub struct Sink {
    pub done: Mutex<Vec<Done>>,
}

impl Complete for Sink {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        self.done.lock().unwrap().push((cookie, request, result));
    }
}

impl Sink {
    pub fn completion(self: &Arc<Self>, cookie: u64) -> Completion {
        Completion::new(self.clone(), cookie)
    }

    /// Submits, waits, and checks that exactly one completion came.
    pub fn run(
        self: &Arc<Self>,
        cx: &Task,
        disk: &dyn crate::BlockDevice,
        mut request: Request,
    ) -> (Request, Result<(), Error>) {
        thread_local!(static COOKIE: Cell<u64> = const { Cell::new(0) });
        let cookie = COOKIE.replace(COOKIE.get() + 1);
        request.set_completion(self.completion(cookie));
        disk.submit(request).map_err(|rejected| rejected.why).expect("accepted");
        assert!(self.done.lock().unwrap().is_empty(), "never completed inside submit");
        disk.commit();
        cx.wait_until(|| !self.done.lock().unwrap().is_empty());
        let mut done = std::mem::take(&mut *self.done.lock().unwrap());
        assert_eq!(done.len(), 1);
        let (finished, request, result) = done.pop().unwrap();
        assert_eq!(finished, cookie);
        (request, result)
    }

    pub fn simple(
        self: &Arc<Self>,
        cx: &Task,
        disk: &dyn crate::BlockDevice,
        op: Op,
        lba: u64,
        blocks: u32,
    ) -> Result<(), Error> {
        let len = blocks * disk.info().block_size;
        let data = match op {
            Op::Read | Op::Write => {
                Data::from(undercroft_hal::dma::DmaBuf::new(len as usize, DmaConstraints::ANY).unwrap())
            }
            _ => Data::None,
        };
        self.run(cx, disk, Request::new(op, lba, blocks, data, self.completion(0))).1
    }
}

/// A machine on which interrupts arrive when the guest waits.
pub fn machine() -> std::rc::Rc<Machine> {
    Machine::new(undercroft_hosts::Config {
        schedule: undercroft_hosts::Schedule::Lazy,
        ..undercroft_hosts::Config::default()
    })
}

/// One disk behind a host.
pub fn one(cx: &Task, host: &Arc<MockHost>) -> Arc<ScsiDisk> {
    let mut found = scan(cx, host.clone()).unwrap();
    assert_eq!(found.disks.len(), 1, "{:?}", found.others);
    found.disks.pop().unwrap()
}
