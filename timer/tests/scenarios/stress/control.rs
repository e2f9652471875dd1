//! The programme on the old system, in random order of its steps.

use std::mem::discriminant;

use super::{Deed, Plan, Size};
use crate::old::migration::{C, Design, Kernel, Op, Outcome};
use crate::old::waits::Who;
use crate::watch::{Step, Violation};

const CLIENTS: [Who; 4] = ["client 0", "client 1", "client 2", "client 3"];
const EXECUTORS: [Who; 4] = ["executor 0", "executor 1", "executor 2", "executor 3"];

/// How far a CPU's executor is.
#[derive(Clone, Copy)]
enum Executor {
    Idle,
    Taken(C),
    InHandler(C, Option<Op>),
    Left,
}

#[derive(Clone, Copy)]
struct Client {
    c: C,
    op: Option<Op>,
    deeds: usize,
}

struct Run {
    kernel: Kernel,
    plan: Plan,
    executors: Vec<Executor>,
    clients: Vec<Client>,
}

impl Run {
    fn new(design: Design, seed: u64, size: Size) -> Self {
        let mut kernel = Kernel::new(size.cpus, design);
        // A defect that needs no moves, and has its own test.
        kernel.asks_both = true;
        let clients = (0..size.clients).map(|n| kernel.callout(n % size.cpus));
        let clients = clients.map(|c| Client { c, op: None, deeds: size.deeds }).collect();
        Self { kernel, plan: Plan::new(seed, size), executors: vec![Executor::Idle; size.cpus], clients }
    }

    fn executor(&mut self, cpu: usize) -> Step {
        self.executors[cpu] = match self.executors[cpu] {
            Executor::Idle => self.kernel.take_due(cpu)?.map_or(Executor::Idle, Executor::Taken),
            Executor::Taken(c) => {
                self.kernel.enter(cpu, c)?;
                let deed = self.plan.in_handler(cpu);
                Executor::InHandler(c, deed.map(|deed| self.reset(c, deed)))
            }
            Executor::InHandler(c, Some(mut op)) => match self.kernel.step(EXECUTORS[cpu], &mut op)? {
                Outcome::Done => Executor::InHandler(c, None),
                _ => Executor::InHandler(c, Some(op)),
            },
            Executor::InHandler(c, None) => {
                self.kernel.leave(c)?;
                Executor::Left
            }
            Executor::Left => {
                self.kernel.finish(cpu)?;
                Executor::Idle
            }
        };
        Ok(())
    }

    fn reset(&self, c: C, deed: Deed) -> Op {
        match deed {
            Deed::Start { cpu, delay } => Op::reset(c, cpu, self.kernel.now + delay),
            Deed::Stop | Deed::Remake => Op::drain(c),
        }
    }

    fn client(&mut self, n: usize) -> Step {
        let Client { c, op, deeds } = self.clients[n];
        let home = n % self.executors.len();
        let next = match op {
            Some(mut op) => match self.kernel.step(CLIENTS[n], &mut op)? {
                Outcome::Done if matches!(op, Op::Drain { .. }) => {
                    self.kernel.free(c)?;
                    self.clients[n].c = self.kernel.callout(home);
                    None
                }
                Outcome::Done => None,
                Outcome::Again | Outcome::Blocked => Some(op),
            },
            None if deeds == 0 => None,
            None => {
                self.clients[n].deeds -= 1;
                match self.plan.deed(home) {
                    Deed::Stop => {
                        self.kernel.stop(c)?;
                        None
                    }
                    deed => Some(self.reset(c, deed)),
                }
            }
        };
        self.clients[n].op = next;
        Ok(())
    }

    /// One seed, to its end.
    fn go(mut self) -> Step {
        let (cpus, clients) = (self.executors.len(), self.clients.len());
        let mut rounds = 0;
        while self.clients.iter().any(|client| client.deeds > 0 || client.op.is_some()) {
            match self.plan.below(cpus + clients + 1) {
                actor if actor < cpus => self.executor(actor)?,
                actor if actor < cpus + clients => self.client(actor - cpus)?,
                _ => self.kernel.now += 1,
            }
            rounds += 1;
            if rounds > 100_000 {
                return Err(Violation::LostWakeup);
            }
        }
        Ok(())
    }
}

/// What `seeds` runs find, each kind once.
fn found(design: Design, size: Size, seeds: u64) -> Vec<Violation> {
    let mut found = Vec::new();
    for seed in 0..seeds {
        if let Err(violation) = Run::new(design, seed, size).go()
            && !found.iter().any(|known| discriminant(known) == discriminant(&violation))
        {
            found.push(violation);
        }
    }
    found
}

const SIZE: Size = Size { cpus: 3, clients: 3, deeds: 40, moves: true };

#[test]
fn t_22_to_t_32_the_stress_programme_finds_all_three_problems_control() {
    let found = found(Design::Retry, SIZE, 300);
    // Problems 1, 2 and 3.
    for problem in [Violation::OverWhileRunning, Violation::TwoAtOnce, Violation::LockLeak] {
        assert!(found.contains(&problem), "{problem:?} not among {found:?}");
    }
}

/// The repaired system, too: it links what is linked, when a callout that is to be moved is armed where it is (found in 2015).
#[test]
fn t_10_the_stress_programme_finds_what_the_repair_left_control() {
    let found = found(Design::Parked, SIZE, 300);
    assert!(found.contains(&Violation::ListCorruption), "{found:?}");
}

/// Without moves there is nothing to find: the programme is not to blame.
#[test]
fn the_stress_programme_finds_nothing_where_nothing_moves() {
    assert_eq!(found(Design::Retry, Size { moves: false, ..SIZE }, 300), []);
}
