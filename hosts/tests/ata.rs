//! The IDE model notes what a driver does wrong: each breach, by hand, on the ports.

use std::rc::Rc;

use undercroft_hal::dma::{Coherent, DmaBuf, DmaConstraints};
use undercroft_hal::mmio::Ports;
use undercroft_hal::{Task, cpu, pci};
use undercroft_hosts::ata::{Breach, Channel, Drive, Piix};
use undercroft_hosts::{Config, Disk, Handle, Machine};

const REACH: DmaConstraints = DmaConstraints { max_addr: u32::MAX as u64, align: 4096, boundary: 1 << 16 };

/// A driver's hands: the primary channel's ports.
struct Hands {
    host: Handle<Piix>,
    command: Ports,
    control: Ports,
    master: Ports,
    table: Coherent,
    data: DmaBuf,
}

impl Hands {
    fn breaches(&self) -> Vec<Breach> {
        self.host.with(|host| host.breaches())
    }

    fn settle(&self) {
        (0..100).for_each(|_| cpu::relax());
    }

    /// A READ DMA (or what `code` is) of `count` sectors at 0 from the first drive.
    fn issue(&self, code: u8, count: u8) {
        // The count is the last two that were written, for commands that take 16 bits.
        for (register, value) in [(6, 0xe0), (2, 0), (2, count), (3, 0), (4, 0), (5, 0), (7, code)] {
            self.command.write(register, value);
        }
    }

    fn region(&self, at: usize, addr: u64, count: u16, flags: u16) {
        self.table.write(8 * at, (addr as u32).to_le());
        self.table.write(8 * at + 4, (u32::from(count) | u32::from(flags) << 16).to_le());
    }

    fn start(&self, table: u64, to_memory: bool) {
        let direction = if to_memory { 8u8 } else { 0 };
        self.master.write(4, table as u32);
        self.master.write(0, direction);
        self.master.write(0, direction | 1);
        self.settle();
    }
}

fn with_hands(f: impl FnOnce(&Task, &Hands)) {
    let machine: Rc<Machine> = Machine::new(Config::default());
    let host = machine.add_pci(Piix::new(Channel::new(Some(Drive::new(Disk::new(4096))), None), Channel::default()));
    machine.run(|task| {
        let function = pci::devices(task)[0];
        function.enable();
        let hands = Hands {
            host,
            command: Ports::new(0x1f0, 8),
            control: Ports::new(0x3f6, 1),
            master: function.ports(4).unwrap(),
            table: Coherent::new(4096, REACH).unwrap(),
            // At a 64 KiB boundary, so that the next one is where the tests say.
            data: DmaBuf::new(4096, DmaConstraints { align: 1 << 16, ..REACH }).unwrap(),
        };
        assert_eq!(hands.breaches(), []);
        f(task, &hands);
    });
}

/// What the model notes of a READ DMA of `count` sectors with these regions: address relative to the buffer, bytes, flags.
fn noted(count: u8, regions: &[(u64, u16, u16)]) -> Vec<Breach> {
    let mut noted = Vec::new();
    with_hands(|_, hands| {
        let data = hands.data.segment().addr;
        for (at, &(addr, bytes, flags)) in regions.iter().enumerate() {
            hands.region(at, data + addr, bytes, flags);
        }
        hands.issue(0xc8, count);
        hands.start(hands.table.addr(0), true);
        noted = hands.breaches();
    });
    noted
}

#[test]
fn a_good_transfer_is_no_breach() {
    with_hands(|_, hands| {
        hands.region(0, hands.data.segment().addr, 2048, 0);
        hands.region(1, hands.data.segment().addr + 2048, 2048, 0x8000);
        hands.issue(0xc8, 8);
        hands.start(hands.table.addr(0), true);
        assert_eq!((hands.breaches(), hands.command.read::<u8>(7)), (vec![], 0x50));
        assert_eq!(hands.master.read::<u8>(2) & 7, 4, "interrupt, and not active");
    });
}

