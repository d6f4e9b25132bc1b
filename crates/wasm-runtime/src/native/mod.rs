//! Native code of Wasm images: made by a limited child process, kept sealed on disk.
//!
//! Owns: the directory of `.cwasm` files. Only code this node sealed is ever given to a host,
//! because loading such a file is trusting it like a program of our own.

mod cache;
pub(crate) mod compile;
mod seal;

pub use cache::{NativeCache, NativeCode, PrepareError};
