//! `knarr`: the one program.
//!
//! Owns: nothing but the order of the first steps: helper processes branch off before any thread
//! exists, then the crypto provider, then the command line.

mod access;
mod agent;
mod cli;
mod cluster;
mod commands;
mod data_dir;
mod examples;
mod hex;
mod https;
mod join_token;
mod kubeconfig;
mod pki;
mod registry_client;
mod steps;
mod store_keys;
mod telemetry;
mod version;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for wrong usage, as clap's own.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // The allocator asks for huge pages, and each holds little: 30 MB of an idle server. Where the kernel does not know
    // the call, that is all that is lost. Containers have their own choice back, see `container_runtime`.
    let _ = nix::sys::prctl::set_thp_disable(true);
    if let Some(code) = internal() {
        return code;
    }
    // One provider for the whole process: rustls panics when it has to choose between two.
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("nothing installed a provider before main");
    let cli = cli::Cli::parse();
    telemetry::start(cli.verbose);
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line first; the chain of causes behind it, because it is the edge of the program.
            eprintln!("knarr: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `knarr internal NAME …` is how Knarr starts its own helper processes. They must branch off
/// here: a fork or a namespace change after threads exist is not safe.
fn internal() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("internal") {
        return None;
    }
    let name = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let code = container_runtime::internal_main(&name, &rest).or_else(|| wasm_runtime::internal_main(&name, &rest));
    let Some(code) = code else {
        eprintln!("knarr: there is no helper process {name:?}; `internal` is for Knarr itself");
        return Some(ExitCode::from(EXIT_USAGE));
    };
    Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
