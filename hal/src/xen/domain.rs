//! [`Domain`]: Xen's interface in use.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::events::Listeners;
use super::grants::Grants;
use super::wire::{self, AddToPhysmap, MYSELF, Parameter, UpcallVector, hvm, memory, parameter, shared};
use super::{Errno, Features, Hypervisor, SharedPage, features};
use crate::context::Task;
use crate::irq::{self, Interrupt, IrqError};
use crate::{cpu, everywhere};

/// Why the interface could not be taken into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// Not Xen.
    Unsupported,
    /// No frame is left for a page to share, or it cannot be reached.
    NoFrame,
    /// Xen refused what this names.
    Refused(&'static str, Errno),
    /// No way to be interrupted.
    NoInterrupt(IrqError),
    /// A CPU did not come to set its part up.
    Stuck,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("this is no guest of Xen"),
            Self::NoFrame => f.write_str("there is no room for a page to share with Xen"),
            Self::Refused(what, errno) => write!(f, "{what}: {errno}"),
            Self::NoInterrupt(error) => error.fmt(f),
            Self::Stuck => f.write_str("a CPU does not answer"),
        }
    }
}

impl core::error::Error for StartError {}

/// What was done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Notifications sent.
    pub notifications: u64,
    /// Grants made, and taken back.
    pub granted: u64,
    /// Grants taken back.
    pub revoked: u64,
}

pub(super) struct Inner {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) info: SharedPage,
    pub(super) listeners: Box<[Listeners]>,
    /// Xen's numbers of our processors.
    pub(super) vcpus: Box<[AtomicU32]>,
    /// The vectors of event channels, per CPU.
    vectors: Box<[AtomicU32]>,
    /// What Xen answered a CPU that could not be set up, as it is there; zero if none.
    refused: AtomicU64,
    pub(super) grants: Grants,
    pub(super) notifications: AtomicU64,
}

impl Inner {
    /// A hypercall with a structure.
    pub(super) fn call<T: FromBytes + IntoBytes + Immutable + KnownLayout>(
        &self,
        number: u32,
        command: u32,
        argument: &mut T,
    ) -> Result<u32, Errno> {
        answer(self.hypervisor.call(number, command, argument.as_mut_bytes()))
    }

    /// On its CPU.
    fn enable(&self, cpu: usize) {
        let vcpu = features::this_vcpu(&*self.hypervisor).unwrap_or(cpu as u32);
        self.vcpus[cpu].store(vcpu, Ordering::Relaxed);
        let vector = self.vectors[cpu].load(Ordering::Relaxed) as u8;
        let mut argument = UpcallVector { vcpu, vector, _pad: [0; 3] };
        if let Err(Errno(errno)) = self.call(wire::call::HVM, hvm::SET_UPCALL_VECTOR, &mut argument) {
            self.refused.store(u64::from(errno), Ordering::Relaxed);
        }
    }
}

pub(super) fn answer(answer: i64) -> Result<u32, Errno> {
    u32::try_from(answer).map_err(|_| Errno(u32::try_from(answer.unsigned_abs()).unwrap_or(u32::MAX)))
}

/// A new page of Xen's at a spare frame.
pub(super) fn share(hypervisor: &dyn Hypervisor, space: u32, index: u64) -> Result<SharedPage, StartError> {
    let frame = hypervisor.spare_frame().ok_or(StartError::NoFrame)?;
    let mut argument = AddToPhysmap { domain: MYSELF, size: 0, space, index, frame };
    answer(hypervisor.call(wire::call::MEMORY, memory::ADD_TO_PHYSMAP, argument.as_mut_bytes()))
        .map_err(|errno| StartError::Refused("a page of Xen's could not be mapped", errno))?;
    hypervisor.map_page(frame).ok_or(StartError::NoFrame)
}

/// Xen's interface in use, on the first 32 CPUs at most. Its pages stay shared with Xen for ever: it is started once.
pub struct Domain {
    pub(super) inner: Arc<Inner>,
    features: Features,
    interrupts: Vec<Interrupt>,
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("features", &self.features)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Domain {
    /// Takes the interface into use: the shared page, an interrupt for the event channels of each CPU, the grant table.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(cx: &Task, hypervisor: Arc<dyn Hypervisor>) -> Result<Self, StartError> {
        let features = Features::detect(&*hypervisor).ok_or(StartError::Unsupported)?;
        let cpus = cpu::count().min(shared::VCPUS);
        let info = share(&*hypervisor, memory::SPACE_SHARED_INFO, 0)?;
        let grants = Grants::start(&*hypervisor)?;
        let inner = Arc::new(Inner {
            info,
            listeners: (0..cpus).map(|_| Listeners::new()).collect(),
            vcpus: (0..cpus).map(|cpu| AtomicU32::new(cpu as u32)).collect(),
            vectors: (0..cpus).map(|_| AtomicU32::new(0)).collect(),
            refused: AtomicU64::new(0),
            grants,
            notifications: AtomicU64::new(0),
            hypervisor,
        });
        let mut interrupts = Vec::with_capacity(cpus);
        for cpu in 0..cpus {
            let handler = Arc::clone(&inner);
            let (interrupt, message) =
                irq::message(cx, cpu, move |_| handler.interrupt(cpu)).map_err(StartError::NoInterrupt)?;
            inner.vectors[cpu].store(u32::from(inner.hypervisor.vector(message)), Ordering::Relaxed);
            interrupts.push(interrupt);
        }
        let there = Arc::clone(&inner);
        if !everywhere::run(cx, cpus, move |cpu| there.enable(cpu)) {
            return Err(StartError::Stuck);
        }
        match inner.refused.load(Ordering::Relaxed) {
            0 => Ok(Self { inner, features, interrupts }),
            errno => Err(StartError::Refused("no vector for event channels", Errno(errno as u32))),
        }
    }

    /// What the hypervisor says of itself.
    pub fn features(&self) -> Features {
        self.features
    }

    /// CPUs that event channels can come to.
    pub fn cpus(&self) -> usize {
        self.inner.vcpus.len()
    }

    /// What was done so far. Any context.
    pub fn counts(&self) -> Counts {
        let (granted, revoked) = self.inner.grants.counts();
        Counts { notifications: self.inner.notifications.load(Ordering::Relaxed), granted, revoked }
    }

    /// Interrupts that came so far, on all CPUs. Any context.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.iter().map(Interrupt::count).sum()
    }

    /// The page and the event channel of xenstore, as the tool stack has made them.
    ///
    /// # Errors
    /// [`StartError::Refused`] if they are not told, [`StartError::NoFrame`] if the page cannot be reached.
    pub fn store(&self) -> Result<(SharedPage, u32), StartError> {
        let refused = |errno| StartError::Refused("no xenstore", errno);
        let frame = self.parameter(parameter::STORE_PAGE).map_err(refused)?;
        let port = self.parameter(parameter::STORE_PORT).map_err(refused)?;
        let port = u32::try_from(port).ok().filter(|&port| port != 0 && frame != 0).ok_or(refused(Errno(0)))?;
        Ok((self.inner.hypervisor.map_page(frame).ok_or(StartError::NoFrame)?, port))
    }

    fn parameter(&self, index: u32) -> Result<u64, Errno> {
        let mut argument = Parameter { domain: MYSELF, _pad: 0, index, value: 0 };
        self.inner.call(wire::call::HVM, hvm::GET_PARAMETER, &mut argument)?;
        Ok(argument.value)
    }
}
