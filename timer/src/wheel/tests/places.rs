//! Where a node is, and what is promised of those that are due together: W-07, W-16.

use super::{Defect, Pair, with};

/// Removals exactly at the tick: of nodes that wait, that are due, and that were moved since they came.
fn removals() {
    for far in [1_u64, 70, 600, 5000, 1 << 30] {
        for now in [far - 1, far, far + 1] {
            let mut pair = Pair::new(0, 0);
            (0..30).for_each(|number| pair.insert(number, far + number as u64 / 10));
            pair.catch_up(far.saturating_sub(far / 8));
            pair.catch_up(now);
            for number in [0, 29, 15, 10, 9] {
                pair.remove(number);
                pair.remove(number);
            }
            pair.pop_all();
            pair.run_out();
            assert_eq!(pair.wheel.next_event(), None);
        }
    }
}

#[test]
fn w_07_a_node_knows_where_it_is() {
    removals();
}

#[test]
#[should_panic(expected = "is due twice, or was removed")]
fn w_07_control_the_place_is_worked_out() {
    with(Defect::PlaceFromDeadline, removals);
}

/// In which order nodes with one deadline are due: some that came at once, some that came later and needed no moving.
fn order() -> Vec<u64> {
    let mut pair = Pair::new(0, 0);
    (0..4).for_each(|number| pair.insert(number, 100_000));
    pair.catch_up(99_990);
    (4..8).for_each(|number| pair.insert(number, 100_000));
    pair.catch_up(100_000);
    std::iter::from_fn(|| pair.pop_number()).collect()
}

/// All are due at the tick, once each. That is all that is promised.
#[test]
fn w_16_equal_deadlines_are_due_together_in_no_order() {
    let mut numbers = order();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
}

#[test]
#[should_panic(expected = "first come, first due")]
fn w_16_control_whoever_counts_on_the_order_is_wrong() {
    assert!(order().is_sorted(), "first come, first due");
}
