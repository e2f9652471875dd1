//! Two CPUs on one volume: reads, writes, pins and syncs of the same pages, by tasks that wait; what they saw can have been. As threads of the
//! host, and in shuttle's schedules.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[cfg(shuttle)]
use shuttle::thread;
#[cfg(not(shuttle))]
use std::thread;

use undercroft_hal::hosted::{Cpus, LeakCheck};
use undercroft_hal::{Task, cpu};
use undercroft_hosts::Random;
use undercroft_timer::timers;

use super::device::*;
use super::history::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const PAGES: usize = 24;
const CELLS: usize = PAGES * PAGE / CELL;

struct Shared {
    volume: Volume,
    device: Arc<Device>,
    history: Mutex<History>,
    clock: AtomicU64,
    next: AtomicU64,
}

impl Shared {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap()
    }

    /// One operation of a CPU.
    fn step(&self, cx: &Task, random: &mut Random) -> Result<(), String> {
        let fails = |error: undercroft_block::Error| format!("it failed: {error:?}");
        let start = random.below(CELLS);
        let most = [4, 100][random.below(2)].min(CELLS - start);
        let len = 1 + random.below(most);
        let (cells, at) = (start..start + len, (start * CELL) as u64);
        match random.below(10) {
            0..4 => {
                let mut bytes = vec![0xee; len * CELL];
                let begun = self.tick();
                self.volume.read_blocking(cx, at, &mut bytes).map_err(fails)?;
                let ended = self.tick();
                let mut history = self.history();
                for (cell, bytes) in cells.zip(bytes.chunks(CELL)) {
                    history.read(cell, number(bytes)?, begun, ended)?;
                }
            }
            4..8 => {
                let value = self.next.fetch_add(1, Ordering::SeqCst) as u32;
                let bytes = value.to_le_bytes().repeat(len * CELL / 4);
                self.history().begin_write(cells.clone(), value, self.tick());
                self.volume.write_blocking(cx, at, &bytes).map_err(fails)?;
                self.history().end_write(cells, value, self.tick());
            }
            8 => {
                let begun = self.tick();
                self.volume.sync_blocking(cx, at..at + (len * CELL) as u64).map_err(fails)?;
                self.history().synced(cells, begun);
            }
            _ => {
                let pinned = self.volume.pin_blocking(cx, at).map_err(fails)?;
                let (begun, mut bytes) = (self.tick(), [0; CELL]);
                pinned.read(cx, start * CELL % PAGE, &mut bytes);
                self.history().read(start, number(&bytes)?, begun, self.tick())?;
            }
        }
        Ok(())
    }
}

