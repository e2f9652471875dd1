//! What the service needs of the world: a clock, an alarm, kicks, executors. The hal's in a program; a model has its own.

use undercroft_hal::context::Kind;

/// See the module. All functions may be called in any context; but for `now` and `current`, with no W held except the alarm's.
pub(crate) trait Port: Send + Sync + 'static {
    /// Monotonic nanoseconds.
    fn now(&self) -> u64;
    /// The CPU that the caller runs on.
    fn current(&self) -> usize;
    /// Whether alarms and kicks come back to the service. Before that it only keeps what is started.
    fn is_ready(&self) -> bool;
    /// Sets this CPU's alarm. A time that is past fires at once.
    fn set_alarm(&self, at: u64);
    /// Interrupts a CPU, which then looks at its wheel.
    fn kick(&self, cpu: usize);
    /// Has a level's executor run on a CPU: soon, once.
    fn schedule(&self, cpu: usize, level: Kind);
}
