//! `cargo xtask fetch`

use anyhow::Result;
use machine::guests::{self, Guest};

pub(crate) fn run() -> Result<()> {
    for guest in [Guest::CloudAmd64, Guest::Amd64, Guest::Pae686] {
        let files = guests::fetch(guest, &|line| eprintln!("{line}"))?;
        println!("{guest:?}: {}, {}", files.kernel.display(), files.busybox.display());
    }
    Ok(())
}
