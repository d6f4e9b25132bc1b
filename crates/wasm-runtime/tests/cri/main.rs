//! The Wasm runtime through the seam, with real host and compiler processes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod commands;
mod fixtures;
mod http;
mod images;
mod lives;
mod world;
