//! Packets and requests that cannot be, committed by hand and noticed.

use undercroft_hosts::hyperv::Breach;

use super::breaches::ready;
use super::hand::Hand;

#[test]
fn packets_that_cannot_be() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 9] = [
        (|bytes| bytes.truncate(16), "less than a header"),
        (|bytes| bytes[4] = 1, "a length beyond what was published"),
        (|bytes| bytes[4] = 12, "a length beyond what was published"),
        (|bytes| bytes[2] = 1, "a payload offset outside"),
        (|bytes| bytes[2] = 40, "a payload offset outside"),
        (|bytes| bytes[80] = 1, "a trailer whose first word is not zero"),
        (|bytes| bytes[84] ^= 8, "a trailer without the packet's place"),
        (|bytes| bytes[0] = 7, "an unknown type"),
        (|bytes| bytes[6] = 3, "flags other than completion wanted"),
    ];
    for (change, what) in changes {
        let breaches = ready(|hand| {
            let (_, payload) = hand.command(&[0; 6], 2, 0);
            let mut bytes = hand.packet(6, 1, &[], &payload);
            change(&mut bytes);
            hand.put(&bytes);
            hand.signal();
            assert_eq!(hand.receive(), None);
        });
        assert_eq!(breaches, [Breach::Packet(1, what)]);
    }
    let more = ready(|hand| hand.send(6, 1, &[0; 8], &[0; 64]));
    assert_eq!(more, [Breach::Packet(1, "an extension in band")]);
    let end = ready(|hand| hand.send(0xb, 0, &[], &[0; 64]));
    assert_eq!(end, [Breach::Packet(1, "the end of a transaction that the host did not begin")]);
}

/// What is changed in a command's range and payload, and whether the channel lives on.
type Change = (fn(&mut Vec<u8>, &mut Vec<u8>), bool, &'static str);

#[test]
fn requests_that_cannot_be() {
    let changes: [Change; 17] = [
        (|_, payload| payload[12] = 36, true, "a request of an impossible length"),
        (|_, payload| payload[20] = 17, true, "a CDB of an impossible length"),
        (|_, payload| payload[21] = 0x12, true, "room for sense data of an impossible length"),
        (|_, payload| payload[14] = 1, true, "a status before there is one"),
        (|_, payload| payload[52] = 0x88, true, "flags that contradict the direction"),
        (|_, payload| payload[4] = 0, true, "flags other than completion wanted"),
        (|range, _| range.truncate(16), false, "a range whose pages do not fit it"),
        (|range, _| range[13] = 0x10, false, "a range whose pages do not fit it"),
        (|range, _| range[4] = 2, false, "not one range"),
        (|range, _| range[0] = 1, false, "not one range"),
        (|range, _| range[9] = 1, false, "a range shorter than the transfer"),
        (|range, _| range[22] = 1, false, "a page number beyond any memory"),
        (|_, payload| payload[0] = 77, false, "a range with something that moves no data"),
        (|_, payload| payload.truncate(56), false, "a payload of an impossible length"),
        (|_, payload| payload[22] = 3, true, "a direction that there is not"),
        (|_, payload| payload[26] = 8, false, "a range shorter than the transfer"),
        (|_, payload| (payload[22], payload[52]) = (0, 0x88), true, "data in the other direction than the command's"),
    ];
    for (change, lives, what) in changes {
        let breaches = ready(|hand| {
            let (mut range, mut payload) = hand.command(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 1, 512);
            change(&mut range, &mut payload);
            hand.send(9, 1, &range, &payload);
            assert_eq!(hand.receive().is_some(), lives, "{what}");
        });
        assert_eq!(breaches.first(), Some(&Breach::Stor(what)), "{breaches:?}");
    }
    let unknown = ready(|hand| {
        hand.send(6, 1, &[], &[[77, 0, 0, 0, 1].to_vec(), vec![0; 59]].concat());
        assert_eq!(hand.receive(), None);
    });
    assert_eq!(unknown, [Breach::Stor("an unknown operation")]);
}

#[test]
fn more_requests_that_cannot_be() {
    let long = ready(|hand| {
        let answer = hand.execute(&[0x28, 0, 0, 0, 0, 1, 0, 4, 0, 0], 1, 0x8_0000).unwrap();
        assert_eq!(answer.status(), (1, 0, 0x8_0000));
    });
    assert_eq!(long, [Breach::Stor("more data than the host moves at a time")]);
    let twice = ready(|hand| {
        let (range, payload) = hand.command(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 1, 512);
        for _ in 0..2 {
            let bytes = hand.packet(9, 1, &range, &payload);
            hand.put(&bytes);
            hand.transaction = 99;
        }
        let bytes = hand.packet(9, 1, &range, &payload);
        hand.transaction = 99;
        hand.put(&bytes);
        hand.signal();
    });
    assert_eq!(twice, [Breach::TransactionInUse(99)]);
    let memory = ready(|hand| {
        let (mut range, payload) = hand.command(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 1, 512);
        range[16..24].copy_from_slice(&0x9999u64.to_le_bytes());
        hand.send(9, 1, &range, &payload);
        assert_eq!(hand.receive().unwrap().status(), (4, 0, 0));
    });
    assert_eq!(memory, [Hand::bad(0x0999_9000, 512)]);
}
