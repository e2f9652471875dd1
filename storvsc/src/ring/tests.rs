//! The rings against a host played step by step: wraps, room, signals, nonsense.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::defect::{Defect, Defects};
use crate::tests::says;

/// One ring's memory, seen from both sides.
#[derive(Debug, Clone)]
pub(crate) struct Plain(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    words: RefCell<Vec<u64>>,
    input: Cell<u32>,
    output: Cell<u32>,
    mask: Cell<u32>,
    pending: Cell<u32>,
}

impl Plain {
    pub(crate) fn new(size: u32) -> Self {
        let cell = || Cell::new(0);
        let words = RefCell::new(vec![0; size as usize / 8]);
        Self(Rc::new(Inner { words, input: cell(), output: cell(), mask: cell(), pending: cell() }))
    }

    /// What lies in the data area, in words.
    pub(crate) fn words(&self, at: u32, count: usize) -> Vec<u64> {
        let words = self.0.words.borrow();
        (0..count).map(|n| words[(at as usize / 8 + n) % words.len()]).collect()
    }

    /// As the host would write.
    pub(crate) fn fill(&self, at: u32, from: &[u64]) {
        let mut words = self.0.words.borrow_mut();
        let len = words.len();
        for (n, word) in from.iter().enumerate() {
            words[(at as usize / 8 + n) % len] = *word;
        }
        self.0.input.set(((at as usize / 8 + from.len()) % len * 8) as u32);
    }

    pub(crate) fn set_out(&self, at: u32) {
        self.0.output.set(at);
    }
}

impl SenderMemory for Plain {
    fn set_word(&self, at: u32, word: u64) {
        self.0.words.borrow_mut()[at as usize / 8] = word;
    }
    fn publish(&self, at: u32) {
        self.0.input.set(at);
    }
    fn out(&self) -> u32 {
        self.0.output.get()
    }
    fn mask(&self) -> u32 {
        self.0.mask.get()
    }
    fn set_pending(&self, bytes: u32) {
        self.0.pending.set(bytes);
    }
    fn full_fence(&self) {}
}

impl ReceiverMemory for Plain {
    fn word(&self, at: u32) -> u64 {
        self.0.words.borrow()[at as usize / 8]
    }
    fn written(&self) -> u32 {
        self.0.input.get()
    }
    fn set_out(&self, at: u32) {
        self.0.output.set(at);
    }
    fn set_mask(&self, mask: u32) {
        self.0.mask.set(mask);
    }
    fn pending(&self) -> u32 {
        self.0.pending.get()
    }
    fn full_fence(&self) {}
}

const PAGE: u32 = 4096;

/// An in-band packet of `words` words of payload.
fn packet(sender: &mut Sender<Plain>, transaction: u64, words: u32) -> Result<(), NoRoom> {
    let length = 16 + words * 8;
    sender.write(length, |to| {
        to.put(u64::from(length / 8) << 32 | 2 << 16 | 6);
        to.put(transaction);
        (0..words).for_each(|n| to.put(transaction << 32 | u64::from(n)));
    })
}

/// Takes the next packet and looks at all of it.
fn take(receiver: &mut Receiver<Plain>, transaction: u64, words: u32) {
    let packet = receiver.peek().unwrap().expect("a packet");
    assert_eq!((packet.transaction, packet.len), (transaction, words * 8));
    let payload: [u64; 64] = receiver.copy(&packet);
    for n in 0..words.min(64) {
        assert_eq!(payload[n as usize], transaction << 32 | u64::from(n), "the payload of {transaction}");
    }
    receiver.advance(&packet);
}

