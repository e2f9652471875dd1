//! FreeBSD at the end of 2014 (source 000): a teardown with three callouts, flags that lie, callbacks in hard interrupts.

mod control;
mod locks;
mod ours;
