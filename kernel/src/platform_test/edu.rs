//! PCI, wired and message-signalled interrupts and DMA, on QEMU's educational device.
//!
//! Source: QEMU `docs/specs/edu.txt`.

use alloc::sync::Arc;
use alloc::vec;
use core::sync::atomic::{AtomicU32, Ordering};

use undercroft_hal::dma::{Buffer, DmaBuf, DmaConstraints, FromDevice, Segment, Streaming, ToDevice};
use undercroft_hal::irq::{self, Handled, IrqLine, MsiMessage, Storm};
use undercroft_hal::mmio::Mmio;
use undercroft_hal::pci::{self, Function};
use undercroft_hal::x86_64::console;
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
    let last = executor::run_on(task, cpu::count() - 1, move |task| {
        dma(task, registers, &count);
        bounced(task, registers, &count);
    });
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

/// Half of the device's memory: QEMU 7.2 refuses a transfer of all of it.
const BYTES: usize = 2048;

/// One transfer: `to_memory` from the device's memory to the segment, else the other way.
fn transfer(task: &Task, registers: Mmio, count: &AtomicU32, segment: Segment, to_memory: bool) {
    const START: u32 = 1;
    const TO_MEMORY: u32 = 2;
    const WITH_INTERRUPT: u32 = 4;
    let before = count.load(Ordering::Acquire);
    let (source, target) = if to_memory { (DEVICE_MEMORY, segment.addr) } else { (segment.addr, DEVICE_MEMORY) };
    // Whole: the device itself drops the bits that it does not have.
    registers.write::<u64>(DMA_SOURCE, source);
    registers.write::<u64>(DMA_TARGET, target);
    registers.write::<u64>(DMA_COUNT, u64::from(segment.len));
    let command = START | WITH_INTERRUPT | if to_memory { TO_MEMORY } else { 0 };
    registers.write::<u64>(DMA_COMMAND, u64::from(command));
    task.wait_until(|| count.load(Ordering::Acquire) > before);
}

/// There and back into another buffer.
fn dma(task: &Task, registers: Mmio, count: &AtomicU32) {
    let mut from = DmaBuf::new(BYTES, REACH).expect("DMA memory");
    let to = DmaBuf::new(BYTES, REACH).expect("DMA memory");
    fill(&mut from, 7);
    transfer(task, registers, count, from.segment(), false);
    transfer(task, registers, count, to.segment(), true);
    assert!(*to == *from, "what came back is not what went");
}

fn fill(bytes: &mut [u8], factor: usize) {
    bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index * factor % 251) as u8);
}

/// The same for buffers that the device cannot reach: bytes of the heap, and DMA memory above the device's 28 address bits where the
/// machine has any. They travel through bounce buffers, and nothing but the bytes that were mapped is touched.
fn bounced(task: &Task, registers: Mmio, count: &AtomicU32) {
    there_and_back(task, registers, count, vec![0; BYTES + 64], vec![0xEE; BYTES + 64]);
    let high = || DmaBuf::new(BYTES + 64, DmaConstraints::ANY).expect("DMA memory");
    let (from, mut to) = (high(), high());
    let (address, reach) = (from.segment().addr, REACH.max_addr);
    if address <= reach || to.segment().addr <= reach {
        return;
    }
    to.fill(0xEE);
    let mut from = there_and_back(task, registers, count, from, to);
    // The control: without its bounce buffer the device reads what lies at the address that is left of this one.
    fill(&mut from, 13);
    let came = from_device(task, registers, count, |task| {
        let lie = Streaming::<ToDevice>::map(from, 0..BYTES, DmaConstraints::ANY).expect("a mapping");
        assert!(!lie.is_bounced());
        let given = lie.give();
        transfer(task, registers, count, given.segment(), false);
        given.finish(BYTES)
    });
    assert!(came.0[..BYTES] != *came.1, "the check would not notice");
    console::print(format_args!("bounced from {address:#x}\n"));
}

/// What the device has after `work`, which returns the buffer that it sent.
fn from_device<B>(task: &Task, registers: Mmio, count: &AtomicU32, work: impl FnOnce(&Task) -> B) -> (B, DmaBuf) {
    let sent = work(task);
    let seen = DmaBuf::new(BYTES, REACH).expect("DMA memory");
    transfer(task, registers, count, seen.segment(), true);
    (sent, seen)
}

/// Sends the middle of `from` and receives it into the middle of `to`. Returns `from`.
fn there_and_back<B: Buffer + core::ops::DerefMut<Target: AsMut<[u8]> + AsRef<[u8]>>>(
    task: &Task,
    registers: Mmio,
    count: &AtomicU32,
    mut from: B,
    to: B,
) -> B {
    const MIDDLE: core::ops::Range<usize> = 32..32 + BYTES;
    fill((*from).as_mut(), 11);
    let Ok(there) = Streaming::<ToDevice, B>::map(from, MIDDLE, REACH) else { panic!("no bounce buffer") };
    assert!(there.is_bounced() && there.segment().addr <= REACH.max_addr);
    let given = there.give();
    transfer(task, registers, count, given.segment(), false);
    let from = given.finish(0);
    let Ok(back) = Streaming::<FromDevice, B>::map(to, MIDDLE, REACH) else { panic!("no bounce buffer") };
    assert!(back.is_bounced());
    let given = back.give();
    transfer(task, registers, count, given.segment(), true);
    let to = given.finish(BYTES);
    let (sent, came) = ((*from).as_ref(), (*to).as_ref());
    assert!(sent[MIDDLE] == came[MIDDLE], "what came back through bounce buffers is not what went");
    assert!(came[..32].iter().chain(&came[MIDDLE.end..]).all(|&byte| byte == 0xEE), "bytes beside it changed");
    from
}
