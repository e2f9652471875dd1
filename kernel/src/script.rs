//! A script of reads, writes and flushes of all sizes and places in a range, some at a time, made from a seed (`docs/console-protocol.md`): what
//! the range holds afterwards follows from the seed alone, so that the host can tell without having seen it. Task context.
//!
//! A request is sent when nothing that is on its way touches its blocks, so that what each read has to find is known when it is sent.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use undercroft_block::{BlockDevice, Error, Features, Op};
use undercroft_hal::Task;

use crate::lanes::Lanes;
use crate::pattern::{self, Random, mix};

/// Blocks of a request at most.
const LARGEST: u64 = 64;
/// Bytes of a request at most.
const BYTES: usize = 256 << 10;

/// The range, and what to do in it.
#[derive(Clone, Copy)]
pub(crate) struct Script {
    pub(crate) first: u64,
    pub(crate) blocks: u64,
    pub(crate) seed: u64,
    pub(crate) steps: u32,
    pub(crate) depth: usize,
}

/// What came of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) flushes: u64,
    pub(crate) wrong: u64,
    pub(crate) failed: u64,
    pub(crate) error: Option<Error>,
}

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// What the step of this number wrote.
    Step(u32),
    Zeroes,
    /// The write there failed.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Read,
    Write,
    Zero,
    Flush,
}

/// One request; `first` counts from the range's beginning.
#[derive(Clone, Copy)]
struct Step {
    number: u32,
    act: Act,
    first: u64,
    blocks: u64,
}

impl Step {
    fn next(random: &mut Random, number: u32, blocks: u64, largest: u64) -> Self {
        let act = match random.below(16) {
            0..7 => Act::Read,
            7..14 => Act::Write,
            14 => Act::Zero,
            _ => Act::Flush,
        };
        let count = 1 + random.below(largest.min(blocks));
        let first = random.below(blocks - count + 1);
        Self { number, act, first, blocks: count }
    }

    fn touches(&self, other: &Self) -> bool {
        let moves = |step: &Self| step.act != Act::Flush;
        let apart = self.first + self.blocks <= other.first || other.first + other.blocks <= self.first;
        // Two reads do not mind each other.
        moves(self) && moves(other) && !apart && (self.act, other.act) != (Act::Read, Act::Read)
    }
}

/// Blocks that one request of a script has at most, on this disk.
fn largest(block_size: u32) -> u64 {
    LARGEST.min(BYTES as u64 / u64::from(block_size)).max(1)
}

/// Runs a script.
///
/// # Errors
/// [`Error::OutOfRange`] for an empty range, [`Error::NoMemory`], and what a request is refused for. What a request fails with is in the outcome.
pub(crate) fn run(cx: &Task, device: &Arc<dyn BlockDevice>, script: Script) -> Result<Outcome, Error> {
    let size = device.info().block_size;
    if script.blocks == 0 {
        return Err(Error::OutOfRange);
    }
    let lanes = Lanes::new(device, script.depth, largest(size) as usize * size as usize)?;
    let held = vec![Holds::Step(0); usize::try_from(script.blocks).map_err(|_| Error::OutOfRange)?];
    let out = vec![None; lanes.count()];
    let mut player = Player { cx, device, script, size, lanes, held, out, outcome: Outcome::default() };
    let result = player.all();
    (0..player.out.len()).for_each(|lane| player.end(lane));
    result.map(|()| player.outcome)
}

struct Player<'a> {
    cx: &'a Task,
    device: &'a Arc<dyn BlockDevice>,
    script: Script,
    size: u32,
    lanes: Lanes,
    held: Vec<Holds>,
    /// What each lane is about.
    out: Vec<Option<(Step, Op)>>,
    outcome: Outcome,
}

