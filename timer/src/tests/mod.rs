//! Tests of the service on the hosted platform, of its steps, and of its models.

#[cfg(not(any(loom, shuttle)))]
mod api;
mod scene;
#[cfg(not(any(loom, shuttle)))]
mod steps;
