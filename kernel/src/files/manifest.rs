//! The list of a file system's files, in its root: what `sha256sum` prints of them. Pure; any context.

use alloc::vec::Vec;

/// Its name.
pub(crate) const NAME: &str = "SHA256SUMS";
/// Bytes of it that are read at most.
pub(crate) const MOST: usize = 1 << 20;

/// A line: the sum, and the file that has it.
pub(crate) type Line<'a> = ([u8; 32], &'a str);

/// The lines of a list. `None`: it is none.
pub(crate) fn parse(bytes: &[u8]) -> Option<Vec<Line<'_>>> {
    core::str::from_utf8(bytes).ok()?.lines().map(line).collect()
}

fn line(line: &str) -> Option<Line<'_>> {
    let (digits, path) = line.split_once("  ")?;
    if digits.len() != 64 || path.is_empty() {
        return None;
    }
    let mut sum = [0; 32];
    for (byte, pair) in sum.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some((sum, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sha256sum_prints_is_read_and_nothing_else() {
        let digits = "0123456789abcdef".repeat(4);
        let text = std::format!("{digits}  A/B c.BIN\n{digits}  d\n");
        let lines = parse(text.as_bytes()).unwrap();
        assert_eq!((lines.len(), lines[0].1, lines[1].1), (2, "A/B c.BIN", "d"));
        assert_eq!(lines[0].0[..4], [0x01, 0x23, 0x45, 0x67]);
        assert_eq!(parse(b"").map(|lines| lines.len()), Some(0));
        for bad in [&digits[..], "xyz  a", &std::format!("{}  a", &digits[1..]), &std::format!("{digits}  ")] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(&[0xff, 0xfe]), None);
    }
}
