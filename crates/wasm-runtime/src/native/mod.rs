//! Native code of Wasm images: made by a limited child process, or taken from who has made it, kept sealed on disk.
//!
//! Owns: the directory of `.cwasm` files. Only code this node sealed is ever given to a host,
//! because loading such a file is trusting it like a program of our own.

mod cache;
pub(crate) mod compile;
mod elsewhere;
mod expiry;
mod seal;
mod slots;

pub use cache::{NativeCache, NativeCode, NativeConfig, PrepareError, WasmFile};
pub use elsewhere::{CODE_BYTES_MAX, CodeSource, FoundCode, NotFound, Wanted};
