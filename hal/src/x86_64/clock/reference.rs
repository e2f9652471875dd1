//! Measuring the time-stamp counter and the local timer against a clock of known rate.
//!
//! Source: IA-PC HPET specification 1.0a; ACPI 6.5, 4.8.2.1 (PM timer); Intel 8254 data sheet. The window is short, for
//! the boot is; a sample is the tightest of several, so that an interruption by the host does not tilt the result.

use crate::firmware::acpi::{Register, Space, Tables};
use crate::x86_64::registers;
use crate::x86_64::{apic, interrupts, paging, port};

/// Length of the measurement.
const WINDOW_NANOSECONDS: u64 = 2_000_000;
/// Readings of the reference without a change before it counts as stopped.
const PATIENCE: u32 = 2_000;

/// A counter of known rate.
enum Reference {
    /// Address of the main counter, and its period in femtoseconds.
    Hpet(*mut u32, u64),
    /// Port, and the counter's mask.
    PmTimer(u16, u32),
    /// Channel 2 of the 8254, counting down 16 bits.
    Pit,
    /// The local timer, where its rate is told, in hertz.
    LocalTimer(u64),
}

/// What was measured, in hertz, and against what (an index of the clock's names).
pub(super) struct Measured {
    pub(super) tsc: u64,
    pub(super) timer: u64,
    pub(super) against: u8,
}

struct Sample {
    reference: u32,
    tsc: u64,
    timer: u32,
}

impl Reference {
    fn hpet(address: u64) -> Option<Self> {
        const PERIOD: usize = 1;
        const CONFIGURATION: usize = 4;
        const COUNTER: usize = 0x3C;
        let registers: *mut u32 = core::ptr::with_exposed_provenance_mut(paging::map_device(address, 1024)? as usize);
        // SAFETY: the three registers lie in the 1 KiB just mapped, which the firmware says is the HPET's. Turning
        // the main counter on starts no interrupt.
        unsafe {
            let period = u64::from(registers.add(PERIOD).read_volatile());
            // The specification allows up to 100 ns; all ones or zero is no HPET.
            if !(1_000_000..=100_000_000).contains(&period) {
                return None;
            }
            let configuration = registers.add(CONFIGURATION);
            configuration.write_volatile(configuration.read_volatile() | 1);
            Some(Self::Hpet(registers.add(COUNTER), period))
        }
    }

    fn pm_timer(register: Register, wide: bool) -> Option<Self> {
        let port = u16::try_from(register.address).ok().filter(|_| register.space == Space::Port)?;
        Some(Self::PmTimer(port, if wide { u32::MAX } else { 0x00FF_FFFF }))
    }

    /// Starts channel 2 of the PIT, gate on and speaker off.
    fn pit() -> Self {
        port::write8(0x61, port::read8(0x61) & 0xFC | 1);
        // Channel 2, low byte then high byte, mode 0: counts down from the top and on around.
        port::write8(0x43, 0xB0);
        port::write8(0x42, 0xFF);
        port::write8(0x42, 0xFF);
        Self::Pit
    }

    fn read(&self) -> u32 {
        match self {
            // SAFETY: `hpet` mapped the register.
            Self::Hpet(counter, _) => unsafe { counter.read_volatile() },
            Self::PmTimer(port, _) => port::read32(*port),
            Self::Pit => {
                port::write8(0x43, 0x80);
                let low = port::read8(0x42);
                u32::from(port::read8(0x42)) << 8 | u32::from(low)
            }
            Self::LocalTimer(_) => apic::timer_left(),
        }
    }

    fn ticks_between(&self, first: u32, last: u32) -> u64 {
        u64::from(match self {
            Self::Hpet(..) => last.wrapping_sub(first),
            Self::PmTimer(_, mask) => last.wrapping_sub(first) & mask,
            Self::Pit => first.wrapping_sub(last) & 0xFFFF,
            Self::LocalTimer(_) => first.wrapping_sub(last),
        })
    }

    fn nanoseconds(&self, ticks: u64) -> u64 {
        match self {
            Self::Hpet(_, femtoseconds) => (u128::from(ticks) * u128::from(*femtoseconds) / 1_000_000) as u64,
            Self::PmTimer(..) => (u128::from(ticks) * 1_000_000_000 / 3_579_545) as u64,
            Self::Pit => (u128::from(ticks) * 1_000_000_000 / 1_193_182) as u64,
            Self::LocalTimer(rate) => (u128::from(ticks) * 1_000_000_000 / u128::from(*rate)) as u64,
        }
    }

    /// The reading, of a few, that took the least time.
    fn sample(&self) -> Sample {
        let mut best: Option<(u64, Sample)> = None;
        for _ in 0..5 {
            let before = registers::tsc();
            let reference = self.read();
            let after = registers::tsc();
            let timer = apic::timer_left();
            let spent = after.wrapping_sub(before);
            if best.as_ref().is_none_or(|best| spent < best.0) {
                best = Some((spent, Sample { reference, tsc: before.wrapping_add(spent / 2), timer }));
            }
        }
        best.map_or(Sample { reference: 0, tsc: 0, timer: 0 }, |best| best.1)
    }

    fn measure(&self, against: u8) -> Option<Measured> {
        let first = self.sample();
        let mut patience = PATIENCE;
        let mut before = first.reference;
        loop {
            let now = self.read();
            if self.nanoseconds(self.ticks_between(first.reference, now)) >= WINDOW_NANOSECONDS {
                break;
            }
            patience = if now == before { patience - 1 } else { PATIENCE };
            if patience == 0 {
                return None;
            }
            before = now;
        }
        let last = self.sample();
        let window = self.nanoseconds(self.ticks_between(first.reference, last.reference));
        if window < WINDOW_NANOSECONDS {
            return None;
        }
        let rate = |ticks: u64| (u128::from(ticks) * 1_000_000_000 / u128::from(window)) as u64;
        let measured = Measured {
            tsc: rate(last.tsc.wrapping_sub(first.tsc)),
            timer: rate(u64::from(first.timer.wrapping_sub(last.timer))),
            against,
        };
        // A counter that stands still is no clock.
        (measured.tsc > 1_000_000).then_some(measured)
    }
}

/// Measures against the best reference that works; `timer_rate` is the local timer's, if it is told. Interrupts are off;
/// the timer's interrupt is masked.
pub(super) fn measure(tables: Option<&Tables>, timer_rate: Option<u64>) -> Option<Measured> {
    let hpet = || Reference::hpet(tables?.hpet?);
    let pm_timer = || {
        let fadt = tables?.fadt?;
        Reference::pm_timer(fadt.pm_timer?, fadt.pm_timer_is_wide)
    };
    apic::timer_one_shot(interrupts::TIMER | 1 << 16);
    let _ = super::timer_for_measurement();
    let result = hpet()
        .and_then(|hpet| hpet.measure(4))
        .or_else(|| pm_timer().and_then(|timer| timer.measure(5)))
        .or_else(|| Reference::pit().measure(6))
        .or_else(|| Reference::LocalTimer(timer_rate?).measure(8));
    apic::timer_start(0);
    result
}
