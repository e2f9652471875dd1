//! Where a function's virtio structures are (virtio 1.2, 4.1.4). Task context.
//!
//! Offsets and lengths are the host's word: each structure is cut out of the mapped BAR by checked arithmetic, or is not there.

use undercroft_hal::mmio::Mmio;
use undercroft_hal::pci::{Function, PciError};

use crate::ProbeError;
use crate::wire::pci::{CAP_ID, CapType, Missing, cap, common};

/// The mapped structures.
#[derive(Debug)]
pub(super) struct Structures {
    pub common: Mmio,
    pub notify: Mmio,
    /// Bytes between the doorbells of two notification offsets.
    pub notify_multiplier: u32,
    pub isr: Mmio,
    /// Absent on devices without a configuration.
    pub device: Option<Mmio>,
}

/// BARs mapped so far: several structures usually share one.
struct Bars<'a> {
    function: &'a Function,
    mapped: [Option<Mmio>; 6],
}

impl Bars<'_> {
    fn map(&mut self, index: u8) -> Result<Mmio, PciError> {
        let slot = self.mapped.get_mut(usize::from(index)).ok_or(PciError::NoBar)?;
        match slot {
            Some(bar) => Ok(*bar),
            None => Ok(*slot.insert(self.function.map_bar(index)?)),
        }
    }

    /// The structure that the capability at `at` locates, if it is wholly inside a memory BAR and at least `least` bytes.
    fn structure(&mut self, at: u16, least: usize) -> Option<Mmio> {
        let bar = self.function.read_u8(at + cap::BAR);
        let offset = usize::try_from(self.function.read(at + cap::OFFSET)).ok()?;
        let len = usize::try_from(self.function.read(at + cap::LENGTH)).ok()?;
        if len < least {
            return None;
        }
        self.map(bar).ok()?.sub(offset, len)
    }
}

/// Finds the structures. Of each kind the first usable one counts: the device lists them in order of preference (4.1.4.1).
pub(super) fn find(function: &Function) -> Result<Structures, ProbeError> {
    let mut bars = Bars { function, mapped: [None; 6] };
    let (mut common, mut notify, mut isr, mut device, mut multiplier, mut any) = (None, None, None, None, 0, false);
    for capability in function.capabilities().filter(|capability| capability.id == CAP_ID) {
        let at = u16::from(capability.offset);
        let bytes = function.read_u8(at + cap::CAP_LEN);
        // A capability that ends beyond the 256 bytes it must lie in is not one.
        if bytes < cap::SIZE || at + u16::from(bytes) > 256 {
            continue;
        }
        any = true;
        match CapType(function.read_u8(at + cap::CFG_TYPE)) {
            CapType::COMMON if common.is_none() => common = bars.structure(at, common::SIZE),
            CapType::NOTIFY if notify.is_none() && bytes >= cap::NOTIFY_SIZE => {
                notify = bars.structure(at, 2);
                multiplier = function.read(at + cap::NOTIFY_MULTIPLIER);
            }
            CapType::ISR if isr.is_none() => isr = bars.structure(at, 1),
            CapType::DEVICE if device.is_none() => device = bars.structure(at, 1),
            _ => {}
        }
    }
    match (common, notify, isr) {
        (Some(common), Some(notify), Some(isr)) => {
            Ok(Structures { common, notify, notify_multiplier: multiplier, isr, device })
        }
        // Not one capability of virtio's: a device from before there were any.
        _ if !any => Err(ProbeError::Legacy),
        (common, notify, isr) => {
            let mut missing = Missing::empty();
            missing.set(Missing::COMMON, common.is_none());
            missing.set(Missing::NOTIFY, notify.is_none());
            missing.set(Missing::ISR, isr.is_none());
            Err(ProbeError::Structures(missing))
        }
    }
}
