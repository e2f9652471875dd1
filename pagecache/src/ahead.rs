//! Read-ahead: who reads on, evenly, has the next pages read before it comes for them.
//!
//! A few streams are remembered. One that goes on where it ended has a window that begins at four pages and doubles; the next window is read
//! when half of the last is used. One that goes on by the same step twice has the next few places of that kind read. Pages that were evicted
//! before they were used halve the windows. Under the volume's lock.

use crate::broken::{self, Hazard};

/// What to read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// So many pages from one on.
    Run { first: u64, count: u32 },
    /// Places of so many pages, a step apart.
    Strides { first: u64, stride: i64, count: u32, pages: u32 },
}

const STREAMS: usize = 8;
const FIRST_WINDOW: u32 = 4;
/// Places that are read ahead of a stream with a step.
const PLACES: u32 = 4;

#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    first: u64,
    last: u64,
    /// Everything before this is read or being read.
    ahead: u64,
    window: u32,
    stride: i64,
    /// How often the step was the same.
    even: u32,
    /// When it was used last; never: 0.
    used: u64,
}

/// The streams of a volume.
#[derive(Debug)]
pub(crate) struct Streams {
    streams: [Stream; STREAMS],
    most: u32,
    clock: u64,
    wasted: u64,
}

impl Streams {
    /// Windows of at most `most` pages; 0 for no read-ahead.
    pub(crate) fn new(most: u32) -> Self {
        Self { streams: [Stream::default(); STREAMS], most, clock: 0, wasted: 0 }
    }

    /// Windows of at most `most` pages from now on.
    pub(crate) const fn allow(&mut self, most: u32) {
        self.most = most;
    }

    /// Somebody reads the pages from `first` to `last`; `wasted` pages that were read ahead have been evicted unused so far.
    pub(crate) fn note(&mut self, first: u64, last: u64, wasted: u64) -> Option<Plan> {
        if self.most < FIRST_WINDOW || broken::is(Hazard::NoReadAhead) {
            return None;
        }
        if wasted > self.wasted {
            self.wasted = wasted;
            for stream in &mut self.streams {
                stream.window = (stream.window / 2).max(FIRST_WINDOW);
            }
        }
        self.clock += 1;
        let (clock, most) = (self.clock, self.most);
        let used = |stream: &&mut Stream| stream.used > 0;
        // Behind what it read last, or once more in that.
        let goes_on = |stream: &Stream| (stream.first..=stream.last + 1).contains(&first);
        if let Some(stream) = self.streams.iter_mut().filter(used).find(|stream| goes_on(stream)) {
            return stream.go_on(first, last, clock, most);
        }
        let steps =
            |stream: &Stream| stream.stride != 0 && stream.first.checked_add_signed(stream.stride) == Some(first);
        if let Some(stream) = self.streams.iter_mut().filter(used).find(|stream| steps(stream)) {
            return stream.step(first, last, clock, most);
        }
        // Perhaps the step of the stream that was used last; if not, another stream.
        let newest = self.streams.iter_mut().filter(used).max_by_key(|stream| stream.used);
        if let Some(stream) = newest.filter(|stream| stream.window == 0 && stream.even == 0 && stream.stride == 0) {
            stream.stride = first.wrapping_sub(stream.first) as i64;
            (stream.first, stream.last, stream.used) = (first, last, clock);
            return None;
        }
        let oldest = self.streams.iter_mut().min_by_key(|stream| stream.used)?;
        *oldest = Stream { first, last, used: clock, ..Stream::default() };
        None
    }
}

