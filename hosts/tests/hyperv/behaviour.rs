//! What the model does for a guest that does nothing wrong: message slots, timers, versions, room in rings, rescinding, sub-channels, units.

use undercroft_hosts::hyperv::{Absent, Controller, Event, Guest, Interrupt, Knobs};
use undercroft_hosts::scsi::{Lun, LunSettings};
use undercroft_hosts::{Disk, Script};

use super::hand::{FIRST_PAGE, HANDLE, Hand, SIMP, VECTOR, disk, message};

const INTERRUPT: Interrupt = Interrupt { vp: 0, vector: VECTOR };

fn registers_of_timer(hand: &mut Hand, config: u64, count: u64) {
    assert!(hand.wrmsr(0x4000_00b1, count) && hand.wrmsr(0x4000_00b0, config));
}

/// A machine monitor has it on threads.
#[test]
fn a_host_may_go_to_another_thread() {
    fn goes<T: Send>(_: &T) {}
    goes(&Hand::new(Knobs::default()).host);
}

#[test]
fn versions_up_to_the_cap() {
    let all = [0x2_0004, 0x3_0000, 0x4_0000, 0x4_0001, 0x5_0000, 0x5_0001, 0x5_0002, 0x5_0003, 0x6_0000];
    for cap in all {
        let mut hand = Hand::new(Knobs { version: cap, ..Knobs::default() });
        hand.registers();
        let taken: Vec<u32> = all.into_iter().filter(|version| hand.contact(*version)).collect();
        assert_eq!(taken, all.into_iter().filter(|version| *version <= cap).collect::<Vec<_>>());
        assert!(!hand.contact(0x5_0004) && !hand.contact(0x1_0001), "only members");
        assert_eq!(hand.breaches(), []);
    }
}

#[test]
fn messages_wait_for_the_slot() {
    let mut hand = Hand::new(Knobs::default());
    hand.registers();
    assert!(hand.contact(0x6_0000));
    hand.interrupts();
    hand.post(3, &[]);
    // The offer is in the slot and says that there is more; nothing comes before the end of message is written.
    let slot = SIMP + 512;
    assert_eq!(hand.guest.load(slot + 4).unwrap(), 196 | 1 << 8);
    assert_eq!(hand.interrupts(), [INTERRUPT]);
    hand.guest.store(slot, 0).unwrap();
    hand.work();
    assert_eq!((hand.guest.load(slot).unwrap(), hand.interrupts()), (0, vec![]));
    assert!(hand.wrmsr(0x4000_0084, 0));
    assert_eq!((hand.guest.load(slot).unwrap(), hand.guest.load(slot + 4).unwrap()), (1, 8));
    assert_eq!(hand.interrupts(), [INTERRUPT]);
}

#[test]
fn a_masked_source_keeps_its_messages() {
    let mut hand = Hand::new(Knobs::default());
    hand.registers();
    assert!(hand.wrmsr(0x4000_0092, u64::from(VECTOR) | 1 << 16));
    hand.post_on(4, &message(14, &[0x5_0003, 0, 2, 0, 0, 0, 0, 0]));
    assert_eq!((hand.slot(), hand.interrupts()), (None, vec![]));
    assert!(hand.wrmsr(0x4000_0092, u64::from(VECTOR)));
    assert_eq!((hand.slot().unwrap()[16], hand.interrupts()), (15, vec![INTERRUPT]));
}

#[test]
fn pages_lie_over_the_guests_memory() {
    let mut hand = Hand::new(Knobs::default());
    hand.guest.write(SIMP, &[0xaa; 4096]).unwrap();
    hand.registers();
    assert_eq!(hand.guest.load(SIMP + 512).unwrap(), 0, "what was there before is not seen");
    hand.guest.store(SIMP + 0x800, 7).unwrap();
    // The page moves with its content.
    assert!(hand.wrmsr(0x4000_0083, 0x9001));
    assert_eq!(hand.guest.load(0x9800).unwrap(), 7);
}

#[test]
fn reference_time() {
    let mut hand = Hand::new(Knobs::default());
    hand.guest.advance(1234);
    assert_eq!(hand.host.rdmsr(&hand.guest, 1, 0x4000_0020), Ok(1234));
    assert_eq!(hand.host.rdmsr(&hand.guest, 1, 0x4000_0002), Ok(1));
    assert!(hand.wrmsr(0x4000_0021, 0x5001));
    assert_eq!(hand.guest.load(0x5000).unwrap(), 0, "not to be used");
    hand.host.settings.tsc = Some((1 << 60, 5));
    assert!(hand.wrmsr(0x4000_0021, 0x5001));
    let mut page = [0; 24];
    hand.guest.read(0x5000, &mut page).unwrap();
    assert_eq!((page[0], page[15], page[16]), (1, 0x10, 5));
    assert_eq!(hand.breaches(), []);
}

