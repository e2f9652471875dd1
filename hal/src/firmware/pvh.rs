//! The PVH start-of-day structures.
//!
//! Source: Xen `xen/include/public/arch-x86/hvm/start_info.h`, versions 0 and 1.

use super::bytes::{u32_at, u64_at};
use super::memory_map::Range;

/// Bytes of `hvm_start_info` version 0.
pub const START_INFO_BYTES_V0: usize = 40;
/// Bytes of `hvm_start_info` version 1, which adds the memory map.
pub const START_INFO_BYTES: usize = 56;
/// Bytes of one memory map entry.
pub const MEMMAP_ENTRY_BYTES: usize = 24;
/// Bytes of one module list entry.
pub const MODULE_ENTRY_BYTES: usize = 32;

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with the high bit of the "E" set.
const MAGIC: u32 = 0x336e_c578;
/// `XEN_HVM_MEMMAP_TYPE_RAM`.
const TYPE_RAM: u32 = 1;

/// `hvm_start_info`, with physical addresses. Zero means absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartInfo {
    /// Modules (an initial RAM disk, say) and where their list lies.
    pub modules: u32,
    /// Physical address of the module list.
    pub module_list: u64,
    /// Physical address of the command line, ended by a zero byte.
    pub command_line: u64,
    /// Physical address of the ACPI root pointer.
    pub rsdp: u64,
    /// Physical address of the memory map; zero in version 0.
    pub memmap: u64,
    /// Entries of the memory map.
    pub memmap_entries: u32,
}

/// Parses `hvm_start_info`. Returns `None` if the magic is wrong or the bytes are too few for the version.
pub fn start_info(bytes: &[u8]) -> Option<StartInfo> {
    if u32_at(bytes, 0)? != MAGIC {
        return None;
    }
    let version = u32_at(bytes, 4)?;
    let (memmap, memmap_entries) = if version >= 1 { (u64_at(bytes, 40)?, u32_at(bytes, 48)?) } else { (0, 0) };
    Some(StartInfo {
        modules: u32_at(bytes, 12)?,
        module_list: u64_at(bytes, 16)?,
        command_line: u64_at(bytes, 24)?,
        rsdp: u64_at(bytes, 32)?,
        memmap,
        memmap_entries,
    })
}

/// Yields the memory map's entries as ranges and whether each is RAM. A range that wraps is cut at the top.
pub fn memmap(bytes: &[u8]) -> impl Iterator<Item = (Range, bool)> + Clone + '_ {
    bytes.chunks_exact(MEMMAP_ENTRY_BYTES).filter_map(|entry| {
        let start = u64_at(entry, 0)?;
        let end = start.saturating_add(u64_at(entry, 8)?);
        Some((Range { start, end }, u32_at(entry, 16)? == TYPE_RAM))
    })
}

/// Yields where the modules lie.
pub fn modules(bytes: &[u8]) -> impl Iterator<Item = Range> + Clone + '_ {
    bytes.chunks_exact(MODULE_ENTRY_BYTES).filter_map(|entry| {
        let start = u64_at(entry, 0)?;
        Some(Range { start, end: start.saturating_add(u64_at(entry, 8)?) })
    })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn image(version: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [MAGIC, version, 0, 2] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [0x1000u64, 0x2000, 0xf_5000, 0x3000] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(5u32.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes
    }

    #[test]
    fn both_versions_parse() {
        let info = start_info(&image(1)).unwrap();
        assert_eq!((info.modules, info.module_list, info.command_line), (2, 0x1000, 0x2000));
        assert_eq!((info.rsdp, info.memmap, info.memmap_entries), (0xf_5000, 0x3000, 5));
        let old = start_info(&image(0)[..START_INFO_BYTES_V0]).unwrap();
        assert_eq!((old.rsdp, old.memmap, old.memmap_entries), (0xf_5000, 0, 0));
    }

    #[test]
    fn short_or_foreign_bytes_are_refused() {
        let bytes = image(1);
        assert_eq!(bytes.len(), START_INFO_BYTES);
        for length in 0..52 {
            assert_eq!(start_info(&bytes[..length]), None, "{length}");
        }
        let mut foreign = bytes;
        foreign[0] ^= 1;
        assert_eq!(start_info(&foreign), None);
    }

    #[test]
    fn memmap_cuts_ranges_that_wrap() {
        let mut bytes = Vec::new();
        bytes.extend(u64::MAX.wrapping_sub(0xfff).to_le_bytes());
        bytes.extend(0x10000u64.to_le_bytes());
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0; 7]);
        let entries: Vec<_> = memmap(&bytes).collect();
        assert_eq!(entries, [(Range { start: !0xfff, end: u64::MAX }, true)]);
    }
}
