//! A machine that is struck at every point: several CPUs on one thread, a clock that goes on when told, and one interrupt that a scenario lets
//! strike at the first, second, third … point of a run at which hardware could let it.
//!
//! Interrupts can strike wherever a CPU has them on and calls its platform: around every lock, at every look at the clock. That is every
//! boundary between two steps of the callout service, because a step is what runs under a lock. What strikes runs to its end before
//! the interrupted code goes on, on the same CPU or, if the scenario says so, on another.

use std::cell::Cell;
use std::rc::Rc;

use undercroft_hal::Task;
use undercroft_hal::dma::{DmaBlock, DmaError, DmaLayout};
use undercroft_hal::hosted::{self, Event, Machine, Ram};
use undercroft_hal::irq::{self, Handled, Interrupt, IrqError, IrqLine, MsiMessage, Slot};
use undercroft_hal::mmio::{MmioError, Width};
use undercroft_hal::pci::Address;

/// After so many turns of one spin somebody waits for what cannot come.
const MOST_SPINS: usize = 100_000;

struct Cpu {
    irq_on: Cell<bool>,
    alarm: Cell<Option<u64>>,
    kicked: Cell<bool>,
}

/// What strikes when.
#[derive(Clone, Copy)]
struct Strike {
    /// Points to let pass first.
    after: usize,
    /// Where the interrupt goes; `None`: to the CPU that is at that point.
    cpu: Option<usize>,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Interrupt(u16),
    /// So many nanoseconds pass at once, and whose alarm is due by then takes it.
    Time(u64),
}

/// The machine.
pub struct Lab {
    cpus: Vec<Cpu>,
    current: Cell<usize>,
    now: Cell<u64>,
    spins: Cell<usize>,
    strike: Cell<Option<Strike>>,
    ram: Ram,
}

impl Lab {
    /// Runs `f` as the task of CPU 0 of a machine with `cpus` CPUs.
    pub fn run<R>(cpus: usize, f: impl FnOnce(&Rc<Self>, &Task) -> R) -> R {
        let cpu = || Cpu { irq_on: Cell::new(true), alarm: Cell::new(None), kicked: Cell::new(false) };
        let lab = Rc::new(Self {
            cpus: (0..cpus).map(|_| cpu()).collect(),
            current: Cell::new(0),
            now: Cell::new(1_000_000),
            spins: Cell::new(0),
            strike: Cell::new(None),
            ram: Ram::new(0, 4096),
        });
        hosted::run(Rc::clone(&lab) as Rc<dyn Machine>, |task| f(&lab, task))
    }

    /// Nanoseconds.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// An interrupt whose handler is `handler`, to strike with.
    pub fn intruder(task: &Task, handler: impl Fn() + Send + Sync + 'static) -> Intruder {
        let (interrupt, message) = irq::message(task, 0, move |_| {
            handler();
            Handled::Yes
        })
        .expect("there are vectors");
        Intruder { _interrupt: interrupt, slot: message.data as u16 }
    }

    /// Lets `intruder` strike once, after so many more points, where the machine then is or on `cpu`.
    pub fn strike(&self, intruder: &Intruder, after: usize, cpu: Option<usize>) {
        self.strike.set(Some(Strike { after, cpu, what: What::Interrupt(intruder.slot) }));
    }

    /// Lets time pass at once, by nanoseconds, after so many more points: alarms that are due then strike there.
    pub fn strike_with_time(&self, by: u64, after: usize) {
        self.strike.set(Some(Strike { after, cpu: None, what: What::Time(by) }));
    }

    /// Calls off a strike that has not been: whether there was one left, which means that the run had fewer points.
    pub fn call_off(&self) -> bool {
        self.strike.take().is_some()
    }

    /// Runs `f` as another CPU's code.
    pub fn on<R>(&self, cpu: usize, f: impl FnOnce() -> R) -> R {
        let before = self.current.replace(cpu);
        let result = f();
        self.current.set(before);
        result
    }

    /// Lets time pass to `at`: every CPU takes its alarm, kicks and interrupts.
    pub fn pass_to(&self, at: u64) {
        self.now.set(at.max(self.now.get()));
        self.settle();
    }

    /// Every CPU takes what is pending for it, until nothing is.
    pub fn settle(&self) {
        while self.cpus.iter().enumerate().any(|(n, cpu)| cpu.irq_on.get() && self.has_pending(n)) {
            for cpu in 0..self.cpus.len() {
                self.on(cpu, || self.take_interrupts());
            }
        }
    }

    fn here(&self) -> &Cpu {
        &self.cpus[self.current.get()]
    }

    fn has_pending(&self, cpu: usize) -> bool {
        let cpu = &self.cpus[cpu];
        cpu.kicked.get() || cpu.alarm.get().is_some_and(|at| at <= self.now.get())
    }

    fn take_interrupts(&self) {
        while self.here().irq_on.get() && self.has_pending(self.current.get()) {
            let alarm = self.here().alarm.get().filter(|&at| at <= self.now.get());
            let event = match alarm {
                Some(_) => {
                    self.here().alarm.set(None);
                    Event::Alarm
                }
                None => {
                    self.here().kicked.set(false);
                    Event::Kick
                }
            };
            self.deliver(event);
        }
    }

