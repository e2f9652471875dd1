//! NetBSD PR 20390 (source 001): a window on one CPU, and both cures that were proposed.

mod control;
mod ours;