/// Both CPUs, `steps` operations each, with a hazard put back, or none.
fn round(seed: u64, steps: usize, hazard: Option<Hazard>) -> Result<(), String> {
    let with = move |run: &mut dyn FnMut() -> Result<(), String>| match hazard {
        Some(hazard) => broken::with(hazard, run),
        None => run(),
    };
    let cpus = Cpus::new(2);
    let shared: Arc<Mutex<Option<Arc<Shared>>>> = Arc::default();
    let (over, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let other = thread::spawn({
        let (cpus, shared, over, stop) = (cpus.clone(), shared.clone(), over.clone(), stop.clone());
        move || {
            let result = with(&mut || {
                cpus.run(1, |cx| {
                    let shared = loop {
                        // The guard goes before the other has its turn.
                        let made = shared.lock().unwrap().clone();
                        match made {
                            Some(shared) => break shared,
                            None if stop.load(Ordering::SeqCst) => return Ok(()),
                            None => thread::yield_now(),
                        }
                    };
                    let mut random = Random::new(seed * 2 + 1);
                    let result = (0..steps).try_for_each(|_| shared.step(cx, &mut random));
                    drop(shared);
                    over.store(true, Ordering::SeqCst);
                    cpu::kick(0);
                    // Its bottom halves are wanted until the other has ended.
                    cx.wait_until(|| stop.load(Ordering::SeqCst));
                    result
                })
            });
            over.store(true, Ordering::SeqCst);
            result
        }
    });
    let result = with(&mut || {
        cpus.run(0, |cx| {
            let _check = LeakCheck::new(cx);
            // A model's callouts know of no interrupts.
            if !cfg!(shuttle) {
                timers::start_service(cx);
            }
            let device = Device::new(info((PAGES * PAGE) as u64, 512));
            {
                let mut state = device.lock();
                state.store.fill(0);
                state.durable.fill(0);
                state.order = Order::Any(Random::new(seed));
            }
            let config = Config { pages: 16, dirty_percent: 50, tick: Duration::from_millis(1), ahead: 4, ..SMALL };
            let volume = Volume::open(cx, device.clone(), config).map_err(|error| format!("{error:?}"))?;
            let history = Mutex::new(History::new(CELLS));
            let all = Arc::new(Shared { volume, device, history, clock: AtomicU64::new(1), next: AtomicU64::new(1) });
            *shared.lock().unwrap() = Some(all.clone());
            let mut random = Random::new(seed * 2);
            let mut result = (0..steps).try_for_each(|_| all.step(cx, &mut random));
            cx.wait_until(|| over.load(Ordering::SeqCst));
            *shared.lock().unwrap() = None;
            let begun = all.tick();
            all.volume.sync_all_blocking(cx).map_err(|error| format!("{error:?}"))?;
            all.history().synced(0..CELLS, begun);
            let left = all.device.cut(&mut random);
            for (cell, bytes) in left.chunks(CELL).enumerate() {
                result = result.and_then(|()| all.history().survives(cell, number(bytes)?));
            }
            let result = result.and_then(|()| all.history().check());
            all.volume.verify(cx);
            drop(all);
            for _ in 0..100 {
                cx.run_pending();
            }
            result
        })
    });
    stop.store(true, Ordering::SeqCst);
    cpus.run(0, |_| cpu::kick(1));
    let others = other.join().map_err(|_| "the other CPU panicked".to_owned())?;
    result.and(others)
}

/// A-PC-03: who looks a page up while another inserts one, evicts one or is told of one.
#[cfg(not(shuttle))]
#[test]
fn a_pc_03_two_cpus_on_the_same_pages() {
    for seed in 0..10 {
        round(seed, 150, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[cfg(not(shuttle))]
#[test]
fn a_pc_03_two_cpus_on_the_same_pages_control() {
    let caught = (0..20).find_map(|seed| round(seed, 150, Some(Hazard::NewestOnly)).err());
    let error = caught.expect("the hazard was not caught");
    assert!(error.contains("was made durable"), "{error}");
}

/// The same in `schedules` random orders of all that the two do to the volume and its queues.
#[cfg(shuttle)]
fn explore(schedules: usize) {
    use shuttle::rand::{Rng, thread_rng};
    let mut config = shuttle::Config::new();
    // A machine's state is built on the stack before it moves to its Arc.
    config.stack_size = 4 << 20;
    config.max_steps = shuttle::MaxSteps::None;
    let scene = || {
        let seed = thread_rng().gen_range(0..1_000_000u64);
        round(seed, 16, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    };
    shuttle::Runner::new(shuttle::scheduler::RandomScheduler::new(schedules), config).run(scene);
}

/// What a hazard comes to in those: found among the first few thousand as a rule, and the first that finds it is the last.
#[cfg(shuttle)]
fn caught(hazard: Hazard) -> String {
    let caught = broken::with(hazard, || std::panic::catch_unwind(|| explore(30_000)));
    let error = caught.expect_err("the hazard was not caught");
    error.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[cfg(shuttle)]
#[test]
fn shuttle_a_pc_03_lookup_while_another_inserts() {
    explore(300);
}

/// A page is looked up in one hold of the lock and used in another: it may be another's by then.
#[cfg(shuttle)]
#[test]
fn shuttle_a_pc_03_lookup_while_another_inserts_control() {
    let error = caught(Hazard::FoundBefore);
    // Another's bytes, or none: the device has the page's memory while it reads.
    let other = ["never written there", "in between", "out of range for slice of length 0"];
    assert!(other.iter().any(|what| error.contains(what)), "{error}");
}

/// Who waits for room is not told that there is none while another CPU is about to begin the write-back that makes some.
#[cfg(shuttle)]
#[test]
fn shuttle_a_pc_03_lookup_while_another_makes_room_control() {
    let error = caught(Hazard::StuckTooSoon);
    assert!(error.contains("it failed: NoMemory"), "{error}");
}