/// Round after round through a ring of one page, 65,536 wraps of it: what comes out is what went in, and the trailer says where it began.
#[test]
fn a_svsc_08_wraps_65536_times() {
    let memory = Plain::new(PAGE);
    let mut sender = Sender::new(memory.clone(), PAGE);
    let mut receiver = Receiver::new(memory.clone(), PAGE);
    let (mut wraps, mut at, mut transaction) = (0u32, 0u32, 0u64);
    while wraps < 65_536 {
        // Different lengths, so that every offset is a beginning, and a wrap is in every part of a packet.
        let words = (transaction % 61) as u32;
        packet(&mut sender, transaction, words).unwrap();
        let end = at + 24 + words * 8;
        assert_eq!(memory.words((end + PAGE - 8) % PAGE, 1), [u64::from(at) << 32]);
        assert!(sender.publish(), "the ring was empty");
        take(&mut receiver, transaction, words);
        assert_eq!(receiver.peek(), Ok(None));
        wraps += end / PAGE;
        at = end % PAGE;
        transaction += 1;
    }
}

/// A-SVSC-08: a packet is never partly visible, and the ring takes exactly what fits.
#[test]
fn a_svsc_08_a_full_ring_refuses_whole_packets() {
    for words in [0, 1, 7, 31, 250] {
        let memory = Plain::new(PAGE);
        let mut sender = Sender::new(memory.clone(), PAGE);
        let mut receiver = Receiver::new(memory.clone(), PAGE);
        let whole = 24 + words * 8;
        let fit = (PAGE - 8) / whole;
        for transaction in 0..u64::from(fit) {
            packet(&mut sender, transaction, words).expect("room");
        }
        assert_eq!(receiver.peek(), Ok(None), "nothing is visible before it is published");
        assert_eq!(packet(&mut sender, 99, words), Err(NoRoom::Full));
        assert!(sender.publish());
        for transaction in 0..u64::from(fit) {
            take(&mut receiver, transaction, words);
        }
        assert_eq!(receiver.peek(), Ok(None));
    }
    assert_eq!(packet(&mut Sender::new(Plain::new(PAGE), PAGE), 1, 600), Err(NoRoom::TooLong));
}

/// A-SVSC-09, A-SVSC-10: the host is signalled when it had read everything and does not mask, and never else.
fn signals(defects: Defects) {
    let memory = Plain::new(PAGE);
    let mut sender = Sender::new(memory.clone(), PAGE).with_defects(defects);
    let mut receiver = Receiver::new(memory.clone(), PAGE);
    let mut send = |transaction| {
        packet(&mut sender, transaction, 8).unwrap();
        sender.publish()
    };
    assert!(send(1), "the ring was empty");
    assert!(!send(2) && !send(3), "a needless signal: the host has not read the first yet");
    for transaction in 1..=3 {
        take(&mut receiver, transaction, 8);
    }
    assert!(send(4), "it was empty again");
    take(&mut receiver, 4, 8);
    memory.set_mask(1);
    assert!(!send(5), "a needless signal: the host masks");
    take(&mut receiver, 5, 8);
    memory.set_mask(0);
    assert!(send(6));
}

#[test]
fn a_svsc_09_a_svsc_10_signals_when_they_are_needed() {
    signals(Defects::none());
}

#[test]
fn a_svsc_09_a_svsc_10_signals_when_they_are_needed_control() {
    let message = says(|| signals(Defects::one(Defect::SignalsAlways)));
    assert!(message.contains("a needless signal"), "{message}");
}

/// A sender without room asks for it, and goes on when the host's reading has brought it; the host is asked no more afterwards.
#[test]
fn x06_room_is_asked_for_and_comes() {
    let memory = Plain::new(PAGE);
    let mut sender = Sender::new(memory.clone(), PAGE);
    let mut receiver = Receiver::new(memory.clone(), PAGE);
    let mut sent = 0;
    while packet(&mut sender, sent, 29).is_ok() {
        sent += 1;
    }
    let _ = sender.publish();
    let asked = ReceiverMemory::pending(&memory);
    assert!((256..=PAGE - 24).contains(&asked), "{asked}");
    assert_eq!(sender.has_room(), Ok(false));
    // The host signals once, when the room crosses what was asked for.
    let mut signals = 0;
    for transaction in 0..sent {
        take(&mut receiver, transaction, 29);
        signals += u32::from(receiver.settle().unwrap());
        if signals == 1 && sender.is_waiting() {
            assert_eq!(sender.has_room(), Ok(true), "signalled, and there is room");
            assert_eq!(ReceiverMemory::pending(&memory), 0);
        }
    }
    assert_eq!(signals, 1);
    packet(&mut sender, 5, 29).unwrap();
}

