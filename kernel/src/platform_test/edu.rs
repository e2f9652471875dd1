//! PCI, wired and message-signalled interrupts and DMA, on QEMU's educational device.
//!
//! Source: QEMU `docs/specs/edu.txt`.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::irq::{self, Handled, IrqLine, MsiMessage, Storm};
use undercroft_hal::mmio::Mmio;
use undercroft_hal::pci::{self, Function};
use undercroft_hal::{Duration, Instant, Task, cpu, executor};

const ID: (u16, u16) = (0x1234, 0x11E8);
const LIVENESS: usize = 0x04;
const INTERRUPT_STATUS: usize = 0x24;
const RAISE: usize = 0x60;
const ACKNOWLEDGE: usize = 0x64;
const DMA_SOURCE: usize = 0x80;
const DMA_TARGET: usize = 0x88;
const DMA_COUNT: usize = 0x90;
const DMA_COMMAND: usize = 0x98;
/// The device's own memory, in its view of DMA addresses.
const DEVICE_MEMORY: u64 = 0x40000;
/// The device has 28 address bits.
const REACH: DmaConstraints = DmaConstraints { max_addr: 0x0FFF_FFFF, align: 4096, boundary: 0 };
const ROUNDS: u32 = 100;

/// Runs the checks if the machine has the device; returns whether it has.
pub fn check(task: &Task) -> bool {
    let Some(function) = pci::devices(task).into_iter().find(|function| (function.vendor, function.device) == ID)
    else {
        return false;
    };
    function.enable();
    let registers = function.map_bar(0).expect("the device's registers");
    registers.write::<u32>(LIVENESS, 0x1234_5678);
    assert_eq!(registers.read::<u32>(LIVENESS), !0x1234_5678);

    let count = Arc::new(AtomicU32::new(0));
    let line = function.line().expect("the device's interrupt line");
    let wired = irq::line(task, line, handler(registers, &count)).expect("its interrupt");
    raise(task, registers, &count);
    drop(wired);

    count.store(0, Ordering::Relaxed);
    storm(task, registers, line);

    // On every processor in turn; the last keeps it.
    let mut kept = None;
    for cpu in 0..cpu::count() {
        count.store(0, Ordering::Relaxed);
        drop(kept.take());
        let (message_handler, message) = irq::message(task, cpu, handler(registers, &count)).expect("a message");
        enable_messages(&function, message);
        let here = executor::run_on(task, cpu, {
            let count = Arc::clone(&count);
            move |task| raise(task, registers, &count)
        });
        task.block_on(here);
        assert_eq!(message_handler.count(), u64::from(ROUNDS));
        kept = Some(message_handler);
    }

    count.store(0, Ordering::Relaxed);
    let last = executor::run_on(task, cpu::count() - 1, move |task| dma(task, registers, &count));
    task.block_on(last);
    drop(kept);
    true
}

fn handler(registers: Mmio, count: &Arc<AtomicU32>) -> impl Fn(&undercroft_hal::HardIrq) -> Handled + Send + 'static {
    let count = Arc::clone(count);
    move |_| {
        let status = registers.read::<u32>(INTERRUPT_STATUS);
        if status == 0 {
            return Handled::No;
        }
        registers.write(ACKNOWLEDGE, status);
        count.fetch_add(1, Ordering::Relaxed);
        Handled::Yes
    }
}

/// A line that nobody claims is masked and told of, once, and works again for the handler that was missing.
fn storm(task: &Task, registers: Mmio, line: IrqLine) {
    assert_eq!(irq::storm(task), None);
    let unclaimed = irq::line(task, line, |_| Handled::No).expect("the interrupt");
    registers.write::<u32>(RAISE, 1);
    let mut told = None;
    task.wait_until(|| {
        told = irq::storm(task);
        told.is_some()
    });
    assert_eq!(told, Some(Storm { line, unclaimed: irq::STORM }));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {}
    assert_eq!(unclaimed.count(), u64::from(irq::STORM), "a masked line interrupts");
    assert_eq!(irq::storm(task), None);
    let count = Arc::new(AtomicU32::new(0));
    let claims = irq::line(task, line, handler(registers, &count)).expect("the interrupt");
    task.wait_until(|| count.load(Ordering::Relaxed) == 1);
    count.store(0, Ordering::Relaxed);
    raise(task, registers, &count);
    drop((unclaimed, claims));
}

/// One interrupt for each that is asked for, no more.
fn raise(task: &Task, registers: Mmio, count: &AtomicU32) {
    for round in 0..ROUNDS {
        assert_eq!(count.load(Ordering::Relaxed), round);
        registers.write::<u32>(RAISE, 1);
        task.wait_until(|| count.load(Ordering::Relaxed) > round);
    }
    assert_eq!(registers.read::<u32>(INTERRUPT_STATUS), 0);
}

/// Source: PCI Local Bus 3.0, 6.8.1.
fn enable_messages(function: &Function, message: MsiMessage) {
    const MESSAGES: u8 = 0x05;
    const ENABLE: u32 = 1 << 16;
    const WIDE: u32 = 1 << 23;
    let found = function.capabilities().find(|capability| capability.id == MESSAGES).expect("the MSI capability");
    let at = u16::from(found.offset);
    let control = function.read(at);
    function.write(at + 4, message.addr as u32);
    let data = if control & WIDE != 0 {
        function.write(at + 8, (message.addr >> 32) as u32);
        at + 12
    } else {
        at + 8
    };
    function.write(data, function.read(data) & 0xFFFF_0000 | message.data);
    function.write(at, control | ENABLE);
}

/// Half of the device's memory (QEMU 7.2 refuses a transfer of all of it) there and back into another buffer.
fn dma(task: &Task, registers: Mmio, count: &AtomicU32) {
    const BYTES: usize = 2048;
    const START: u32 = 1;
    const TO_MEMORY: u32 = 2;
    const WITH_INTERRUPT: u32 = 4;
    let mut from = DmaBuf::new(BYTES, REACH).expect("DMA memory");
    let to = DmaBuf::new(BYTES, REACH).expect("DMA memory");
    from.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index * 7 % 251) as u8);
    let transfers = [
        (from.segment().addr, DEVICE_MEMORY, START | WITH_INTERRUPT),
        (DEVICE_MEMORY, to.segment().addr, START | TO_MEMORY | WITH_INTERRUPT),
    ];
    for (done, (source, target, command)) in (0..).zip(transfers) {
        registers.write::<u32>(DMA_SOURCE, source as u32);
        registers.write::<u32>(DMA_TARGET, target as u32);
        registers.write::<u32>(DMA_COUNT, BYTES as u32);
        registers.write::<u32>(DMA_COMMAND, command);
        task.wait_until(|| count.load(Ordering::Acquire) > done);
    }
    assert!(*to == *from, "what came back is not what went");
}
