//! Every breach of the interface that the model names, committed by hand and noticed.

use undercroft_hosts::hyperv::{Breach, Guest, Knobs};

use super::hand::{DATA, FIRST_PAGE, HANDLE, Hand, INPUT, message};

fn plain() -> Knobs {
    Knobs::default()
}

/// What `f` does wrong with a guest whose storage device is ready.
pub fn ready(f: impl FnOnce(&mut Hand)) -> Vec<Breach> {
    let mut hand = Hand::ready(plain());
    f(&mut hand);
    hand.breaches().to_vec()
}

/// The same with a channel that was offered and not opened.
fn offered(f: impl FnOnce(&mut Hand)) -> Vec<Breach> {
    let mut hand = Hand::new(plain());
    hand.registers();
    assert!(hand.contact(0x6_0000));
    hand.post(3, &[]);
    hand.messages();
    hand.prepare_rings();
    f(&mut hand);
    hand.breaches().to_vec()
}

#[test]
fn a_good_guest_has_none() {
    let breaches = ready(|hand| {
        assert_eq!(hand.read(3).unwrap().status(), (1, 0, 512));
        hand.post(7, &[1]);
        hand.post(11, &[1, HANDLE]);
        assert_eq!(hand.messages(), [(12, vec![HANDLE])]);
        hand.post(16, &[]);
        assert_eq!(hand.types(), [17]);
        assert_eq!(hand.counts().needless_signals, 0);
        assert_eq!(hand.counts().needless_eoms, 0);
    });
    assert_eq!(breaches, []);
}

#[test]
fn registers_misused() {
    let mut hand = Hand::new(plain());
    assert!(hand.host.rdmsr(&hand.guest, 0, 0x4000_0084).is_err());
    assert!(hand.host.rdmsr(&hand.guest, 0, 0x4000_00c0).is_err());
    for (register, value) in [
        (0x4000_0002, 1),
        (0x4000_0001, 0x1004),
        (0x4000_0080, 2),
        (0x4000_0083, 0x2002),
        (0x4000_0021, 0x2002),
        (0x4000_0092, 15),
        (0x4000_0092, 1 << 40),
        (0x4000_00b0, 1),
    ] {
        assert!(!hand.wrmsr(register, value), "{register:#x}");
    }
    assert!(hand.wrmsr(0x4000_0001, 0x1001), "the bit stays clear");
    assert_eq!(hand.host.rdmsr(&hand.guest, 0, 0x4000_0001), Ok(0x1000));
    hand.wrmsr(0x4000_0000, 5);
    hand.wrmsr(0x4000_0092, 0x40 | 1 << 17);
    assert_eq!(hand.call(0x5c, INPUT), 2);
    hand.wrmsr(0x4000_0083, 1 << 40 | 1);
    let expected = [
        Breach::NoSuchRead(0x4000_0084),
        Breach::NoSuchRead(0x4000_00c0),
        Breach::NoSuchWrite(0x4000_0002),
        Breach::RegisterBits(0x4000_0001, 0x1004),
        Breach::RegisterBits(0x4000_0080, 2),
        Breach::RegisterBits(0x4000_0083, 0x2002),
        Breach::RegisterBits(0x4000_0021, 0x2002),
        Breach::RegisterBits(0x4000_0092, 15),
        Breach::RegisterBits(0x4000_0092, 1 << 40),
        Breach::RegisterBits(0x4000_00b0, 1),
        Breach::NoOsId,
        Breach::RegisterBits(0x4000_0000, 5),
        Breach::RegisterBits(0x4000_0092, 0x40 | 1 << 17),
        Breach::HypercallPageOff,
        Hand::bad(1 << 40, 4096),
    ];
    assert_eq!(hand.breaches(), expected);
}

