//! Golden vectors: what a guest and an independent host (OpenVMM) said to each other, byte by byte, at VMBus 5.3 and 6.0. What this driver
//! would say in the same places is the same; what the host said is understood as it was meant.

use undercroft_block::scsi::{Cdb, Direction, Response, Status};

use crate::bus::{contact, gpadl_messages, open_message};
use crate::defect::Defects;
use crate::host::outcome;
use crate::host::packet::{self, Range, Unit, Vstor};
use crate::ring::tests::Plain;
use crate::ring::{Receiver, Sender};
use crate::wire::message::{
    GpadlTeardown, Header, Kind, OfChannel, OfferChannel, OpenResult, Version as Bus, VersionResponse,
};
use crate::wire::ring::{PacketFlags, PacketType};
use crate::wire::vstor::{Operation, Properties, REVISION_MISMATCH, Version};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

const TRANSCRIPTS: [(Bus, &str); 2] = [
    (Bus::V5_3, include_str!("../../testdata/transcript-v5_3.txt")),
    (Bus::V6_0, include_str!("../../testdata/transcript-v6_0.txt")),
];
/// Bytes of either ring's data area in the transcripts.
const SIZE: u32 = 16 * 4096 - 4096;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())).collect()
}

/// The lines that begin with `what`, and what follows.
fn lines<'a>(transcript: &'a str, what: &'a str) -> impl Iterator<Item = &'a str> + 'a {
    transcript.lines().filter_map(move |line| line.strip_prefix(what))
}

/// `(connection, message)` of each post.
fn posts(transcript: &str) -> Vec<(u32, Vec<u8>)> {
    lines(transcript, "post conn=")
        .map(|line| {
            let (connection, message) = line.split_once(' ').unwrap();
            (connection.parse().unwrap(), hex(message))
        })
        .collect()
}

/// The payloads of the messages in the slot.
fn slots(transcript: &str) -> Vec<Vec<u8>> {
    lines(transcript, "slot ").map(hex).map(|bytes| bytes[16..16 + usize::from(bytes[4])].to_vec()).collect()
}

/// `(where, packet with trailer)` of each packet.
fn packets(transcript: &str, way: &str) -> Vec<(u32, Vec<u8>)> {
    lines(transcript, way)
        .map(|line| {
            let (at, packet) = line.split_once(' ').unwrap();
            (at.parse().unwrap(), hex(packet))
        })
        .collect()
}

#[test]
fn the_messages_to_the_host() {
    for (version, transcript) in TRANSCRIPTS {
        let posts = posts(transcript);
        let (channel, gpadl, open_id) = (1, 0xe_1e10, 0xabcd);
        let mut expected = vec![(4, contact(version, 0).as_bytes().to_vec())];
        expected.push((1, Header::new(Kind::REQUEST_OFFERS).as_bytes().to_vec()));
        gpadl_messages(channel, gpadl, (0x100..0x122).collect::<Vec<u64>>().into_iter(), |message| {
            expected.push((1, message.to_vec()));
            Ok(())
        })
        .unwrap();
        let signals = (version >= Bus::V6_0).then_some((0x2001, 1));
        expected.push((1, open_message(channel, (open_id, gpadl), (0, 17), signals).to_vec()));
        let of_channel = |kind| OfChannel { header: Header::new(kind), channel: U32::new(channel) }.as_bytes().to_vec();
        expected.push((1, of_channel(Kind::CLOSE)));
        let teardown = GpadlTeardown {
            header: Header::new(Kind::GPADL_TEARDOWN),
            channel: U32::new(channel),
            gpadl: U32::new(gpadl),
        };
        expected.push((1, teardown.as_bytes().to_vec()));
        expected.push((1, Header::new(Kind::UNLOAD).as_bytes().to_vec()));
        for (ours, theirs) in expected.iter().zip(&posts) {
            assert_eq!(ours, theirs, "{version}");
        }
        assert_eq!(expected.len(), posts.len(), "{version}");
    }
}

