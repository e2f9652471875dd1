//! The scheduling protocol: exhaustively with loom, and step by step.

use super::*;

#[cfg(not(any(loom, shuttle)))]
mod steps {
    use super::*;

    #[test]
    fn scheduled_twice_is_queued_once() {
        let state = WorkState::new();
        assert!(state.schedule() && !state.schedule());
        assert!(state.begin());
        assert!(!state.finish(false));
        assert!(state.schedule(), "idle again");
    }

    #[test]
    fn scheduled_while_running_runs_again_afterwards() {
        let state = WorkState::new();
        assert!(state.schedule() && state.begin());
        assert!(!state.schedule(), "the runner queues it, nobody else");
        assert!(state.finish(false));
    }

    #[test]
    fn closed_work_does_not_begin() {
        let state = WorkState::new();
        assert!(state.schedule());
        state.close();
        assert!(!state.begin() && !state.is_running());
        assert!(!state.schedule());
    }
}

#[cfg(loom)]
mod loom_models {
    use super::*;
    use crate::atomic::AtomicUsize;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// A one-item queue, the handler's work, and its data.
    struct Scene {
        state: WorkState,
        queued: AtomicUsize,
        todo: AtomicUsize,
        /// Touched by the handler only: loom reports two runs at once.
        own: UnsafeCell<usize>,
    }

    impl Scene {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                state: WorkState::new(),
                queued: AtomicUsize::new(0),
                todo: AtomicUsize::new(0),
                own: UnsafeCell::new(0),
            })
        }

        /// A producer: makes work, then schedules.
        fn produce(&self) {
            self.todo.fetch_add(1, Ordering::Relaxed);
            if self.state.schedule() {
                self.queued.fetch_add(1, Ordering::AcqRel);
            }
        }

        /// A CPU's turn: takes the work off the queue if it is there, and runs it.
        fn run(&self) {
            let took = self.queued.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok();
            if took && self.state.begin() {
                self.own.with_mut(|own| {
                    // SAFETY: one run at a time, which is what loom checks here.
                    unsafe { *own += self.todo.swap(0, Ordering::AcqRel) };
                });
                if self.state.finish(false) {
                    self.queued.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
    }

    /// Schedules against runs: nothing that was produced stays undone once the queue is empty.
    fn no_lost_wakeup() {
        loom::model(|| {
            let scene = Scene::new();
            let theirs = Arc::clone(&scene);
            let producer = thread::spawn(move || (0..2).for_each(|_| theirs.produce()));
            scene.run();
            producer.join().unwrap();
            while scene.queued.load(Ordering::Acquire) > 0 {
                scene.run();
            }
            // SAFETY: alone again.
            let done = scene.own.with(|own| unsafe { *own });
            assert_eq!(done, 2, "work was scheduled and never done");
        });
    }

    #[test]
    fn loom_a_pc_29_scheduled_flag_loses_no_wakeup() {
        no_lost_wakeup();
    }

    #[test]
    #[should_panic(expected = "never done")]
    fn loom_a_pc_29_control_flag_cleared_late() {
        broken::with(Hazard::FlagClearedLate, no_lost_wakeup);
    }

    /// X07: two CPUs look at the queue while a third party schedules: never two runs at once.
    fn one_run_at_a_time() {
        loom::model(|| {
            let scene = Scene::new();
            scene.produce();
            let others: Vec<_> = (0..2)
                .map(|cpu| {
                    let scene = Arc::clone(&scene);
                    thread::spawn(move || {
                        if cpu == 0 {
                            scene.produce();
                        }
                        scene.run();
                    })
                })
                .collect();
            scene.run();
            others.into_iter().for_each(|other| other.join().unwrap());
        });
    }

    #[test]
    fn loom_x07_one_run_at_a_time() {
        one_run_at_a_time();
    }

    #[test]
    #[should_panic(expected = "Concurrent write accesses")]
    fn loom_x07_control_queued_while_running() {
        broken::with(Hazard::QueuedWhileRunning, one_run_at_a_time);
    }

    /// Removal against a run: once closed and seen not running, the handler's data is the remover's.
    fn removal() {
        loom::model(|| {
            let scene = Scene::new();
            scene.produce();
            let theirs = Arc::clone(&scene);
            let runner = thread::spawn(move || theirs.run());
            scene.state.close();
            let mut looks = 0;
            while scene.state.is_running() && looks < 3 {
                looks += 1;
                thread::yield_now();
            }
            if !scene.state.is_running() {
                // SAFETY: closed and not running: nobody else touches it, which is what loom checks here.
                scene.own.with_mut(|own| unsafe { *own = 99 });
            }
            runner.join().unwrap();
            assert!(!scene.state.is_running(), "closed work looks as if it ran for ever");
        });
    }

    #[test]
    fn loom_removal_against_run() {
        removal();
    }

    #[test]
    #[should_panic(expected = "looks as if it ran for ever")]
    fn loom_removal_control_closed_mark_lost() {
        broken::with(Hazard::ClosedMarkLost, removal);
    }
}
