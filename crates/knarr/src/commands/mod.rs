//! What each command does: one file per command, one visible list.

mod agent;
mod backup;
mod bench;
mod completion;
mod demo;
mod dev;
mod image;
mod invoke;
mod key;
mod kubeconfig;
mod member;
mod run;
mod server;
mod status;
mod token;
mod up;

use anyhow::{Context, Result};

use crate::cli::{Cli, Command};

/// Runs the command that was asked for.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Up(args) => runtime()?.block_on(up::run(args)),
        Command::Server(args) => runtime()?.block_on(server::run(args)),
        Command::Agent(args) => runtime()?.block_on(agent::run(args)),
        Command::Token(command) => runtime()?.block_on(token::run(command)),
        Command::Member(command) => runtime()?.block_on(member::run(command)),
        Command::Backup(args) => runtime()?.block_on(backup::backup(args)),
        Command::Restore(args) => backup::restore(&args),
        Command::Key(command) => runtime()?.block_on(key::run(command)),
        Command::Demo(args) => runtime()?.block_on(demo::run(args)),
        Command::Run(args) => runtime()?.block_on(run::run(args)),
        Command::Dev(args) => runtime()?.block_on(dev::run(args)),
        Command::Invoke(args) => runtime()?.block_on(invoke::run(args)),
        Command::Image(command) => runtime()?.block_on(image::run(command)),
        Command::Kubeconfig(args) => kubeconfig::run(&args),
        Command::Status(args) => runtime()?.block_on(status::run(args)),
        Command::Bench(args) => bench::run(args),
        Command::Completion { shell } => completion::run(shell),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}