impl Player<'_> {
    /// First the whole range, so that every read finds something known; a flush at the end.
    fn all(&mut self) -> Result<(), Error> {
        let (blocks, largest) = (self.script.blocks, largest(self.size));
        let mut first = 0;
        while first < blocks {
            let count = largest.min(blocks - first);
            self.play(Step { number: 0, act: Act::Write, first, blocks: count })?;
            first += count;
        }
        let mut random = Random::new(self.script.seed);
        for number in 1..=self.script.steps {
            self.play(Step::next(&mut random, number, blocks, largest))?;
        }
        (0..self.out.len()).for_each(|lane| self.end(lane));
        self.play(Step { number: 0, act: Act::Flush, first: 0, blocks: 0 })
    }

    /// Sends a step when what it touches is done.
    fn play(&mut self, step: Step) -> Result<(), Error> {
        for lane in 0..self.out.len() {
            if self.out[lane].is_some_and(|(other, _)| other.touches(&step)) {
                self.end(lane);
            }
        }
        let lane = match self.out.iter().position(Option::is_none) {
            Some(idle) => idle,
            None => {
                let oldest = step.number as usize % self.out.len();
                self.end(oldest);
                oldest
            }
        };
        let op = self.prepare(lane, step);
        let (lba, blocks) = if op == Op::Flush { (0, 0) } else { (self.script.first + step.first, step.blocks as u32) };
        self.out[lane] = Some((step, op));
        let sent = self.lanes.send(self.cx, lane, op, lba, blocks);
        if sent.is_err() {
            self.out[lane] = None;
        }
        sent
    }

    /// The operation that carries out a step, with its data in the lane.
    fn prepare(&mut self, lane: usize, step: Step) -> Op {
        let (start, size) = (self.offset(step), self.size as usize);
        let info = self.device.info();
        let zeroes = info.features.contains(Features::WRITE_ZEROES)
            && step.blocks <= u64::from(info.limits.max_write_zeroes_blocks);
        let seed = self.seed(step.number);
        let data = self.lanes.buffer(lane).map(|buffer| &mut buffer[..step.blocks as usize * size]);
        let after = match step.act {
            Act::Flush => return Op::Flush,
            Act::Read => {
                if let Some(data) = data {
                    data.fill(0xee);
                }
                return Op::Read;
            }
            Act::Write => {
                if let Some(data) = data {
                    pattern::fill(data, seed, start);
                }
                Holds::Step(step.number)
            }
            Act::Zero => {
                if let Some(data) = data {
                    data.fill(0);
                }
                Holds::Zeroes
            }
        };
        self.blocks(step).fill(after);
        if step.act == Act::Zero && zeroes { Op::WriteZeroes } else { Op::Write }
    }

    /// Waits for a lane, and looks at what came.
    fn end(&mut self, lane: usize) {
        let Some((step, op)) = self.out[lane].take() else { return };
        let result = self.lanes.wait(self.cx, lane);
        match op {
            Op::Read => self.outcome.reads += 1,
            Op::Flush => self.outcome.flushes += 1,
            _ => self.outcome.writes += 1,
        }
        if let Err(error) = result {
            self.outcome.failed += 1;
            self.outcome.error.get_or_insert(error);
            if op != Op::Read && op != Op::Flush {
                self.blocks(step).fill(Holds::Unknown);
            }
        } else if op == Op::Read && !self.is_right(lane, step) {
            self.outcome.wrong += 1;
        }
    }

    fn is_right(&mut self, lane: usize, step: Step) -> bool {
        let (start, size) = (self.offset(step), self.size as usize);
        let (script, first) = (self.script, step.first as usize);
        let held = &self.held[first..first + step.blocks as usize];
        let Some(data) = self.lanes.buffer(lane) else { return false };
        data.chunks(size).zip(held).zip(0..).all(|((data, held), block)| match held {
            Holds::Step(number) => pattern::matches(data, seed_of(script, *number), start + block * size as u64),
            Holds::Zeroes => data.iter().all(|byte| *byte == 0),
            Holds::Unknown => true,
        })
    }

    fn seed(&self, number: u32) -> u64 {
        seed_of(self.script, number)
    }

    /// Where a step begins on the disk, in bytes.
    fn offset(&self, step: Step) -> u64 {
        (self.script.first + step.first) * u64::from(self.size)
    }

    fn blocks(&mut self, step: Step) -> &mut [Holds] {
        let first = step.first as usize;
        &mut self.held[first..first + step.blocks as usize]
    }
}

/// The pattern's seed of what a step writes.
fn seed_of(script: Script, number: u32) -> u64 {
    mix(script.seed ^ u64::from(number))
}
