//! The last screen: what a panic, an exception or the watchdog leaves behind.
