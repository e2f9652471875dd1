//! One virtual processor's part of the SynIC: its message slot and its event flags (TLFS 11.4, 11.5).
//!
//! The pages are the hypervisor's while the registers name them, and are freed only after those are off.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use arrayvec::ArrayVec;

use super::Hypervisor;
use super::registers::{self, ENABLE, PAGE, SINT_MASKED, SINT0, SLOT, VMBUS_SINT};
use crate::broken::{self, Hazard};
use crate::dma::{Coherent, DmaConstraints, DmaError};
use crate::sync::{IrqSpinLock, Rank};
use crate::work::BottomHalfWork;

/// Event flags of a SINT.
pub const FLAGS: u16 = 2048;
/// Listeners of one CPU at most.
const LISTENERS: usize = 64;
/// Taken in the hard interrupt handler, under the lock of the interrupt's slot.
const RANK: Rank = Rank::new(29);

const MESSAGE_TYPE: usize = 0;
const PAYLOAD_SIZE: usize = 4;
const MESSAGE_FLAGS: usize = 5;
const PAYLOAD: usize = 16;
/// Another message waits for the slot.
const PENDING: u8 = 1;
/// The slot and the flags of VMBus within their pages.
const AT: usize = VMBUS_SINT as usize * SLOT;

/// A message from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Its type: 1 for VMBus.
    pub kind: u32,
    payload: [u8; SLOT - PAYLOAD],
    len: u8,
}

impl Message {
    /// What it carries: at most 240 bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload[..usize::from(self.len).min(self.payload.len())]
    }
}

/// More channels interrupt one CPU than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyListeners;

struct Listener {
    flag: u16,
    work: Arc<BottomHalfWork>,
}

pub(super) struct Synic {
    messages: Coherent,
    events: Coherent,
    listeners: IrqSpinLock<ArrayVec<Listener, LISTENERS>>,
    pub(super) vp: AtomicU32,
    pub(super) vector: AtomicU32,
}

impl Synic {
    pub(super) fn new() -> Result<Self, DmaError> {
        Ok(Self {
            messages: Coherent::new(PAGE, DmaConstraints::ANY)?,
            events: Coherent::new(PAGE, DmaConstraints::ANY)?,
            listeners: IrqSpinLock::new(RANK, ArrayVec::new_const()),
            vp: AtomicU32::new(0),
            vector: AtomicU32::new(0),
        })
    }

    /// Turns it on. On its CPU.
    pub(super) fn enable(&self, hypervisor: &dyn Hypervisor, has_index: bool) {
        if has_index {
            self.vp.store(hypervisor.read_msr(registers::VP_INDEX) as u32, Ordering::Relaxed);
        }
        hypervisor.write_msr(registers::SIMP, self.messages.addr(0) | ENABLE);
        hypervisor.write_msr(registers::SIEFP, self.events.addr(0) | ENABLE);
        hypervisor.write_msr(SINT0 + VMBUS_SINT, u64::from(self.vector.load(Ordering::Relaxed)));
        hypervisor.write_msr(registers::SCONTROL, ENABLE);
    }

    /// Turns it off. On its CPU. The pages are ours again afterwards.
    pub(super) fn disable(&self, hypervisor: &dyn Hypervisor) {
        hypervisor.write_msr(SINT0 + VMBUS_SINT, u64::from(self.vector.load(Ordering::Relaxed)) | SINT_MASKED);
        hypervisor.write_msr(registers::SIEFP, 0);
        hypervisor.write_msr(registers::SIMP, 0);
        hypervisor.write_msr(registers::SCONTROL, 0);
    }

    pub(super) fn has_message(&self) -> bool {
        self.messages.atomic_u32(AT + MESSAGE_TYPE).load(Ordering::Relaxed) != 0
    }

    /// Takes the message in the slot, if there is one, and has the next one delivered. On its CPU, one caller at a time.
    pub(super) fn take_message(&self, hypervisor: &dyn Hypervisor) -> Option<Message> {
        let message = self.take_without_eom()?;
        // The flag is set in place while the slot is full: it says something only once the type is cleared for all to see.
        if self.messages.read::<u8>(AT + MESSAGE_FLAGS) & PENDING != 0 && !broken::is(Hazard::MessageNotEnded) {
            hypervisor.write_msr(registers::EOM, 0);
        }
        Some(message)
    }

