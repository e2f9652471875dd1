//! The channel's queue and its one servant, in every order that the memory model allows (A-ATA-01, A-ATA-09).
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test --release -p undercroft-ata --lib loom`. The lanes are the true ones, under loom's lock; the engine is
//! what is taken out of that lock by whoever serves.

use loom::sync::{Arc, Mutex};
use loom::thread;

use super::lane::Lane;

/// Who may serve.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Servants {
    /// Whoever has taken the engine out.
    One,
    /// Whoever comes: the front is looked at, the lock let go while it is worked on, and the front taken out afterwards.
    Many,
}

struct Channel {
    lane: Lane<u32>,
    engine: Option<()>,
    /// Looked at, not yet taken out: the historic order.
    front: Option<u32>,
    performed: [u32; 2],
    finished: [u32; 2],
}

fn serve(channel: &Mutex<Channel>, servants: Servants) {
    if servants == Servants::One && channel.lock().unwrap().engine.take().is_none() {
        return;
    }
    loop {
        let next = {
            let mut channel = channel.lock().unwrap();
            match servants {
                Servants::One => channel.lane.take(),
                Servants::Many => {
                    if channel.front.is_none() {
                        channel.front = channel.lane.take();
                    }
                    channel.front
                }
            }
        };
        let Some(next) = next else { break };
        // The lock is free while the command is out.
        channel.lock().unwrap().performed[next as usize] += 1;
        let mut channel = channel.lock().unwrap();
        channel.front = None;
        channel.lane.finished();
        channel.finished[next as usize] += 1;
    }
    if servants == Servants::One {
        channel.lock().unwrap().engine = Some(());
    }
}

/// Two who serve (an interrupt's bottom half, and one that a submitter asked for) and a submitter: each request is performed once.
fn one_owner(servants: Servants) {
    loom::model(move || {
        let (lane, front) = (Lane::new(), None);
        let channel = Channel { lane, engine: Some(()), front, performed: [0; 2], finished: [0; 2] };
        let channel = Arc::new(Mutex::new(channel));
        channel.lock().unwrap().lane.push(0).unwrap();
        let other = thread::spawn({
            let channel = Arc::clone(&channel);
            move || serve(&channel, servants)
        });
        channel.lock().unwrap().lane.push(1).unwrap();
        serve(&channel, servants);
        other.join().unwrap();
        // Work that is asked for while it runs, runs again.
        serve(&channel, servants);
        let channel = channel.lock().unwrap();
        assert!(channel.performed == [1; 2] && channel.finished == [1; 2], "a request had two owners");
        assert!(channel.lane.is_idle());
    });
}

#[test]
fn loom_a_ata_01_the_front_has_one_owner() {
    one_owner(Servants::One);
}

#[test]
#[should_panic(expected = "a request had two owners")]
fn loom_a_ata_01_the_front_has_one_owner_control() {
    one_owner(Servants::Many);
}
