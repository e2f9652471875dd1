//! The rings by themselves: a device that is a few cells, from any index, honest or not.

use core::cell::{Cell, RefCell};

use zerocopy::FromZeros;

use super::{Breach, RingMemory, Rings};
use crate::defect::{Defect, Defects};
use crate::registers::Kick;
use crate::wire::rings::{Completion, Message, Request};

const SIZE: u32 = 8;

/// Shared memory, and what the device knows.
#[derive(Default)]
struct Memory {
    requests: RefCell<[u64; SIZE as usize]>,
    produced: Cell<u32>,
    consumed: Cell<u32>,
    threshold: Cell<u32>,
    completions: RefCell<[u64; SIZE as usize]>,
    completed: Cell<u32>,
    taken: Cell<u32>,
    told: Cell<u32>,
    heard: Cell<u32>,
}

impl RingMemory for &Memory {
    fn set_request(&self, entry: u32, request: Request) {
        self.requests.borrow_mut()[entry as usize] = request.context.get();
    }
    fn publish_requests(&self, index: u32) {
        self.produced.set(index);
    }
    fn progress(&self) -> (u32, u32) {
        (self.consumed.get(), self.threshold.get())
    }
    fn completions(&self) -> u32 {
        self.completed.get()
    }
    fn completion(&self, entry: u32) -> Completion {
        let mut completion = zeroed::<Completion>();
        completion.context.set(self.completions.borrow()[entry as usize]);
        completion
    }
    fn take_completions(&self, index: u32) {
        self.taken.set(index);
    }
    fn messages(&self) -> u32 {
        self.told.get()
    }
    fn message(&self, entry: u32) -> Message {
        let mut message = zeroed::<Message>();
        message.target.set(entry);
        message
    }
    fn take_messages(&self, index: u32) {
        self.heard.set(index);
    }
    fn full_fence(&self) {}
}

fn zeroed<T: FromZeros>() -> T {
    T::new_zeroed()
}

impl Memory {
    fn from(index: u32) -> Self {
        let memory = Self::default();
        let all = [&memory.produced, &memory.consumed, &memory.completed, &memory.taken, &memory.told, &memory.heard];
        all.into_iter().for_each(|cell| cell.set(index));
        memory
    }

    /// The device takes the next request and completes it.
    fn serve(&self) -> bool {
        if self.consumed.get() == self.produced.get() {
            return false;
        }
        let context = self.requests.borrow()[(self.consumed.get() % SIZE) as usize];
        self.consumed.set(self.consumed.get().wrapping_add(1));
        assert!(self.completed.get().wrapping_sub(self.taken.get()) < SIZE, "no room for a completion");
        self.completions.borrow_mut()[(self.completed.get() % SIZE) as usize] = context;
        self.completed.set(self.completed.get().wrapping_add(1));
        true
    }
}

fn rings(memory: &Memory, index: u32, defects: Defects) -> Rings<&Memory> {
    let mut rings = Rings::new(memory, [SIZE; 3]).with_defects(defects);
    rings.age(index);
    rings
}

fn request(context: u64) -> Request {
    let mut request = zeroed::<Request>();
    request.context.set(context);
    request
}

#[test]
fn indices_run_through_two_to_the_32() {
    for start in [0, u32::MAX, u32::MAX - 3, u32::MAX - 1000, 1 << 31] {
        let memory = Memory::from(start);
        let mut rings = rings(&memory, start, Defects::none());
        let (mut sent, mut done, mut in_flight) = (0, 0, 0);
        while done < 100_000 {
            while in_flight < SIZE && sent % 3 != 2 || in_flight == 0 {
                rings.write(request(sent), true);
                (sent, in_flight) = (sent + 1, in_flight + 1);
            }
            sent += u64::from(sent % 3 == 2);
            assert_eq!(rings.publish(), Kick::ReadWrite);
            assert_eq!(rings.publish(), Kick::None, "nothing is new");
            while memory.serve() {}
            while let Some(completion) = rings.completion(in_flight).unwrap() {
                assert!(completion.context.get() >= done);
                (done, in_flight) = (completion.context.get() + 1, in_flight - 1);
            }
            assert_eq!((in_flight, memory.taken.get()), (0, memory.completed.get()));
        }
    }
}

/// A producer index that cannot be, from anywhere and with anything in flight.
fn jumps(defects: Defects) {
    for start in [0, 7, u32::MAX - 2] {
        for in_flight in 0..SIZE {
            for jump in [in_flight + 1, SIZE, SIZE + 1, 1 << 31, u32::MAX, u32::MAX - 5] {
                let memory = Memory::from(start);
                let mut rings = rings(&memory, start, defects);
                memory.completed.set(start.wrapping_add(jump));
                let result = rings.completion(in_flight);
                assert!(matches!(result, Err(Breach::Completions)), "{jump} of {in_flight} are taken for completions");
                assert_eq!(memory.taken.get(), start, "nothing was taken");
            }
        }
    }
}

#[test]
fn a_producer_that_jumps() {
    jumps(Defects::none());
}

#[test]
fn a_producer_that_jumps_control() {
    let message = crate::tests::says(|| jumps(Defects::one(Defect::TrustsProducer)));
    assert!(message.contains("are taken for completions"), "{message}");
}

#[test]
fn messages_come_in_order_and_no_more_than_fit() {
    let start = u32::MAX - 3;
    let memory = Memory::from(start);
    let mut rings = rings(&memory, start, Defects::none());
    memory.told.set(start.wrapping_add(SIZE));
    for n in 0..SIZE {
        let message = rings.message().unwrap().unwrap();
        assert_eq!(message.target.get(), start.wrapping_add(n) % SIZE);
        assert_eq!(memory.heard.get(), start.wrapping_add(n + 1));
    }
    assert_eq!(rings.message(), Ok(None));
    memory.told.set(memory.told.get().wrapping_add(SIZE + 1));
    assert_eq!(rings.message(), Err(Breach::Messages));
}

#[test]
fn kicks_are_of_the_right_kind() {
    let memory = Memory::from(u32::MAX);
    let mut rings = rings(&memory, u32::MAX, Defects::none());
    let mut kick = |kinds: &[bool], threshold| {
        rings.set_threshold(threshold);
        kinds.iter().for_each(|kind| rings.write(request(1), *kind));
        rings.publish()
    };
    assert_eq!(kick(&[true], false), Kick::ReadWrite);
    assert_eq!(kick(&[true, false, true], false), Kick::Other);
    memory.threshold.set(6);
    assert_eq!(kick(&[true], true), Kick::None, "five are waiting");
    assert_eq!(kick(&[true], true), Kick::ReadWrite, "six are");
    memory.consumed.set(memory.produced.get());
    assert_eq!(kick(&[false], true), Kick::Other);
}
