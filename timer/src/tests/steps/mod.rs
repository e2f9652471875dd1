//! The historic races as sequences of steps: what happens is decided, and each is tried with its defect put back.

macro_rules! proves {
    ($(fn $name:ident = $scenario:ident;)*) => {
        $(#[test] fn $name() { $scenario(); })*
    };
}

macro_rules! controls {
    ($(fn $name:ident = $scenario:ident, $hazard:ident, $message:literal;)*) => {
        $(
            #[test]
            #[should_panic(expected = $message)]
            fn $name() {
                crate::broken::with(crate::broken::Hazard::$hazard, $scenario);
            }
        )*
    };
}

mod alarms;
mod draining;
mod executors;
mod moving;
mod starting;
