//! Xen's console: a port that needs no setting up, and a ring in a page of the tool stack's.
//!
//! Source: Xen `public/io/console.h`; `docs/misc/console.txt`. What goes to the port appears in Xen's own log.

use core::sync::atomic::Ordering;

use super::hypercall;
use crate::x86_64::{paging, port};
use crate::xen::SharedPage;

/// The port of the hypervisor's own console.
const EARLY: u16 = 0xE9;
/// Parameters that tell the ring's page and event channel.
const PAGE: u32 = 17;
const EVENT_CHANNEL: u32 = 18;

/// The ring's parts: to us, from us, and their indices.
const IN: usize = 0;
const IN_BYTES: u32 = 1024;
const OUT: usize = 1024;
const OUT_BYTES: u32 = 2048;
const IN_CONSUMED: usize = 3072;
const IN_PRODUCED: usize = 3076;
const OUT_CONSUMED: usize = 3080;
const OUT_PRODUCED: usize = 3084;

/// Writes to Xen's own log.
pub(in super::super) fn early_write(byte: u8) {
    port::write8(EARLY, byte);
}

/// The console's ring.
#[derive(Debug)]
pub(in super::super) struct Ring {
    page: SharedPage,
    pub(in super::super) port: u32,
}

impl Ring {
    /// The ring that the tool stack has made, if it has.
    pub(super) fn find() -> Option<Self> {
        let frame = hypercall::parameter(PAGE).filter(|&frame| frame != 0)?;
        let port = u32::try_from(hypercall::parameter(EVENT_CHANNEL)?).ok()?;
        let page = paging::map_beside(frame.checked_mul(4096)?)?;
        // SAFETY: the page is the console's alone, was mapped just now, and stays so.
        Some(Self { page: unsafe { SharedPage::new(page) }, port })
    }

    /// Sends what there is room for. Returns whether there was any.
    pub(in super::super) fn send(&self, bytes: &mut dyn Iterator<Item = u8>) -> bool {
        let sent = self.page.send(OUT, OUT_BYTES, OUT_CONSUMED, OUT_PRODUCED, bytes);
        if sent > 0 {
            hypercall::notify(self.port);
        }
        sent > 0
    }

    /// Whether all that was sent has been taken.
    pub(in super::super) fn is_drained(&self) -> bool {
        let taken = self.page.word(OUT_CONSUMED).load(Ordering::Acquire);
        taken == self.page.word(OUT_PRODUCED).load(Ordering::Relaxed)
    }

    /// Takes a byte that came.
    pub(in super::super) fn take(&self) -> Option<u8> {
        let mut byte = [0];
        let came = self.page.take(IN, IN_BYTES, IN_CONSUMED, IN_PRODUCED, &mut byte);
        if came > 0 {
            hypercall::notify(self.port);
        }
        (came > 0).then_some(byte[0])
    }
}
