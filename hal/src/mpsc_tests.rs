//! Tests of the intrusive queue: order, the interrupt in the middle of a push (A-BHQ-01), and loom models (A-BHQ-01, X22).

use super::*;
use crate::atomic::Owned;
use std::boxed::Box;
use std::vec::Vec;

/// A queued value with the link first.
#[repr(C)]
struct Node {
    link: Link,
    value: Owned<u32>,
}

fn node(value: u32) -> Box<Node> {
    Box::new(Node { link: Link::new(), value: Owned::new(value) })
}

fn push(queue: &Queue, node: Box<Node>) {
    // SAFETY: fresh from its box, linked nowhere; leaked until `pop`.
    unsafe { queue.push(NonNull::from(Box::leak(node)).cast()) };
}

fn pop(queue: &Queue) -> Option<u32> {
    // SAFETY: each test has one consumer.
    match unsafe { queue.pop() } {
        Pop::Node(link) => {
            // SAFETY: `push` leaked this box.
            let node = unsafe { Box::from_raw(link.cast::<Node>().as_ptr()) };
            // SAFETY: the consumer owns the node now.
            Some(node.value.with_mut(|value| unsafe { *value }))
        }
        Pop::Empty | Pop::Busy => None,
    }
}

#[cfg(not(any(loom, shuttle)))]
mod deterministic {
    use super::*;
    use crate::inject::interrupted_at;
    use std::rc::Rc;

    fn drain(queue: &Queue) -> Vec<u32> {
        core::iter::from_fn(|| pop(queue)).collect()
    }

    #[test]
    fn keeps_order_and_returns_to_empty() {
        let queue = Queue::new();
        for round in 1..=5 {
            (0..round).for_each(|n| push(&queue, node(n)));
            assert_eq!(drain(&queue), (0..round).collect::<Vec<_>>());
            assert!(queue.is_empty());
        }
    }

