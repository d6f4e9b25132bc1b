//! SPDY/3.1, the part of it that Kubernetes' clients use, seen from the server.
//!
//! Owns: frames (`frame`), compressed headers (`headers`), the streams of one connection (`session`). Follows the SPDY
//! draft 3.1 and, where that is silent or ignored, `moby/spdystream`, which all clients are built with.
//!
//! Flow control is the transport's: spdystream keeps no windows, neither as sender nor as receiver, so nobody may wait
//! for one. What bounds memory is that no more is read while a stream has not taken what is there.

pub mod frame;
pub mod headers;
pub mod session;

pub use session::{Event, Session, SpdyError};
