//! Every fault of the script, seen from the guest's side.

use undercroft_hosts::Script;
use undercroft_hosts::hyperv::{Breach, Event, Fault, Guest, Knobs, MessageFault, PostFault, Stray};

use super::breaches::ready;
use super::hand::{HANDLE, Hand, SLOT};

fn with(fault: Fault) -> Hand {
    let mut hand = Hand::ready(Knobs::default());
    hand.host.set_packet_faults(Script::none().at(0, fault));
    hand
}

/// A guest whose next message from the host has a fault.
fn told(fault: MessageFault) -> Hand {
    let mut hand = Hand::new(Knobs::default());
    hand.registers();
    assert!(hand.contact(0x6_0000));
    hand.host.faults.messages = Script::none().at(0, fault);
    hand.post(3, &[]);
    hand
}

#[test]
fn posts_fail() {
    let mut hand = Hand::new(Knobs::default());
    hand.registers();
    hand.host.faults.posts = Script::none().at(0, PostFault::Status(0x13)).at(1, PostFault::Status(0x12));
    let contact = super::hand::message(14, &[0x3_0000, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!([0; 3].map(|_| hand.post_on(1, &contact)), [0x13, 0x12, 0]);
    assert_eq!((hand.types(), hand.counts().posts), (vec![15], 3));
}

#[test]
fn messages_are_late_lost_doubled_and_damaged() {
    let mut hand = told(MessageFault::Delay(70));
    assert_eq!(hand.types(), [4]);
    hand.guest.advance(70);
    assert_eq!(hand.types(), [1]);
    assert_eq!(told(MessageFault::Drop).types(), [4]);
    assert_eq!(told(MessageFault::Twice).types(), [1, 1, 4]);
    assert_eq!(told(MessageFault::Kind(99)).types(), [99, 4]);
    assert_eq!(told(MessageFault::Truncate(20)).slot().unwrap().len(), 36);
    assert_eq!(told(MessageFault::Says(255)).slot().unwrap()[4], 255);
    assert_eq!(told(MessageFault::SlotKind(2)).slot().unwrap()[0], 2);
}

#[test]
fn messages_that_nobody_asked_for() {
    for (stray, kind, first) in [
        (Stray::Unknown(1234), 1234, Some(0)),
        (Stray::ForeignOffer, 1, Some(0xf861_5163)),
        (Stray::BadOffer(9999), 1, Some(0xba61_63d9)),
        (Stray::Rescind(7), 2, Some(7)),
        (Stray::OpenResult(1, 2), 6, Some(1)),
        (Stray::GpadlCreated(1, 2), 10, Some(1)),
        (Stray::TornDown(3), 12, Some(3)),
        (Stray::Version, 15, Some(1)),
        (Stray::Unloaded, 17, None),
        (Stray::AllOffers, 4, None),
        (Stray::Short, 1, None),
    ] {
        let mut hand = told(MessageFault::After(stray));
        let said = hand.messages();
        assert_eq!((said[0].0, said[0].1.first().copied()), (kind, first), "{stray:?}");
        assert_eq!(said[1..].iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [1, 4]);
    }
}

#[test]
fn what_was_left_in_the_slot_comes_first() {
    let left = vec![[17u32, 0].iter().flat_map(|word| word.to_le_bytes()).collect()];
    let mut hand = Hand::new(Knobs { left_over: left, ..Knobs::default() });
    hand.registers();
    hand.post_on(4, &super::hand::message(14, &[0x6_0000, 0, 2, 0, 0, 0, 0, 0]));
    assert_eq!(hand.types(), [17, 15]);
}

#[test]
fn refusals() {
    let mut hand = Hand::new(Knobs { refuses_contact: 2, ..Knobs::default() });
    hand.registers();
    hand.post_on(4, &super::hand::message(14, &[0x6_0000, 0, 2, 0, 0, 0, 0, 0]));
    assert_eq!(hand.messages(), [(15, vec![0x201, 0])]);
    hand.host.knobs = Knobs { refuses_gpadl: 0xc000_0001, ..Knobs::default() };
    assert!(hand.contact(0x6_0000));
    hand.post(3, &[]);
    hand.types();
    hand.prepare_rings();
    hand.gpadl(1, HANDLE, 0x100, 34);
    assert_eq!(hand.messages(), [(10, vec![1, HANDLE, 0xc000_0001])]);
    hand.host.knobs = Knobs { refuses_open: 5, ..Knobs::default() };
    hand.gpadl(1, HANDLE, 0x100, 34);
    hand.post_on(1, &Hand::open_message(1, HANDLE, 0, 17));
    assert_eq!(hand.messages(), [(10, vec![1, HANDLE, 0]), (6, vec![1, 0xabcd, 5])]);
    assert_eq!(hand.breaches(), []);
}

#[test]
fn a_torn_down_list_is_told_late() {
    let mut hand = Hand::ready(Knobs { torn_down_after: 30, ..Knobs::default() });
    hand.post(7, &[1]);
    hand.post(11, &[1, HANDLE]);
    assert_eq!((hand.types(), hand.host.due()), (vec![], Some(30)));
    hand.guest.advance(30);
    assert_eq!(hand.types(), [12]);
}

#[test]
fn requests_that_end_otherwise() {
    for (fault, status, moved) in [
        (Fault::Status(9, 0), (9, 0), 0),
        (Fault::Sense(6, 0x29, 0), (0x84, 2), 0),
        (Fault::Busy, (5, 8), 0),
        (Fault::Short(100), (1, 0), 412),
        (Fault::SaysMoved(9999), (1, 0), 9999),
    ] {
        let answer = with(fault).read(1).unwrap();
        assert_eq!(answer.status(), (status.0, status.1, moved), "{fault:?}");
    }
    let mut hand = with(Fault::Short(100));
    let answer = hand.execute(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0], 0, 512).unwrap();
    assert_eq!(answer.status(), (1, 0, 412), "and nothing was written");
    assert_eq!(with(Fault::SaysSense(200)).read(1).unwrap().payload[21], 200);
    assert_eq!(with(Fault::Never).read(1), None);
}

#[test]
fn answers_that_lie() {
    assert_eq!(with(Fault::BadTransaction(77)).read(1).unwrap().transaction, 77);
    let mut hand = with(Fault::StaleTransaction);
    assert_eq!(hand.read(1).unwrap().transaction, 4, "the last packet of initialisation");
    let mut hand = with(Fault::Duplicate);
    assert_eq!(hand.read(1), hand.receive());
    assert_eq!(with(Fault::Truncate(20)).read(1).unwrap().payload.len(), 24);
    assert_eq!(with(Fault::Oversize(40)).read(1).unwrap().payload.len(), 104);
    assert_eq!(with(Fault::Kind(7)).read(1).unwrap().kind, 7);
    assert_eq!(with(Fault::Operation(12)).read(1).unwrap().u32(0), 12);
    for (fault, at, value) in [(Fault::SaysLength(0), 4, 0), (Fault::SaysOffset(99), 2, 99)] {
        let mut hand = with(fault);
        let (range, payload) = hand.command(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 1, 512);
        let before = hand.got;
        hand.send(9, 1, &range, &payload);
        let mut header = [0; 16];
        hand.raw_read(before, &mut header);
        assert_eq!(header[at], value);
    }
    let mut hand = with(Fault::Index(0x1_2345));
    let (range, payload) = hand.command(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 1, 512);
    hand.send(9, 1, &range, &payload);
    assert_eq!(hand.guest.load(hand.control(true)).unwrap(), 0x1_2345);
}

#[test]
fn order_and_time() {
    let mut hand = with(Fault::Behind(1));
    let (range, payload) = hand.command(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 1, 512);
    for _ in 0..2 {
        let bytes = hand.packet(9, 1, &range, &payload);
        hand.put(&bytes);
    }
    hand.signal();
    let order: Vec<u64> = std::iter::from_fn(|| hand.receive()).map(|packet| packet.transaction).collect();
    assert_eq!(order, [6, 5]);
    let mut hand = with(Fault::Delay(500));
    assert_eq!((hand.read(1), hand.host.due()), (None, Some(500)));
    hand.guest.advance(500);
    hand.work();
    assert!(hand.receive().is_some());
}

#[test]
fn interrupts_lost_and_made_up() {
    let mut hand = with(Fault::NoSignal);
    hand.take_flag(1);
    hand.interrupts();
    assert!(hand.read(1).is_some());
    assert_eq!(hand.interrupts(), []);
    let mut hand = with(Fault::Spurious);
    hand.take_flag(1);
    let mask = hand.control(true) + 8;
    hand.guest.store(mask, 1).unwrap();
    hand.interrupts();
    assert!(hand.read(1).is_some());
    assert_eq!(hand.interrupts().len(), 1);
    let mut hand = with(Fault::Unsolicited(11));
    assert_eq!(hand.read(1).unwrap().u32(0), 11);
    assert_eq!(hand.receive().unwrap().transaction, 5);
}

#[test]
fn a_rescind_at_every_step() {
    // Steps until a first read is over, without any event.
    let mut plain = Hand::ready(Knobs::default());
    plain.read(1).unwrap();
    let steps = plain.counts().steps;
    assert_eq!(steps, 10);
    for step in 0..steps {
        let mut hand = Hand::new(Knobs::default());
        hand.host.faults.events = Script::none().at(step, Event::Rescind(1));
        hand.registers();
        hand.contact(0x6_0000);
        hand.post(3, &[]);
        hand.prepare_rings();
        hand.gpadl(1, HANDLE, 0x100, 34);
        hand.post_on(1, &Hand::open_message(1, HANDLE, 0, 17));
        for operation in [7, 9, 10, 8] {
            let bytes = hand.packet(
                6,
                1,
                &[],
                &[[operation, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6].to_vec(), vec![0; 50]].concat(),
            );
            hand.put(&bytes);
            hand.call(0x1_005d, 0x2001);
            hand.work();
        }
        let rescinded = hand.types().contains(&2);
        assert_eq!(rescinded, (1..9).contains(&step), "step {step}");
    }
}

#[test]
fn a_slot_that_the_guest_fills() {
    let found = ready(|hand| {
        // One message in the slot, one behind it: the host looks again before that is taken, and that is no breach.
        hand.post(3, &[]);
        hand.contact(0x6_0000);
        hand.host.stray(&hand.guest, Stray::AllOffers);
        hand.host.stray(&hand.guest, Stray::AllOffers);
        hand.messages();
        assert_eq!(hand.breaches().iter().filter(|breach| matches!(breach, Breach::SlotWritten(_))).count(), 0);
        hand.guest.store(SLOT, 1).unwrap();
        hand.host.stray(&hand.guest, Stray::AllOffers);
        hand.host.stray(&hand.guest, Stray::AllOffers);
    });
    let slots: Vec<_> = found.into_iter().filter(|breach| matches!(breach, Breach::SlotWritten(_))).collect();
    assert_eq!(slots, [Breach::SlotWritten(0)], "noticed once");
}