#[test]
fn tables_that_do_not_fit_their_command() {
    assert_eq!(noted(8, &[(0, 2048, 0x8000)]), [Breach::TableLength(-2048)]);
    assert_eq!(noted(2, &[(0, 2048, 0x8000)]), [Breach::TableLength(1024)]);
    assert_eq!(noted(1, &[(0, 512, 0x8001)]), [Breach::Reserved(0x8001)]);
    assert!(noted(1, &[(1, 512, 0x8000)]).iter().any(|breach| matches!(breach, Breach::RegionOdd(..))));
    assert!(noted(1, &[(0xfe00, 1024, 0x8000)]).iter().any(|breach| matches!(breach, Breach::RegionCrosses(..))));
    let beyond = noted(1, &[(1 << 20, 512, 0x8000)]);
    assert!(beyond.iter().any(|breach| matches!(breach, Breach::Memory(_))), "{beyond:?}");
    let endless = noted(1, &[(0, 512, 0); 512]);
    assert!(endless.iter().any(|breach| matches!(breach, Breach::Memory(_) | Breach::TableCrosses(_))), "{endless:?}");
}

#[test]
fn registers_at_the_wrong_time() {
    with_hands(|_, hands| {
        hands.issue(0xc8, 8);
        // Before the drive has worked, and while it waits for its data.
        hands.settle();
        hands.command.write(2, 1u8);
        assert!(matches!(hands.breaches()[..], [Breach::WriteWhileBusy(2, _)]));
        let _: u16 = hands.command.read(0);
        assert_eq!(hands.breaches()[1], Breach::DataWithoutDrq, "the data goes by DMA");
        hands.region(0, hands.data.segment().addr, 4096, 0x8000);
        hands.start(hands.table.addr(0) + 2, true);
        assert!(hands.breaches().contains(&Breach::TableAlignment(hands.table.addr(2) as u32)));
    });
}

#[test]
fn directions_commands_and_ranges() {
    with_hands(|_, hands| {
        hands.region(0, hands.data.segment().addr, 512, 0x8000);
        hands.issue(0xc8, 1);
        hands.start(hands.table.addr(0), false);
        assert_eq!(hands.breaches(), [Breach::Direction(0xc8)]);
    });
    for (code, breach) in
        [(0xc4, Breach::MultipleNotSet), (0xc6, Breach::MultipleCount(200)), (0x06, Breach::TrimShape(200, 1))]
    {
        with_hands(|_, hands| {
            hands.issue(code, 200);
            assert_eq!(hands.breaches(), [breach]);
            assert_eq!(hands.command.read::<u8>(7) & 1, 1, "refused");
        });
    }
    with_hands(|_, hands| {
        hands.command.write(6, 0xe0u8);
        hands.command.write(5, 1u8);
        hands.command.write(2, 1u8);
        hands.command.write(7, 0xc8u8);
        assert_eq!(hands.breaches(), [Breach::OutOfRange(0xc8)]);
    });
    with_hands(|_, hands| {
        hands.command.write(6, 0xa0u8);
        hands.command.write(2, 1u8);
        hands.command.write(7, 0x20u8);
        assert_eq!(hands.breaches(), [Breach::NotLba(0x20)]);
    });
    with_hands(|_, hands| {
        hands.command.write(6, 0xf0u8);
        hands.command.write(7, 0xecu8);
        assert_eq!(hands.breaches(), [Breach::NobodyThere(0xec)]);
    });
}

#[test]
fn resets_that_are_cut_short() {
    with_hands(|_, hands| {
        hands.control.write(0, 4u8);
        hands.control.write(0, 0u8);
        let _: u8 = hands.command.read(7);
        assert!(matches!(hands.breaches()[..], [Breach::ResetPulse(_), Breach::ResetNotAwaited(_)]));
    });
}

#[test]
fn an_engine_without_bus_mastering() {
    with_hands(|task, hands| {
        pci::devices(task)[0].disable_bus_master();
        hands.issue(0xc8, 1);
        hands.start(hands.table.addr(0), true);
        assert_eq!(hands.breaches(), [Breach::NotBusMaster]);
    });
}
