//! Functions whose configuration space and registers lie.

use alloc::vec::Vec;

use undercroft_hal::mmio::Width;
use undercroft_hal::pci;
use undercroft_hosts::pci::{BarKind, ConfigSpace, Identity};
use undercroft_hosts::{Bus, Config, Device, Machine, Random, Schedule, Space};

use super::pci_caps;
use crate::ProbeError;
use crate::probe::probe_pci;
use crate::wire::pci::Missing;
use undercroft_hosts::rig::settle;

const BAR_LEN: u64 = 0x4000;

/// A function with BAR 4 of 16 KiB, BAR 0 of 32 ports, and whatever capabilities and registers.
struct Liar {
    config: ConfigSpace,
    registers: Box<dyn FnMut(u64, Width) -> u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cap {
    bytes: u8,
    kind: u8,
    bar: u8,
    offset: u32,
    len: u32,
    multiplier: u32,
}

const fn cap(kind: u8, bar: u8, offset: u32, len: u32) -> Cap {
    Cap { bytes: if kind == 2 { 20 } else { 16 }, kind, bar, offset, len, multiplier: 4 }
}

const GOOD: [Cap; 4] = [cap(1, 4, 0, 56), cap(2, 4, 0x1000, 0x1000), cap(3, 4, 0x2000, 1), cap(4, 4, 0x3000, 0x100)];

impl Liar {
    fn new(caps: &[Cap], registers: impl FnMut(u64, Width) -> u64 + 'static) -> Self {
        let identity =
            Identity { vendor: 0x1af4, device: 0x1042, revision: 1, class: (1, 0, 0), subsystem: (0x1af4, 0x1042) };
        let mut config = ConfigSpace::new(identity);
        config.add_bar(4, BarKind::Memory64, BAR_LEN);
        for cap in caps {
            let mut body = vec![cap.bytes, cap.kind, cap.bar, 0, 0, 0];
            body.extend(cap.offset.to_le_bytes());
            body.extend(cap.len.to_le_bytes());
            if cap.bytes >= 20 {
                body.extend(cap.multiplier.to_le_bytes());
            }
            config.add_capability(9, &body);
        }
        Self { config, registers: Box::new(registers) }
    }
}

impl Device for Liar {
    fn read(&mut self, _bus: &Bus<'_>, _space: Space, offset: u64, width: Width) -> u64 {
        (self.registers)(offset, width)
    }
    fn write(&mut self, _bus: &Bus<'_>, _space: Space, _offset: u64, _width: Width, _value: u64) {}
    fn work(&mut self, _bus: &Bus<'_>) -> bool {
        false
    }
    fn due(&self) -> Option<u64> {
        None
    }
    fn config_read(&mut self, _bus: &Bus<'_>, offset: u16) -> u32 {
        self.config.read(offset)
    }
    fn config_write(&mut self, _bus: &Bus<'_>, offset: u16, value: u32) {
        self.config.write(offset, value);
    }
    fn bar_at(&self, addr: u64) -> Option<(u8, u64)> {
        self.config.bar_at(addr)
    }
    fn assign_bars(&mut self, next: u64) -> u64 {
        self.config.assign_bars(next)
    }
}

fn found(caps: &[Cap]) -> Result<(), ProbeError> {
    let machine = Machine::new(Config::default());
    machine.add_pci(Liar::new(caps, |_, _| 0));
    machine.run(|task| {
        let function = pci::devices(task).remove(0);
        function.enable();
        pci_caps::find(&function).map(|_| ())
    })
}

#[test]
fn structures_outside_their_bar_are_not_there() {
    assert_eq!(found(&GOOD), Ok(()));
    let lies = [
        cap(1, 4, 0, 55),
        cap(1, 4, 0x4000 - 55, 56),
        cap(1, 4, 0x4000, 56),
        cap(1, 4, u32::MAX, 56),
        cap(1, 4, u32::MAX - 55, 56),
        cap(1, 4, 0xffff_ff00, 0x200),
        cap(1, 4, 1, u32::MAX),
        cap(1, 4, 0, 0),
        cap(1, 2, 0, 56),
        cap(1, 5, 0, 56),
        cap(1, 6, 0, 56),
        cap(1, 255, 0, 56),
        Cap { bytes: 15, ..cap(1, 4, 0, 56) },
        Cap { bytes: 0, ..cap(1, 4, 0, 56) },
    ];
    for lie in lies {
        let mut caps = GOOD;
        caps[0] = lie;
        assert_eq!(found(&caps), Err(ProbeError::Structures(Missing::COMMON)), "{lie:?}");
        // A second, good one of the same kind is used instead (4.1.4.1).
        assert_eq!(found(&[lie, GOOD[0], GOOD[1], GOOD[2]]), Ok(()), "{lie:?}");
    }
    assert_eq!(found(&[GOOD[0]]), Err(ProbeError::Structures(Missing::NOTIFY | Missing::ISR)));
    assert_eq!(found(&[]), Err(ProbeError::Legacy));
}

/// Answers just enough for a probe to reach the doorbell, which lies at step 0x0400.
fn doorbell(multiplier: u32) -> Result<(), ProbeError> {
    let machine = Machine::new(Config::default());
    let mut caps = GOOD;
    caps[1].multiplier = multiplier;
    let mut status_reads = 0;
    let mut half = 0u64;
    machine.add_pci(Liar::new(&caps, move |offset, _| match offset {
        // VERSION_1 is in the second half; which one is asked for alternates.
        0x04 => {
            half ^= 1;
            1 - half
        }
        0x12 => 1,
        0x14 => {
            status_reads += 1;
            if status_reads == 1 { 0 } else { 11 }
        }
        0x18 => 8,
        0x1e => 0x400,
        0x3000 => 100,
        _ => 0,
    }));
    machine.run(|task| probe_pci(task, pci::devices(task)[0]).map(|_| ()))
}

#[test]
fn doorbells_outside_the_notification_area_are_refused() {
    for multiplier in [4, 8, 0x1000, 0x8000_0000, u32::MAX] {
        assert_eq!(doorbell(multiplier), Err(ProbeError::BadDoorbell(0)), "{multiplier:#x}");
    }
    // Inside, it is the next thing that fails: these registers remember nothing.
    assert_eq!(doorbell(2), Err(ProbeError::QueueRefused(0)));
}

/// Whatever the configuration space and the registers say, a probe ends with a device or a typed error, and leaves nothing.
#[test]
fn registers_that_say_anything_do_no_harm() {
    let mut errors = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let mut caps: Vec<Cap> = GOOD.to_vec();
        if random.chance(30) {
            let at = random.below(4);
            let near = [0, 55, 56, 0x3fff, 0x4000, u32::MAX][random.below(6)];
            caps[at].offset = near;
            caps[at].multiplier = [0, 2, 3, u32::MAX][random.below(4)];
        }
        let machine = Machine::new(Config { seed, schedule: Schedule::Eager, ..Config::default() });
        let mut status = Random::new(seed ^ 77);
        machine.add_pci(Liar::new(&caps, move |offset, width| match offset {
            // A status that is sometimes right: else every probe would end at its first step.
            0x14 => [0, 0, 11, 15, 64, 128, status.next_u64() & 255][status.below(7)],
            0x04 if random.chance(80) => u64::MAX,
            _ => {
                let any = [0, 1, 2, 4, 256, 512, 4096, 0xffff, u64::MAX, random.next_u64()][random.below(10)];
                any & (u64::MAX >> (64 - 8 * width.bytes()))
            }
        }));
        let outcome = machine.run(|task| {
            let outcome = probe_pci(task, pci::devices(task)[0]);
            let error = outcome.as_ref().err().map(|error| format!("{error}"));
            drop(outcome);
            settle(task);
            error
        });
        errors.insert(outcome);
        assert_eq!(machine.live_dma_blocks(), 0, "seed {seed}");
    }
    assert!(errors.len() > 8, "the lies are too dull: {errors:?}");
}
