//! The words of a line, and what can be wrong with them. Pure; any context.

use core::fmt;
use core::str::SplitAsciiWhitespace;

use undercroft_block::Error;

use crate::files;

/// What is wrong with a line. Each names the word that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad<'a> {
    /// There is no such command.
    Unknown(&'a str),
    /// The command wants one more word.
    Missing(&'static str),
    /// The word is to be a number and is none.
    NotANumber(&'static str, &'a str),
    /// The number is larger than any can be.
    TooLarge(&'static str, &'a str),
    /// A word more than the command takes.
    Unexpected(&'a str),
    /// There is no disk of this name.
    NoDisk(&'a str),
    /// So many blocks from here are not on the disk, or none are.
    OutOfRange(u64, u64),
    /// More blocks than the command takes.
    TooMany(u64, u64),
    /// The disk may not be written there.
    NotAllowed(u64, u64),
    /// The line is longer than this.
    TooLong(usize),
    /// The line is not text.
    NotText,
    /// The disk failed.
    Failed(Error),
    /// Something about files.
    File(files::Error),
    /// The machine has no such thing.
    Absent(&'static str),
    /// There is one already.
    Busy(&'static str),
}

/// Text of a user's, safe to print and of bounded length.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 40;
        let mut chars = self.0.chars();
        f.write_str("'")?;
        chars.by_ref().take(MOST).try_for_each(|c| write!(f, "{}", c.escape_default()))?;
        f.write_str(if chars.next().is_some() { "...'" } else { "'" })
    }
}

impl fmt::Display for Bad<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown(word) => write!(f, "{}: there is no such command; 'help' lists them", Shown(word)),
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::NotANumber(what, word) => write!(f, "{}: {what} is to be a number", Shown(word)),
            Self::TooLarge(what, word) => write!(f, "{}: {what} is too large", Shown(word)),
            Self::Unexpected(word) => write!(f, "{}: a word too many", Shown(word)),
            Self::NoDisk(word) => write!(f, "{}: there is no such disk; 'disks' lists them", Shown(word)),
            Self::OutOfRange(lba, blocks) => write!(f, "{blocks} blocks from {lba}: not on the disk"),
            Self::TooMany(blocks, most) => write!(f, "{blocks} blocks: more than {most}, which is all at a time"),
            Self::NotAllowed(lba, blocks) => write!(f, "{blocks} blocks from {lba}: the disk may not be written there"),
            Self::TooLong(most) => write!(f, "the line is longer than {most} characters"),
            Self::NotText => f.write_str("the line is not UTF-8"),
            Self::Failed(error) => write!(f, "the disk failed: {error}"),
            Self::File(error) => write!(f, "{error}"),
            Self::Absent(what) => write!(f, "this machine has no {what}"),
            Self::Busy(what) => write!(f, "there is {what} already"),
        }
    }
}

/// The words of a line that were not taken yet.
#[derive(Debug, Clone)]
pub struct Words<'a> {
    words: SplitAsciiWhitespace<'a>,
    line: &'a str,
}

impl<'a> Words<'a> {
    /// All words of a line.
    pub fn new(line: &'a str) -> Self {
        Self { words: line.split_ascii_whitespace(), line }
    }

    /// The next word, if there is one.
    pub fn optional(&mut self) -> Option<&'a str> {
        self.words.next()
    }

    /// All that is left of the line behind its first word, as it is. `None`: nothing.
    pub fn rest(&mut self) -> Option<&'a str> {
        let rest = self.line.trim_ascii_start().split_once(|c: char| c.is_ascii_whitespace())?.1.trim_ascii();
        self.words = "".split_ascii_whitespace();
        Some(rest).filter(|rest| !rest.is_empty())
    }

    /// The next word.
    ///
    /// # Errors
    /// [`Bad::Missing`].
    pub fn word(&mut self, what: &'static str) -> Result<&'a str, Bad<'a>> {
        self.optional().ok_or(Bad::Missing(what))
    }

    /// The next word, a number: decimal, or hexadecimal after `0x`.
    ///
    /// # Errors
    /// [`Bad::Missing`], [`Bad::NotANumber`], [`Bad::TooLarge`].
    pub fn number(&mut self, what: &'static str) -> Result<u64, Bad<'a>> {
        let word = self.word(what)?;
        number(what, word)
    }

    /// The next word, a number, or `default` at the end of the line.
    ///
    /// # Errors
    /// [`Bad::NotANumber`], [`Bad::TooLarge`].
    pub fn number_or(&mut self, what: &'static str, default: u64) -> Result<u64, Bad<'a>> {
        self.optional().map_or(Ok(default), |word| number(what, word))
    }

    /// The end of the line.
    ///
    /// # Errors
    /// [`Bad::Unexpected`].
    pub fn end(&mut self) -> Result<(), Bad<'a>> {
        self.optional().map_or(Ok(()), |word| Err(Bad::Unexpected(word)))
    }
}

fn number<'a>(what: &'static str, word: &'a str) -> Result<u64, Bad<'a>> {
    let (digits, radix) = word.strip_prefix("0x").map_or((word, 10), |digits| (digits, 16));
    // Not parsing alone: that takes a plus sign.
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(Bad::NotANumber(what, word));
    }
    u64::from_str_radix(digits, radix).map_err(|_| Bad::TooLarge(what, word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn numbers_in_both_bases_up_to_the_largest() {
        for (word, want) in [
            ("0", Ok(0)),
            ("007", Ok(7)),
            ("0xfF", Ok(255)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(Bad::TooLarge("n", "18446744073709551616"))),
            ("0x10000000000000000", Err(Bad::TooLarge("n", "0x10000000000000000"))),
            ("0x", Err(Bad::NotANumber("n", "0x"))),
            ("+1", Err(Bad::NotANumber("n", "+1"))),
            ("-1", Err(Bad::NotANumber("n", "-1"))),
            ("1k", Err(Bad::NotANumber("n", "1k"))),
            ("\u{663}", Err(Bad::NotANumber("n", "\u{663}"))),
        ] {
            assert_eq!(Words::new(word).number("n"), want, "{word}");
        }
        assert_eq!(Words::new("").number("n"), Err(Bad::Missing("n")));
        assert_eq!(Words::new("").number_or("n", 9), Ok(9));
        assert_eq!(Words::new("  a\tb ").word("w"), Ok("a"));
        assert_eq!(Words::new("a").end(), Err(Bad::Unexpected("a")));
    }

    #[test]
    fn a_message_names_the_word_and_stays_printable_and_short() {
        let long = "x".repeat(5000);
        for (bad, part) in [
            (Bad::Unknown("fro\u{1b}[2Jb"), "fro\\u{1b}[2Jb"),
            (Bad::NoDisk(&long), "xxx...'"),
            (Bad::NotANumber("LBA", "\u{10ffff}"), "\\u{10ffff}"),
        ] {
            let text = bad.to_string();
            assert!(text.contains(part) && text.len() < 120 && text.bytes().all(|b| (32..127).contains(&b)), "{text}");
        }
        let wide = "\u{10ffff}".repeat(60);
        assert!(Bad::Unknown(&wide).to_string().len() < 600);
    }
}
