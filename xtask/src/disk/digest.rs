//! SHA-256 of a disk: of all of it, and of everything outside the regions that may change.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::region::Region;

/// What a disk holds, in two numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Of the whole disk, in hexadecimal.
    pub whole: String,
    /// Of everything outside the regions; the same as `whole` without any.
    pub outside: String,
}

/// Reads `bytes` bytes of a disk once and returns both digests. The regions are in order.
pub fn digest(path: &Path, bytes: u64, regions: &[Region]) -> Result<Digests> {
    let say = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(say)?;
    file.seek(SeekFrom::Start(0)).with_context(say)?;
    let (mut whole, mut outside) = (Sha256::new(), Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let left = bytes - at;
        let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let chunk = &mut buffer[..take];
        file.read_exact(chunk).with_context(say)?;
        whole.update(&chunk);
        let inside = |edge: u64| usize::try_from(edge.clamp(at, at + take as u64) - at).unwrap_or(take);
        let mut from = 0;
        for region in regions {
            outside.update(&chunk[from..inside(region.start).max(from)]);
            from = inside(region.end()).max(from);
        }
        outside.update(&chunk[from..]);
        at += take as u64;
    }
    Ok(Digests { whole: hex(&whole.finalize()), outside: hex(&outside.finalize()) })
}

/// The SHA-256 of bytes, as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests<'a>(content: &[u8], regions: impl IntoIterator<Item = &'a Region>) -> Digests {
        let regions: Vec<Region> = regions.into_iter().copied().collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        digest(file.path(), content.len() as u64, &regions).unwrap()
    }

    /// The vector of FIPS 180-2, B.1.
    #[test]
    fn the_digest_is_sha256() {
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digests(b"abc", []), Digests { whole: wanted.into(), outside: wanted.into() });
    }

    #[test]
    fn outside_is_what_lies_before_and_after() {
        let region = Region { start: 1, length: 3 };
        let wanted = digests(b"abc", []).whole;
        assert_eq!(digests(b"aXYZbc", [&region]).outside, wanted);
        assert_eq!(digests(b"aQRSbc", [&region]).outside, wanted);
        assert_ne!(digests(b"aQRSbd", [&region]).outside, wanted);
        assert_ne!(digests(b"bQRSbc", [&region]).outside, wanted);
    }

    #[test]
    fn regions_side_by_side_and_apart_are_all_left_out() {
        let regions = [(1, 2), (3, 1), (6, 1)].map(|(start, length)| Region { start, length });
        let before = digests(b"abcdefgh", &regions);
        assert_eq!(digests(b"aBCDefGh", &regions).outside, before.outside);
        for other in [b"Abcdefgh", b"abcdEfgh", b"abcdeFgh", b"abcdefgH"] {
            assert_ne!(digests(other, &regions).outside, before.outside);
        }
    }

    #[test]
    fn a_region_over_several_chunks_is_left_out_exactly() {
        let region = Region { start: (1 << 20) - 5, length: (2 << 20) + 7 };
        let mut content = vec![1; 4 << 20];
        let before = digests(&content, [&region]);
        content[region.start as usize] = 2;
        content[region.end() as usize - 1] = 2;
        content[2 << 20] = 2;
        assert_eq!(digests(&content, [&region]).outside, before.outside);
        content[region.end() as usize] = 2;
        assert_ne!(digests(&content, [&region]).outside, before.outside);
    }
}
