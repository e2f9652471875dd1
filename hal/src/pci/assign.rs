//! Addresses for functions that firmware has not seen: their BARs are laid out in the windows of the bridge above them.
//!
//! Source: PCI Local Bus 3.0, 6.2.5.1; PCI-to-PCI bridge 1.2, 3.2.5.6 to 3.2.5.10. Task context, for a bus on which nothing is in use.

use alloc::vec::Vec;
use core::ops::Range;

use virtio_drivers::transport::pci::bus::{BarInfo, PciRoot};

use super::config::Segment;
use super::function::{Function, PciError};

/// What a BAR is for, and so which window may hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Io,
    /// Below 4 GiB.
    Memory,
    /// Anywhere, and reads have no side effects.
    Prefetchable,
}

/// The addresses that a bridge passes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Windows {
    io: Range<u64>,
    memory: Range<u64>,
    prefetchable: Range<u64>,
}

impl Windows {
    fn of(bridge: &Function) -> Self {
        let io = (bridge.read(0x1c), bridge.read(0x30));
        Self::decode(io, bridge.read(0x20), (bridge.read(0x24), bridge.read(0x28), bridge.read(0x2c)))
    }

    /// From the registers at 0x1c and 0x30, at 0x20, and at 0x24, 0x28 and 0x2c. A window whose limit is below its base is closed.
    fn decode(io: (u32, u32), memory: u32, prefetchable: (u32, u32, u32)) -> Self {
        let open = |base: u64, limit: u64, unit: u64| {
            let end = (limit | (unit - 1)).saturating_add(1);
            if base != 0 && base < end { base..end } else { 0..0 }
        };
        let (base, limit) = (u64::from(io.0 & 0xf0) << 8, u64::from(io.0 >> 8 & 0xf0) << 8);
        // Of 16 bits, or of 32 with the upper halves in a register of their own.
        let (high_base, high_limit) = if io.0 & 1 == 1 { (io.1 & 0xffff, io.1 >> 16) } else { (0, 0) };
        let io = open(base | u64::from(high_base) << 16, limit | u64::from(high_limit) << 16, 1 << 12);
        let pair = |word: u32| (u64::from(word & 0xfff0) << 16, u64::from(word >> 16 & 0xfff0) << 16);
        let (base, limit) = pair(memory);
        let memory = open(base, limit, 1 << 20);
        let (low, high_base, high_limit) = prefetchable;
        let (base, limit) = pair(low);
        let (high_base, high_limit) = if low & 1 == 1 { (high_base, high_limit) } else { (0, 0) };
        let prefetchable = open(base | u64::from(high_base) << 32, limit | u64::from(high_limit) << 32, 1 << 20);
        Self { io, memory, prefetchable }
    }

    /// Takes `size` bytes at a multiple of `size`, a power of two.
    fn take(&mut self, kind: Kind, size: u64) -> Option<u64> {
        let from = |window: &mut Range<u64>| {
            let at = window.start.checked_next_multiple_of(size)?;
            let end = at.checked_add(size)?;
            (end <= window.end).then(|| {
                window.start = end;
                at
            })
        };
        match kind {
            Kind::Io => from(&mut self.io),
            Kind::Memory => from(&mut self.memory),
            Kind::Prefetchable => from(&mut self.prefetchable).or_else(|| from(&mut self.memory)),
        }
    }
}

/// A BAR to be placed.
struct Wanted {
    function: Function,
    index: u8,
    kind: Kind,
    wide: bool,
    size: u64,
}

fn wanted(function: &Function, into: &mut Vec<Wanted>) -> Result<(), PciError> {
    let mut root = PciRoot::new(Segment(function.address.segment));
    let mut index = 0;
    while index < 6 {
        let info = root.bar_info(function.address.device_function(), index).map_err(|_| PciError::BadBar)?;
        let wide = info.as_ref().is_some_and(BarInfo::takes_two_entries);
        let (kind, size) = match info {
            None => (Kind::Memory, 0),
            Some(BarInfo::IO { size, .. }) => (Kind::Io, u64::from(size)),
            Some(BarInfo::Memory { prefetchable, size, .. }) if prefetchable && wide => (Kind::Prefetchable, size),
            Some(BarInfo::Memory { size, .. }) => (Kind::Memory, size),
        };
        if size > 0 {
            if !size.is_power_of_two() {
                return Err(PciError::BadBar);
            }
            into.push(Wanted { function: *function, index, kind, wide, size });
        }
        index += if wide { 2 } else { 1 };
    }
    Ok(())
}

/// Gives every BAR of `functions`, which are all that there are below `bridge`, a place.
///
/// # Errors
/// [`PciError::NoRoom`], or a BAR that makes no sense. Functions that have no place stay switched off.
pub(super) fn assign(bridge: &Function, functions: &[Function]) -> Result<(), PciError> {
    let mut all = Vec::new();
    functions.iter().try_for_each(|function| wanted(function, &mut all))?;
    // The largest first: then nothing is lost to alignment.
    all.sort_by_key(|wanted| core::cmp::Reverse(wanted.size));
    let mut windows = Windows::of(bridge);
    for Wanted { function, index, kind, wide, size } in all {
        let at = windows.take(kind, size).ok_or(PciError::NoRoom)?;
        let mut root = PciRoot::new(Segment(function.address.segment));
        let place = function.address.device_function();
        if wide {
            root.set_bar_64(place, index, at);
        } else {
            root.set_bar_32(place, index, u32::try_from(at).map_err(|_| PciError::NoRoom)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_decoded_and_closed_ones_hold_nothing() {
        let open = Windows::decode((0x0000_e1d1, 0), 0xfe90_fe80, (0x0011_0001, 0x8, 0x8));
        assert_eq!(open.io, 0xd000..0xf000);
        assert_eq!(open.memory, 0xfe80_0000..0xfea0_0000);
        assert_eq!(open.prefetchable, 0x8_0000_0000..0x8_0020_0000);
        let mut closed = Windows::decode((0x0000_00f0, 0), 0x0000_fff0, (0x0000_fff1, 0, 0));
        assert_eq!(closed, Windows::default());
        assert_eq!(closed.take(Kind::Memory, 4096), None);
    }

    #[test]
    fn places_are_aligned_and_do_not_overlap_and_the_window_ends() {
        let mut windows = Windows { io: 0..0, memory: 0xfe80_1000..0xfe81_0000, prefetchable: 0x8000..0xc000 };
        assert_eq!(windows.take(Kind::Prefetchable, 0x4000), Some(0x8000));
        // No room there any more: memory will do.
        assert_eq!(windows.take(Kind::Prefetchable, 0x4000), Some(0xfe80_4000));
        assert_eq!(windows.take(Kind::Memory, 0x1000), Some(0xfe80_8000));
        assert_eq!(windows.take(Kind::Memory, 0x8000), None);
        assert_eq!(windows.take(Kind::Io, 32), None);
    }
}
