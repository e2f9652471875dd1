//! The Hyper-V model seen by a guest made by hand: transcripts of a real server byte by byte, every breach committed and noticed, every fault.

mod behaviour;
mod breaches;
mod faults;
mod golden;
mod hand;
mod requests;
