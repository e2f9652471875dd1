//! Every breach of the interface that the PVSCSI model names, committed by hand and noticed; and what the model does for a driver that commits
//! none.

use undercroft_hal::dma::{Coherent, DmaConstraints};
use undercroft_hal::mmio::Mmio;
use undercroft_hal::{cpu, pci};
use undercroft_hosts::pvscsi::{Breach, Knobs, Layout, Pvscsi};
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::{Config, Disk, Machine};

#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();

const COMMAND: usize = 0;
const DATA: usize = 4;
const STATUS: usize = 8;
const INTR_STATUS: usize = 0x100c;
const INTR_MASK: usize = 0x2010;
const KICK_NON_RW: usize = 0x3014;
const KICK_RW: usize = 0x4018;
const FAILED: u32 = u32::MAX;

/// What is done to a request, or to a table, and what the model says of it.
type BadRequest = (fn(&mut [u8; 128]), &'static str);
type BadTable = (fn(&Hand), &'static str);

fn page(pages: usize) -> Coherent {
    Coherent::new(4096 * pages, DmaConstraints::ANY).unwrap()
}

/// A driver by hand: one page for each ring and for the state, and pages for data.
struct Hand {
    registers: Mmio,
    state: Coherent,
    requests: Coherent,
    completions: Coherent,
    messages: Coherent,
    data: Coherent,
    produced: u32,
}

impl Hand {
    fn command(&self, code: u32, words: &[u32]) -> u32 {
        self.registers.write(COMMAND, code);
        words.iter().for_each(|word| self.registers.write(DATA, *word));
        self.registers.read(STATUS)
    }

    fn rings(&self) -> [u32; 132] {
        let mut words = [0; 132];
        (words[0], words[1]) = (1, 1);
        for (at, memory) in [(2, &self.state), (4, &self.requests), (68, &self.completions)] {
            words[at] = (memory.addr(0) / 4096) as u32;
        }
        words
    }

    fn message_ring(&self) -> [u32; 34] {
        let mut words = [0; 34];
        (words[0], words[2]) = (1, (self.messages.addr(0) / 4096) as u32);
        words
    }

    fn get(&self, field: usize) -> u32 {
        self.state.read(field)
    }

    /// A good request: READ of one block into the data pages.
    fn request(&self) -> [u8; 128] {
        let mut request = [0; 128];
        request[..8].copy_from_slice(&1u64.to_le_bytes());
        request[8..16].copy_from_slice(&self.data.addr(0).to_le_bytes());
        request[16..24].copy_from_slice(&512u64.to_le_bytes());
        request[24..32].copy_from_slice(&self.data.addr(8192).to_le_bytes());
        request[32] = 96;
        request[36] = 1 << 3;
        (request[40], request[48], request[56], request[65]) = (0x28, 1, 10, 0x20);
        request
    }

    /// Publishes a request and kicks.
    fn send(&mut self, request: [u8; 128]) {
        self.requests.write(self.produced as usize % 32 * 128, request);
        self.produced += 1;
        self.state.write(0, self.produced);
        self.registers.write(KICK_NON_RW, 0u32);
        cpu::relax();
    }

    /// The last completion: context, bytes, adapter status, unit status.
    fn completion(&self) -> (u64, u64, u16, u16) {
        let at = (self.get(12) as usize - 1) % 128 * 32;
        let read = |offset| self.completions.read::<u64>(at + offset);
        (read(0), read(8), self.completions.read(at + 20), self.completions.read(at + 22))
    }

    fn element(&self, at: usize, addr: u64, len: u32, flags: u32) {
        self.data.write(at, addr);
        self.data.write(at + 8, len);
        self.data.write(at + 12, flags);
    }
}

/// Runs `f` with an adapter that was only found, and says what it did wrong.
fn raw(knobs: Knobs, f: impl FnOnce(&mut Hand)) -> Vec<Breach> {
    let machine = Machine::new(Config::default());
    let unit = || Lun::new(Disk::patterned(64, 1), LunSettings::default());
    let mut model = Pvscsi::new(Layout::Line, Target::new().with(0, unit()));
    model.knobs = knobs;
    let host = machine.add_pci(model);
    machine.run(|task| {
        let function = pci::devices(task)[0];
        function.enable();
        let registers = function.map_bar(0).unwrap();
        let (state, requests, completions, messages, data) = (page(1), page(1), page(1), page(1), page(4));
        let mut hand = Hand { registers, state, requests, completions, messages, data, produced: 0 };
        f(&mut hand);
        let breaches = host.with(|device| device.breaches());
        // Before its memory goes.
        hand.command(1, &[]);
        breaches
    })
}

/// The same with its rings up, and the unit attention of power-on cleared.
fn up(f: impl FnOnce(&mut Hand)) -> Vec<Breach> {
    raw(Knobs::default(), |hand| {
        assert_eq!(hand.command(3, &hand.rings()), 0);
        assert_eq!(hand.command(8, &hand.message_ring()), 34);
        let mut ready = hand.request();
        (ready[36], ready[40], ready[48]) = (1 << 2, 0, 0);
        ready[8..24].fill(0);
        hand.send(ready);
        assert_eq!(hand.completion(), (1, 0, 0, 2));
        hand.state.write(16, 1u32);
        cpu::relax();
        f(hand);
    })
}

#[test]
fn a_good_driver_has_none() {
    let breaches = up(|hand| {
        assert_eq!((hand.get(8), hand.get(20), hand.get(136)), (5, 7, 5), "the rings' sizes");
        hand.registers.write(INTR_MASK, 0xfu32);
        hand.send(hand.request());
        assert_eq!(hand.completion(), (1, 512, 0, 0));
        assert_eq!(hand.data.read::<[u8; 16]>(0)[..], Disk::pattern(1, 0)[..16]);
        assert_eq!((hand.get(4), hand.registers.read::<u32>(INTR_STATUS)), (2, 1));
        hand.registers.write(INTR_STATUS, 1u32);
        assert_eq!(hand.registers.read::<u32>(INTR_STATUS), 0);
        // A target that is not there, a command that is not known, a reset.
        let mut absent = hand.request();
        absent[67] = 9;
        hand.send(absent);
        assert_eq!(hand.completion(), (1, 0, 0x11, 0));
        assert_eq!((hand.command(10, &[1]), hand.command(7, &[0; 6])), (FAILED, FAILED));
        assert_eq!((hand.command(6, &[9, 0, 0, 0]), hand.command(4, &[]), hand.command(5, &[7, 0, 0])), (0, 0, FAILED));
        assert_eq!(hand.command(1, &[]), 0);
    });
    assert_eq!(breaches, []);
}

#[test]
fn tables_that_are_right() {
    for (knobs, next) in [(Knobs::default(), 8192), (Knobs { no_chains: true, ..Knobs::default() }, 4096 + 16)] {
        let breaches = raw(knobs, |hand| {
            hand.command(3, &hand.rings());
            let mut ready = hand.request();
            (ready[36], ready[40]) = (1 << 2, 0);
            ready[8..24].fill(0);
            hand.send(ready);
            let (table, data) = (hand.data.addr(4096), hand.data.addr(0));
            let mut request = hand.request();
            request[36] |= 1;
            request[8..16].copy_from_slice(&table.to_le_bytes());
            // One element, a chain, and the other behind it or wherever it says.
            hand.element(4096, data, 100, 0);
            hand.element(4112, hand.data.addr(next + 16), 0, 1);
            hand.element(if next == 8192 { 8208 } else { 4128 }, data + 100, 412, 0);
            hand.send(request);
            assert_eq!(hand.completion(), (1, 512, 0, 0));
            assert_eq!(hand.data.read::<[u8; 512]>(0)[..], Disk::pattern(1, 0)[..]);
        });
        assert_eq!(breaches, []);
    }
}

#[test]
fn registers_misused() {
    let breaches = raw(Knobs::default(), |hand| {
        hand.registers.read::<u16>(STATUS);
        hand.registers.read::<u32>(COMMAND);
        hand.registers.write(STATUS, 0u32);
        hand.command(12, &[]);
        hand.command(1, &[5]);
        hand.registers.write(KICK_RW, 0u32);
    });
    let expected = [
        Breach::AccessWidth(8),
        Breach::NoSuchRead(0),
        Breach::NoSuchWrite(8),
        Breach::UnknownCommand(12),
        Breach::DataWithoutCommand,
        Breach::KickWithoutRings,
    ];
    assert_eq!(breaches, expected);
}

#[test]
fn bus_mastering_off() {
    let machine = Machine::new(Config::default());
    let host = machine.add_pci(Pvscsi::new(Layout::Line, Target::new()));
    machine.run(|task| {
        let function = pci::devices(task)[0];
        function.enable();
        function.disable_bus_master();
        function.map_bar(0).unwrap().write(COMMAND, 1u32);
    });
    assert_eq!(host.with(|device| device.breaches()), [Breach::NotBusMaster]);
}

#[test]
fn descriptors_that_cannot_be() {
    let setup = |change: fn(&mut [u32; 132])| {
        raw(Knobs::default(), |hand| {
            let mut words = hand.rings();
            change(&mut words);
            hand.command(3, &words);
        })
    };
    let powers = Breach::Descriptor("a ring whose pages are no power of two, or too many");
    assert_eq!(setup(|words| words[0] = 0), [powers]);
    assert_eq!(setup(|words| words[1] = 3), [powers]);
    assert_eq!(setup(|words| words[0] = 64), [powers]);
    assert_eq!(setup(|words| words[6] = 1), [Breach::Descriptor("pages beyond the ring's")]);
    assert!(matches!(setup(|words| words[2] = 1)[..], [Breach::Memory(_)]));
    assert!(matches!(setup(|words| words[4] = 1)[..], [Breach::Memory(_)]));
    let early = raw(Knobs::default(), |hand| {
        hand.command(8, &hand.message_ring());
    });
    assert_eq!(early, [Breach::Descriptor("a message ring before the rings")]);
    let wrong = |code: u32, words: &'static [u32]| {
        up(move |hand| {
            hand.command(code, words);
        })
    };
    let reserved = Breach::Descriptor("a reserved word that is not zero");
    assert_eq!(wrong(6, &[1, 0, 0, 7]), [reserved]);
    assert_eq!(wrong(5, &[0, 0xff, 0xff]), [Breach::Descriptor("a LUN that names no unit")]);
    let twice = up(|hand| {
        hand.command(3, &hand.rings());
    });
    assert_eq!(twice, [Breach::Descriptor("rings while there are some")]);
    let knobs = Knobs { threshold: Some(4), ..Knobs::default() };
    let neither = raw(knobs, |hand| {
        hand.command(10, &[2]);
    });
    assert_eq!(neither, [Breach::Descriptor("a switch that is neither on nor off")]);
}

#[test]
fn indices_and_fields_that_are_not_the_drivers() {
    let poke = |field: usize, value: u32| {
        up(move |hand| {
            hand.state.write(field, value);
            hand.registers.write(KICK_NON_RW, 0u32);
            cpu::relax();
        })
    };
    assert_eq!(poke(0, 34), [Breach::RequestsJumped(33)]);
    assert_eq!(poke(16, 2), [Breach::CompletionsJumped(2)]);
    assert_eq!(poke(16, 0), [Breach::CompletionsJumped(0)]);
    assert_eq!(poke(132, 1), [Breach::MessagesJumped(1)]);
    let fields = [(4, "reqConsIdx"), (8, "reqNumEntriesLog2"), (12, "cmpProdIdx"), (20, "cmpNumEntriesLog2")];
    for (field, name) in fields.into_iter().chain([(128, "msgProdIdx"), (136, "msgNumEntriesLog2")]) {
        assert!(poke(field, 77).contains(&Breach::DevicesField(name)), "{name}");
    }
}

#[test]
fn requests_that_cannot_be() {
    let send = |change: fn(&mut [u8; 128])| {
        up(|hand| {
            let mut request = hand.request();
            change(&mut request);
            hand.send(request);
        })
    };
    let cases: [BadRequest; 9] = [
        (|r| r[36] = 0, "not one direction"),
        (|r| r[36] |= 1 << 4, "not one direction"),
        (|r| r[36] |= 1 << 1, "an out-of-band CDB"),
        (|r| r[37] = 1, "reserved flags"),
        (|r| r[56] = 17, "a CDB of an impossible length"),
        (|r| r[65] = 0, "no task attribute"),
        (|r| r[66] = 1, "another bus than 0"),
        (|r| r[100] = 1, "unused bytes that are not zero"),
        (|r| r[36] = 1 << 4, "data in the other direction than the command's"),
    ];
    for (change, what) in cases {
        assert_eq!(send(change).first(), Some(&Breach::Request(what)));
    }
    assert_eq!(send(|r| r[0] = 0), [Breach::ContextInvalid(0)]);
    assert_eq!(send(|r| r[5] = 1), [Breach::ContextInvalid(1 << 40 | 1)]);
    assert!(matches!(send(|r| r[8..16].fill(1))[..], [Breach::Memory(_)]));
    let twice = up(|hand| {
        let request = hand.request();
        for _ in 0..2 {
            hand.requests.write(hand.produced as usize % 32 * 128, request);
            hand.produced += 1;
        }
        hand.state.write(0, hand.produced);
        hand.registers.write(KICK_NON_RW, 0u32);
    });
    assert_eq!(twice, [Breach::ContextInUse(1)]);
}

#[test]
fn tables_that_cannot_be() {
    let send = |change: fn(&Hand)| {
        up(|hand| {
            let mut request = hand.request();
            request[36] |= 1;
            request[8..16].copy_from_slice(&hand.data.addr(4096).to_le_bytes());
            change(hand);
            hand.send(request);
        })
    };
    let cases: [BadTable; 7] = [
        (|hand| hand.element(4096, hand.data.addr(0), 0, 0), "an element without data"),
        (|hand| hand.element(4096, hand.data.addr(0), 512, 2), "reserved flags"),
        (|hand| hand.element(4096, hand.data.addr(0), 513, 0), "more data than the request has"),
        (|hand| hand.element(4096, hand.data.addr(4096), 0, 1), "more segments than a table may have"),
        (|hand| hand.element(4096, hand.data.addr(4096), 1, 1), "a chain with a length"),
        (
            |hand| (0..256).for_each(|n| hand.element(4096 + 16 * n, hand.data.addr(0), 1, 0)),
            "more elements than a segment may have",
        ),
        (
            |hand| {
                hand.element(4096, hand.data.addr(8192 - 16), 0, 1);
                hand.element(8192 - 16, hand.data.addr(0), 1, 0);
            },
            "a segment that crosses a page",
        ),
    ];
    for (change, what) in cases {
        assert_eq!(send(change), [Breach::Table(what)]);
    }
}

#[test]
fn more_in_flight_than_completions_fit() {
    let breaches = up(|hand| {
        for n in 0..200u64 {
            let mut request = hand.request();
            request[..8].copy_from_slice(&(n + 1).to_le_bytes());
            hand.send(request);
        }
    });
    assert_eq!(breaches, [Breach::CompletionRingFull]);
}
