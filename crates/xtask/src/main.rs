//! `cargo xtask …`: what the repository does to itself. One file per subcommand, one row here.

mod build;
mod cargo;
mod ci;
mod codegen;
mod debian;
mod demo;
mod examples;
mod faults;
mod sim;
mod test;
mod tidy;
mod toolchain;
mod vm;
mod wasm_apps;

use std::process::ExitCode;

use anyhow::{Result, bail};

/// What runs a subcommand; it is given what follows the subcommand's name.
type Run = fn(&[String]) -> Result<()>;

/// Name, what it does, how.
const SUBCOMMANDS: &[(&str, &str, Run)] = &[
    ("build", "builds the guests, the example program and the `knarr` binary [--debug]", build::run),
    ("demo", "builds, then runs `knarr demo` [-- arguments of knarr demo]", demo::run),
    ("test", "builds, then runs every test, end-to-end tests included [-- arguments of the tests]", test::run),
    ("sim", "simulates whole clusters with faults [--seeds N] [--from S]", sim::run),
    ("faults", "kills, stops, cuts off real servers under load, and sums up [--rounds N] [--seed S]", faults::run),
    ("tidy", "checks crate arrows, file sizes, headers and what must not be left behind", tidy::run),
    ("ci", "everything a change must pass: format, tidy, clippy, test", ci::run),
    ("vm", "runs the runtimes' tests in a machine with cgroup v2 only [packages] [-- arguments of the tests]", vm::run),
    ("wasm-apps", "builds the guests of wasm-apps/ into <target>/wasm-apps/*.wasm", |_| wasm_apps::run()),
    ("codegen", "writes the protobuf field table of the `api` crate", |_| codegen::run()),
];

fn main() -> ExitCode {
    match subcommand() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn subcommand() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let wanted = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    if let Some((_, _, run)) = SUBCOMMANDS.iter().find(|(name, _, _)| *name == wanted) {
        return run(&rest);
    }
    for (name, does, _) in SUBCOMMANDS {
        eprintln!("cargo xtask {name:<10} {does}");
    }
    bail!("there is no subcommand {wanted:?}")
}
