//! [`Partition`]: the hypervisor's interface in use.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::registers::{self, ENABLE, OS_ID, PAGE};
use super::synic::Synic;
use super::{CallError, Features, Hypervisor, Limits, Message, TooManyListeners};
use crate::context::Task;
use crate::dma::{Coherent, DmaConstraints, DmaError};
use crate::irq::{self, Handled, Interrupt, IrqError};
use crate::sync::{IrqSpinLock, Rank};
use crate::work::BottomHalfWork;
use crate::{cpu, everywhere};

/// The CPU that messages of the host come to.
pub const MESSAGES_CPU: usize = 0;
/// The page of a hypercall's input: anything may be held while a call is made.
const INPUT_RANK: Rank = Rank::new(46);

/// Why the interface could not be taken into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// Not Hyper-V, or without what VMBus needs.
    Unsupported,
    /// The partition's memory is hidden from the host, which this stack does not know how to share.
    Isolated,
    /// Memory for the shared pages could not be had.
    Memory(DmaError),
    /// No way to be interrupted.
    NoInterrupt(IrqError),
    /// A CPU did not come to set its part up.
    Stuck,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("the hypervisor does not offer what VMBus needs"),
            Self::Isolated => f.write_str("the partition is isolated from its host"),
            Self::Memory(error) => error.fmt(f),
            Self::NoInterrupt(error) => error.fmt(f),
            Self::Stuck => f.write_str("a CPU does not answer"),
        }
    }
}

impl core::error::Error for StartError {}

impl From<DmaError> for StartError {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

/// Hypercalls made so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// Messages posted, refused ones included.
    pub posts: u64,
    /// Events signalled.
    pub signals: u64,
}

pub(crate) struct Inner {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    features: Features,
    limits: Limits,
    pub(super) cpus: Box<[Synic]>,
    pub(super) input: IrqSpinLock<Coherent>,
    /// The same for a panic, which waits for nobody.
    pub(super) last_input: Coherent,
    /// Where the hypervisor puts its code, if the machine has no page for that.
    code: Option<Coherent>,
    on_message: IrqSpinLock<Option<Arc<BottomHalfWork>>>,
    pub(super) in_use: AtomicBool,
    pub(super) posts: AtomicU64,
    pub(super) signals: AtomicU64,
}

/// The hypervisor's interface in use, on all CPUs. [`Partition::stop`] ends that; dropped without, the pages that the hypervisor
/// writes to stay allocated for ever.
pub struct Partition {
    inner: Arc<Inner>,
    interrupts: Vec<Interrupt>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("features", &self.inner.features).field("calls", &self.calls()).finish()
    }
}

impl Inner {
    fn new(hypervisor: Arc<dyn Hypervisor>, (features, limits): (Features, Limits)) -> Result<Self, DmaError> {
        let page = || Coherent::new(PAGE, DmaConstraints::ANY);
        let code = if hypervisor.hypercall_page().is_none() { Some(page()?) } else { None };
        Ok(Self {
            hypervisor,
            features,
            limits,
            cpus: (0..cpu::count()).map(|_| Synic::new()).collect::<Result<_, _>>()?,
            input: IrqSpinLock::new(INPUT_RANK, page()?),
            last_input: page()?,
            code,
            // Like the listeners': an interrupt takes it.
            on_message: IrqSpinLock::new(Rank::new(29), None),
            in_use: AtomicBool::new(false),
            posts: AtomicU64::new(0),
            signals: AtomicU64::new(0),
        })
    }

    /// The partition's part of the interface, in the order that the hypervisor wants.
    fn enable(&self) {
        let page = self.code.as_ref().map(|code| code.addr(0)).or(self.hypervisor.hypercall_page()).unwrap_or(0);
        self.hypervisor.write_msr(registers::GUEST_OS_ID, OS_ID);
        self.hypervisor.write_msr(registers::HYPERCALL, page | ENABLE);
    }

    fn disable(&self) {
        self.hypervisor.write_msr(registers::HYPERCALL, 0);
        self.hypervisor.write_msr(registers::GUEST_OS_ID, 0);
    }

    /// The SINT's interrupt, on its CPU.
    fn interrupt(&self, cpu: usize) -> Handled {
        let Some(synic) = self.cpus.get(cpu) else { return Handled::No };
        synic.take_events();
        if cpu == MESSAGES_CPU
            && synic.has_message()
            && let Some(work) = &*self.on_message.lock()
        {
            work.schedule();
        }
        // Also if there was nothing: a flag may have been taken together with an earlier interrupt.
        Handled::Yes
    }

    /// Runs `f` once on every CPU, in bottom-half context. `false`: one did not come.
    fn on_all(self: &Arc<Self>, cx: &Task, f: fn(&Self, usize)) -> bool {
        let inner = Arc::clone(self);
        everywhere::run(cx, self.cpus.len(), move |cpu| f(&inner, cpu))
    }
}

