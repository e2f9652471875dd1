//! The whole stack on simulated machines: scenarios whose scripts are drawn from a seed.
//!
//! A scenario is a programme of `fuzz-targets` with bytes from a generator in place of a fuzzer's. The same seed makes the same bytes, and
//! the same bytes the same run, bit for bit: [`Ran::trace`] has a digest that says so. See `docs/simulation.md`.
#![forbid(unsafe_code)]

pub mod minimise;
pub mod mutants;
pub mod perfetto;
pub mod scenario;

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use undercroft_fuzz_targets::trace::{self, Trace};
use undercroft_hosts::Random;

pub use scenario::{SCENARIOS, Scenario};

/// What came of a script.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What it did.
    pub trace: Trace,
    /// What did not hold, and where.
    pub failure: Option<String>,
}

thread_local!(static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) });

/// Keeps the message of a panic for [`run`], and says nothing.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            undercroft_hal::hosted::trap::outside(|| {
                let said = info.to_string();
                // A panic while the first one unwinds is not the cause, and may end the program: then this is all that is told.
                MESSAGE.with_borrow_mut(|message| match message {
                    Some(first) => eprintln!("{first}\nand then {said}"),
                    None => *message = Some(said),
                });
            });
        }));
    });
}

/// The script of a seed.
pub fn script(scenario: &Scenario, seed: u64) -> Vec<u8> {
    let salt = scenario.name.bytes().fold(0u64, |salt, byte| salt.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let random = &mut Random::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(salt));
    let records = scenario.records / 4 + random.below(scenario.records);
    (0..4 + 6 * records).map(|_| random.next_u64() as u8).collect()
}

/// Runs a script.
pub fn run(scenario: &Scenario, bytes: &[u8], keep: bool) -> Ran {
    quiet();
    MESSAGE.set(None);
    trace::begin(keep);
    let ended = panic::catch_unwind(AssertUnwindSafe(|| (scenario.run)(bytes)));
    let trace = trace::end();
    let failure = ended.is_err().then(|| MESSAGE.take().unwrap_or_else(|| "a panic without a message".into()));
    Ran { trace, failure }
}