#[test]
fn hypercalls_misused() {
    let breaches = offered(|hand| {
        let statuses = [
            hand.call(0x5e, 0),
            hand.call(0x1_005c, 0),
            hand.call(0x5c, INPUT + 4),
            hand.call(0x5c, INPUT + 0xf08),
            hand.call(0x5c, 1 << 40),
            hand.post_on(2, &message(16, &[])),
            hand.call(0x1_005d, 0x2001),
            hand.call(0x1_005d, 1 << 32 | 0x2001),
        ];
        assert_eq!(statuses, [2, 3, 4, 3, 3, 0x12, 0x12, 5]);
        // The rest of the block: reserved, message type, size.
        for (at, value) in [(4, 1u32), (8, 2), (12, 241)] {
            let mut block: Vec<u8> = [1u32, 0, 1, 8].iter().flat_map(|word| word.to_le_bytes()).collect();
            block[at..at + 4].copy_from_slice(&value.to_le_bytes());
            hand.guest.write(INPUT, &block).unwrap();
            assert_eq!(hand.call(0x5c, INPUT), 5);
        }
    });
    let expected = [
        Breach::UnknownHypercall(0x5e),
        Breach::HypercallControl(0x1_005c),
        Breach::HypercallInput(INPUT + 4),
        Breach::HypercallInput(INPUT + 0xf08),
        Hand::bad(1 << 40, 256),
        Breach::PostConnection(2),
        Breach::SignalConnection(0x2001),
        Breach::HypercallParameter("a flag number that is not 0"),
        Breach::HypercallParameter("a reserved word that is not zero"),
        Breach::HypercallParameter("a message type that is not VMBus's"),
        Breach::HypercallParameter("a message longer than 240 bytes"),
    ];
    assert_eq!(breaches, expected);
}

#[test]
fn contacts_that_cannot_be() {
    let mut hand = Hand::new(plain());
    hand.registers();
    hand.post(3, &[]);
    let contact =
        |version, target, word, features, page| message(14, &[version, target, word, features, page, 0, 0, 0]);
    hand.post_on(4, &contact(0x4_0000, 0, 0, 0, 0));
    hand.post_on(1, &contact(0x2_0004, 1, 0, 0, 0));
    hand.post_on(1, &contact(0x3_0000, 2, 0, 0, 0));
    hand.post_on(4, &contact(0x5_0000, 0, 0x102, 0, 0));
    hand.post_on(4, &contact(0x5_0003, 0, 2, 1, 0));
    hand.post_on(4, &contact(0x6_0000, 0, 2, 0, 0x9000));
    hand.post_on(4, &contact(0x6_0000, 0, 2, 8, 0));
    hand.post_on(4, &message(16, &[]));
    assert_eq!(hand.types(), []);
    let expected = [
        Breach::BeforeContact(3),
        Breach::Contact("a version before 5.0 on the later versions' connection"),
        Breach::Contact("a target processor that there is not"),
        Breach::Contact("a target processor that there is not"),
        Breach::Contact("an interrupt source or trust level that there is not"),
        Breach::Contact("features in a version that has none"),
        Breach::Contact("one monitor page"),
        Breach::MessageSize(14, 40),
        Breach::PostConnection(4),
    ];
    assert_eq!(hand.breaches(), expected);
}