impl Partition {
    /// Takes the interface into use: the guest's id, the hypercall page, and the SynIC of every CPU, with an interrupt for each.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left.
    pub fn start(cx: &Task, hypervisor: Arc<dyn Hypervisor>) -> Result<Arc<Self>, StartError> {
        let (features, limits) = Features::detect(&*hypervisor).ok_or(StartError::Unsupported)?;
        if !features.contains(Features::VMBUS) {
            return Err(StartError::Unsupported);
        }
        if features.contains(Features::ISOLATION) {
            return Err(StartError::Isolated);
        }
        let inner = Arc::new(Inner::new(hypervisor, (features, limits))?);
        let mut interrupts = Vec::with_capacity(inner.cpus.len());
        for (cpu, synic) in inner.cpus.iter().enumerate() {
            let handler = Arc::clone(&inner);
            let (interrupt, message) =
                irq::message(cx, cpu, move |_| handler.interrupt(cpu)).map_err(StartError::NoInterrupt)?;
            synic.vector.store(u32::from(inner.hypervisor.vector(message)), Ordering::Relaxed);
            interrupts.push(interrupt);
        }
        inner.enable();
        let this = Self { inner, interrupts };
        this.inner.in_use.store(true, Ordering::Release);
        let up = this.inner.on_all(cx, |inner, cpu| {
            inner.cpus[cpu].enable(&*inner.hypervisor, inner.features.contains(Features::VP_INDEX));
        });
        // A CPU that comes late would write its registers for pages that are gone: they stay.
        if up { Ok(Arc::new(this)) } else { Err(StartError::Stuck) }
    }

    /// Ends the use of the interface, and gives its pages back: the caller has unloaded what used it. Only the first call acts. `false`: a
    /// CPU does not answer, and the pages stay with the hypervisor.
    pub fn stop(&self, cx: &Task) -> bool {
        if !self.inner.in_use.swap(false, Ordering::AcqRel) {
            return true;
        }
        super::farewell::forget(&self.inner);
        let before = self.inner.on_message.lock().take();
        drop(before);
        let down = self.inner.on_all(cx, |inner, cpu| inner.cpus[cpu].disable(&*inner.hypervisor));
        if down {
            self.inner.disable();
        } else {
            // Noted, so that the drop keeps the pages.
            self.inner.in_use.store(true, Ordering::Release);
        }
        down
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// What the hypervisor offers.
    pub fn features(&self) -> Features {
        self.inner.features
    }

    /// What it bounds.
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// CPUs whose SynIC is in use.
    pub fn cpus(&self) -> usize {
        self.inner.cpus.len()
    }

    /// The hypervisor's number of a CPU.
    pub fn vp_index(&self, cpu: usize) -> u32 {
        self.inner.cpus.get(cpu).map_or(0, |synic| synic.vp.load(Ordering::Relaxed))
    }

    /// Posts a message of at most 240 bytes. Any context.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::is_busy`] says whether to try again.
    pub fn post(&self, connection: u32, kind: u32, payload: &[u8]) -> Result<(), CallError> {
        self.inner.post(connection, kind, payload)
    }

    /// Signals an event. Any context.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn signal(&self, connection: u32, flag: u16) -> Result<(), CallError> {
        self.inner.signal(connection, flag)
    }

    /// Has `work` scheduled when a message of the host has come to [`MESSAGES_CPU`], where it must be at home; and now, for what
    /// came before. Bottom half or task.
    pub fn on_message(&self, work: &Arc<BottomHalfWork>) {
        let before = self.inner.on_message.lock().replace(Arc::clone(work));
        drop(before);
        work.schedule();
    }

    /// Takes the host's next message. Called on [`MESSAGES_CPU`], by one caller at a time.
    pub fn take_message(&self) -> Option<Message> {
        self.inner.cpus.get(MESSAGES_CPU)?.take_message(&*self.inner.hypervisor)
    }

    /// Has `work` scheduled whenever the host sets event flag `flag` of `cpu`, and once now.
    ///
    /// # Errors
    /// [`TooManyListeners`], also for a CPU that there is not.
    pub fn listen(&self, cpu: usize, flag: u16, work: &Arc<BottomHalfWork>) -> Result<(), TooManyListeners> {
        self.inner.cpus.get(cpu).ok_or(TooManyListeners)?.listen(flag, work)
    }

    /// Undoes [`Partition::listen`].
    pub fn unlisten(&self, cpu: usize, flag: u16) {
        if let Some(synic) = self.inner.cpus.get(cpu) {
            synic.unlisten(flag);
        }
    }

    /// The partition's reference time in 100 ns, by its register, where there is one. Any context.
    pub fn reference_time(&self) -> Option<u64> {
        let has = self.inner.features.contains(Features::REFERENCE_COUNTER);
        has.then(|| self.inner.hypervisor.read_msr(registers::TIME_REF_COUNT))
    }

    /// Hypercalls made so far.
    pub fn calls(&self) -> Calls {
        let Inner { posts, signals, .. } = &*self.inner;
        Calls { posts: posts.load(Ordering::Relaxed), signals: signals.load(Ordering::Relaxed) }
    }

    /// Interrupts that came so far, on all CPUs.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.iter().map(Interrupt::count).sum()
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        if self.inner.in_use.load(Ordering::Acquire) {
            // The hypervisor writes to its pages: they stay.
            log::error!("hyper-v: an interface in use was dropped; its pages are lost");
            core::mem::forget(Arc::clone(&self.inner));
        }
    }
}
