//! Tests of the service on the hosted platform, of its steps, and of its models.

#[cfg(not(any(loom, shuttle)))]
mod api;
#[cfg(shuttle)]
mod explore;
#[cfg(loom)]
mod models;
#[cfg_attr(any(loom, shuttle), allow(dead_code, reason = "a model uses the parts that it is about"))]
mod scene;
#[cfg(not(any(loom, shuttle)))]
mod steps;
#[cfg(not(any(loom, shuttle)))]
mod stress;