#[test]
fn timers_fire_once_or_again_and_again() {
    let mut hand = Hand::new(Knobs::default());
    hand.registers();
    hand.wrmsr(0x4000_0093, 0x50);
    // One shot to SINT 3, by a message.
    registers_of_timer(&mut hand, 1 | 3 << 16, 100);
    hand.guest.advance(99);
    hand.work();
    assert_eq!((hand.interrupts(), hand.host.due()), (vec![], Some(100)));
    hand.guest.advance(1);
    hand.work();
    assert_eq!(hand.interrupts(), [Interrupt { vp: 0, vector: 0x50 }]);
    assert_eq!(hand.guest.load(SIMP + 3 * 256).unwrap(), 0x8000_0010);
    assert_eq!(hand.host.rdmsr(&hand.guest, 0, 0x4000_00b0), Ok(3 << 16));
    // Periodic, directly.
    registers_of_timer(&mut hand, 1 | 2 | 1 << 12 | 0x61 << 4, 50);
    for _ in 0..3 {
        hand.guest.advance(50);
        hand.work();
        assert_eq!(hand.interrupts(), [Interrupt { vp: 0, vector: 0x61 }]);
    }
    // Missed ones are one.
    hand.guest.advance(1000);
    hand.work();
    assert_eq!(hand.interrupts().len(), 1);
    registers_of_timer(&mut hand, 0, 0);
    assert_eq!((hand.host.due(), hand.breaches()), (None, &[][..]));
}

#[test]
fn one_interrupt_for_a_batch() {
    let mut hand = Hand::ready(Knobs::default());
    hand.take_flag(1);
    hand.interrupts();
    let (range, payload) = hand.command(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 1, 512);
    for _ in 0..8 {
        let bytes = hand.packet(9, 1, &range, &payload);
        hand.put(&bytes);
    }
    hand.signal();
    assert_eq!(hand.interrupts(), [INTERRUPT]);
    assert!(hand.take_flag(1));
    assert_eq!(std::iter::from_fn(|| hand.receive()).count(), 8);
    // With the mask set none is wanted.
    let mask = hand.control(true) + 8;
    hand.guest.store(mask, 1).unwrap();
    assert_eq!(hand.read(2).unwrap().status().0, 1);
    assert_eq!((hand.interrupts(), hand.take_flag(1)), (vec![], false));
    assert_eq!(hand.breaches(), []);
}

#[test]
fn without_a_signal_the_host_does_not_look() {
    let mut hand = Hand::ready(Knobs::default());
    let (_, payload) = hand.command(&[0; 6], 2, 0);
    let bytes = hand.packet(6, 1, &[], &payload);
    hand.put(&bytes);
    hand.guest.advance(10_000_000);
    hand.work();
    assert_eq!(hand.receive(), None);
    // OpenVMM looks once, a while after the opening.
    let mut hand = Hand::open(Knobs { unstick_after: Some(1_000_000), ..Knobs::default() });
    let bytes = hand.packet(6, 1, &[], &[[7, 0, 0, 0, 1].to_vec(), vec![0; 59]].concat());
    hand.put(&bytes);
    hand.work();
    assert_eq!(hand.receive(), None);
    hand.guest.advance(1_000_000);
    hand.work();
    assert!(hand.receive().is_some());
}

#[test]
fn a_host_that_polls_asks_for_no_signals_meanwhile() {
    let mut hand = Hand::ready(Knobs { poll_depth: Some(1), ..Knobs::default() });
    hand.host.faults.packets = Script::none().at(0, undercroft_hosts::hyperv::Fault::Delay(100));
    assert_eq!(hand.read(1), None);
    assert_eq!(hand.guest.load(hand.control(false) + 8).unwrap(), 1);
    let (range, payload) = hand.command(&[0x28, 0, 0, 0, 0, 2, 0, 0, 1, 0], 1, 512);
    let bytes = hand.packet(9, 1, &range, &payload);
    hand.put(&bytes);
    hand.work();
    assert_eq!(hand.receive(), None, "it waits behind the slow one");
    hand.guest.advance(100);
    hand.work();
    assert_eq!(std::iter::from_fn(|| hand.receive()).count(), 2);
    assert_eq!(hand.guest.load(hand.control(false) + 8).unwrap(), 0);
}

