//! Real containers on this machine. Needs root and a static busybox; says so and passes elsewhere.

mod basics;
mod bench;
mod isolation;
mod lifecycle;
mod limits;
mod streams;
