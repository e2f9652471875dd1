//! A script that fails, made shorter as long as it fails for the same reason.

use crate::{Ran, Scenario, run};

/// Bytes of a record, and of what is in front of the first.
const RECORD: usize = 6;
const HEAD: usize = 4;
/// Runs at most.
const RUNS: u32 = 2000;

/// What a failure is about: its words without its numbers.
fn kind(failure: &str) -> String {
    let end = failure.find('{').unwrap_or(failure.len());
    failure[..end].chars().filter(|c| !c.is_ascii_digit()).take(160).collect()
}

/// The shortest script found that fails as `bytes` do. `bytes` itself, if they do not.
pub fn minimise(scenario: &Scenario, bytes: &[u8]) -> Vec<u8> {
    let fails = |bytes: &[u8]| run(scenario, bytes, false).failure.map(|failure| kind(&failure));
    let mut best = bytes.to_vec();
    let Some(wanted) = fails(&best) else { return best };
    let (mut left, mut chunk) = (RUNS, best.len() / RECORD / 2);
    while chunk > 0 && left > 0 {
        let (mut at, mut shorter) = (HEAD, false);
        while at < best.len() && left > 0 {
            let end = (at + chunk * RECORD).min(best.len());
            let mut fewer = best.clone();
            fewer.drain(at..end);
            left -= 1;
            if fails(&fewer).as_ref() == Some(&wanted) {
                (best, shorter) = (fewer, true);
            } else {
                at = end;
            }
        }
        if !shorter || chunk > 1 {
            chunk /= 2;
        }
    }
    best
}

/// The shortest script and what it did.
pub fn explained(scenario: &Scenario, bytes: &[u8]) -> (Vec<u8>, Ran) {
    let best = minimise(scenario, bytes);
    let ran = run(scenario, &best, true);
    (best, ran)
}