#[test]
fn a_ring_of_one_page_fills_and_empties() {
    let mut hand = Hand::open_pages(Knobs::default(), 2);
    hand.initialise(0x0600);
    // 46 answers fit: 4096 bytes, 88 for each, and 8 that stay free.
    for _ in 0..40 {
        let (_, payload) = hand.command(&[0; 6], 2, 0);
        hand.send(6, 1, &[], &payload);
    }
    let got = hand.got;
    for _ in 0..40 {
        let (_, payload) = hand.command(&[0; 6], 2, 0);
        hand.send(6, 1, &[], &payload);
    }
    assert_eq!(hand.guest.load(hand.control(true) + 12).unwrap(), 1024, "the host waits for a quarter");
    let waits = hand.counts().ring_full;
    assert_eq!(waits, 1);
    // What is taken without a word changes nothing; the rest comes with one signal.
    let taken = std::iter::from_fn(|| hand.receive()).count();
    hand.work();
    assert_eq!((taken, hand.receive()), (46, None));
    hand.signal();
    let rest = std::iter::from_fn(|| hand.receive()).count();
    assert_eq!((rest, hand.guest.load(hand.control(true) + 12).unwrap()), (34, 0));
    assert!(hand.got != got && hand.counts().needless_signals == 0);
    // The guest waits for room: the host tells it once there is as much.
    hand.take_flag(1);
    hand.interrupts();
    let (_, payload) = hand.command(&[0; 6], 2, 0);
    for _ in 0..46 {
        let bytes = hand.packet(6, 1, &[], &payload);
        hand.put(&bytes);
    }
    let pending = hand.control(false) + 12;
    hand.guest.store(pending, 1000).unwrap();
    let mask = hand.control(true) + 8;
    hand.guest.store(mask, 1).unwrap();
    hand.signal();
    assert_eq!(hand.interrupts().len(), 1);
    assert_eq!(hand.breaches(), []);
}

#[test]
fn rescinded_released_and_offered_again() {
    let mut hand = Hand::ready(Knobs::default());
    hand.host.rescind_and_reoffer(&hand.guest, 1);
    assert_eq!(hand.messages(), [(2, vec![1])]);
    hand.signal();
    assert_eq!(hand.receive(), None);
    // An opening that the rescind overtook is refused without blame.
    hand.post_on(1, &Hand::open_message(1, HANDLE, 0, 17));
    assert_eq!(hand.messages()[0].1[2], 0xc000_0001);
    hand.post(11, &[1, HANDLE]);
    assert_eq!(hand.messages(), [(12, vec![HANDLE])]);
    hand.post(13, &[1]);
    assert_eq!(hand.types(), [1]);
    hand.open_channel();
    hand.initialise(0x0600);
    assert_eq!(hand.read(9).unwrap().status(), (1, 0, 512));
    assert_eq!(hand.breaches(), []);
}

#[test]
fn sub_channels_come_late_and_go_with_their_primary() {
    let mut hand = Hand::ready(Knobs { sub_channels_after: 50, ..Knobs::default() });
    assert_eq!(hand.ask(13, 2).u32(8), 0);
    assert_eq!(hand.messages(), []);
    hand.guest.advance(50);
    let offers = hand.messages();
    // The index among the user's words, the channel, the connection to signal.
    let seen: Vec<_> = offers.iter().map(|(_, words)| (words[43], words[44], words[46])).collect();
    assert_eq!(seen, [(1, 2, 0x2002), (2, 3, 0x2003)]);
    hand.gpadl(2, 77, FIRST_PAGE + 64, 8);
    hand.guest.store((FIRST_PAGE + 64) * 4096 + 64, 1).unwrap();
    hand.post_on(1, &Hand::open_message(2, 77, 1, 4));
    assert_eq!(hand.types(), [10, 6]);
    assert_eq!(hand.host.open_channels(), [1, 2]);
    hand.post(7, &[1]);
    assert_eq!(hand.messages(), [(2, vec![2]), (2, vec![3])]);
    hand.post(11, &[2, 77]);
    hand.post(13, &[2]);
    hand.post(13, &[3]);
    hand.post(11, &[1, HANDLE]);
    hand.types();
    assert_eq!((hand.host.gpadls(), hand.breaches()), (0, &[][..]));
}

#[test]
fn contact_again_is_a_new_beginning() {
    let mut hand = Hand::ready(Knobs::default());
    assert!(hand.contact(0x3_0000));
    assert_eq!((hand.host.open_channels(), hand.host.gpadls()), (vec![], 0));
    hand.post(3, &[]);
    assert_eq!(hand.types(), [1, 4]);
    hand.open_channel();
    hand.initialise(0x0501);
    hand.post(16, &[]);
    assert_eq!((hand.types(), hand.host.agreed()), (vec![17], None));
    assert_eq!(hand.breaches(), []);
}

#[test]
fn modify_is_answered_from_5_3_on() {
    for (version, answered) in [(0x4_0001, false), (0x5_0003, true)] {
        let mut hand = Hand::open(Knobs { version, ..Knobs::default() });
        hand.post(22, &[1, 1]);
        assert_eq!(!hand.types().is_empty(), answered);
        hand.initialise(0x0600);
        assert_eq!(hand.breaches().len(), 4, "the other processor's controller is off: {:?}", hand.breaches());
    }
}

