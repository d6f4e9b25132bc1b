//! Asks the host, from inside, whether it keeps what WASI promises. See `README.md`.

mod escape;
mod files;
mod libc;
mod network;
mod time;

use std::fmt::Debug;
use std::io::{Read, Write};
use std::process::ExitCode;

/// What was found out, a line each.
#[derive(Default)]
pub struct Report {
    is_broken: bool,
}

impl Report {
    pub fn tell(&mut self, name: &str, found: Result<(), String>) {
        match found {
            Ok(()) => println!("kept {name}"),
            Err(why) => {
                self.is_broken = true;
                println!("BROKEN {name}: {why}");
            }
        }
    }

    pub fn is(&mut self, name: &str, kept: bool) {
        self.tell(name, if kept { Ok(()) } else { Err("it is not so".to_owned()) });
    }

    pub fn works<T>(&mut self, name: &str, done: std::io::Result<T>) {
        self.tell(name, done.map(|_| ()).map_err(|error| error.to_string()));
    }

    pub fn equals<T: PartialEq + Debug>(&mut self, name: &str, found: T, expect: T) {
        self.tell(name, if found == expect { Ok(()) } else { Err(format!("{found:?} and not {expect:?}")) });
    }

    pub fn refused<T: Debug>(&mut self, name: &str, done: std::io::Result<T>) {
        self.tell(name, done.map_or(Ok(()), |done| Err(format!("it was done: {done:?}"))));
    }

    pub fn fails_with<T: Debug>(&mut self, name: &str, done: std::io::Result<T>, kind: std::io::ErrorKind) {
        match done {
            Err(error) if error.kind() == kind => self.tell(name, Ok(())),
            other => self.tell(name, Err(format!("{other:?} and not {kind:?}"))),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let group = arguments.get(1).map_or("", String::as_str);
    let argument = arguments.get(2).map_or("", String::as_str);
    let mut report = Report::default();
    match group {
        "files" => files::all(&mut report, argument),
        "read-only" => files::read_only(&mut report, argument),
        "escape" => escape::all(&mut report, argument),
        "clocks" => time::clocks(&mut report, argument),
        "poll" => time::poll(&mut report),
        "random" => random(&mut report),
        "threads" => report.refused("no-threads", std::thread::Builder::new().spawn(|| ()).map(|_| ())),
        "streams" => streams(&mut report, argument),
        "sockets" => network::all(&mut report, argument),
        "arguments" => println!("{arguments:?}"),
        "environment" => environment(),
        "exit" => return ExitCode::from(argument.parse::<u8>().unwrap_or(99)),
        "panic" => panic!("as asked"),
        "recurse" => println!("{}", recurse(1)),
        "allocate" => println!("{}", allocate(argument.parse().unwrap_or(0))),
        _ => {
            eprintln!("there is no group {group:?}");
            return ExitCode::from(2);
        }
    }
    println!("done");
    ExitCode::from(u8::from(report.is_broken))
}

fn environment() {
    let mut names: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    names.sort();
    println!("{names:?} in {:?}", std::env::current_dir().ok());
}

fn random(report: &mut Report) {
    let (mut first, mut second) = ([0_u8; 32], [0_u8; 32]);
    report.works("entropy", libc::entropy(&mut first));
    report.works("entropy-again", libc::entropy(&mut second));
    report.is("entropy-differs", first != second && first != [0; 32]);
    // Of two instances they have to differ too, which only the test can see.
    println!("random {first:?}");
}

fn streams(report: &mut Report, bytes: &str) {
    let bytes: usize = bytes.parse().unwrap_or(0);
    let mut input = Vec::new();
    report.works("stdin-ends", std::io::stdin().read_to_end(&mut input));
    report.equals("stdin-is-empty", input.len(), 0);
    let long = vec![b'x'; bytes];
    let mut out = std::io::stdout();
    report.works("stdout", out.write_all(&long).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()));
    report.works("stderr", std::io::stderr().write_all(b"to the other stream\n"));
    print!("a last line without an end: ");
}

/// Deeper than any stack.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 32]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + here[(depth % 32) as usize] }
}

fn allocate(mib: usize) -> usize {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mib {
        taken.push(std::hint::black_box(vec![1; 1 << 20]));
    }
    taken.len()
}
