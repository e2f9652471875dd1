//! What every virtio device is, whatever its transport and kind: status, features, queues, requests in flight.

use std::collections::VecDeque;

use super::consts::{feature, status};
use super::queue::{Negotiated, Queue};
use super::{Breach, Chain, Decision, FaultScript, Knobs, Model};

/// An interrupt that the transport has to raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Queue(u16),
    Config,
}

/// A request that the device has taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub queue: u16,
    pub chain: Chain,
    pub faults: Decision,
    /// Virtual time before which it is not completed.
    pub due: u64,
    /// How many others are completed before it.
    pub behind: u32,
    /// When it is completed even so.
    pub patience: u64,
    /// It is never completed.
    pub never: bool,
}

type Tear<M> = (u32, Box<dyn FnMut(&mut M)>);

/// A virtio device without its transport.
pub struct Virtio<M> {
    pub(super) model: M,
    /// Standing lies and limits.
    pub knobs: Knobs,
    pub(super) faults: FaultScript,
    /// The legacy interface: no FEATURES_OK, no VERSION_1.
    pub(super) legacy: bool,
    pub(super) status: u8,
    pub(super) driver_features: u64,
    pub(super) queues: Vec<Queue>,
    pub(super) generation: u8,
    pub(super) signals: Vec<Signal>,
    pub(super) taken: VecDeque<Taken>,
    pub(super) kept: Vec<VecDeque<Chain>>,
    pub(super) breaches: Vec<Breach>,
    /// Status reads until a reset is done.
    pub(super) resetting: Option<u32>,
    /// A reset was asked for and the driver has not seen it done.
    pub(super) await_reset: bool,
    pub(super) features_ok_read: bool,
    pub(super) features_refused: bool,
    pub(super) queue_resetting: Vec<Option<u32>>,
    pub(super) vectors_granted: u16,
    pub(super) tear: Option<Tear<M>>,
    pub(super) completed: u64,
    pub(super) notifications: u64,
    pub(super) interrupts: u64,
    pub(super) resets: u64,
}

impl<M: Model> Virtio<M> {
    /// A device in its state after power-on, honest and without faults.
    pub fn new(model: M) -> Self {
        let mut device = Self {
            knobs: Knobs::default(),
            faults: FaultScript::none(),
            legacy: false,
            status: 0,
            driver_features: 0,
            queues: Vec::new(),
            generation: 0,
            signals: Vec::new(),
            taken: VecDeque::new(),
            kept: Vec::new(),
            breaches: Vec::new(),
            resetting: None,
            await_reset: false,
            features_ok_read: false,
            features_refused: false,
            queue_resetting: Vec::new(),
            vectors_granted: 0,
            tear: None,
            completed: 0,
            notifications: 0,
            interrupts: 0,
            resets: 0,
            model,
        };
        device.reset_now();
        device
    }

    /// The device of this kind.
    pub fn model(&mut self) -> &mut M {
        &mut self.model
    }

    /// Replaces the fault script; its requests count from the next one on.
    pub fn set_faults(&mut self, faults: FaultScript) {
        self.faults = faults;
    }

    /// Changes the model and tells the driver that the configuration changed.
    pub fn change_config(&mut self, change: impl FnOnce(&mut M)) {
        change(&mut self.model);
        self.generation = self.generation.wrapping_add(1);
        self.signal_config();
    }

    /// Changes the configuration after each of the next `times` reads of it, so that a value read in parts is torn unless the driver
    /// looks at the generation.
    pub fn tear_config(&mut self, times: u32, change: impl FnMut(&mut M) + 'static) {
        self.tear = Some((times, Box::new(change)));
    }

    /// Breaks: sets DEVICE_NEEDS_RESET, and tells the driver.
    pub fn needs_reset(&mut self) {
        self.status |= status::NEEDS_RESET;
        self.signal_config();
    }

    /// Is reset, and not by its driver, which is told nothing.
    pub fn reset_from_outside(&mut self) {
        self.reset_now();
    }

    fn signal_config(&mut self) {
        if self.status & status::DRIVER_OK != 0 {
            self.signals.push(Signal::Config);
        }
    }

    /// Every breach of the specification by the driver, in order.
    pub fn breaches(&self) -> Vec<Breach> {
        self.breaches.clone()
    }

    /// Forgets the breaches.
    pub fn clear_breaches(&mut self) {
        self.breaches.clear();
    }

    /// Requests answered since power-on.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// Requests that the device has and has not answered (event buffers not counted).
    pub fn in_flight(&self) -> usize {
        self.taken.len()
    }

    /// Notifications from the driver since power-on.
    pub fn notifications(&self) -> u64 {
        self.notifications
    }

    /// Interrupts raised for queues since power-on (before masking and merging).
    pub fn interrupts(&self) -> u64 {
        self.interrupts
    }

