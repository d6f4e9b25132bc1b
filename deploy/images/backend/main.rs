//! The example Linux service: a small HTTP server on the standard library alone, so that it links
//! into one static program without any crate.
//!
//! `/` answers who it is; `/shared` writes and reads a file in `$SHARED_DIR` (the emptyDir of the
//! mixed pod); `/call?PORT` asks a neighbour on localhost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{env, fs, thread};

/// Longest request line that is read.
const LINE_BYTES_MAX: u64 = 8 * 1024;

unsafe extern "C" {
    safe fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    safe fn _exit(code: i32) -> !;
}

const SIGTERM: i32 = 15;

/// The kernel does not end a namespace's first process by a signal that it has not asked for:
/// without this, stopping takes the whole grace period.
extern "C" fn stop(_: i32) {
    _exit(0)
}

fn main() {
    signal(SIGTERM, stop);
    let port = env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).unwrap_or_else(|error| {
        eprintln!("cannot listen on port {port}: {error}");
        std::process::exit(1);
    });
    println!("backend listens on port {port}");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || serve(stream));
    }
}

fn serve(stream: TcpStream) {
    let Ok(clone) = stream.try_clone() else { return };
    let mut reader = BufReader::new(clone.take(LINE_BYTES_MAX));
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return;
    }
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).is_err() || header.trim().is_empty() {
            break;
        }
    }
    let path = line.split_whitespace().nth(1).unwrap_or("/");
    println!("{}", line.trim_end());
    let body = answer(path);
    let mut stream = stream;
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn answer(path: &str) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if path == "/shared" {
        let file = format!("{}/note", env::var("SHARED_DIR").unwrap_or_else(|_| "/tmp".to_owned()));
        let _ = fs::write(&file, format!("written by the Linux container of {}\n", host.trim()));
        return fs::read_to_string(&file).unwrap_or_else(|error| format!("cannot read {file}: {error}\n"));
    }
    if let Some(port) = path.strip_prefix("/call?") {
        return call(port);
    }
    format!("backend: a Linux container, pid {}, host {}\n", std::process::id(), host.trim())
}

fn call(port: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        stream.write_all(b"GET / HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.split("\r\n\r\n").nth(1).unwrap_or("").to_owned())
    };
    ask().unwrap_or_else(|error| format!("cannot call port {port}: {error}\n"))
}
