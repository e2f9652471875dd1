//! What bytes make a wheel do: the body of a fuzz target, and a test with bytes that were drawn.
//!
//! The first two bytes choose the clock and the tick; each three after them are something to do: what, to which node, and when.

use super::Pair;
use super::model::NODES;

/// Runs bytes as a script, with the ordered map beside it.
///
/// # Panics
/// If the two disagree.
pub fn run(bytes: &[u8]) {
    let [clock, tick, script @ ..] = bytes else { return };
    let clock = (1_u64 << (clock % 64)).wrapping_add(u64::from(clock / 64)).wrapping_sub(2);
    let mut pair = Pair::new(clock, [0, 10][usize::from(tick % 2)]);
    let mut now = clock;
    for action in script.chunks_exact(3) {
        let number = usize::from(action[1]) % NODES;
        // As often small as large.
        let time = u64::from(action[1] ^ 0x55) << (action[2] % 64);
        match action[0] % 16 {
            0..5 => pair.insert(number, now.saturating_add(time)),
            5 => pair.insert(number, now.saturating_sub(time)),
            6 => pair.insert(number, u64::MAX - time),
            7 => {
                // A crowd, in one slot or a few.
                for more in 0..24 {
                    pair.insert((number + more) % NODES, now.saturating_add(time).saturating_add(more as u64));
                }
            }
            8 | 9 => pair.remove(number),
            10 => {
                now = now.saturating_add(time);
                pair.step(now);
            }
            11 | 12 => {
                now = pair.wheel.next_event().map_or(now, |next| next.max(now));
                pair.catch_up(now);
            }
            13 => drop(pair.pop()),
            14 => drop(pair.wheel.earliest()),
            _ => pair.pop_all(),
        }
    }
    pair.catch_up(now);
    pair.pop_all();
    pair.run_out();
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::wheel::broken::{Defect, with};
    use crate::wheel::tests::Random;

    fn drawn_bytes() {
        let mut random = Random(77);
        for length in (0..600).map(|round| round % 300) {
            let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            run(&bytes);
        }
    }

    #[test]
    fn drawn_bytes_agree_with_an_ordered_map() {
        drawn_bytes();
    }

    #[test]
    #[should_panic(expected = "early: ")]
    fn drawn_bytes_find_a_defect_control() {
        with(Defect::RoundedDown, drawn_bytes);
    }
}