/// The host waits for room: it is signalled by the read that brings it, however its number is rounded.
#[test]
fn the_host_is_told_of_room() {
    for asked in [1024, 1027, 2048, PAGE - 1] {
        let memory = Plain::new(PAGE);
        let mut sender = Sender::new(memory.clone(), PAGE);
        let mut receiver = Receiver::new(memory.clone(), PAGE);
        let mut sent = 0;
        while packet(&mut sender, sent, 29).is_ok() {
            sent += 1;
        }
        let _ = sender.publish();
        SenderMemory::set_pending(&memory, asked);
        let told: u32 = (0..sent)
            .map(|transaction| {
                take(&mut receiver, transaction, 29);
                u32::from(receiver.settle().unwrap())
            })
            .sum();
        assert_eq!(told, u32::from(asked & !7 <= PAGE - 8), "{asked}");
    }
}

/// What a host may say and must not: each is an error, and nothing is believed.
fn nonsense(defects: Defects) {
    // It read what was not published.
    let memory = Plain::new(PAGE);
    let mut sender = Sender::new(memory.clone(), PAGE).with_defects(defects);
    while packet(&mut sender, 1, 29).is_ok() {}
    let _ = sender.publish();
    assert!(sender.has_room().is_ok());
    memory.set_out(8);
    let _ = sender.has_room();
    memory.set_out(0);
    assert_eq!(sender.has_room(), Err(Breach::ReadTooMuch), "the host went back, and is believed");
    for offset in [PAGE, PAGE + 8, 4, u32::MAX, u32::MAX - 7] {
        memory.set_out(offset);
        assert_eq!(sender.has_room(), Err(Breach::Offset));
        let mut receiver = Receiver::new(memory.clone(), PAGE);
        memory.publish(offset);
        assert_eq!(receiver.peek(), Err(Breach::Offset));
        assert_eq!(receiver.rest(), Err(Breach::Offset));
    }
}

#[test]
fn offsets_out_of_range_are_breaches() {
    nonsense(Defects::none());
}

#[test]
fn offsets_out_of_range_are_breaches_control() {
    let message = says(|| nonsense(Defects::one(Defect::TrustsOffsets)));
    assert!(message.contains("is believed"), "{message}");
}

fn lengths(defects: Defects) {
    for (there, head) in [
        (1, 0u64),
        (2, 2 << 32 | 2 << 16),
        // Longer than there is.
        (3, 3 << 32 | 2 << 16),
        (3, 0xffff << 32 | 2 << 16),
        // Shorter than its own header; a payload before the header's end, and behind the packet's.
        (3, 1 << 32 | 1 << 16),
        (3, 2 << 32 | 1 << 16),
        (3, 2 << 32 | 3 << 16),
        (3, 2 << 32 | 0xffff << 16),
    ] {
        let memory = Plain::new(PAGE);
        let mut words = vec![0; there];
        words[0] = head;
        memory.fill(PAGE - 8, &words);
        let mut receiver = Receiver::new(memory.clone(), PAGE).with_defects(defects);
        receiver.begin_at(PAGE - 8);
        assert_eq!(receiver.peek(), Err(Breach::Packet), "a packet of {head:#x} in {there} words is believed");
    }
}

#[test]
fn packets_of_impossible_length_are_breaches() {
    lengths(Defects::none());
}

#[test]
fn packets_of_impossible_length_are_breaches_control() {
    let message = says(|| lengths(Defects::one(Defect::TrustsLength)));
    assert!(message.contains("is believed"), "{message}");
}
