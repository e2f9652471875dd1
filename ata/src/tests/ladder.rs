//! The driver below the block layer's queue: its deadlines, its recovery ladder, on the strict model.

use undercroft_block::Refusal;
use undercroft_block::queue::{BlockQueue, Config as Times, Rung};
use undercroft_timer::timers;

use super::*;

const MS: Duration = Duration::from_millis(1);
const TIMES: Times = Times { timeout: Duration::from_millis(100), rungs: [MS, MS, MS, MS], waiting: 16, submitters: 1 };

/// Both drives of the primary channel behind queues, and what the second command of that channel suffers.
struct Two<'a> {
    rig: &'a Rig,
    task: &'a Task,
    disks: Vec<Arc<AtaDisk>>,
    queues: Vec<BlockQueue>,
    sink: Arc<Sink>,
}

fn two(settings: &Settings, fault: Fault, test: impl FnOnce(&Two<'_>)) {
    let drives = [Some(settings.clone()), Some(settings.clone()), None, None];
    let rig = Rig::full(Config::default(), drives, Mode::Compatible, true);
    let rig = rig.faults(FaultScript::none().at(1, fault));
    rig.run(|task, found| {
        timers::start_service(task);
        let queues = found.disks.iter().map(|disk| BlockQueue::new(disk.clone(), TIMES)).collect();
        let two = Two { rig: &rig, task, disks: found.disks, queues, sink: Sink::new() };
        two.send(0, 0);
        two.pass(1);
        assert_eq!(two.sink.take().len(), 1, "the first command is good");
        test(&two);
    });
}

impl Two<'_> {
    fn send(&self, disk: usize, cookie: u64) {
        self.queues[disk].submit(read(cookie * 10, 8, self.sink.to(cookie))).unwrap();
        self.queues[disk].commit();
    }

    fn pass(&self, ms: u32) {
        for _ in 0..ms * 16 {
            self.rig.machine.advance(62_500);
            settle(self.task, 4);
        }
    }

    /// The results by cookie; what was read is right.
    fn results(&self) -> Vec<(u64, Result<(), Error>)> {
        let mut all: Vec<_> = self.sink.take();
        all.sort_by_key(|done| done.cookie);
        for done in all.iter().filter(|done| done.result.is_ok()) {
            let place = (done.cookie % 2) as usize;
            assert!(bytes(&done.request) == pattern(place, done.cookie * 10, 8), "the data of {}", done.cookie);
        }
        all.iter().map(|done| (done.cookie, done.result)).collect()
    }

    fn helped(&self, disk: usize) -> Vec<Rung> {
        let rungs = self.queues[disk].stats().rungs;
        Rung::ALL.into_iter().filter(|rung| rungs[*rung as usize].helped > 0).collect()
    }
}

/// Nothing comes before the deadline; then the first rung finds that the drive has long been done.
#[test]
fn an_interrupt_that_is_lost_costs_the_deadline_and_no_more() {
    for settings in [Settings::default(), Settings { dma: false, fua: false, trim_blocks: 0, ..Settings::default() }] {
        two(&settings, Fault::InterruptLost, |two| {
            two.send(0, 2);
            two.pass(50);
            two.send(1, 3);
            two.pass(49);
            assert_eq!(two.results(), []);
            two.pass(2);
            assert_eq!(two.results(), [(2, Ok(())), (3, Ok(()))]);
            assert_eq!((two.helped(0), two.disks[0].counters().resets), (alloc::vec![Rung::Abort], 0));
            assert_eq!(two.disks[0].counters().lost_interrupts, 1);
        });
    }
}

/// The reset ends what is overdue, and what was not is sent again, the neighbour's too.
#[test]
fn a_drive_that_hangs_is_reset_and_both_go_on() {
    for fault in [Fault::StuckBusy, Fault::NoInterrupt, Fault::Stalls(512)] {
        two(&Settings::default(), fault, |two| {
            two.send(0, 2);
            two.pass(50);
            two.send(0, 4);
            two.send(1, 3);
            two.send(1, 5);
            two.pass(65);
            let expected = [(2, Err(Error::TimedOut)), (3, Ok(())), (4, Ok(())), (5, Ok(()))];
            assert_eq!(two.results(), expected, "{fault:?}");
            assert_eq!((two.helped(0), two.disks[0].counters().resets), (alloc::vec![Rung::Bus], 1), "{fault:?}");
            two.send(0, 6);
            two.send(1, 7);
            two.pass(1);
            assert_eq!(two.results(), [(6, Ok(())), (7, Ok(()))]);
        });
    }
}

/// No rung brings it back: it is given up, in bounded time, and everything has ended once.
#[test]
fn a_drive_that_is_wedged_is_given_up() {
    two(&Settings::default(), Fault::Wedged, |two| {
        two.send(0, 2);
        two.pass(50);
        two.send(0, 4);
        two.pass(100);
        let results = two.results();
        assert_eq!(results.iter().map(|(cookie, _)| *cookie).collect::<Vec<_>>(), [2, 4], "each once");
        assert_eq!(results[0].1, Err(Error::TimedOut));
        assert!(results[1].1.is_err(), "{results:?}");
        let refused = two.queues[0].submit(read(0, 1, two.sink.to(9))).unwrap_err();
        assert!(matches!(refused.why, Refusal::Gone(_)), "{:?}", refused.why);
    });
}
