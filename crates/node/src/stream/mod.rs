//! What clients of `exec`, `attach` and `port-forward` speak, as engines: bytes or messages in, events out.
//!
//! Owns: SPDY/3.1 as Kubernetes uses it (`spdy`), the channels of its WebSocket protocols (`channel`), the status
//! at the end of a command (`outcome`), pairs of forwarded streams (`forward`), the bytes of the two ports
//! (`port_channel`), and the loops that drive them (`connection`, `remote_command`, `forwarding`).
//!
//! May not know: sockets, HTTP, pods, runtimes. A transport is a stream and a sink of bytes.

pub mod activity;
pub mod channel;
pub mod connection;
pub mod forward;
pub mod forwarding;
pub mod outcome;
pub mod remote_command;
pub mod spdy;
