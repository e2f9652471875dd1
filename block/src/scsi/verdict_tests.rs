//! The whole table: response × status × sense.

use super::*;

fn check(key: u8, asc: u8, ascq: u8) -> (Verdict, Notices) {
    let fixed = [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0];
    let descriptor = [0x72, key, asc, ascq, 0, 0, 0, 0];
    let judged = judge(&Outcome { status: Status::CHECK_CONDITION, sense: &fixed, ..Outcome::GOOD });
    assert_eq!(
        judged,
        judge(&Outcome { status: Status::CHECK_CONDITION, sense: &descriptor, ..Outcome::GOOD }),
        "both sense formats say the same"
    );
    judged
}

#[test]
fn a_vscsi_08_every_response() {
    use Verdict::*;
    let table = [
        (Response::Complete, Done),
        (Response::Overrun, Failed(Error::Hardware)),
        (Response::Aborted, Failed(Error::Cancelled)),
        (Response::BadTarget, Failed(Error::Removed)),
        (Response::Reset, Again(Error::Reset)),
        (Response::Busy, Later(Error::Busy)),
        (Response::TransportFailure, Again(Error::Transport)),
        (Response::TargetFailure, Failed(Error::Hardware)),
        (Response::NexusFailure, Failed(Error::Transport)),
        (Response::Failure, Failed(Error::Hardware)),
        (Response::TimedOut, Failed(Error::TimedOut)),
        (Response::Removed, Failed(Error::Removed)),
        (Response::Broken, Failed(Error::Broken)),
    ];
    assert_eq!(table.map(|(response, _)| response), Response::ALL);
    let sense = [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0];
    for (response, verdict) in table {
        for status in 0..=255 {
            let outcome = Outcome { response, status: Status(status), sense: &sense, residual: 0 };
            if response != Response::Complete {
                assert_eq!(judge(&outcome).0, verdict, "the status is not valid with {response:?}");
                assert_eq!(judge(&outcome).1, Notices::empty());
            }
        }
        assert_eq!(judge(&Outcome::failed(response)).0, verdict);
    }
}

#[test]
fn a_vscsi_08_every_status() {
    use Verdict::*;
    for status in 0..=255u8 {
        let expected = match status {
            0x00 | 0x04 => Done,
            0x02 => Again(Error::Hardware),
            0x08 | 0x28 | 0x30 => Later(Error::Busy),
            0x18 => Failed(Error::Reserved),
            0x40 => Again(Error::Hardware),
            _ => Failed(Error::Hardware),
        };
        assert_eq!(judge(&Outcome { status: Status(status), ..Outcome::GOOD }).0, expected, "{}", Status(status));
    }
}

#[test]
fn a_vscsi_08_every_sense_key() {
    use Verdict::*;
    let table = [
        Again(Error::Hardware),
        Done,
        Failed(Error::NotReady),
        Failed(Error::Medium),
        Failed(Error::Hardware),
        Failed(Error::Unsupported),
        Again(Error::NotReady),
        Failed(Error::ReadOnly),
        Failed(Error::Medium),
        Failed(Error::Hardware),
        Failed(Error::Hardware),
        Again(Error::Hardware),
        Failed(Error::Hardware),
        Failed(Error::Medium),
        Failed(Error::Hardware),
        Done,
    ];
    for (key, verdict) in table.into_iter().enumerate() {
        assert_eq!(check(key as u8, 0, 0), (verdict, Notices::empty()), "key {key:#x}");
    }
}

#[test]
fn additional_codes_that_matter() {
    use Verdict::*;
    let none = Notices::empty();
    for (key, asc, ascq, expected) in [
        (0x2, 0x04, 0x01, (Later(Error::NotReady), none)),
        (0x2, 0x04, 0x02, (Failed(Error::NotReady), none)),
        (0x2, 0x04, 0x03, (Failed(Error::NotReady), none)),
        (0x2, 0x3a, 0x00, (Failed(Error::NotReady), none)),
        (0x5, 0x20, 0x00, (Failed(Error::Unsupported), Notices::NO_SUCH_COMMAND)),
        (0x5, 0x21, 0x00, (Failed(Error::OutOfRange), none)),
        (0x5, 0x24, 0x00, (Failed(Error::Unsupported), none)),
        (0x5, 0x25, 0x00, (Failed(Error::Removed), none)),
        (0x5, 0x55, 0x03, (Later(Error::Busy), none)),
        (0x7, 0x27, 0x00, (Failed(Error::ReadOnly), none)),
        (0x7, 0x27, 0x07, (Failed(Error::NoSpace), none)),
        (0xb, 0x10, 0x01, (Failed(Error::Medium), none)),
        (0x6, 0x28, 0x00, (Again(Error::NotReady), Notices::MEDIUM | Notices::CAPACITY | Notices::MODE)),
        (0x6, 0x29, 0x00, (Again(Error::NotReady), Notices::CACHE_LOST | Notices::MODE)),
        (0x6, 0x29, 0x03, (Again(Error::NotReady), Notices::MODE)),
        (0x6, 0x2a, 0x01, (Again(Error::NotReady), Notices::MODE)),
        (0x6, 0x2a, 0x09, (Again(Error::NotReady), Notices::CAPACITY)),
        (0x6, 0x3f, 0x01, (Again(Error::NotReady), Notices::MODE)),
        (0x6, 0x3f, 0x0e, (Again(Error::NotReady), none)),
        (0x6, 0xff, 0xff, (Again(Error::NotReady), none)),
    ] {
        assert_eq!(check(key, asc, ascq), expected, "{key:#x}/{asc:#x}/{ascq:#x}");
    }
}

#[test]
fn a_deferred_error_is_not_this_commands_and_means_loss() {
    let sense = [0x71, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 2, 0, 0, 0, 0];
    let outcome = Outcome { status: Status::CHECK_CONDITION, sense: &sense, ..Outcome::GOOD };
    assert_eq!(judge(&outcome), (Verdict::Again(Error::Hardware), Notices::CACHE_LOST));
}

#[test]
fn all_sense_of_all_keys_has_a_verdict() {
    for key in 0..16 {
        for asc in 0..=255 {
            for ascq in 0..=255 {
                let _ = check(key, asc, ascq);
            }
        }
    }
}
