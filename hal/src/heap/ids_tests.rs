//! Numbers are unique among their holders, whoever comes between.

use super::*;

#[cfg(not(loom))]
mod deterministic {
    use super::*;
    use crate::inject::interrupted_at;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    #[test]
    fn every_number_once_and_again_when_it_was_given_back() {
        let ids = Ids::<2>::new();
        let all: BTreeSet<_> = std::iter::from_fn(|| ids.take()).collect();
        assert_eq!((all.len(), ids.taken()), (Ids::<2>::COUNT, 128));
        assert!(all.iter().copied().eq(0..128));
        assert_eq!(ids.give_back(77), Ok(()));
        assert_eq!(ids.give_back(77), Err(NotTaken(77)), "a host that gives back twice");
        assert_eq!(ids.give_back(128), Err(NotTaken(128)));
        assert_eq!((ids.take(), ids.take()), (Some(77), None));
    }

    /// An interrupt on the same CPU takes a number, or takes one and gives it back, at each step of taking one.
    fn taken_in_the_middle_of_taking() {
        for back in [false, true] {
            for k in 0.. {
                let ids = Rc::new(Ids::<1>::new());
                let first = ids.take().unwrap();
                let (inner, theirs) = (Rc::clone(&ids), Rc::new(std::cell::Cell::new(None)));
                let seen = Rc::clone(&theirs);
                let handler = move || {
                    let id = inner.take().unwrap();
                    if back {
                        inner.give_back(id).unwrap();
                    } else {
                        seen.set(Some(id));
                    }
                };
                let mut mine = None;
                let struck = interrupted_at(k, handler, || mine = ids.take());
                let live: Vec<_> = [Some(first), mine, theirs.get()].into_iter().flatten().collect();
                let unique: BTreeSet<_> = live.iter().copied().collect();
                assert_eq!(
                    (unique.len(), ids.taken()),
                    (live.len(), live.len()),
                    "step {k}: handed out twice: {live:?}"
                );
                if !struck {
                    assert!(k > 0);
                    break;
                }
            }
        }
    }

    #[test]
    fn a_xen_01_a_number_taken_in_the_middle_of_taking_one() {
        taken_in_the_middle_of_taking();
    }

    #[test]
    #[should_panic(expected = "handed out twice")]
    fn a_xen_01_control_taken_by_a_look_and_a_store() {
        broken::with(Hazard::IdTakenBlindly, taken_in_the_middle_of_taking);
    }
}

#[cfg(loom)]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two CPUs take and give back; what they hold at the same time differs, and a number's new holder sees what the last one did.
    fn two_cpus() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let ids = Arc::new(Ids::<1>::new());
            let cells: Arc<[loom::cell::UnsafeCell<u32>; 3]> = Arc::new(Default::default());
            let use_one = |ids: &Ids<1>, cells: &[loom::cell::UnsafeCell<u32>; 3]| {
                let id = ids.take().unwrap();
                // SAFETY: the number's holder is the cell's only user: loom checks that it is.
                cells[id].with_mut(|cell| unsafe { *cell += 1 });
                ids.give_back(id).unwrap();
            };
            let (their_ids, their_cells) = (Arc::clone(&ids), Arc::clone(&cells));
            let other = thread::spawn(move || (0..2).for_each(|_| use_one(&their_ids, &their_cells)));
            use_one(&ids, &cells);
            other.join().unwrap();
            assert_eq!(ids.taken(), 0);
        });
    }

    #[test]
    fn loom_a_xen_01_two_cpus() {
        two_cpus();
    }

    /// The broken twin, on one thread's switch: both threads of the model run where loom runs them, which is here.
    #[test]
    #[should_panic(expected = "Concurrent write accesses")]
    fn loom_a_xen_01_control_taken_by_a_look_and_a_store() {
        broken::with(Hazard::IdTakenBlindly, two_cpus);
    }
}
