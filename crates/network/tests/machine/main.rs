//! The network on a real kernel, inside a network and mount namespace of each test's own: the
//! machine's links, routes and rules are never touched. Skipped without root.

#![allow(clippy::unwrap_used, reason = "all of this is test code")]

mod activator;
mod alone;
mod cluster;
mod peers;
mod pods;
mod policies;
mod services;
