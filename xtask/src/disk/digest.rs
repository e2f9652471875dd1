//! SHA-256 of a disk: of all of it, and of everything outside the region that may change.

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
    /// Of everything outside the region; the same as `whole` without one.
    pub outside: String,
}

/// Reads `bytes` bytes of a disk once and returns both digests.
pub fn digest(path: &Path, bytes: u64, region: Option<Region>) -> Result<Digests> {
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
        if let Some(region) = region {
            let inside = |edge: u64| usize::try_from(edge.clamp(at, at + take as u64) - at).unwrap_or(take);
            outside.update(&chunk[..inside(region.start)]);
            outside.update(&chunk[inside(region.end())..]);
        }
        at += take as u64;
    }
    let whole = hex(&whole.finalize());
    let outside = if region.is_some() { hex(&outside.finalize()) } else { whole.clone() };
    Ok(Digests { whole, outside })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(content: &[u8], region: Option<Region>) -> Digests {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        digest(file.path(), content.len() as u64, region).unwrap()
    }

    /// The vector of FIPS 180-2, B.1.
    #[test]
    fn the_digest_is_sha256() {
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digests(b"abc", None), Digests { whole: wanted.into(), outside: wanted.into() });
    }

    #[test]
    fn outside_is_what_lies_before_and_after() {
        let region = Region { start: 1, length: 3 };
        let wanted = digests(b"abc", None).whole;
        assert_eq!(digests(b"aXYZbc", Some(region)).outside, wanted);
        assert_eq!(digests(b"aQRSbc", Some(region)).outside, wanted);
        assert_ne!(digests(b"aQRSbd", Some(region)).outside, wanted);
        assert_ne!(digests(b"bQRSbc", Some(region)).outside, wanted);
    }

    #[test]
    fn a_region_over_several_chunks_is_left_out_exactly() {
        let region = Region { start: (1 << 20) - 5, length: (2 << 20) + 7 };
        let mut content = vec![1; 4 << 20];
        let before = digests(&content, Some(region));
        content[region.start as usize] = 2;
        content[region.end() as usize - 1] = 2;
        content[2 << 20] = 2;
        assert_eq!(digests(&content, Some(region)).outside, before.outside);
        content[region.end() as usize] = 2;
        assert_ne!(digests(&content, Some(region)).outside, before.outside);
    }
}