#[test]
fn the_messages_of_the_host() {
    for (version, transcript) in TRANSCRIPTS {
        let slots = slots(transcript);
        let response = VersionResponse::ref_from_prefix(&slots[0]).unwrap().0;
        assert_eq!((response.supported, response.state, response.selected.get()), (1, 0, 1), "{version}");
        let offer = OfferChannel::ref_from_prefix(&slots[1]).unwrap().0;
        assert_eq!(offer.interface, super::guid::Guid::SCSI);
        assert_eq!(offer.instance.to_string(), "f8b3781b-1e82-4818-a1c3-63d806ec15bb");
        assert_eq!((offer.channel.get(), offer.connection.get(), offer.sub_channel.get()), (1, 0x2001, 0));
        let sub = slots.iter().filter_map(|slot| OfferChannel::ref_from_prefix(slot).ok()).nth(1).unwrap().0;
        assert_eq!((sub.channel.get(), sub.connection.get(), sub.sub_channel.get()), (2, 0x2002, 1));
        let kinds: Vec<u32> = slots.iter().map(|slot| Header::ref_from_prefix(slot).unwrap().0.kind.get()).collect();
        assert_eq!(kinds, [15, 1, 4, 10, 6, 1, 2, 12, 17], "{version}");
        let opened = OpenResult::ref_from_prefix(&slots[4]).unwrap().0;
        assert_eq!((opened.channel.get(), opened.open_id.get(), opened.status.get()), (1, 0xabcd, 0));
    }
}

/// What the guest of the transcripts sent, in order: a step of the initialisation, or a command.
enum Sent {
    Step(Vstor),
    Command(&'static [u8], Direction, u32),
}

fn sent() -> Vec<Sent> {
    use Direction::{In, None, Out};
    let number = |operation, number| Sent::Step(packet::with_number(operation, number));
    let plain = |operation| Sent::Step(packet::plain(operation));
    let command = |cdb, way, bytes| Sent::Command(cdb, way, bytes);
    vec![
        plain(Operation::BEGIN_INITIALIZATION),
        number(Operation::QUERY_PROTOCOL_VERSION, Version::WIN10.0),
        number(Operation::QUERY_PROTOCOL_VERSION, Version::WIN8_1.0),
        plain(Operation::QUERY_PROPERTIES),
        plain(Operation::END_INITIALIZATION),
        number(Operation::CREATE_SUB_CHANNELS, 1),
        command(&[0; 6], None, 0),
        command(&[0x12, 0, 0, 0, 0x24, 0], In, 0x24),
        command(&[0x12, 1, 0, 0, 0x40, 0], In, 0x40),
        command(&[0x12, 1, 0x83, 0, 0x80, 0], In, 0x80),
        command(&[0x12, 1, 0xb0, 0, 0x40, 0], In, 0x40),
        command(&[0x12, 1, 0xb2, 0, 0x40, 0], In, 0x40),
        command(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0], In, 0x40),
        command(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], In, 8),
        command(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0], In, 0x20),
        command(&[0x1a, 0, 0x3f, 0, 0xc0, 0], In, 0xc0),
        command(&[0x1a, 0, 8, 0, 0xc0, 0], In, 0xc0),
        command(&[0x2a, 0, 0, 0, 0, 8, 0, 0, 1, 0], Out, 0x200),
        command(&[0x28, 0, 0, 0, 0, 8, 0, 0, 1, 0], In, 0x200),
        command(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], None, 0),
        command(&[0x28, 0, 0, 0, 0, 8, 0, 0, 2, 0], In, 0x200),
        command(&[0x28, 0, 0, 0, 0, 8, 0, 0, 1, 0], In, 0x1000),
        command(&[0x28, 0, 0, 0, 0x80, 0, 0, 0, 1, 0], In, 0x200),
        command(&[0xc7, 0, 0, 0, 0, 0], None, 0),
    ]
}

fn cdb(bytes: &[u8]) -> Cdb {
    match bytes.len() {
        6 => Cdb::new::<6>(bytes.try_into().unwrap()),
        10 => Cdb::new::<10>(bytes.try_into().unwrap()),
        12 => Cdb::new::<12>(bytes.try_into().unwrap()),
        _ => Cdb::new::<16>(bytes.try_into().unwrap()),
    }
}

