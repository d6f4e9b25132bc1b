//! The network on a real kernel, inside a network and mount namespace of each test's own: the
//! machine's links, routes and rules are never touched. Skipped without root.

mod alone;
mod pods;
mod services;
