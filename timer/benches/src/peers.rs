//! Wheels of others, and an ordered map.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hierarchical_hash_wheel_timer::IdOnlyTimerEntry;
use hierarchical_hash_wheel_timer::wheels::Skip;
use hierarchical_hash_wheel_timer::wheels::cancellable::QuadWheelWithOverflow;
use nexus_timer::{TimerHandle, Wheel};
use tm_wheel::TimerDriver;

use crate::subject::Subject;

fn handles<T>(room: u32) -> Vec<Option<T>> {
    (0..room).map(|_| None).collect()
}

/// nexus-timer, with the poll that its documentation recommends.
pub struct Nexus {
    wheel: Wheel<u32>,
    epoch: Instant,
    handles: Vec<Option<TimerHandle<u32>>>,
}

impl Nexus {
    fn free(&mut self, id: u32) {
        if let Some(handle) = self.handles[id as usize].take() {
            self.wheel.cancel(handle);
        }
    }
}

impl Subject for Nexus {
    const NAME: &'static str = "nexus-timer 1.5.0";
    fn make(room: u32) -> Self {
        let epoch = Instant::now();
        Self { wheel: Wheel::unbounded(4096, epoch), epoch, handles: handles(room) }
    }
    fn start(&mut self, id: u32, at: u64) {
        // A handle whose timer fired has to be given back.
        self.free(id);
        self.handles[id as usize] = Some(self.wheel.schedule(self.epoch + Duration::from_millis(at), id));
    }
    fn stop(&mut self, id: u32) {
        self.free(id);
    }
    fn expire(&mut self, to: u64, due: &mut Vec<u32>) {
        self.wheel.poll_and_rebalance(self.epoch + Duration::from_millis(to), due);
    }
    fn next(&mut self) -> Option<u64> {
        self.wheel.next_deadline().map(|at| (at - self.epoch).as_millis() as u64)
    }
}

impl Drop for Nexus {
    fn drop(&mut self) {
        (0..self.handles.len() as u32).for_each(|id| self.free(id));
    }
}

/// tm-wheel, with levels for the range.
pub struct Tm {
    wheel: TimerDriver<u32, 6, 64>,
    handles: Vec<Option<tm_wheel::TimerHandle>>,
}

impl Subject for Tm {
    const NAME: &'static str = "tm-wheel 0.1.1";
    fn make(room: u32) -> Self {
        Self { wheel: TimerDriver::default(), handles: handles(room) }
    }
    fn start(&mut self, id: u32, at: u64) {
        self.handles[id as usize] = Some(self.wheel.insert(id, at));
    }
    fn stop(&mut self, id: u32) {
        if let Some(handle) = self.handles[id as usize].take() {
            self.wheel.remove(handle);
        }
    }
    fn expire(&mut self, to: u64, due: &mut Vec<u32>) {
        due.extend(self.wheel.advance_to(to));
    }
    fn next(&mut self) -> Option<u64> {
        self.wheel.nearest_wakeup().map(u64::from)
    }
}

/// hierarchical_hash_wheel_timer, the wheel from which timers can be cancelled.
pub struct Hierarchical {
    wheel: QuadWheelWithOverflow<IdOnlyTimerEntry<u32>>,
    now: u64,
}

impl Subject for Hierarchical {
    const NAME: &'static str = "hierarchical_hash_wheel_timer 1.4.0";
    fn make(_room: u32) -> Self {
        Self { wheel: QuadWheelWithOverflow::new(), now: 0 }
    }
    fn start(&mut self, id: u32, at: u64) {
        let entry = IdOnlyTimerEntry::new(id, Duration::from_millis(at - self.now));
        self.wheel.insert(entry).unwrap_or_else(|_| panic!("its time is to come"));
    }
    fn stop(&mut self, id: u32) {
        self.wheel.cancel(&id).unwrap_or_else(|_| panic!("it is armed"));
    }
    fn expire(&mut self, to: u64, due: &mut Vec<u32>) {
        while self.now < to {
            match self.wheel.can_skip() {
                Skip::Millis(ticks) => {
                    let ticks = u64::from(ticks).min(to - self.now);
                    self.wheel.skip(ticks as u32);
                    self.now += ticks;
                }
                Skip::None | Skip::Empty => {
                    due.extend(self.wheel.tick().iter().map(|entry| entry.id));
                    self.now += 1;
                }
            }
        }
    }
    fn next(&mut self) -> Option<u64> {
        match self.wheel.can_skip() {
            Skip::Empty => None,
            Skip::None => Some(self.now + 1),
            Skip::Millis(ticks) => Some(self.now + u64::from(ticks)),
        }
    }
}

/// The standard library's ordered map, by time and number.
pub struct Map {
    map: BTreeMap<(u64, u32), ()>,
    at: Vec<u64>,
}

impl Subject for Map {
    const NAME: &'static str = "BTreeMap";
    fn make(room: u32) -> Self {
        Self { map: BTreeMap::new(), at: vec![0; room as usize] }
    }
    fn start(&mut self, id: u32, at: u64) {
        self.at[id as usize] = at;
        self.map.insert((at, id), ());
    }
    fn stop(&mut self, id: u32) {
        self.map.remove(&(self.at[id as usize], id));
    }
    fn expire(&mut self, to: u64, due: &mut Vec<u32>) {
        while let Some(entry) = self.map.first_entry().filter(|entry| entry.key().0 <= to) {
            due.push(entry.remove_entry().0.1);
        }
    }
    fn next(&mut self) -> Option<u64> {
        self.map.first_key_value().map(|((at, _), ())| *at)
    }
}
