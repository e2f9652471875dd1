//! CPUs: the interrupt flag, what is pending, and when devices get their turn.

use std::cell::Cell;
use std::fmt::Write;
use std::rc::Rc;

use undercroft_hal::hosted::{self, Event};

use super::{Bus, Machine, Schedule};

/// Spins in a row, without any device getting anything done, after which the guest is taken to hang.
const SPIN_LIMIT: u32 = 10_000_000;
/// Deliveries in a row of one level-triggered line after which no handler is taken to clear it.
const STORM_LIMIT: u32 = 10_000;
/// Virtual nanoseconds that one spin takes, unless a test says otherwise.
pub(super) const SPIN_NANOS: u64 = 100;
/// Virtual nanoseconds that a halt takes while the guest unwinds.
const HALT_NANOS: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Cpu {
    pub interrupts_on: Cell<bool>,
    pub kicked: Cell<bool>,
    pub alarm: Cell<Option<u64>>,
}

impl Default for Cpu {
    fn default() -> Self {
        Self { interrupts_on: Cell::new(true), kicked: Cell::new(false), alarm: Cell::new(None) }
    }
}

impl Machine {
    pub(super) fn cpu_state(&self) -> &Cpu {
        &self.cpus[self.current.get()]
    }

    /// Runs `f` with device `index`, if it is still there.
    pub(super) fn with_device<R>(
        &self,
        index: usize,
        budget: usize,
        f: impl FnOnce(&mut dyn super::Device, &Bus<'_>) -> R,
    ) -> Option<R> {
        let (device, line) = {
            let devices = self.devices.borrow();
            let attached = devices.get(index)?.as_ref()?;
            (Rc::clone(&attached.device), attached.line)
        };
        let bus = Bus {
            ram: &self.ram,
            frames: &self.frames,
            cpu: self.current.get(),
            interrupts: &self.interrupts,
            random: &self.random,
            now: self.now.get(),
            budget,
            source: index,
            line,
            reach: self.reach.get(),
        };
        let mut device = device.borrow_mut();
        Some(f(&mut *device, &bus))
    }

    /// Gives each device a turn. Returns whether any got something done.
    pub(super) fn work(&self) -> bool {
        let count = self.devices.borrow().len();
        let mut progress = false;
        for index in 0..count {
            let budget = self.schedule.get().budget(&mut self.random.borrow_mut());
            progress |= self.with_device(index, budget, |device, bus| device.work(bus)).unwrap_or(false);
        }
        if progress {
            self.spins.set(0);
        }
        progress
    }

    fn take(&self, index: usize) -> Option<(Event, Option<u32>)> {
        let cpu = &self.cpus[index];
        if cpu.alarm.get().is_some_and(|at| at <= self.now.get()) {
            cpu.alarm.set(None);
            return Some((Event::Alarm, None));
        }
        if cpu.kicked.replace(false) {
            return Some((Event::Kick, None));
        }
        let random = &mut *self.random.borrow_mut();
        let random = matches!(self.schedule.get(), Schedule::Random { .. }).then_some(random);
        let due = self.interrupts.borrow_mut().take(index, random)?;
        Some((Event::Interrupt(due.slot), due.level_line))
    }

    /// Delivers one pending event to a CPU that has interrupts on. Returns whether there was one.
    fn deliver_one(&self, index: usize) -> bool {
        if !self.cpus[index].interrupts_on.get() {
            return false;
        }
        let Some((event, level_line)) = self.take(index) else {
            return false;
        };
        let before = self.current.replace(index);
        self.cpus[index].interrupts_on.set(false);
        hosted::deliver(event);
        self.cpus[index].interrupts_on.set(true);
        self.current.set(before);
        match level_line.filter(|line| self.interrupts.borrow().asserted(*line)) {
            Some(line) => {
                self.storm.set(self.storm.get() + 1);
                assert!(self.storm.get() < STORM_LIMIT, "interrupt storm: no handler clears line {line}");
            }
            None => self.storm.set(0),
        }
        true
    }

    /// What happens at every call of the guest: perhaps devices work, perhaps an interrupt arrives.
    pub(super) fn step(&self) {
        if std::thread::panicking() {
            return;
        }
        let schedule = self.schedule.get();
        if schedule.works(&mut self.random.borrow_mut()) {
            self.work();
        }
        while schedule.delivers(&mut self.random.borrow_mut()) && self.deliver_one(self.current.get()) {}
    }

    /// The guest spins.
    pub(super) fn spin(&self) {
        self.advance(self.spin_nanos.get());
        if std::thread::panicking() {
            self.unwinding();
            return;
        }
        self.spins.set(self.spins.get() + 1);
        self.work();
        while self.deliver_one(self.current.get()) {}
        if self.current.get() == 0 && self.cpus[0].interrupts_on.get() {
            // The others do not stand still while the first one spins.
            for cpu in 1..self.cpus.len() {
                self.deliver_one(cpu);
            }
        }
        assert!(self.spins.get() < SPIN_LIMIT, "the guest spins for something that never comes\n{}", self.diagnosis());
    }

    /// Waits for an event on the current CPU with interrupts on.
    pub(super) fn wait(&self) {
        if std::thread::panicking() {
            self.advance(HALT_NANOS);
            self.unwinding();
            return;
        }
        let here = self.current.get();
        self.cpus[here].interrupts_on.set(true);
        loop {
            // With a random schedule more than one device gets done before an interrupt arrives, sometimes.
            while self.schedule.get().works(&mut self.random.borrow_mut()) && self.work() {}
            if self.deliver_one(here) {
                return;
            }
            let others = (0..self.cpus.len()).filter(|&cpu| cpu != here && self.deliver_one(cpu)).count();
            if others > 0 || self.work() {
                continue;
            }
            match self.next_time() {
                Some(at) => self.now.set(self.now.get().max(at)),
                None => panic!("the guest waits for an interrupt that never comes\n{}", self.diagnosis()),
            }
        }
    }

    /// A guest that panicked takes no more interrupts: a second panic would end the test program. Devices still work, so that drivers
    /// that are dropped can reset them, for a while.
    fn unwinding(&self) {
        self.spins.set(self.spins.get() + 1);
        for index in 0..self.devices.borrow().len() {
            self.with_device(index, usize::MAX, |device, bus| device.work(bus));
        }
        assert!(self.spins.get() < SPIN_LIMIT, "the guest hangs while it unwinds");
    }

    /// When something next happens by itself.
    fn next_time(&self) -> Option<u64> {
        let alarms = self.cpus.iter().filter_map(|cpu| cpu.alarm.get());
        let count = self.devices.borrow().len();
        // A device whose time has come and that still got nothing done is not one to wait for.
        let devices = (0..count)
            .filter_map(|index| self.with_device(index, 0, |device, _| device.due())?)
            .filter(|at| *at > self.now.get());
        alarms.chain(devices).min()
    }

    fn diagnosis(&self) -> String {
        let mut text = format!("at {} ns", self.now.get());
        for index in 0..self.devices.borrow().len() {
            if let Some(said) = self.with_device(index, 0, |device, bus| device.diagnose(bus)) {
                let _ = write!(text, "\ndevice {index}: {said}");
            }
        }
        text
    }
}
