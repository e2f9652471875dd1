//! A request's buffers as two byte streams: what the device reads, what it writes. A device assumes nothing about framing (2.7.4).

use super::{Breach, Chain};
use crate::Bus;

/// One request while a device works on it.
pub struct Request<'a> {
    pub(super) bus: &'a Bus<'a>,
    pub(super) chain: &'a Chain,
    pub(super) breaches: &'a mut Vec<Breach>,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("chain", self.chain).finish_non_exhaustive()
    }
}

impl Request<'_> {
    /// The chain.
    pub fn chain(&self) -> &Chain {
        self.chain
    }

    /// Notes a breach that does not break the device.
    pub fn breach(&mut self, breach: Breach) {
        self.breaches.push(breach);
    }

    /// Notes a breach if `holds` is false.
    pub fn require(&mut self, holds: bool, rule: &'static str) {
        if !holds {
            self.breach(Breach::Request(rule));
        }
    }

    /// Runs `each` over the pieces of memory that hold `len` bytes from `offset` of one of the two streams.
    fn pieces(
        &self,
        writable: bool,
        mut offset: u64,
        len: usize,
        mut each: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), Breach>,
    ) -> Result<(), Breach> {
        let mut done = 0;
        for buffer in self.chain.buffers.iter().filter(|buffer| buffer.writable == writable) {
            let have = u64::from(buffer.len);
            if offset >= have {
                offset -= have;
                continue;
            }
            let take = (have - offset).min((len - done) as u64) as usize;
            if take > 0 {
                each(buffer.addr.wrapping_add(offset), done..done + take)?;
            }
            done += take;
            offset = 0;
            if done == len {
                break;
            }
        }
        if done == len { Ok(()) } else { Err(Breach::Request("the request's buffers are too short")) }
    }

    /// Reads from the device-readable stream.
    ///
    /// # Errors
    /// [`Breach`] when the stream ends before, or its memory is not the device's to use.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Breach> {
        self.pieces(false, offset, into.len(), |addr, range| Ok(self.bus.read(addr, &mut into[range])?))
    }

    /// Reads `len` bytes from the device-readable stream.
    ///
    /// # Errors
    /// As [`Request::read`].
    pub fn read_vec(&self, offset: u64, len: usize) -> Result<Vec<u8>, Breach> {
        let mut bytes = vec![0; len];
        self.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes to the device-writable stream.
    ///
    /// # Errors
    /// As [`Request::read`].
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Breach> {
        self.pieces(true, offset, bytes.len(), |addr, range| Ok(self.bus.write(addr, &bytes[range])?))
    }
}
