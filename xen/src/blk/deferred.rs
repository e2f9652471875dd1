//! Memory that another domain uses although it should have let go: it is freed when that has ended, and never before.
//!
//! Who drops it may be anywhere but in a hard interrupt, and waits for nothing: a callout looks once a second.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use undercroft_hal::dma::Coherent;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::xen::{Domain, Grant};
use undercroft_hal::{BottomHalf, cpu};
use undercroft_timer::{Callout, Expiry, Next};

use super::pool::revoke;

/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Not held while anything is called.
const RANK: Rank = Rank::new(34);

/// The callout that looks, which has itself.
type Own = Arc<IrqSpinLock<Option<Callout<BottomHalf>>>>;

/// Frees `memory` when all `grants` of it could be taken back.
pub(super) fn keep(memory: Coherent, grants: Vec<Grant>, domain: &Arc<Domain>) {
    let own: Own = Arc::new(IrqSpinLock::new(RANK, None));
    let (mut held, domain, itself) = (Some((memory, grants)), Arc::clone(domain), Arc::clone(&own));
    let callout = Callout::<BottomHalf>::new(cpu::current(), move |_: &BottomHalf, _: &Expiry| {
        let Some((memory, grants)) = held.take() else { return Next::Done };
        let grants = revoke(&domain, grants);
        if !grants.is_empty() {
            held = Some((memory, grants));
            return Next::After(PERIOD);
        }
        drop(memory);
        log::info!("xen: the other domain has let go of pages that it kept");
        // The last of it goes with the end of this call.
        let callout = itself.lock().take();
        drop(callout);
        Next::Done
    });
    let is_started = callout.start(PERIOD).is_ok();
    if is_started {
        *own.lock() = Some(callout);
    } else {
        // It holds the memory, and is never run: neither is freed.
        core::mem::forget(callout);
    }
}
