//! `cargo xtask sim [--seeds N] [--from S]`: the simulation of whole clusters, over as many seeds as there is time
//! for. Ends at the first seed that fails, and prints it.

use anyhow::Result;

use crate::cargo::{cargo, run as run_command};

pub fn run(args: &[String]) -> Result<()> {
    run_command(cargo().args(["run", "--quiet", "--locked", "--package", "sim", "--"]).args(args))
}
