//! [`Cause`]: why a wired interrupt was raised. Any context, hard interrupts included.

use undercroft_hal::mmio::{Mmio, Ports};

use crate::wire::Interrupt;

/// The register that says why, and how it is acknowledged.
#[derive(Debug, Clone, Copy)]
pub enum Cause {
    /// PCI's ISR status: reading it acknowledges it (4.1.4.5).
    ReadToClear(Mmio),
    /// Legacy PCI's ISR status, a port: reading it acknowledges it.
    PortToClear(Ports),
    /// MMIO's status and acknowledge registers (4.2.2).
    WriteToClear {
        /// The status register.
        status: Mmio,
        /// The acknowledge register.
        ack: Mmio,
    },
}

impl Cause {
    /// Takes and acknowledges what is pending; empty when the line was raised by another device.
    #[inline]
    pub fn take(&self) -> Interrupt {
        match self {
            Self::ReadToClear(isr) => Interrupt::from_bits_retain(u32::from(isr.read::<u8>(0))),
            Self::PortToClear(isr) => Interrupt::from_bits_retain(u32::from(isr.read::<u8>(0))),
            Self::WriteToClear { status, ack } => {
                let pending = status.read::<u32>(0);
                if pending != 0 {
                    ack.write(0, pending);
                }
                Interrupt::from_bits_retain(pending)
            }
        }
    }
}