    /// Takes the message, and leaves the next one where it waits.
    pub(super) fn take_without_eom(&self) -> Option<Message> {
        let kind = self.messages.atomic_u32(AT + MESSAGE_TYPE).load(Ordering::Acquire);
        if kind == 0 {
            return None;
        }
        let len = self.messages.read::<u8>(AT + PAYLOAD_SIZE);
        let payload = self.messages.read(AT + PAYLOAD);
        self.messages.atomic_u32(AT + MESSAGE_TYPE).store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        Some(Message { kind: u32::from_le(kind), payload, len })
    }

    fn flag(&self, flag: u16) -> (&AtomicU32, u32) {
        let flag = usize::from(flag % FLAGS);
        (self.events.atomic_u32(AT + flag / 32 * 4), 1 << (flag % 32))
    }

    /// Has `work` scheduled whenever the flag is set, and now, if it was already.
    pub(super) fn listen(&self, flag: u16, work: &Arc<BottomHalfWork>) -> Result<(), TooManyListeners> {
        let listener = Listener { flag, work: Arc::clone(work) };
        if let Err(full) = self.listeners.lock().try_push(listener) {
            // Dropped without the lock.
            drop(full);
            return Err(TooManyListeners);
        }
        work.schedule();
        Ok(())
    }

    /// Forgets a flag.
    pub(super) fn unlisten(&self, flag: u16) {
        let mut listeners = self.listeners.lock();
        let gone = listeners.iter().position(|listener| listener.flag == flag).map(|at| listeners.swap_remove(at));
        drop(listeners);
        drop(gone);
        let (word, bit) = self.flag(flag);
        word.fetch_and(!bit, Ordering::AcqRel);
    }

    /// Clears the flags that somebody listens to and schedules their work.
    pub(super) fn take_events(&self) {
        for listener in &*self.listeners.lock() {
            let (word, bit) = self.flag(listener.flag);
            if word.load(Ordering::Relaxed) & bit == 0 {
                continue;
            }
            // Cleared before the ring is looked at: what comes after that sets it again.
            word.fetch_and(!bit, Ordering::SeqCst);
            listener.work.schedule();
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::hosted::Cpus;

    /// Notes what is written to registers.
    #[derive(Default)]
    struct Noted(Mutex<Vec<(u32, u64)>>);

    impl Hypervisor for Noted {
        fn cpuid(&self, _: u32) -> [u32; 4] {
            [0; 4]
        }
        fn read_msr(&self, _: u32) -> u64 {
            0
        }
        fn write_msr(&self, register: u32, value: u64) {
            self.0.lock().unwrap().push((register, value));
        }
        fn hypercall(&self, _: u64, _: u64, _: u64) -> u64 {
            0
        }
    }

    /// A message is taken once; one that waits behind it is asked for, and none that does not.
    fn messages_follow() {
        Cpus::new(1).run(0, |_| {
            for (flags, asked) in [(0, 0), (PENDING, 1)] {
                let (synic, noted) = (Synic::new().unwrap(), Noted::default());
                assert_eq!(synic.take_message(&noted), None);
                synic.messages.write(AT + PAYLOAD, [7u8; 240]);
                synic.messages.write(AT + PAYLOAD_SIZE, [255u8, flags]);
                synic.messages.atomic_u32(AT + MESSAGE_TYPE).store(1, Ordering::Release);
                let message = synic.take_message(&noted).expect("a message");
                // Whatever length the host says, no more than there is.
                assert_eq!((message.kind, message.payload()), (1, &[7u8; 240][..]));
                assert_eq!(synic.take_message(&noted), None, "taken once");
                let ends = noted.0.lock().unwrap().iter().filter(|(register, _)| *register == registers::EOM).count();
                assert_eq!(ends, asked, "the message behind is not asked for");
            }
        });
    }

    #[test]
    fn a_message_behind_another_is_asked_for() {
        messages_follow();
    }

    #[test]
    #[should_panic(expected = "the message behind is not asked for")]
    fn a_message_behind_another_is_asked_for_control() {
        broken::with(Hazard::MessageNotEnded, messages_follow);
    }
}