#[test]
fn messages_misused() {
    let breaches = offered(|hand| {
        hand.post(3, &[]);
        hand.post(99, &[]);
        hand.post(26, &[1]);
        hand.post(7, &[1, 2]);
        hand.post_on(1, &[7, 0, 0]);
        hand.post(7, &[5]);
        hand.post(7, &[1]);
        hand.post(13, &[1]);
        hand.post(22, &[1, 0]);
        hand.post_on(1, &[7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    });
    let expected = [
        Breach::OffersTwice,
        Breach::UnknownMessage(99),
        Breach::UnknownMessage(26),
        Breach::MessageSize(7, 16),
        Breach::MessageSize(7, 3),
        Breach::NoSuchChannel(7, 5),
        Breach::ChannelState(7, 1),
        Breach::ChannelState(13, 1),
        Breach::ChannelState(22, 1),
        Breach::HypercallParameter("a message whose second word is not zero"),
    ];
    assert_eq!(breaches, expected);
}

#[test]
fn lists_that_cannot_be() {
    let breaches = offered(|hand| {
        let mut header = |handle: u32, size: u32, count: u32, offset: u32, pages: &[u64]| {
            let page_bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
            hand.post_on(1, &[message(8, &[1, handle, size, count, offset]), page_bytes].concat());
            hand.types()
        };
        assert_eq!(header(0, 1 << 16 | 16, 4096, 0, &[9]), []);
        for (handle, size, count, offset, pages) in [
            (1, 2 << 16 | 16, 4096, 0, &[9][..]),
            (2, 1 << 16 | 12, 4096, 0, &[9]),
            (3, 1 << 16 | 16, 4096, 0, &[9, 10]),
            (4, 1 << 16 | 24, 4096, 0, &[9]),
            (5, 1 << 16 | 16, 4096, 4096, &[9]),
            (6, 1 << 16 | 16, 8192, 0, &[9]),
            (7, 1 << 16 | 16, 100, 8, &[9]),
            (8, 1 << 16 | 16, 4096, 0, &[1 << 40]),
        ] {
            assert_eq!(header(handle, size, count, offset, pages), [10], "{handle}");
        }
        hand.post_on(1, &[message(9, &[0, 77]), vec![0; 8]].concat());
        hand.gpadl(1, 9, FIRST_PAGE, 4);
        hand.gpadl(1, 9, FIRST_PAGE, 4);
        hand.post(11, &[1, 78]);
        hand.host.knobs.torn_down_after = 100;
        hand.post(11, &[1, 9]);
        hand.post(11, &[1, 9]);
    });
    let expected = [
        Breach::Gpadl("a handle that is zero or in use"),
        Breach::Gpadl("not one range"),
        Breach::Gpadl("range data of an impossible length"),
        Breach::Gpadl("more data than announced"),
        Breach::Gpadl("a part that is not full and not the last"),
        Breach::Gpadl("an offset beyond the first page"),
        Breach::Gpadl("a number of pages that does not fit the range"),
        Breach::Gpadl("not whole pages"),
        Breach::Gpadl("a page number beyond any memory"),
        Breach::Gpadl("a body without a header"),
        Breach::Gpadl("a handle that is zero or in use"),
        Breach::Gpadl("torn down unknown"),
        Breach::Gpadl("torn down twice"),
    ];
    assert_eq!(breaches, expected);
}

#[test]
fn openings_that_cannot_be() {
    let breaches = offered(|hand| {
        hand.gpadl(1, HANDLE, FIRST_PAGE, 34);
        hand.messages();
        let mut open = |handle, vp, start| {
            hand.post_on(1, &Hand::open_message(1, handle, vp, start));
            let said = hand.messages();
            assert_eq!((said[0].0, said[0].1[2]), (6, 0xc000_000d));
        };
        open(5, 0, 17);
        open(HANDLE, 2, 17);
        open(HANDLE, 0, 1);
        open(HANDLE, 0, 33);
        open(HANDLE, 0, 40);
        hand.guest.store(hand.control(false) + 4, 8).unwrap();
        hand.post_on(1, &Hand::open_message(1, HANDLE, 0, 17));
        hand.guest.store(hand.control(false) + 4, 0).unwrap();
        hand.guest.store(hand.control(true), 8).unwrap();
        hand.post_on(1, &Hand::open_message(1, HANDLE, 0, 17));
        hand.guest.store(hand.control(true), 0).unwrap();
        hand.guest.store(hand.control(false) + 64, 0).unwrap();
        hand.post_on(1, &Hand::open_message(1, HANDLE, 0, 17));
        hand.guest.store(hand.control(false) + 64, 1).unwrap();
        hand.post_on(1, &Hand::open_message(1, HANDLE, 0, 17));
        hand.post_on(1, &Hand::open_message(1, HANDLE, 0, 17));
        hand.post(11, &[1, HANDLE]);
        hand.post_on(1, &Hand::open_message(1, HANDLE, 0, 17)[..144]);
    });
    let expected = [
        Breach::Open("a GPADL that there is not"),
        Breach::Open("a target processor that there is not"),
        Breach::Open("a ring without a data page"),
        Breach::Open("a ring without a data page"),
        Breach::Open("a ring without a data page"),
        Breach::Open("a ring for the host that is not empty"),
        Breach::Open("a ring for the guest that is not empty"),
        Breach::Open("a ring for the host without its feature"),
        Breach::ChannelState(5, 1),
        Breach::Gpadl("torn down while its channel is open"),
        Breach::MessageSize(5, 144),
    ];
    assert_eq!(breaches, expected);
}

#[test]
fn fields_of_the_rings_that_are_not_the_guests() {
    for (for_guest, offset, value, what) in [
        (false, 4, 8, "out of the ring for the host"),
        (false, 8, 1, "interrupt mask of the ring for the host"),
        (true, 0, 0, "in of the ring for the guest"),
        (true, 12, 64, "pending send size of the ring for the guest"),
        (true, 64, 0, "features of the ring for the guest"),
    ] {
        let breaches = ready(|hand| {
            let at = hand.control(for_guest) + offset;
            let taken = hand.counts().taken;
            hand.guest.store(at, value).unwrap();
            hand.send(6, 1, &[], &[0; 64]);
            assert_eq!(hand.counts().taken, taken, "{what}: the channel is dead");
        });
        assert_eq!(breaches, [Breach::HostsField(1, what)]);
    }
}

#[test]
fn indices_that_cannot_be() {
    for (for_guest, offset, value, what) in [
        (false, 0, 4, "a write offset that cannot be"),
        (false, 0, 0x10000, "a write offset that cannot be"),
        (true, 4, 0x10000, "a read offset that cannot be"),
        (true, 4, 3, "a read offset that cannot be"),
        (true, 4, 0x8000, "a read offset that cannot be"),
        (true, 8, 2, "an interrupt mask that is neither 0 nor 1"),
    ] {
        let breaches = ready(|hand| {
            let at = hand.control(for_guest) + offset;
            hand.guest.store(at, value).unwrap();
            hand.call(0x1_005d, 0x2001);
            hand.work();
        });
        assert_eq!(breaches, [Breach::Ring(1, what)], "{for_guest} {offset} {value}");
    }
    let breaches = ready(|hand| {
        let bytes = hand.packet(6, 1, &[], &[0; 64]);
        hand.put(&bytes);
        hand.call(0x1_005d, 0x2001);
        let at = hand.control(false);
        hand.guest.store(at, hand.sent - 8).unwrap();
        hand.work();
    });
    assert_eq!(breaches, [Breach::Ring(1, "a write offset that went back")]);
}

#[test]
fn initialisation_out_of_order() {
    let mut hand = Hand::open(plain());
    for (operation, status) in [
        (9, 0xc000_0184),
        (7, 0),
        (7, 0xc000_0184),
        (10, 0xc000_0184),
        (9, 0xc000_0059),
        (8, 0xc000_0184),
        (3, 0xc000_0184),
    ] {
        // The version asked for is one that there is not.
        assert_eq!(hand.ask(operation, 0x0602).u32(8), status, "operation {operation}");
    }
    let expected = [9, 7, 10, 8, 3].map(Breach::InitOrder);
    assert_eq!(hand.breaches(), expected);
    assert_eq!(hand.ask(9, 0x0600).u32(8), 0);
    assert_eq!(hand.ask(10, 0).u32(8), 0);
    assert_eq!(hand.ask(13, 9).u32(8), 0xc000_000d);
    assert_eq!(hand.breaches().last(), Some(&Breach::Stor("more sub-channels than there are")));
    hand.send(6, 1, &[], &[0; 48]);
    assert_eq!(hand.breaches().last(), Some(&Breach::Stor("a payload of an impossible length")));
}

#[test]
fn a_list_left_over_at_release_is_noticed() {
    let mut hand = Hand::ready(plain());
    hand.host.rescind(&hand.guest, 1);
    assert_eq!(hand.types(), [2]);
    hand.post(13, &[1]);
    assert_eq!(hand.breaches(), [Breach::Gpadl("left over when its channel was released")]);
}

#[test]
fn memory_given_up_while_the_host_has_it_is_noticed() {
    let mut hand = Hand::ready(plain());
    hand.host.faults.packets = undercroft_hosts::Script::none().at(0, undercroft_hosts::hyperv::Fault::Never);
    assert_eq!(hand.read(1), None);
    hand.host.rescind(&hand.guest, 1);
    hand.messages();
    // The guest uses the memory again before it was told that it may, and finds the host in it.
    hand.guest.write(DATA, &[0x11; 512]).unwrap();
    hand.post(11, &[1, HANDLE]);
    assert_eq!(hand.types(), [12]);
    assert_eq!(hand.data(512), [0xdb; 512]);
}

#[test]
fn signals_for_nothing_are_counted() {
    let mut hand = Hand::ready(plain());
    let before = hand.counts();
    // Two packets, a signal for each: the second has nothing to tell.
    let (range, payload) = hand.command(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 1, 512);
    for _ in 0..2 {
        let bytes = hand.packet(9, 1, &range, &payload);
        hand.put(&bytes);
        hand.call(0x1_005d, 0x2001);
    }
    hand.work();
    hand.signal();
    let counts = hand.counts();
    assert_eq!((counts.signals - before.signals, counts.needless_signals - before.needless_signals), (3, 2));
    assert_eq!(counts.taken - before.taken, 2);
    hand.wrmsr(0x4000_0084, 0);
    assert_eq!(hand.counts().needless_eoms, before.needless_eoms + 1);
    assert_eq!(hand.breaches(), []);
}
