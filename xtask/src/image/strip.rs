//! Stripping an ELF file for the boot: what the program headers name stays, what only the section
//! headers name (symbols, debug information, the headers themselves) goes. A boot loader reads
//! nothing else (System V ABI, chapter 5).

use anyhow::{Result, ensure};

/// Returns the part of a little-endian ELF64 file that is loaded.
pub fn strip(elf: &[u8]) -> Result<Vec<u8>> {
    ensure!(elf.len() >= 64 && elf[..6] == *b"\x7fELF\x02\x01", "it is not a little-endian ELF64 file");
    let number = |at: u64, bytes: u64| -> Result<u64> {
        let field = usize::try_from(at).ok().and_then(|at| elf.get(at..at.checked_add(bytes as usize)?));
        ensure!(field.is_some(), "it is cut short");
        Ok(field.unwrap_or_default().iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut end = table.saturating_add(size * count);
    for index in 0..count {
        let header = table.saturating_add(index * size);
        end = end.max(number(header.saturating_add(8), 8)?.saturating_add(number(header.saturating_add(32), 8)?));
    }
    ensure!(count > 0, "it has nothing to load");
    ensure!(end <= elf.len() as u64, "it is cut short");
    let mut small = elf[..end as usize].to_vec();
    small[40..48].fill(0); // offset of the section headers
    small[60..64].fill(0); // their number, and which one holds the names
    Ok(small)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One segment of 16 bytes at 200, then 100 bytes that only sections know of.
    fn elf() -> Vec<u8> {
        let mut elf = vec![0; 316];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[40] = 250;
        elf[54] = 56;
        elf[56] = 1;
        elf[60..64].fill(3);
        elf[64 + 8] = 200;
        elf[64 + 32] = 16;
        elf[200..216].fill(7);
        elf[216..].fill(9);
        elf
    }

    #[test]
    fn segments_stay_and_sections_go() {
        let small = strip(&elf()).unwrap();
        assert_eq!(small.len(), 216);
        assert_eq!(small[200..], [7; 16]);
        assert_eq!((small[40], &small[60..64]), (0, [0; 4].as_slice()));
    }

    #[test]
    fn what_is_not_an_image_is_refused() {
        assert!(strip(b"#!/bin/sh").is_err());
        assert!(strip(&elf()[..210]).is_err(), "a segment beyond the end");
        assert!(strip(&elf()[..100]).is_err(), "the program header beyond the end");
        let mut wild = elf();
        wild[64 + 8..64 + 16].fill(0xFF);
        assert!(strip(&wild).is_err(), "an offset that wraps");
    }
}
