//! What the heaps hold, and what was left in them: at the end of a run there must not be more than at its beginning. Task context.

use core::fmt;
use core::time::Duration;

use undercroft_hal::{Instant, Task, cpu, dma, heap};

use crate::json::{Object, Value};
use crate::report::Report;

/// What the machine says of its memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// RAM, and how much of it is in free page frames.
    pub total: u64,
    /// See `total`.
    pub free: u64,
    /// In pages of the backed heap.
    pub backed: u64,
    /// Page frames that only write-back gets, and bytes of the locked heap that only it gets.
    pub frames_reserve: u64,
    /// See `frames_reserve`.
    pub heap_reserve: u64,
    /// Free blocks that the locked heap's caches keep.
    pub cached: u64,
}

/// How long what is still under way at the end of a run may take to be freed: another CPU's bottom halves, say.
const PATIENCE: Duration = Duration::from_millis(500);
/// Looks at the heaps that nothing may have come between.
const FEW: u64 = 1_000;
/// Where time stands still, so many are enough.
const MANY: u64 = 10_000_000;

/// What a heap holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) heap: &'static str,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// Allocations so far, and those that failed.
    pub(crate) allocations: u64,
    pub(crate) failures: u64,
}

/// What all heaps hold.
pub(crate) fn held(memory: &Memory) -> [Held; 3] {
    let (locked, dma) = (heap::stats(), dma::stats());
    let heap = |heap, blocks, bytes, allocations, failures| Held { heap, blocks, bytes, allocations, failures };
    [
        heap("locked", locked.live_blocks, locked.live_bytes, locked.allocations, locked.failures),
        heap("dma", dma.live_blocks, dma.live_bytes, dma.allocations, dma.failures),
        heap("backed", memory.backed / 4096, memory.backed, 0, 0),
    ]
}

/// What the heaps held at the beginning.
#[derive(Debug, Clone, Copy)]
pub struct Baseline {
    held: [Held; 3],
    memory: fn() -> Memory,
}

/// What is there now and was not at the beginning.
#[derive(PartialEq, Eq)]
struct Leak {
    heap: &'static str,
    blocks: u64,
    bytes: u64,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks ({} bytes) of the {} heap were never freed", self.blocks, self.bytes, self.heap)?;
        if self.heap == "dma" {
            // Debug builds know who.
            let mut result = Ok(());
            heap::by_site(|site| {
                if site.live_blocks > 0 {
                    result = result.and_then(|()| write!(f, "; {} of {}", site.live_blocks, site.site));
                }
            });
            result?;
        }
        Ok(())
    }
}

impl Baseline {
    /// What the heaps hold now. `memory` asks the machine.
    pub fn take(memory: fn() -> Memory) -> Self {
        Self { held: held(&memory()), memory }
    }

    /// What the machine says of its memory now.
    pub(crate) fn memory(&self) -> Memory {
        (self.memory)()
    }

    fn leaks(&self) -> [Leak; 3] {
        let now = held(&self.memory());
        core::array::from_fn(|at| Leak {
            heap: now[at].heap,
            blocks: now[at].blocks.saturating_sub(self.held[at].blocks),
            bytes: now[at].bytes.saturating_sub(self.held[at].bytes),
        })
    }

    /// Waits until everything is freed that the run allocated, for a while, and reports: each heap, and as a problem what was not.
    pub(crate) fn check(&self, cx: &Task, report: &Report) {
        // A device's reset may stop the whole machine for seconds: what counts is how long, and how often looked at, nothing has changed.
        let (mut leaks, mut changed, mut looks) = (self.leaks(), Instant::now(), 0_u64);
        while leaks.iter().any(Leak::is_one) && (changed.elapsed() < PATIENCE || looks < FEW) && looks < MANY {
            cx.run_pending();
            cpu::relax();
            looks += 1;
            let now = self.leaks();
            if now != leaks {
                (leaks, changed, looks) = (now, Instant::now(), 0);
            }
        }
        for (held, leak) in held(&self.memory()).iter().zip(&leaks) {
            show(held, leak, report);
        }
        reserve(&self.memory(), report);
        for leak in leaks.iter().filter(|leak| leak.is_one()) {
            report.problem(leak, None);
        }
        let (blocks, bytes) = dma::abandoned();
        if blocks > 0 {
            report
                .problem(&format_args!("{blocks} buffers ({bytes} bytes) were dropped while a device had them"), None);
        }
    }
}

impl Leak {
    fn is_one(&self) -> bool {
        self.blocks > 0 || self.bytes > 0
    }
}

fn show(held: &Held, leak: &Leak, report: &Report) {
    if report.is_json() {
        report.json(&Object {
            event: Some("heap"),
            fields: &[
                ("heap", Value::Text(&held.heap)),
                ("live_blocks", Value::Number(held.blocks)),
                ("live_bytes", Value::Number(held.bytes)),
                ("leaked_blocks", Value::Number(leak.blocks)),
                ("leaked_bytes", Value::Number(leak.bytes)),
                ("allocations", Value::Number(held.allocations)),
                ("failures", Value::Number(held.failures)),
            ],
        });
        return;
    }
    report.text(format_args!("{held}; leaked {} blocks, {} bytes", leak.blocks, leak.bytes));
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { heap, blocks, bytes, allocations, failures } = self;
        write!(f, "{heap} heap: {blocks} blocks, {bytes} bytes")?;
        if *allocations > 0 {
            write!(f, ", {allocations} allocations so far")?;
        }
        if *failures > 0 {
            write!(f, ", {failures} failed")?;
        }
        Ok(())
    }
}

/// The low-memory reserve.
fn reserve(memory: &Memory, report: &Report) {
    let used = heap::stats().from_reserve;
    if report.is_json() {
        report.json(&Object {
            event: Some("reserve"),
            fields: &[
                ("frames_bytes", Value::Number(memory.frames_reserve)),
                ("heap_bytes", Value::Number(memory.heap_reserve)),
                ("used", Value::Number(used)),
            ],
        });
    } else {
        report.text(format_args!("{}", Reserve(memory)));
    }
}

/// The reserve, for people.
pub(crate) struct Reserve<'a>(pub(crate) &'a Memory);

impl fmt::Display for Reserve<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (frames, heap) = (self.0.frames_reserve >> 10, self.0.heap_reserve >> 10);
        let used = heap::stats().from_reserve;
        write!(
            f,
            "reserve for write-back: {frames} KiB of page frames, {heap} KiB of the locked heap, used {used} times"
        )
    }
}
