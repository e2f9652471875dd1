//! From the terminal's interrupt by a bottom half to a task that waits for a line.
//!
//! The interrupt handler schedules the bottom half, which takes the bytes, echoes them and puts lines together; the task waits for one.
//! When lines pile up, the bottom half leaves the bytes where they are, until the task has taken some: who types is held back, and nothing
//! is lost.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicUsize, Ordering};

use undercroft_hal::sync::{Rank, SpinLock};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Task, cpu};

use super::editor::{Editor, Effect, Line};
use crate::report::Print;
use crate::xen::Xen;

/// What runs when input has come. Any context.
pub type Came = Box<dyn Fn() + Send + Sync>;

/// Begins to listen, in a domain of Xen with its help. The result keeps it up; `None` if there is nothing to listen to.
pub type Listen = fn(&Task, Option<&Xen>, Came) -> Option<Box<dyn Any>>;

/// Where lines come from: the machine's.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    /// Begins to listen.
    pub listen: Listen,
    /// Takes bytes that have come: how many. Any context.
    pub read: fn(&mut [u8]) -> usize,
    /// Prints.
    pub print: Print,
    /// Told before a wait for people, which may take for ever, and after it.
    pub waits: fn(bool),
}

/// Lines that wait at most.
const LINES: usize = 8;
/// Bytes that one turn of the bottom half takes: it prints each.
const TURN: usize = 64;

struct State {
    editor: Editor,
    lines: VecDeque<Line>,
}

struct Shared {
    port: Port,
    echo: bool,
    state: SpinLock<State>,
    /// Lines that wait.
    ready: AtomicUsize,
}

impl Shared {
    /// The bottom half.
    fn take(&self, cx: &BottomHalf) -> Turn {
        for _ in 0..TURN {
            let mut state = self.state.lock(cx);
            let mut byte = [0];
            if state.lines.len() == LINES || (self.port.read)(&mut byte) == 0 {
                return Turn::Done;
            }
            let effect = state.editor.feed(byte[0]);
            if let Effect::Complete(line) = effect {
                state.lines.push_back(line);
                self.ready.fetch_add(1, Ordering::Release);
            }
            drop(state);
            if self.echo {
                match effect {
                    // A byte of a longer character is not shown.
                    Effect::Added(byte) => {
                        (self.port.print)(format_args!("{}", if byte < 128 { byte as char } else { '?' }))
                    }
                    Effect::Removed => (self.port.print)(format_args!("\x08 \x08")),
                    Effect::Complete(_) => (self.port.print)(format_args!("\n")),
                    Effect::Nothing => {}
                }
            }
        }
        Turn::Again
    }
}

/// See the module.
pub(super) struct Terminal {
    shared: Arc<Shared>,
    /// Dropped first: nothing schedules the work any more.
    _listening: Box<dyn Any>,
    work: Arc<BottomHalfWork>,
}

impl Terminal {
    /// Listens at `port`; `None` if it cannot.
    pub(super) fn new(cx: &Task, xen: Option<&Xen>, port: Port, echo: bool) -> Option<Self> {
        let state = State { editor: Editor::new(), lines: VecDeque::with_capacity(LINES) };
        let shared =
            Arc::new(Shared { port, echo, state: SpinLock::new(Rank::DEVICE, state), ready: AtomicUsize::new(0) });
        let theirs = Arc::clone(&shared);
        let work = Arc::new(BottomHalfWork::new(cpu::current(), move |cx| theirs.take(cx)));
        let scheduled = Arc::clone(&work);
        let listening = (port.listen)(cx, xen, Box::new(move || scheduled.schedule()))?;
        work.schedule();
        Some(Self { shared, _listening: listening, work })
    }

    /// Waits for a line, or for `news`: `None`. Who calls for news must have this CPU's task look again.
    pub(super) fn line(&self, cx: &Task, news: impl Fn() -> bool) -> Option<Line> {
        (self.shared.port.waits)(true);
        let line = loop {
            cx.wait_until(|| self.shared.ready.load(Ordering::Acquire) > 0 || news());
            // This task alone takes lines away.
            let line = self.shared.state.lock(cx).lines.pop_front();
            if line.is_some() {
                break line;
            }
            if news() {
                (self.shared.port.waits)(false);
                return None;
            }
        };
        self.shared.ready.fetch_sub(1, Ordering::Relaxed);
        (self.shared.port.waits)(false);
        // There is room again for what was left at the port.
        self.work.schedule();
        line
    }
}
