//! What comes from the server, put together byte by byte. No allocation: it is used in a bottom half.

use zerocopy::{FromBytes, FromZeros};

use super::wire::{HEADER, Header, MOST_BODY};

/// A message that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// The message that is coming in.
pub struct Incoming {
    header: [u8; HEADER],
    body: [u8; MOST_BODY],
    /// Bytes of both that are here.
    here: usize,
}

impl Incoming {
    pub const fn new() -> Self {
        Self { header: [0; HEADER], body: [0; MOST_BODY], here: 0 }
    }

    fn parsed(&self) -> Header {
        // Any sixteen bytes are a header.
        Header::read_from_bytes(&self.header).unwrap_or_else(|_| Header::new_zeroed())
    }

    /// Where the next bytes go: as many as are known to belong to this message. Empty when it is whole.
    ///
    /// # Errors
    /// [`TooLong`] for a length that no message has.
    pub fn room(&mut self) -> Result<&mut [u8], TooLong> {
        if self.here < HEADER {
            return Ok(&mut self.header[self.here..]);
        }
        let length = self.parsed().length as usize;
        self.body.get_mut(self.here - HEADER..length).ok_or(TooLong)
    }

    /// Notes that so many bytes were put where [`Incoming::room`] said.
    pub fn add(&mut self, bytes: usize) {
        self.here += bytes;
    }

    /// The message, if it is whole.
    pub fn message(&self) -> Option<(Header, &[u8])> {
        let header = (self.here >= HEADER).then(|| self.parsed())?;
        let length = header.length as usize;
        (self.here == HEADER + length).then(|| self.body.get(..length).map(|body| (header, body)))?
    }

    /// Begins with the next one.
    pub fn clear(&mut self) {
        self.here = 0;
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    fn feed(incoming: &mut Incoming, bytes: &[u8], step: usize) -> Result<Vec<(u32, Vec<u8>)>, TooLong> {
        let mut all = Vec::new();
        let mut rest = bytes;
        loop {
            while let Some((header, body)) = incoming.message() {
                all.push((header.request, body.to_vec()));
                incoming.clear();
            }
            if rest.is_empty() {
                return Ok(all);
            }
            let room = incoming.room()?;
            let now = room.len().min(rest.len()).min(step);
            room[..now].copy_from_slice(&rest[..now]);
            incoming.add(now);
            rest = &rest[now..];
        }
    }

    fn header(request: u32, length: u32) -> Vec<u8> {
        Header { kind: 2, request, transaction: 0, length }.as_bytes().to_vec()
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let mut bytes = Vec::new();
        let lengths = [0, 1, 15, 4096, 0, 100];
        for (request, length) in (0..).zip(lengths) {
            bytes.extend(header(request, length));
            bytes.extend((0..length).map(|at| (at + request) as u8));
        }
        for step in [1, 2, 7, 16, 1024, 10_000] {
            let all = feed(&mut Incoming::new(), &bytes, step).unwrap();
            assert_eq!(all.len(), lengths.len(), "step {step}");
            for ((request, body), length) in all.iter().zip(lengths) {
                assert_eq!(body.len(), length as usize);
                assert!(body.iter().zip(0..).all(|(byte, at)| *byte == (at + request) as u8));
            }
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_an_error() {
        for length in [4097, u32::MAX] {
            assert_eq!(feed(&mut Incoming::new(), &[header(1, length), vec![0; 8]].concat(), 8), Err(TooLong));
        }
    }
}
