//! The programme on threads as CPUs; and that its watches see what they look for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use undercroft_hal::clock::Duration;
use undercroft_hal::hosted::Cpus;
use undercroft_hal::{BottomHalf, Task};
use undercroft_timer::{Callout, Expiry, timers};

use super::watch::{Counts, Watch};

/// Calls `f` on CPU 0 of a machine whose other CPUs serve until it returns.
fn on_cpus<R>(count: usize, f: impl FnOnce(&Task) -> R) -> R {
    let machine = Cpus::new(count);
    let over = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = (1..count)
        .map(|cpu| {
            let (machine, over) = (Arc::clone(&machine), Arc::clone(&over));
            std::thread::spawn(move || machine.run(cpu, |cx| cx.wait_until(|| over.load(Ordering::SeqCst))))
        })
        .collect();
    let result = machine.run(0, |cx| {
        timers::start_service(cx);
        let result = f(cx);
        over.store(true, Ordering::SeqCst);
        (1..count).for_each(undercroft_hal::cpu::kick);
        result
    });
    others.into_iter().for_each(|other| other.join().unwrap());
    result
}

#[test]
fn stress_callouts_raced_on_three_cpus() {
    on_cpus(3, |cx| {
        let counts = super::run(cx, Duration::from_millis(300), 7, |_| ());
        assert_eq!(counts.violations(), (0, None), "{counts}");
        assert!(counts.runs() > 100, "{counts}");
    });
}

/// What a callout's handler does to its watch, and what the watch says.
fn seen(act: impl FnMut(&Watch, &super::watch::Attendant, &Expiry) + Send + 'static) -> (u64, Option<&'static str>) {
    let counts = Arc::new(Counts::default());
    on_cpus(1, move |cx| {
        let (watch, mut act) = (Watch::new(&counts), act);
        let (attendant, theirs) = (watch.attend(), Arc::clone(&watch));
        let ran = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ran);
        let callout: Callout = Callout::new(0, move |_: &BottomHalf, expiry: &Expiry| {
            act(&theirs, &attendant, expiry);
            told.store(true, Ordering::SeqCst);
        });
        let _ = callout.start(Duration::from_micros(1)).unwrap();
        cx.wait_until(|| ran.load(Ordering::SeqCst));
        callout.close(cx).unwrap();
        counts.violations()
    })
}

#[test]
fn a_good_run_is_no_violation() {
    let good = seen(|_, attendant, expiry| {
        attendant.begin(expiry);
        attendant.end();
    });
    assert_eq!(good, (0, None));
}

/// What the programme would say of two runs at a time, and of a run after a close.
#[test]
fn i_01_i_04_the_watch_sees_what_it_looks_for_control() {
    let twice = seen(|_, attendant, expiry| {
        attendant.begin(expiry);
        attendant.begin(expiry);
        attendant.end();
    });
    assert_eq!(twice, (1, Some("a handler ran twice at a time")));
    let late = seen(|watch, attendant, expiry| {
        watch.close();
        attendant.begin(expiry);
        attendant.end();
    });
    assert_eq!(late, (1, Some("a handler ran after its callout was closed")));
    let waited_for_nothing = seen(|watch, attendant, expiry| {
        attendant.begin(expiry);
        watch.close();
        attendant.end();
    });
    assert_eq!(waited_for_nothing, (1, Some("a close returned while the handler ran")));
}
