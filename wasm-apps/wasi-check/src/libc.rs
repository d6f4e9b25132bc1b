//! What wasi-libc has and Rust's standard library does not offer for WASI in its stable part.

use std::ffi::CString;
use std::io;
use std::os::raw::{c_char, c_int};

#[repr(C)]
pub struct PollFd {
    pub fd: c_int,
    pub events: i16,
    pub revents: i16,
}

/// wasi-libc's `POLLWRNORM`.
pub const WRITABLE: i16 = 2;

mod sys {
    use super::{PollFd, c_char, c_int};

    unsafe extern "C" {
        pub fn symlink(target: *const c_char, path: *const c_char) -> c_int;
        pub fn getentropy(buffer: *mut u8, length: usize) -> c_int;
        pub fn poll(fds: *mut PollFd, count: usize, timeout: c_int) -> c_int;
    }
}

fn checked(code: c_int) -> io::Result<c_int> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

pub fn symlink(target: &str, path: &str) -> io::Result<()> {
    let (target, path) = (CString::new(target)?, CString::new(path)?);
    // SAFETY: both are strings that end with a zero, and live until after the call.
    checked(unsafe { sys::symlink(target.as_ptr(), path.as_ptr()) }).map(|_| ())
}

pub fn entropy(buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length are of one slice.
    checked(unsafe { sys::getentropy(buffer.as_mut_ptr(), buffer.len()) }).map(|_| ())
}

pub fn poll(fds: &mut [PollFd], timeout_ms: i32) -> io::Result<i32> {
    // SAFETY: the pointer and the count are of one slice.
    checked(unsafe { sys::poll(fds.as_mut_ptr(), fds.len(), timeout_ms) })
}
