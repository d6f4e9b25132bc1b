//! The Wasm runtime through the seam, with real host and compiler processes.

#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "a benchmark uses the rest")]
mod async_guest;
mod bombs;
mod calls;
mod capabilities;
mod commands;
mod fixtures;
mod guests;
mod hostile;
mod http;
mod images;
mod linux_namespace;
mod lives;
mod middleware;
mod policies;
mod reuse;
mod services;
mod shared_code;
mod streams;
mod triggers;
mod wasi;
mod world;