    /// A queue under the interrupt test: pushes, and what is in it afterwards.
    trait Pushable: 'static {
        fn put(&self, value: u32);
        fn take_all(&self) -> Vec<u32>;
    }

    impl Pushable for Queue {
        fn put(&self, value: u32) {
            push(self, node(value));
        }
        fn take_all(&self) -> Vec<u32> {
            drain(self)
        }
    }

    /// For each step of a push: a handler strikes there and pushes twice (and looks, as the end of an interrupt does).
    fn push_interrupted_by_push<Q: Pushable>(make: impl Fn() -> Q) -> usize {
        for before in 0..3 {
            for k in 0.. {
                let queue = Rc::new(make());
                (0..before).for_each(|n| queue.put(n));
                let (inner, early) = (Rc::clone(&queue), Rc::new(std::cell::RefCell::new(Vec::new())));
                let seen = Rc::clone(&early);
                let handler = move || {
                    inner.put(101);
                    inner.put(102);
                    seen.borrow_mut().extend(inner.take_all());
                };
                let struck = interrupted_at(k, handler, || queue.put(100));
                let mut all = early.take();
                all.extend(queue.take_all());
                let position = |v| all.iter().position(|&x| x == v);
                assert_eq!(all.len(), before as usize + if struck { 3 } else { 1 }, "step {k}: {all:?}");
                assert!(position(100).is_some());
                if !struck {
                    assert!(k > 0, "a push has steps");
                    if before == 2 {
                        return k;
                    }
                    break;
                }
                assert!(position(101) < position(102), "a handler's own pushes keep their order");
            }
        }
        unreachable!("the loop returns")
    }

    #[test]
    fn a_bhq_01_push_interrupted_by_push_on_the_same_cpu() {
        assert!(push_interrupted_by_push(Queue::new) >= 2, "the swap and the store are separate steps");
    }

    /// The broken twin: a producer reserves a place, writes it, and waits until earlier producers have committed theirs, as multi-producer
    /// rings do. The wait is cut short so that the test can end.
    struct WaitingRing {
        reserved: std::cell::Cell<usize>,
        committed: std::cell::Cell<usize>,
        items: std::cell::RefCell<Vec<Option<u32>>>,
        taken: std::cell::Cell<usize>,
    }

    impl Pushable for WaitingRing {
        fn put(&self, value: u32) {
            let mine = self.reserved.get();
            self.reserved.set(mine + 1);
            step();
            self.items.borrow_mut().resize(mine + 1, None);
            self.items.borrow_mut()[mine] = Some(value);
            step();
            let spins = (0..1000).take_while(|_| self.committed.get() != mine).count();
            assert!(spins < 1000, "the handler waits for the code that it interrupted");
            self.committed.set(mine + 1);
        }
        fn take_all(&self) -> Vec<u32> {
            let range = self.taken.get()..self.committed.get();
            self.taken.set(self.committed.get());
            self.items.borrow()[range].iter().map(|item| item.expect("committed")).collect()
        }
    }

    #[test]
    #[should_panic(expected = "waits for the code that it interrupted")]
    fn a_bhq_01_control_a_ring_that_waits_for_earlier_producers() {
        push_interrupted_by_push(|| WaitingRing {
            reserved: Default::default(),
            committed: Default::default(),
            items: Default::default(),
            taken: Default::default(),
        });
    }

    /// A producer's interrupt at each step of a pop loses nothing, repeats nothing, and leaves no doubt whether something is queued (A-VQ-02).
    fn pop_interrupted_by_push() {
        for before in 0..3u32 {
            for k in 0.. {
                let queue = Rc::new(Queue::new());
                (0..before).for_each(|n| push(&queue, node(n)));
                let inner = Rc::clone(&queue);
                let mut got = Vec::new();
                let struck = interrupted_at(k, move || push(&inner, node(100)), || got.extend(pop(&queue)));
                let says_empty = queue.is_empty();
                let rest = drain(&queue);
                assert_eq!(says_empty, rest.is_empty(), "step {k} of a pop with {before} queued: left {rest:?}");
                got.extend(rest);
                let mut want: Vec<u32> = (0..before).collect();
                want.extend(struck.then_some(100));
                assert_eq!(got, want, "step {k} of a pop with {before} queued");
                if !struck {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_vq_02_pop_interrupted_by_push() {
        pop_interrupted_by_push();
    }

    #[test]
    #[should_panic(expected = "of a pop with")]
    fn a_vq_02_control_detached_blindly() {
        broken::with(Hazard::DetachedBlindly, pop_interrupted_by_push);
    }

    /// X21: ten thousand pending items: nothing to fill up, and nothing that is lost without a word.
    fn storm(queue: &impl Pushable) {
        (0..10_000).for_each(|n| queue.put(n));
        let arrived = queue.take_all();
        assert_eq!(arrived.len(), 10_000, "a storm lost work");
        assert!(arrived.into_iter().eq(0..10_000));
    }

    #[test]
    fn x21_a_storm_of_ten_thousand() {
        storm(&Queue::new());
    }

    /// The broken twin: a ring of fixed size that says that it is full, to callers that do not look at the answer.
    struct FixedRing(std::cell::RefCell<Vec<u32>>);

    impl Pushable for FixedRing {
        fn put(&self, value: u32) {
            let mut items = self.0.borrow_mut();
            if items.len() < 4096 {
                items.push(value);
            }
        }
        fn take_all(&self) -> Vec<u32> {
            self.0.take()
        }
    }

    #[test]
    #[should_panic(expected = "a storm lost work")]
    fn x21_control_a_ring_that_drops_when_it_is_full() {
        storm(&FixedRing(Default::default()));
    }
}

#[cfg(loom)]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two producers and a consumer: everything arrives once, each producer's own items in order, with their contents.
    #[test]
    fn loom_a_bhq_01_two_producers_one_consumer() {
        let mut model = loom::model::Builder::new();
        // Without a bound this takes minutes; three preemptions reach every state that the algorithm distinguishes.
        model.preemption_bound = Some(3);
        model.check(|| {
            let queue = Arc::new(Queue::new());
            let producers: Vec<_> = [(10, 2), (20, 1)]
                .into_iter()
                .map(|(base, count)| {
                    let queue = Arc::clone(&queue);
                    thread::spawn(move || (0..count).for_each(|n| push(&queue, node(base + n))))
                })
                .collect();
            let mut got: Vec<u32> = (0..2).filter_map(|_| pop(&queue)).collect();
            producers.into_iter().for_each(|p| p.join().unwrap());
            got.extend(core::iter::from_fn(|| pop(&queue)));
            assert!(got.iter().position(|&v| v == 10) < got.iter().position(|&v| v == 11), "{got:?}");
            got.sort_unstable();
            assert_eq!(got, [10, 11, 20]);
        });
    }

    /// X22: an item's contents are visible to the consumer that finds it. The control links nodes with a relaxed store; loom reports that
    /// the contents race.
    fn contents_are_published() {
        loom::model(|| {
            let queue = Arc::new(Queue::new());
            let theirs = Arc::clone(&queue);
            let producer = thread::spawn(move || push(&theirs, node(7)));
            let early = pop(&queue);
            assert!(early.is_none_or(|value| value == 7));
            producer.join().unwrap();
            assert_eq!(early.or_else(|| pop(&queue)), Some(7));
        });
    }

    #[test]
    fn loom_x22_contents_are_published() {
        contents_are_published();
    }

    #[test]
    #[should_panic(expected = "Concurrent load and mut accesses")]
    fn loom_x22_control_a_relaxed_publication() {
        broken::with(Hazard::RelaxedPublication, contents_are_published);
    }
}
