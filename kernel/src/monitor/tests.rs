//! Whole sessions on the simulated machine.

use std::boxed::Box;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Arguments;
use std::string::{String, ToString};

use undercroft_hal::Instant;
use undercroft_hosts::{Config, Disk, Machine, virtio};

use super::Port;
use crate::heaps::{Baseline, Memory};
use crate::{Report, options, run};

std::thread_local! {
    static OUT: RefCell<String> = const { RefCell::new(String::new()) };
    static IN: RefCell<VecDeque<u8>> = const { RefCell::new(VecDeque::new()) };
}

fn print(text: Arguments<'_>) {
    OUT.with(|out| out.borrow_mut().push_str(&text.to_string()));
}

const PORT: Port = Port {
    // Everything has come when the monitor begins; it looks by itself then, and whenever it has room again.
    listen: |_, _, _| Some(Box::new(())),
    read: |into| {
        IN.with(|bytes| {
            let mut bytes = bytes.borrow_mut();
            let count = into.len().min(bytes.len());
            into.iter_mut().zip(bytes.drain(..count)).for_each(|(to, from)| *to = from);
            count
        })
    },
    print,
    waits: |_| (),
};

/// What a session with this input prints.
fn session(input: &[u8]) -> String {
    OUT.with(|out| out.borrow_mut().clear());
    IN.with(|bytes| bytes.borrow_mut().extend(input));
    let machine = Machine::new(Config { ram: 64 << 20, ..Config::default() });
    let disk = Disk::patterned(512, 1);
    let mut model = virtio::Blk::new(disk.clone());
    model.serial = "blk".into();
    machine.add_virtio_pci(model);
    let held = machine.run(|cx| {
        undercroft_timer::timers::start_service(cx);
        let parsed = options::parse("workload=none end=monitor echo=off disk=blk,rw,65536,65536");
        let report = Report::new(false, print, || ());
        let facts = run::Machine {
            name: "simulated",
            cpus: 1,
            memory: 16 << 20,
            clock: "virtual",
            timer: "virtual",
            windows: &[],
            xen: None,
            hyperv: crate::hyperv::NONE,
            baseline: Baseline::take(Memory::default),
            port: Some(PORT),
        };
        let held = run::run(cx, &facts, &parsed, Instant::now(), &report);
        cx.run_pending();
        held
    });
    let out = OUT.with(|out| out.borrow().clone());
    assert!(held, "{out}");
    assert_eq!(machine.live_dma_blocks(), 0);
    out
}

/// The answer to one line.
fn answer(line: &[u8]) -> String {
    let out = session(&[line, b"\nquit\n"].concat());
    let parts: std::vec::Vec<_> = out.split("undercroft> ").collect();
    assert_eq!(parts.len(), 3, "{out}");
    parts[1].to_string()
}

#[test]
fn every_command_answers() {
    for (line, part) in [
        ("help", "quit"),
        ("disks", "virtio-blk0: virtio-blk at pci"),
        ("read virtio-blk0 0", "512 bytes, sha256 "),
        ("read virtio-blk0 510 2", "1024 bytes, sha256 "),
        ("write virtio-blk0 128 16", "16 blocks from 128 written with seed 1, flushed, read back equal"),
        ("discard virtio-blk0 128 16", "16 blocks from 128 discarded, flushed"),
        ("zero virtio-blk0 128 16", "16 blocks from 128 zeroed, flushed"),
        ("script virtio-blk0 128 128 3 200", "flushes; 0 wrong, 0 failed"),
        ("script virtio-blk0 130 7 4 100 64", "script of 100 steps: "),
        ("cache virtio-blk0 off", "the cache is off"),
        ("cache virtio-blk0 on", "the cache is volatile"),
        ("cache", "1 volumes share 1024 KiB"),
        ("cache virtio-blk0", "virtio-blk0: 0 hits, 0 misses"),
        ("sync", "everything written is durable"),
        ("sync virtio-blk0", "everything written is durable"),
        ("queues", " merged; busy 0 times"),
        ("reset virtio-blk0", "and reading goes on"),
        ("reset virtio-blk0 queue", "and reading goes on"),
        ("verify virtio-blk0", "virtio-blk0 sha256 "),
        ("verify virtio-blk0 0 4", "4 blocks from 0 DO NOT HOLD the pattern of seed 1"),
        ("stats", "CPU 0 bottom halves: "),
        ("heaps", "dma heap: "),
        ("cpus", "CPU 0: interrupts of devices "),
        ("irq", "handlers, 0 interrupts that nobody claimed"),
        ("", ""),
    ] {
        let answer = answer(line.as_bytes());
        assert!(answer.contains(part) && !answer.contains("error:"), "{line}: {answer}");
    }
}

