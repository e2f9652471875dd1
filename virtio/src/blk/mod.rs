//! virtio-blk (virtio 1.2, 5.2).
//!
//! One queue per CPU as far as the device has them; a request goes out on the queue of its CPU and is completed by that queue's bottom
//! half. Header, status byte and descriptor tables of every possible request are made at the start: the path of a request
//! allocates nothing and holds one lock once on its way out and once on its way back.
//!
//! Made in task context; used as [`BlockDevice`] says.

mod cache;
mod config;
mod protocol;
mod submit;
pub mod wire;

#[cfg(all(not(loom), test))]
mod tests;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use undercroft_block::scsi::Managed;
use undercroft_block::{BlockDevice, Identity, Info, Recovery, Rejected, Request, Reset, Tag, Watcher};
use undercroft_hal::cpu::{self, MAX_CPUS};
use undercroft_hal::dma::DmaConstraints;
use undercroft_hal::{Duration, Instant, Task};

use crate::ProbeError;
use crate::defect::Defects;
use crate::device::{Plan, RING_FEATURES, RequestQueues, Running, Scope, feature_names, route, start};
use crate::transport::{Transport, setup_with};
use protocol::{Blk, Serial};
use wire::BlkFeatures;

/// What the driver takes of what a device offers.
const WANTED: u64 = BlkFeatures::SIZE_MAX
    .union(BlkFeatures::SEG_MAX)
    .union(BlkFeatures::RO)
    .union(BlkFeatures::BLK_SIZE)
    .union(BlkFeatures::FLUSH)
    .union(BlkFeatures::TOPOLOGY)
    .union(BlkFeatures::CONFIG_WCE)
    .union(BlkFeatures::MQ)
    .union(BlkFeatures::DISCARD)
    .union(BlkFeatures::WRITE_ZEROES)
    .bits()
    | RING_FEATURES;

/// How long the device may take to say its serial number.
const IDENTIFY_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 5000 });

/// A virtio block device.
///
/// Dropping it (task or bottom-half context, no lock held) resets the device; requests in flight then finish with
/// [`Error::Removed`](undercroft_block::Error::Removed) from a bottom half.
pub struct VirtioBlk {
    running: Running<Blk>,
    identity: Identity,
    /// The queue of each CPU.
    route: [u16; MAX_CPUS],
}

impl core::fmt::Debug for VirtioBlk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VirtioBlk").field("identity", &self.identity).field("info", &self.info()).finish()
    }
}

impl VirtioBlk {
    /// Takes a block device into use, of which `reach` says what memory it reaches.
    ///
    /// # Errors
    /// [`ProbeError`]; the device is left reset.
    pub fn new(cx: &Task, transport: Box<dyn Transport>, reach: DmaConstraints) -> Result<Self, ProbeError> {
        Self::with_defects(cx, transport, reach, Defects::default())
    }

    pub(crate) fn with_defects(
        cx: &Task,
        mut transport: Box<dyn Transport>,
        reach: DmaConstraints,
        defects: Defects,
    ) -> Result<Self, ProbeError> {
        let bits = setup_with(&mut *transport, WANTED, defects)?;
        let features = BlkFeatures::from_bits_retain(bits);
        let (place, legacy) = (transport.place(), transport.is_legacy());
        let mut shape = config::read_shape(&*transport, features, defects)?;
        shape.info.limits.dma = reach;
        let queues = RequestQueues::plan(&mut *transport, bits, 0, shape.queues, &mut shape.info.limits);
        (shape.info.queues, shape.info.depth) = (queues.count, queues.depth);
        let shift = if defects.has(crate::defect::Defect::ScalesSectors) { 0 } else { shape.shift };
        if defects.has(crate::defect::Defect::LastBlockWraps) {
            shape.info.capacity = shape.info.capacity.wrapping_sub(1);
        }
        let protocol = Blk::new(shape.info, features, shift);
        let plan = Plan { features: bits, queues: queues.count, special: 0, max_size: queues.max_size, reach, defects };
        let running = start(cx, transport, plan, protocol)?;
        let serial = identify(cx, &running)?;
        let identity = Identity {
            driver: "virtio-blk",
            controller: place,
            serial,
            model: String::new(),
            interrupts: running.interrupts.clone(),
            transport: feature_names(legacy, bits),
        };
        Ok(Self { running, identity, route: route(0, queues.count) })
    }
}

/// Asks for the serial number: the first request, which also shows that interrupts arrive.
fn identify(cx: &Task, running: &Running<Blk>) -> Result<String, ProbeError> {
    submit::identify(&running.device);
    let start = Instant::now();
    loop {
        cx.run_pending();
        // Copied: nothing is allocated under the lock.
        let serial = *running.device.protocol.serial.lock();
        match serial {
            Serial::Pending if start.elapsed() > IDENTIFY_TIMEOUT => return Err(ProbeError::Silent),
            Serial::Pending => {}
            Serial::None => return Ok(String::new()),
            Serial::Bytes(bytes) => {
                let text = bytes.iter().take_while(|&&byte| byte != 0).filter(|byte| (b' '..=b'~').contains(*byte));
                return Ok(String::from(text.map(|&byte| char::from(byte)).collect::<String>().trim()));
            }
        }
        cpu::relax();
    }
}

impl BlockDevice for VirtioBlk {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn info(&self) -> Info {
        self.running.device.protocol.info()
    }

    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        submit::submit(&self.running.device, self.here(), request)
    }

    fn commit(&self) {
        if let Some(queue) = self.running.device.queue(self.here()) {
            queue.commit();
        }
    }

    fn reset(&self, what: Reset) -> bool {
        self.running.device.restart(match what {
            Reset::Queue(tag) => Scope::Queue(tag.queue()),
            Reset::Device => Scope::Device,
        })
    }

    /// The reset of a queue is no part of recovery, though it can be asked for ([`BlockDevice::reset`]) by who knows the device: QEMU's disks
    /// offer it, answer it at once, and go on with what was in flight (its class of devices has a hook for it, which only its network card
    /// fills). What is overdue would be written to, and answered, after its buffers had gone back. The reset of the device waits.
    fn recover(&self, what: Recovery) -> Managed {
        let asked = matches!(what, Recovery::ResetController) && self.reset(Reset::Device);
        if asked { Managed::Asked } else { Managed::Unsupported }
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.running.device.protocol.watch(watcher);
    }
}

impl VirtioBlk {
    /// The queue of the calling CPU. A caller that migrates meanwhile uses a neighbour's queue, which its lock allows.
    #[inline]
    fn here(&self) -> usize {
        usize::from(self.route[cpu::current() % MAX_CPUS])
    }
}