#[test]
fn old_packets_are_short() {
    let mut hand = Hand::open(Knobs::default());
    hand.initialise(0x0402);
    let answer = hand.read(5).unwrap();
    assert_eq!((answer.payload.len(), answer.status()), (48, (1, 0, 512)));
    assert_eq!(hand.data(16), Disk::pattern(1, 5)[..16]);
    assert_eq!(hand.breaches(), []);
}

#[test]
fn units_that_are_not_there_in_both_styles() {
    let mut hand = Hand::ready(Knobs::default());
    let ask = |hand: &mut Hand, cdb: &[u8], len| {
        let (range, mut payload) = hand.command(cdb, if len > 0 { 1 } else { 2 }, len);
        payload[19] = 5;
        hand.send(if len > 0 { 9 } else { 6 }, 1, &range, &payload);
        hand.receive().unwrap()
    };
    assert_eq!(ask(&mut hand, &[0x12, 0, 0, 0, 36, 0], 36).status(), (1, 0, 36));
    assert_eq!(hand.data(1), [0x7f]);
    assert_eq!(ask(&mut hand, &[0x12, 1, 0x80, 0, 36, 0], 36).status(), (6, 2, 0));
    let other = ask(&mut hand, &[0; 6], 0);
    assert_eq!((other.status(), other.u32(8)), ((0x20, 2, 0), 0xc000_00c0));
    hand.host.knobs.absent = Absent::InvalidWithSense;
    assert_eq!(ask(&mut hand, &[0x12, 0, 0, 0, 36, 0], 36).status(), (0xa0, 2, 36));
    let other = ask(&mut hand, &[0; 6], 0);
    assert_eq!((other.status().0, other.payload[28 + 12]), (0xa0, 0x25));
    // REPORT LUNS has an answer even where there is nothing.
    hand.host.controller(0).unwrap().targets.clear();
    let answer = hand.execute(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 1, 64).unwrap();
    assert_eq!((answer.status(), hand.data(8)), ((1, 0, 8), vec![0; 8]));
}

#[test]
fn disks_come_and_go() {
    let mut hand = Hand::ready(Knobs { tells_removal: true, ..Knobs::default() });
    hand.host.add_lun(0, 0, 3, Lun::new(Disk::new(64), LunSettings::default()));
    hand.work();
    let said = hand.receive().unwrap();
    assert_eq!((said.kind, said.flags, said.u32(0)), (6, 0, 11));
    // The list, after the attention that says that it changed.
    assert_eq!(hand.read(0).unwrap().status(), (0x84, 2, 0));
    let answer = hand.execute(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], 1, 64).unwrap();
    assert_eq!((answer.status().2, hand.data(24)[17]), (24, 3));
    assert!(hand.host.remove_lun(0, 0, 3).is_some());
    hand.work();
    let removed = hand.receive().unwrap();
    assert_eq!((removed.flags, removed.u32(0)), (1, 2));
    hand.transaction = removed.transaction;
    hand.send(0xb, 0, &[], &removed.payload);
    assert_eq!(hand.receive().unwrap().u32(0), 11);
    hand.host.resize(0, 0, 0, 100);
    assert_eq!(hand.read(0).unwrap().status(), (0x84, 2, 0), "the list has changed");
    assert_eq!(hand.read(0).unwrap().payload[40..42], [0x2a, 9]);
    assert_eq!(hand.breaches(), []);
}

#[test]
fn a_second_controller_and_an_ide_disk_are_offered() {
    let mut hand = Hand::new(Knobs::default());
    hand.host.add_controller(Controller::ide(1, 0, disk()));
    hand.registers();
    assert!(hand.contact(0x4_0000));
    hand.post(3, &[]);
    let offers = hand.messages();
    assert_eq!(offers.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [1, 1, 4]);
    assert_eq!(offers[1].1[..4], [0x3241_2632, 0x44a2_86cb, 0xd150_5c9b, 0xf554_7341]);
    assert_eq!((offers[1].1[4], offers[1].1[5]), (1, 0), "channel and device");
    assert_eq!((offers[1].1[13] >> 16, offers[1].1[15]), (1, 2), "path and flags");
    let index = hand.host.add_controller(Controller::scsi(9, disk()));
    hand.host.offer_new(&hand.guest);
    assert_eq!((index, hand.types()), (2, vec![1]));
}

#[test]
fn events_happen_after_their_step() {
    let mut hand = Hand::new(Knobs::default());
    hand.host.faults.events = Script::none().at(1, Event::Rescind(1));
    hand.registers();
    assert!(hand.contact(0x6_0000));
    assert_eq!(hand.counts().steps, 1);
    hand.post(3, &[]);
    assert_eq!(hand.types(), [1, 4, 2]);
}