    fn deliver(&self, event: Event) {
        let cpu = self.current.get();
        self.cpus[cpu].irq_on.set(false);
        hosted::deliver(event);
        self.current.set(cpu);
        self.cpus[cpu].irq_on.set(true);
    }

    /// Here hardware could strike.
    fn point(&self) {
        let Some(strike) = self.strike.get().filter(|_| self.here().irq_on.get()) else { return };
        let target = strike.cpu.unwrap_or(self.current.get());
        if strike.after > 0 || !self.cpus[target].irq_on.get() {
            self.strike.set(Some(Strike { after: strike.after.saturating_sub(1), ..strike }));
            return;
        }
        self.strike.set(None);
        match strike.what {
            What::Interrupt(slot) => self.on(target, || self.deliver(Event::Interrupt(Slot(slot)))),
            What::Time(by) => self.pass_to(self.now.get() + by),
        }
    }
}

/// An interrupt that a scenario strikes with.
pub struct Intruder {
    _interrupt: Interrupt,
    slot: u16,
}

impl Intruder {
    pub fn slot(&self) -> Slot {
        Slot(self.slot)
    }
}

impl Machine for Lab {
    fn cpu(&self) -> usize {
        self.current.get()
    }
    fn cpu_count(&self) -> usize {
        self.cpus.len()
    }
    fn irq_save(&self) -> bool {
        self.take_interrupts();
        self.point();
        self.here().irq_on.replace(false)
    }
    fn irq_restore(&self, were_on: bool) {
        self.here().irq_on.set(were_on);
        self.take_interrupts();
        self.point();
    }
    fn halt(&self) {
        self.here().irq_on.set(true);
        self.settle();
        let next = self.cpus.iter().filter_map(|cpu| cpu.alarm.get()).min();
        match next {
            Some(at) => self.pass_to(at),
            None => panic!("a CPU waits, and nothing can ever happen again"),
        }
    }
    fn relax(&self) {
        self.spins.set(self.spins.get() + 1);
        assert!(self.spins.get() < MOST_SPINS, "a CPU spins for ever");
    }
    fn kick(&self, cpu: usize) {
        self.cpus[cpu].kicked.set(true);
        self.take_interrupts();
    }
    fn kick_at(&self, _at: u64) -> bool {
        false
    }
    fn now(&self) -> u64 {
        self.point();
        self.now.get()
    }
    fn set_alarm(&self, at: Option<u64>) {
        self.here().alarm.set(at);
    }
    fn dma_alloc(&self, layout: DmaLayout) -> Result<DmaBlock, DmaError> {
        self.ram.alloc(layout)
    }
    fn dma_free(&self, block: DmaBlock) {
        self.ram.free(block);
    }
    fn map_mmio(&self, _phys: u64, _len: usize) -> Result<(), MmioError> {
        Err(MmioError::BadRange)
    }
    fn mmio_read(&self, _phys: u64, _width: Width) -> u64 {
        u64::MAX
    }
    fn mmio_write(&self, _phys: u64, _width: Width, _value: u64) {}
    fn pci_read(&self, _address: Address, _offset: u16) -> u32 {
        u32::MAX
    }
    fn pci_write(&self, _address: Address, _offset: u16, _value: u32) {}
    fn msi_route(&self, slot: Slot, _cpu: usize) -> Result<MsiMessage, IrqError> {
        Ok(MsiMessage { addr: 0, data: u32::from(slot.0) })
    }
    fn line_route(&self, _line: IrqLine, _slot: Slot) -> Result<(), IrqError> {
        Err(IrqError::NoVector)
    }
    fn line_mask(&self, _line: IrqLine) {}
    fn pci_line(&self, _address: Address, _pin: u8) -> Option<IrqLine> {
        None
    }
}

/// The machine does what it says: an interrupt strikes once at each of a run's points, also between a bottom half's lines.
#[test]
fn the_machine_strikes_at_every_point() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use undercroft_hal::work::{BottomHalfWork, Turn};
    let order = |after| {
        Lab::run(2, |lab, task| {
            let order = Arc::new(Mutex::new(Vec::new()));
            let (theirs, ours) = (Arc::clone(&order), Arc::clone(&order));
            let intruder = Lab::intruder(task, move || theirs.lock().unwrap().push("strike"));
            let once = AtomicUsize::new(0);
            let work = BottomHalfWork::new(0, move |_| {
                let note = |what| ours.lock().unwrap().push(what);
                note("begin");
                undercroft_hal::Instant::now();
                note("end");
                if once.fetch_add(1, Ordering::Relaxed) == 0 { Turn::Again } else { Turn::Done }
            });
            lab.strike(&intruder, after, None);
            work.schedule();
            lab.settle();
            let struck = !lab.call_off();
            let order = order.lock().unwrap().clone();
            assert_eq!(order.iter().filter(|what| **what == "strike").count(), usize::from(struck));
            struck.then_some(order)
        })
    };
    let orders: std::collections::BTreeSet<_> = (0..).map_while(order).collect();
    let at = |n: usize| orders.iter().any(|order| order[n] == "strike");
    assert!((0..5).all(at), "{orders:?}");
}
