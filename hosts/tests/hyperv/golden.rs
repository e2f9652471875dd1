//! Transcripts of a guest with OpenVMM's server, played again: the model has to say the same, byte by byte, but for what its disk says of itself.

use undercroft_hosts::hyperv::{Guest, Knobs};

use super::hand::{FIRST_PAGE, Hand};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Commands whose answers are as long as the disk's own data.
const OWN_DATA: [&str; 4] = ["INQUIRY VPD 00", "INQUIRY VPD 83", "MODE SENSE(6) 3f", "MODE SENSE(6) 08"];

/// Plays a transcript; how many lines were compared.
fn play(transcript: &str, connection: u32) -> usize {
    // The server there has one sub-channel.
    let knobs = Knobs { sub_channels: 1, ..Knobs::default() };
    let mut hand = Hand::new(knobs);
    hand.connection = connection;
    hand.host.controller(0).unwrap().instance = hex("1b78b3f8821e1848a1c363d806ec15bb").try_into().unwrap();
    hand.registers();
    hand.prepare_rings();
    let (mut compared, mut title) = (0, "");
    for line in transcript.lines() {
        if let Some(rest) = line.strip_prefix("post conn=") {
            let (connection, bytes) = rest.split_once(' ').unwrap();
            assert_eq!(hand.post_on(connection.parse().unwrap(), &hex(bytes)), 0);
            hand.work();
        } else if let Some(bytes) = line.strip_prefix("slot ") {
            hand.work();
            let (mut expected, mut said) = (hex(bytes), hand.slot().expect(line));
            // Whether the next message was there already is a matter of time.
            (expected[5], said[5]) = (0, 0);
            let len = said.len();
            expected.resize(len.max(16 + usize::from(expected[4])), 0);
            assert_eq!(said, expected, "{line}");
            compared += 1;
        } else if let Some(rest) = line.strip_prefix("send chan=1 at=") {
            let (at, bytes) = rest.split_once(' ').unwrap();
            assert_eq!(hand.sent, at.parse().unwrap());
            hand.put(&hex(bytes));
            hand.signal();
        } else if let Some(rest) = line.strip_prefix("recv chan=1 at=") {
            let (at, bytes) = rest.split_once(' ').unwrap();
            let at: u32 = at.parse().unwrap();
            let mut expected = hex(bytes);
            let mut said = vec![0; expected.len()];
            hand.raw_read(at, &mut said);
            if OWN_DATA.contains(&title) {
                expected[40..44].fill(0);
                said[40..44].fill(0);
            }
            assert_eq!(said, expected, "{title}: {line}");
            hand.receive().unwrap();
            compared += 1;
        } else if let Some(what) = line.strip_prefix("# ").filter(|what| !what.starts_with("->")) {
            title = what;
        }
    }
    assert_eq!(hand.slot(), None, "nothing is left over");
    assert_eq!(hand.breaches(), []);
    compared
}

#[test]
fn version_5_3_byte_by_byte() {
    assert_eq!(play(include_str!("transcript-5.3.txt"), 0x2001), 33);
}

#[test]
fn version_6_0_byte_by_byte() {
    assert_eq!(play(include_str!("transcript-6.0.txt"), 0x2001), 33);
}

#[test]
#[should_panic(expected = "INQUIRY VPD B2: recv")]
fn a_transcript_that_differs_is_noticed_control() {
    let changed =
        include_str!("transcript-5.3.txt").replace("00010000000000101400000800000", "00010000000000101400000900000");
    play(&changed, 0x2001);
}

#[test]
fn the_ring_lies_where_the_transcript_says() {
    let hand = Hand::new(Knobs::default());
    assert_eq!((hand.control(false), hand.control(true)), (FIRST_PAGE * 4096, 0x111 * 4096));
    assert_eq!(hand.guest.load(hand.control(true)).unwrap(), 0);
}
