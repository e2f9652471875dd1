//! The part of initialisation that all devices share (virtio 1.2, 3.1.1). Task context; `reset` also bottom half.

use undercroft_hal::{Duration, Instant, cpu};

use super::Transport;
use crate::ProbeError;
use crate::defect::{Defect, Defects};
use crate::wire::{Features, Status};

/// How long a device may take to finish a reset.
const RESET_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });
/// How often the configuration may change under a reader.
const CONFIG_ATTEMPTS: usize = 16;

/// Resets the device and waits until it says that it is done: only then does it touch no memory any more (2.4.2, 4.1.4.3.2).
///
/// # Errors
/// [`ProbeError::ResetTimeout`].
pub fn reset(transport: &mut dyn Transport) -> Result<(), ProbeError> {
    transport.set_status(Status::empty());
    let start = Instant::now();
    loop {
        if transport.status().is_empty() {
            return Ok(());
        }
        if start.elapsed() > RESET_TIMEOUT {
            return Err(ProbeError::ResetTimeout);
        }
        cpu::relax();
    }
}

/// Resets the device and agrees on features: those in `wanted` that it offers, always with `VERSION_1`. Reads `FEATURES_OK` back.
///
/// # Errors
/// [`ProbeError`] when the device is legacy, refuses the features or fails.
pub fn negotiate(transport: &mut dyn Transport, wanted: u64) -> Result<u64, ProbeError> {
    negotiate_with(transport, wanted, Defects::default())
}

pub(crate) fn negotiate_with(transport: &mut dyn Transport, wanted: u64, defects: Defects) -> Result<u64, ProbeError> {
    reset(transport)?;
    acknowledge(transport);
    let offered = transport.device_features();
    if transport.is_legacy() {
        // Those above 31 did not exist, and nothing is read back (3.1.2).
        let chosen = offered & wanted & u64::from(u32::MAX);
        transport.set_driver_features(chosen);
        return Ok(chosen);
    }
    if offered & Features::VERSION_1.bits() == 0 {
        transport.set_status(Status::ACKNOWLEDGE | Status::DRIVER | Status::FAILED);
        return Err(ProbeError::Legacy);
    }
    // With ACCESS_PLATFORM the addresses given to the device are those of the DMA interface, which is what the platform hands out.
    let chosen = offered & (wanted | (Features::VERSION_1 | Features::ACCESS_PLATFORM).bits());
    choose(transport, chosen, defects)?;
    Ok(chosen)
}

/// Agrees on the same features again, after a reset.
///
/// # Errors
/// [`ProbeError::FeaturesRefused`] when the device does not offer them all any more, or refuses them.
pub(crate) fn agree(transport: &mut dyn Transport, features: u64, defects: Defects) -> Result<(), ProbeError> {
    acknowledge(transport);
    if features & !transport.device_features() != 0 {
        return Err(ProbeError::FeaturesRefused);
    }
    if transport.is_legacy() {
        transport.set_driver_features(features);
        return Ok(());
    }
    choose(transport, features, defects)
}

fn acknowledge(transport: &mut dyn Transport) {
    transport.set_status(Status::ACKNOWLEDGE);
    transport.set_status(Status::ACKNOWLEDGE | Status::DRIVER);
}

fn choose(transport: &mut dyn Transport, chosen: u64, defects: Defects) -> Result<(), ProbeError> {
    transport.set_driver_features(chosen);
    transport.set_status(Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK);
    let status = transport.status();
    if status.contains(Status::NEEDS_RESET) {
        return Err(ProbeError::NeedsReset);
    }
    if !status.contains(Status::FEATURES_OK) && !defects.has(Defect::TrustsFeatures) {
        transport.set_status(Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::FAILED);
        return Err(ProbeError::FeaturesRefused);
    }
    Ok(())
}

/// Waits for the reset of a queue that was asked for (2.6.1.2): `going_on` reads the queue's reset register.
pub(super) fn await_queue_reset(queue: u16, going_on: impl Fn() -> bool) -> Result<(), ProbeError> {
    let start = Instant::now();
    while going_on() {
        if start.elapsed() > RESET_TIMEOUT {
            return Err(ProbeError::QueueResetTimeout(queue));
        }
        cpu::relax();
    }
    Ok(())
}

/// Reads several fields of the configuration as they were at one time (2.5.1).
///
/// # Errors
/// [`ProbeError::ConfigUnstable`] when it changes each time.
pub fn read_config<T>(
    transport: &dyn Transport,
    read: impl Fn(&dyn Transport) -> Result<T, ProbeError>,
) -> Result<T, ProbeError> {
    for _ in 0..CONFIG_ATTEMPTS {
        let before = transport.config_generation();
        let value = read(transport);
        if transport.config_generation() == before {
            return value;
        }
    }
    Err(ProbeError::ConfigUnstable)
}

/// What stands for the generation in the legacy interface, which has none (2.5.4): a sum over the configuration itself. A reader who finds
/// it unchanged afterwards has read no change by halves.
pub(super) fn generation_of_legacy(transport: &dyn Transport) -> u32 {
    const BYTES: usize = 64;
    let words = transport.config_len().min(BYTES) / 4;
    (0..words).fold(0, |sum: u32, word| sum.rotate_left(5) ^ transport.config_u32(4 * word))
}

/// The largest queue size that is a power of two, within what a device says and the format allows; 0 for none.
pub(super) fn floor_power_of_two(size: u32) -> u16 {
    if size == 0 { 0 } else { (1 << size.ilog2()).min(u32::from(crate::wire::ring::MAX_SIZE)) as u16 }
}
