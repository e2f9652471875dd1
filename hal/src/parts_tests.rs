//! One result, the first error's, exactly once.

use super::*;

impl Code for u8 {
    fn to_code(self) -> u32 {
        self.into()
    }
    fn from_code(code: u32) -> Self {
        code as u8
    }
}

#[cfg(not(loom))]
mod deterministic {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn x17_the_first_error_wins_in_any_order() {
        let parts = Parts::<u8>::new();
        // Used again and again: nothing of the last whole is left.
        for failing in 0_u8..16 {
            assert_eq!(
                parts.start(|starter| {
                    (0..4).try_for_each(|_| starter.add()).unwrap();
                    Ok(())
                }),
                None
            );
            let results: Vec<_> =
                (0..4).map(|part| parts.end(if failing >> part & 1 != 0 { Err(part) } else { Ok(()) })).collect();
            let whole = if failing == 0 { Ok(()) } else { Err(failing.trailing_zeros() as u8) };
            assert_eq!(results, [None, None, None, Some(whole)], "{failing:04b}");
        }
    }

    /// X33: starting stops half way, by an early return: those sent off are waited for, and the whole ends once, with the error.
    #[test]
    fn x33_a_start_that_fails_half_way_is_not_forgotten() {
        let parts = Parts::<u8>::new();
        for failure in 0..4 {
            let started = core::cell::Cell::new(0);
            let mut ends = Vec::from([parts.start(|starter| {
                for part in 0..4 {
                    if part == failure {
                        return Err(9);
                    }
                    starter.add().unwrap();
                    started.set(started.get() + 1);
                }
                Ok(())
            })]);
            ends.extend((0..started.get()).map(|_| parts.end(Ok(()))));
            assert_eq!(ends.iter().flatten().collect::<Vec<_>>(), [&Err(9)], "failure {failure}");
            assert!(ends.last().unwrap().is_some());
        }
    }

    #[test]
    fn parts_that_end_before_all_are_started_end_nothing() {
        let parts = Parts::<u8>::new();
        let whole = parts.start(|starter| {
            for _ in 0..3 {
                starter.add().unwrap();
                assert_eq!(parts.end(Ok(())), None);
            }
            Ok(())
        });
        assert_eq!(whole, Some(Ok(())));
        assert_eq!(parts.start(|_| Ok(())), Some(Ok(())), "no parts at all");
    }
}

#[cfg(loom)]
mod loom_models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// Two parts end on CPUs of their own, one well and one badly, while the starter gives up its share: the error is never lost, the result
    /// comes out once, and who gets it has what the parts wrote.
    fn ends_on_many_cpus() {
        loom::model(|| {
            let parts = Arc::new(Parts::<u8>::new());
            let data: Arc<[UnsafeCell<u8>; 2]> = Arc::new(Default::default());
            let mut threads = std::vec::Vec::new();
            let whole = |result, data: &[UnsafeCell<u8>; 2]| {
                // SAFETY: all parts have ended, which is what loom checks here.
                let sum: u8 = data.iter().map(|cell| cell.with(|value| unsafe { *value })).sum();
                assert_eq!((result, sum), (Err(7), 3), "an error was lost");
            };
            let mine = parts.start(|starter| {
                for part in 0..2_u8 {
                    starter.add().unwrap();
                    let (parts, data) = (Arc::clone(&parts), Arc::clone(&data));
                    threads.push(thread::spawn(move || {
                        // SAFETY: each part has its own.
                        data[usize::from(part)].with_mut(|value| unsafe { *value = part + 1 });
                        let ended = parts.end(if part == 0 { Err(7) } else { Ok(()) });
                        ended.map(|result| whole(result, &data)).is_some()
                    }));
                }
                Ok(())
            });
            let mine = mine.map(|result| whole(result, &data)).is_some();
            let theirs = threads.into_iter().map(|thread| thread.join().unwrap());
            assert_eq!(theirs.chain([mine]).filter(|&got| got).count(), 1, "the result came out once");
        });
    }

    #[test]
    fn loom_x17_the_first_error_wins() {
        ends_on_many_cpus();
    }

    #[test]
    #[should_panic(expected = "an error was lost")]
    fn loom_x17_control_a_status_written_plainly() {
        broken::with(Hazard::StatusWrittenPlainly, ends_on_many_cpus);
    }

    /// Two errors, one after the other: the first is the result.
    fn one_after_the_other() {
        loom::model(|| {
            let parts = Arc::new(Parts::<u8>::new());
            assert_eq!(parts.start(|starter| (0..2).try_for_each(|_| starter.add()).map_err(|_| 0)), None);
            let theirs = Arc::clone(&parts);
            assert_eq!(thread::spawn(move || theirs.end(Err(1))).join().unwrap(), None);
            assert_eq!(parts.end(Err(2)), Some(Err(1)), "a later error won");
        });
    }

    #[test]
    fn loom_x17_an_earlier_error_wins() {
        one_after_the_other();
    }

    #[test]
    #[should_panic(expected = "a later error won")]
    fn loom_x17_control_a_later_status_written_over_it() {
        broken::with(Hazard::StatusWrittenPlainly, one_after_the_other);
    }
}
