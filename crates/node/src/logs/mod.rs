//! Container logs in CRI format: `line` parses, `read` serves them, `rotate` keeps them small.
//! The runtimes write them; the agent makes their directories and removes them with the pod.

mod line;
mod read;
mod rotate;

pub use read::{LogOptions, LogSource, stream, tail};
pub use rotate::rotate_forever;