    /// How often the driver reset the device.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// The status as the device holds it.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The features that are in force: what the driver accepted, once FEATURES_OK is set.
    pub fn features(&self) -> u64 {
        if self.legacy || self.status & status::FEATURES_OK != 0 { self.driver_features } else { 0 }
    }

    /// The features on offer.
    pub fn offered(&self) -> u64 {
        let all = (self.model.features() | feature::VERSION_1 | self.knobs.with) & !self.knobs.without;
        // There were 32, and a queue's reset is younger.
        if self.legacy { all & 0xffff_ffff } else { all }
    }

    pub(super) fn negotiated(&self) -> Negotiated {
        Negotiated {
            indirect: self.features() & feature::INDIRECT != 0,
            event_idx: self.features() & feature::EVENT_IDX != 0,
            packed: self.features() & feature::RING_PACKED != 0,
        }
    }

    /// Notes a breach that breaks the device.
    pub(super) fn broken(&mut self, breach: Breach) {
        self.breaches.push(breach);
        self.needs_reset();
    }

    pub(super) fn reset_now(&mut self) {
        self.status = 0;
        self.driver_features = 0;
        self.queues = (0..).zip(self.model.queues()).map(|(number, max)| Queue::new(number, max)).collect();
        self.kept = self.queues.iter().map(|_| VecDeque::new()).collect();
        self.queue_resetting = vec![None; self.queues.len()];
        self.signals.clear();
        self.taken.clear();
        self.resetting = None;
        self.features_ok_read = false;
        self.features_refused = false;
        self.vectors_granted = 0;
        self.model.reset();
    }

    /// The driver reads the status.
    pub(super) fn read_status(&mut self) -> u8 {
        match self.resetting {
            Some(0) => self.reset_now(),
            Some(left) => self.resetting = Some(left - 1),
            None => {}
        }
        if self.status == 0 {
            self.await_reset = false;
        }
        self.features_ok_read |= self.status & status::FEATURES_OK != 0 || self.features_refused;
        self.status
    }

    /// The driver writes the status (2.1, 3.1.1).
    pub(super) fn write_status(&mut self, new: u8) {
        use status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
        if new == 0 {
            self.resets += 1;
            self.await_reset = true;
            self.resetting = Some(self.knobs.reset_reads);
            // There is nothing to wait for where the status is what it will be.
            if self.knobs.reset_reads == 0 || self.status == 0 {
                self.reset_now();
            }
            return;
        }
        self.configures();
        let old = self.status;
        if old & !new & !(NEEDS_RESET | FAILED) != 0 {
            self.breaches.push(Breach::StatusBitsCleared(old & !new));
        }
        let needs = [(DRIVER, ACKNOWLEDGE), (FEATURES_OK, DRIVER), (DRIVER_OK, DRIVER)];
        if needs.iter().any(|(bit, before)| new & bit != 0 && new & before == 0) {
            self.breaches.push(Breach::StatusOrder(new));
        }
        let fresh = new & !old;
        if self.legacy && fresh & FEATURES_OK != 0 {
            self.breaches.push(Breach::StatusOrder(new));
        }
        if self.legacy && fresh & DRIVER_OK != 0 {
            self.model.negotiated(self.driver_features);
        } else if fresh & DRIVER_OK != 0 {
            if self.features_refused {
                self.breaches.push(Breach::RefusalIgnored);
            } else if old & FEATURES_OK == 0 {
                self.breaches.push(Breach::StatusOrder(new));
            } else if !self.features_ok_read {
                self.breaches.push(Breach::FeaturesOkNotReadBack);
            }
        }
        self.status = new | old & NEEDS_RESET;
        if fresh & FEATURES_OK != 0 && !self.accept_features() {
            self.features_refused = true;
            self.status &= !FEATURES_OK;
        }
        if self.features_refused {
            // A driver that goes on regardless drives nothing.
            self.status &= !DRIVER_OK;
        }
    }

    fn accept_features(&mut self) -> bool {
        let extra = self.driver_features & !self.offered();
        if extra != 0 {
            self.breaches.push(Breach::FeaturesNotOffered(extra));
            return false;
        }
        if self.driver_features & feature::VERSION_1 == 0 {
            self.breaches.push(Breach::NoVersion1);
            return false;
        }
        if self.knobs.refuse_features {
            return false;
        }
        self.model.negotiated(self.driver_features);
        true
    }

    /// The driver configures something: it must have seen an earlier reset done.
    pub(super) fn configures(&mut self) {
        if std::mem::take(&mut self.await_reset) {
            self.breaches.push(Breach::ResetNotAwaited);
        }
    }
}

impl<M> std::fmt::Debug for Virtio<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Virtio")
            .field("status", &self.status)
            .field("queues", &self.queues)
            .field("breaches", &self.breaches)
            .finish_non_exhaustive()
    }
}
