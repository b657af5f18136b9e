//! `cargo xtask golden`

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

pub(crate) fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--package", "jit", "--lib", "golden::"])
        .env("INSTA_UPDATE", "always")
        .env("INSTA_FORCE_PASS", "1")
        .current_dir(&root)
        .status()
        .context("cargo test")?;
    ensure!(status.success(), "the listings could not be made: see above");
    println!("See `git diff jit/src/golden/snapshots`.");
    Ok(())
}
