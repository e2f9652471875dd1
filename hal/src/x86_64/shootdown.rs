//! Translations that were taken away are forgotten on every processor before anybody goes on.
//!
//! Source: Intel SDM volume 3, 5.10.4 and 5.10.5. Requests are numbered. Who changed a table draws the next number, interrupts the others and
//! waits until each has forgotten all its translations after it saw that number, so that one look serves every request up to it; there is no
//! lock and no list.
//!
//! A processor that spins with interrupts off does not take the interrupt, and may be waiting for a lock that the requester holds. So who
//! spins looks here too: `Platform::relax` calls [`serve`], and so does a requester that waits. What remains are sections with interrupts
//! off that end by themselves. A processor that does not answer in [`PATIENCE`] makes the request fail; the frame and its addresses then
//! stay out of use.
//!
//! Contexts: all.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{apic, clock, interrupts, paging, percpu};
use crate::cpu::MAX_CPUS;

/// Nanoseconds that a processor may take to answer. A virtual one may be off its host's processor for a good part of that.
const PATIENCE: u64 = 2_000_000_000;

/// The latest request's number.
static REQUESTED: AtomicU64 = AtomicU64::new(0);
/// The number up to which each processor has answered.
static ANSWERED: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// A processor did not answer in time, and may still use what was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoAnswer;

/// Makes all processors forget what they knew of the tables before this call.
pub(super) fn everywhere() -> Result<(), NoAnswer> {
    let (me, count) = (percpu::id(), percpu::count());
    if defect::is(defect::NOT_SENT) {
        paging::forget_translations();
        return Ok(());
    }
    // Sequentially consistent: the change to the tables comes before the number, by which others know that there is one.
    let mine = REQUESTED.fetch_add(1, Ordering::SeqCst) + 1;
    serve();
    let waits_for = |cpu: usize| cpu != me && ANSWERED[cpu].load(Ordering::Acquire) < mine;
    (0..count).filter(|&cpu| waits_for(cpu)).for_each(|cpu| apic::send(percpu::apic_id(cpu), interrupts::SHOOTDOWN));
    let start = clock::nanoseconds();
    while (0..count).any(waits_for) {
        relax();
        if clock::nanoseconds().saturating_sub(start) > PATIENCE {
            return Err(NoAnswer);
        }
    }
    Ok(())
}

/// Answers for this processor, if somebody asks.
#[inline]
pub(super) fn serve() {
    let wanted = REQUESTED.load(Ordering::SeqCst);
    let answered = &ANSWERED[percpu::id() % MAX_CPUS];
    if answered.load(Ordering::Relaxed) < wanted {
        paging::forget_translations();
        // The larger number stays: an interrupt in between may have answered a later request.
        answered.fetch_max(wanted, Ordering::Release);
    }
}

/// What a processor does that waits for another: looks whether that one waits for it.
#[inline]
pub(super) fn relax() {
    if !defect::is(defect::DEAF) {
        serve();
    }
    core::hint::spin_loop();
}

/// Hazards that the platform's test puts back.
pub(super) mod defect {
    #[cfg(feature = "provoke")]
    use core::sync::atomic::{AtomicU32, Ordering};

    /// Nobody else is asked.
    pub(crate) const NOT_SENT: u32 = 1;
    /// A processor that spins does not look.
    pub(crate) const DEAF: u32 = 2;

    #[cfg(feature = "provoke")]
    static PUT_BACK: AtomicU32 = AtomicU32::new(0);

    #[cfg(feature = "provoke")]
    pub(crate) fn put_back(which: u32) {
        PUT_BACK.store(which, Ordering::SeqCst);
    }

    #[inline(always)]
    pub(super) fn is(_which: u32) -> bool {
        #[cfg(feature = "provoke")]
        return PUT_BACK.load(Ordering::Relaxed) == _which;
        #[cfg(not(feature = "provoke"))]
        false
    }
}
