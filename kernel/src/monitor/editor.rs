//! Bytes from a terminal become lines. Pure; any context.

/// Bytes of a line at most.
pub const LINE: usize = 200;

/// A line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    bytes: [u8; LINE],
    len: usize,
    /// More came than there is room for.
    too_long: bool,
}

impl Line {
    const EMPTY: Self = Self { bytes: [0; LINE], len: 0, too_long: false };

    /// What was typed; `None` if it was too long.
    pub fn bytes(&self) -> Option<&[u8]> {
        (!self.too_long).then(|| &self.bytes[..self.len])
    }
}

/// What a byte did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "returned and taken apart at once, never kept")]
pub enum Effect {
    /// Nothing that can be seen.
    Nothing,
    /// It is the line's last byte now.
    Added(u8),
    /// The last byte is gone.
    Removed,
    /// The line is complete.
    Complete(Line),
}

/// Puts lines together.
#[derive(Debug)]
pub struct Editor {
    line: Line,
    /// The byte before was a carriage return, whose line feed ends no line of its own.
    returned: bool,
}

impl Default for Editor {
    fn default() -> Self {
        Self::new()
    }
}

impl Editor {
    /// An empty line.
    pub const fn new() -> Self {
        Self { line: Line::EMPTY, returned: false }
    }

    /// Takes a byte in.
    pub fn feed(&mut self, byte: u8) -> Effect {
        const BACKSPACE: u8 = 8;
        const DELETE: u8 = 127;
        let returned = core::mem::replace(&mut self.returned, byte == b'\r');
        match byte {
            b'\n' if returned => Effect::Nothing,
            b'\r' | b'\n' => Effect::Complete(core::mem::replace(&mut self.line, Line::EMPTY)),
            BACKSPACE | DELETE if self.line.len > 0 && !self.line.too_long => {
                self.line.len -= 1;
                Effect::Removed
            }
            b'\t' | b' '..DELETE | 0x80.. if self.line.len < LINE => {
                self.line.bytes[self.line.len] = byte;
                self.line.len += 1;
                Effect::Added(byte)
            }
            b'\t' | b' '..DELETE | 0x80.. => {
                self.line.too_long = true;
                Effect::Nothing
            }
            _ => Effect::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn lines(bytes: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut editor = Editor::new();
        let complete = |effect| if let Effect::Complete(line) = effect { Some(line) } else { None };
        bytes.iter().filter_map(|&b| complete(editor.feed(b))).map(|l| l.bytes().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn every_end_of_line_ends_one() {
        let want = [b"a".to_vec(), b"b".to_vec(), b"".to_vec(), b"c".to_vec()].map(Some);
        assert_eq!(lines(b"a\nb\r\n\nc\rd"), want);
    }

    #[test]
    fn what_is_taken_back_is_gone_and_control_characters_do_nothing() {
        assert_eq!(lines(b"\x08\x7fab\x08c\x00\x1b\x03\n"), [Some(b"ac".to_vec())]);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_the_next_is_whole() {
        let mut bytes = [b'x'; LINE + 1].to_vec();
        bytes.extend(b"\x08\nok\n");
        assert_eq!(lines(&bytes), [None, Some(b"ok".to_vec())]);
        let mut bytes = [b'x'; LINE].to_vec();
        bytes.push(b'\n');
        assert_eq!(lines(&bytes)[0].as_ref().map(Vec::len), Some(LINE));
    }
}
