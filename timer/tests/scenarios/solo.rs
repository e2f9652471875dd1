//! One callout whose handler waits at a gate, on a CPU of its own: what most races are about.

use std::sync::{Arc, Mutex};

use undercroft_hal::{BottomHalf, Instant, Task, cpu};
use undercroft_timer::{Callout, Expiry, Next, timers};

use crate::crew::{Crew, Gate};
use crate::ours::{Object, SOON, at};
use crate::watch::Watch;

/// Where a handler ran, for which deadline, and whether it was superseded when it ended.
pub type Run = (usize, u64, bool);

/// The callout, with what is known of it.
pub struct Solo {
    pub watch: Arc<Watch>,
    pub callout: Arc<Callout<BottomHalf>>,
    /// A gate for each run.
    pub gates: Vec<Gate>,
    runs: Arc<Mutex<Vec<Run>>>,
}

/// What is left of it when somebody else has the callout.
pub struct Rest {
    pub watch: Arc<Watch>,
    pub gates: Vec<Gate>,
    runs: Arc<Mutex<Vec<Run>>>,
}

impl Rest {
    pub fn runs(&self) -> usize {
        self.runs.lock().unwrap().len()
    }
}

impl Solo {
    /// A callout whose first handler is at its gate, on `home`, having done `before`, and about to do `after`.
    pub fn running(
        crew: &Crew,
        task: &Task,
        home: usize,
        mut before: impl FnMut(&Expiry) + Send + 'static,
        mut after: impl FnMut(&Expiry) -> Next + Send + 'static,
    ) -> Self {
        timers::start_service(task);
        let watch = Arc::new(Watch::new());
        let object = Object::new(&watch, 0);
        let gates: Vec<_> = (0..3).map(|_| Gate::default()).collect();
        let runs = Arc::new(Mutex::new(Vec::new()));
        let (their_gates, theirs) = (gates.clone(), Arc::clone(&runs));
        let callout = Callout::<BottomHalf>::new(home, move |_: &BottomHalf, expiry: &Expiry| {
            object.run(expiry, || {
                before(expiry);
                let run = theirs.lock().unwrap().len();
                their_gates[run].pass();
                let run = (cpu::current(), expiry.deadline().as_nanos(), expiry.superseded());
                theirs.lock().unwrap().push(run);
                after(expiry)
            })
        });
        let first = Instant::now().as_nanos() + SOON;
        let _ = watch.armed(0, first);
        let _ = callout.start_at(at(first)).unwrap();
        // And a tick of the wheel.
        crew.advance(SOON + 1024);
        crew.until(task, || gates[0].reached());
        Self { watch, callout: Arc::new(callout), gates, runs }
    }

    pub fn runs(&self) -> Vec<Run> {
        self.runs.lock().unwrap().clone()
    }

    /// The callout, when nobody else has a reference any more, and the rest.
    pub fn into_callout(self) -> (Callout<BottomHalf>, Rest) {
        let Self { watch, callout, gates, runs } = self;
        (Arc::into_inner(callout).expect("the last reference"), Rest { watch, gates, runs })
    }
}

/// A handler that only waits.
pub fn nothing(_: &Expiry) {}

/// And then is done.
pub fn done(_: &Expiry) -> Next {
    Next::Done
}