#[test]
fn the_packets_to_the_host() {
    let unit = Unit { path: 0, target: 0, lun: 0 };
    for (version, transcript) in TRANSCRIPTS {
        let memory = Plain::new(SIZE);
        let mut sender = Sender::new(memory.clone(), SIZE);
        let theirs = packets(transcript, "send chan=1 at=");
        let ours = sent();
        assert_eq!(ours.len(), theirs.len(), "{version}");
        for (transaction, (sent, (at, bytes))) in (1..).zip(ours.iter().zip(&theirs)) {
            let in_band = (PacketType::IN_BAND, PacketFlags::COMPLETION_WANTED, transaction);
            match *sent {
                Sent::Step(step) => packet::write_in_band(&mut sender, in_band, &step),
                Sent::Command(bytes, way, 0) => {
                    let command = packet::command(unit, &cdb(bytes), way, 0, Version::WIN8_1);
                    packet::write_in_band(&mut sender, in_band, &command)
                }
                Sent::Command(bytes, way, length) => {
                    let command = packet::command(unit, &cdb(bytes), way, length, Version::WIN8_1);
                    let range = Range { length, offset: 0, pages: 1 };
                    packet::write_pages(&mut sender, transaction, (range, core::iter::once(0x800)), &command)
                }
            }
            .unwrap();
            let _ = sender.publish();
            let expected = words(bytes);
            assert_eq!(memory.words(*at, expected.len()), expected, "{version}: packet {transaction}");
        }
    }
}

#[test]
fn the_packets_of_the_host() {
    for (version, transcript) in TRANSCRIPTS {
        let memory = Plain::new(SIZE);
        let mut receiver = Receiver::new(memory.clone(), SIZE);
        let told: Vec<&str> = lines(transcript, "# -> ").collect();
        let theirs = packets(transcript, "recv chan=1 at=");
        for (transaction, ((at, bytes), sent)) in (1..).zip(theirs.iter().zip(sent())) {
            memory.fill(*at, &words(bytes));
            let packet = receiver.peek().unwrap().expect("a packet");
            assert_eq!((packet.kind, packet.transaction), (PacketType::COMPLETION, transaction), "{version}");
            let words: [u64; 8] = receiver.copy(&packet);
            let payload: Vstor = words.as_bytes().try_into().unwrap();
            receiver.advance(&packet);
            let status = u32::from_le_bytes(payload[8..12].try_into().unwrap());
            match (transaction, sent) {
                (2, _) => assert_eq!(status, REVISION_MISMATCH),
                (4, _) => {
                    let properties = Properties::ref_from_prefix(&payload[12..]).unwrap().0;
                    let got =
                        (properties.max_sub_channels.get(), properties.flags.get(), properties.max_transfer.get());
                    assert_eq!((status, got), (0, (1, 1, 0x4_0000)));
                }
                (_, Sent::Step(_)) => assert_eq!(status, 0, "step {transaction}"),
                (_, Sent::Command(_, _, length)) => {
                    let answer = outcome::read(&payload, Version::WIN8_1, u64::from(length), false, Defects::none());
                    // "nt 0x0 srb 0x1 scsi 0x0 tx 36"
                    let fields: Vec<&str> = told[transaction as usize - 7].split(' ').collect();
                    let scsi = u8::from_str_radix(&fields[5][2..], 16).unwrap();
                    let moved: u32 = fields[7].parse().unwrap();
                    assert_eq!((answer.response, answer.status), (Response::Complete, Status(scsi)), "{fields:?}");
                    assert_eq!(answer.residual, length - moved, "{fields:?}");
                    let sense = answer.sense();
                    match scsi {
                        0 => assert_eq!(sense, [] as [u8; 0]),
                        // ILLEGAL REQUEST: the address, or the operation code.
                        _ => assert!(sense[0] == 0x70 && sense[2] == 5 && matches!(sense[12], 0x20 | 0x21)),
                    }
                }
            }
        }
        assert_eq!(theirs.len(), 24, "{version}");
    }
}