impl Stream {
    fn go_on(&mut self, first: u64, last: u64, clock: u64, most: u32) -> Option<Plan> {
        self.used = clock;
        if last <= self.last {
            return None;
        }
        (self.first, self.last) = (first, last);
        (self.stride, self.even) = (0, 0);
        let next = self.last + 1;
        if self.window == 0 {
            self.window = FIRST_WINDOW.min(most);
        } else if next + u64::from(self.window) / 2 < self.ahead {
            return None;
        } else {
            self.window = (self.window * 2).min(most);
        }
        let first = self.ahead.max(next);
        self.ahead = next + u64::from(self.window);
        let count = self.ahead.saturating_sub(first) as u32;
        (count > 0).then_some(Plan::Run { first, count })
    }

    fn step(&mut self, first: u64, last: u64, clock: u64, most: u32) -> Option<Plan> {
        (self.first, self.last, self.used) = (first, last, clock);
        self.even += 1;
        if self.even < 2 {
            return None;
        }
        let pages = (last - first + 1).min(u64::from(most)) as u32;
        let count = PLACES.min(most / pages).max(1);
        // Those read ahead before are here already: only the farthest is new.
        Some(Plan::Strides { first: first.checked_add_signed(self.stride)?, stride: self.stride, count, pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_has_a_window_that_doubles_up_to_its_bound() {
        let mut streams = Streams::new(32);
        assert_eq!(streams.note(100, 100, 0), None, "one read is no sequence");
        let (mut covered, mut windows) = (101, Vec::new());
        for at in 101..400 {
            match streams.note(at, at, 0) {
                Some(Plan::Run { first, count }) => {
                    assert!(first == covered || first == at + 1, "at {at}: {first} after {covered}");
                    assert!(first + u64::from(count) <= at + 1 + 32);
                    covered = first + u64::from(count);
                    windows.push(count);
                }
                Some(plan) => panic!("{plan:?}"),
                None => assert!(covered > at, "page {at} was not read ahead"),
            }
        }
        assert_eq!(windows[0], 4);
        assert!(windows.len() < 30, "{windows:?}");
    }

    #[test]
    fn small_reads_of_one_page_are_one_step() {
        let mut streams = Streams::new(32);
        streams.note(5, 5, 0);
        assert_eq!(streams.note(5, 5, 0), None);
        assert!(streams.note(6, 6, 0).is_some());
        assert_eq!(streams.note(6, 6, 0), None);
    }

    #[test]
    fn steps_of_one_size_are_seen_and_random_reads_are_not() {
        let mut streams = Streams::new(32);
        let plans: Vec<_> = (0..6).map(|at| streams.note(1000 + at * 10, 1001 + at * 10, 0)).collect();
        assert_eq!(plans[..3], [None; 3]);
        assert_eq!(plans[3], Some(Plan::Strides { first: 1040, stride: 10, count: 4, pages: 2 }));
        let mut streams = Streams::new(32);
        let mut at = 1u64;
        for _ in 0..1000 {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) & 0xffff_ffff;
            assert_eq!(streams.note(at, at, 0), None);
        }
    }

    #[test]
    fn two_sequences_do_not_disturb_each_other() {
        let mut streams = Streams::new(32);
        let mut plans = [0, 0];
        for at in 0..100 {
            for (who, base) in [0, 1_000_000].into_iter().enumerate() {
                plans[who] += usize::from(matches!(streams.note(base + at, base + at, 0), Some(Plan::Run { .. })));
            }
        }
        assert!(plans[0] > 3 && plans[1] > 3, "{plans:?}");
    }

    #[test]
    fn waste_halves_the_windows() {
        let mut streams = Streams::new(64);
        (0..200).for_each(|at| _ = streams.note(at, at, 0));
        let before = streams.streams.iter().map(|stream| stream.window).max();
        streams.note(5000, 5000, 9);
        let after = streams.streams.iter().map(|stream| stream.window).max();
        assert_eq!((before, after), (Some(64), Some(32)));
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trouble() {
        let mut streams = Streams::new(64);
        for at in [u64::MAX / 4096, u64::MAX / 4096 - 1, 0, 1, u64::MAX / 4096] {
            streams.note(at, at, 0);
        }
    }
}
