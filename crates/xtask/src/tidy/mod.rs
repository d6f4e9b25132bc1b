//! `cargo xtask tidy`: the rules of the house that no other tool checks.

mod arrows;
mod sources;

use anyhow::{Result, bail};

use crate::cargo;

pub fn run(_: &[String]) -> Result<()> {
    let metadata = cargo::metadata(cargo::MANIFEST)?;
    let mut faults = arrows::check(&arrows::packages(&metadata));
    let files = sources::read(cargo::workspace_root())?;
    faults.extend(files.iter().flat_map(sources::check));
    println!("{}", sources::ratio_table(&files));
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    if !faults.is_empty() {
        bail!("tidy found {} faults", faults.len());
    }
    println!("tidy: {} files and their crates' arrows are as they should be", files.len());
    Ok(())
}