#[test]
fn what_is_written_is_found_by_verify_with_its_seed_alone() {
    let out = session(b"write virtio-blk0 0x80 8 7\nverify virtio-blk0 128 8 7\nverify virtio-blk0 128 8 8\nquit\n");
    assert!(out.contains("8 blocks from 128 hold the pattern of seed 7"), "{out}");
    assert!(out.contains("8 blocks from 128 DO NOT HOLD the pattern of seed 8"), "{out}");
}

#[test]
fn a_bad_line_gets_one_message_that_names_the_word() {
    let long = [b'x'; 300];
    for (line, part) in [
        (&b"frobnicate"[..], "'frobnicate': there is no such command"),
        (b"help me", "'me': a word too many"),
        (b"quit now", "'now': a word too many"),
        (b"read", "the disk's name is missing"),
        (b"read sda 0", "'sda': there is no such disk"),
        (b"read virtio-blk0", "the first block is missing"),
        (b"read virtio-blk0 zero", "'zero': the first block is to be a number"),
        (b"read virtio-blk0 99999999999999999999", "'99999999999999999999': the first block is too large"),
        (b"read virtio-blk0 512", "1 blocks from 512: not on the disk"),
        (b"read virtio-blk0 0 0", "0 blocks from 0: not on the disk"),
        (b"read virtio-blk0 18446744073709551615 2", "not on the disk"),
        (b"read virtio-blk0 0 1 2", "'2': a word too many"),
        (b"write virtio-blk0 0 8", "8 blocks from 0: the disk may not be written there"),
        (b"write virtio-blk0 255 2", "2 blocks from 255: the disk may not be written there"),
        (b"write virtio-blk0 128", "the number of blocks is missing"),
        (b"verify virtio-blk0 0", "the number of blocks is missing"),
        (b"script virtio-blk0 128 128 3", "the number of steps is missing"),
        (b"script virtio-blk0 128 128 3 100001", "'100001': the number of steps is too large"),
        (b"script virtio-blk0 128 128 3 9 65", "'65': the depth is too large"),
        (b"script virtio-blk0 0 128 3 9", "128 blocks from 0: the disk may not be written there"),
        (b"cache virtio-blk0 maybe", "'maybe': a word too many"),
        (b"cache virtio-blk0 on now", "'now': a word too many"),
        (b"cache nothing", "'nothing': there is no such disk"),
        (b"sync nothing", "'nothing': there is no such disk"),
        (b"sync virtio-blk0 now", "'now': a word too many"),
        (b"latency", "this machine has no interrupt that it can raise itself"),
        (b"speed nothing", "'nothing': there is no such disk"),
        (b"\xff\xfe", "the line is not UTF-8"),
        (&long, "the line is longer than 200 characters"),
    ] {
        let answer = answer(line);
        assert!(answer.contains(part) && answer.matches("error:").count() == 1, "{}: {answer}", line.escape_ascii());
    }
}

#[test]
fn many_lines_at_once_are_all_answered_in_order() {
    let mut script = String::new();
    (0..100).for_each(|n| script.push_str(&std::format!("unknown{n}\n")));
    let out = session((script + "quit\n").as_bytes());
    let places: std::vec::Vec<_> =
        (0..100).map(|n| out.find(&std::format!("'unknown{n}'")).expect("an answer")).collect();
    assert!(places.is_sorted());
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = crate::pattern::Random::new(5);
    for _ in 0..20 {
        let mut bytes: std::vec::Vec<u8> = (0..2000).map(|_| random.next() as u8).collect();
        bytes.extend(b"\nquit\n");
        session(&bytes);
    }
}
