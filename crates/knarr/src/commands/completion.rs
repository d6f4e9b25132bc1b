//! `knarr completion SHELL`

use anyhow::Result;
use clap::CommandFactory;

use crate::cli::{Cli, Shell};

/// Writes the script to standard output.
pub fn run(shell: Shell) -> Result<()> {
    let generator = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(generator, &mut Cli::command(), "knarr", &mut std::io::stdout());
    Ok(())
}
