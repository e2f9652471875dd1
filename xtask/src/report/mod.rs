//! What a run has shown: the image's events, the verdict on them, and both in words and in JSON.

pub mod event;
pub mod json;
pub mod progress;
pub mod session;
pub mod text;
pub mod verdict;
pub mod voice;
