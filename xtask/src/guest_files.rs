//! `cargo xtask guest-files`

use crate::Debian;
use anyhow::{Context, Result};
use machine::guests::{self, initramfs::Initramfs};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The guest (default: Ringshift's own)
    #[arg(value_enum)]
    guest: Option<Debian>,
    /// A shell script to run as the guest's only task (default: an interactive shell)
    #[arg(long)]
    script: Option<PathBuf>,
    /// Where the files go
    #[arg(long, default_value = "target/guest")]
    to: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.to).with_context(|| args.to.display().to_string())?;
    let Some(guest) = args.guest else {
        let image = guest::build(&guest::Options::default())?;
        return write(&args.to.join("kernel"), &image.bytes);
    };
    let files = guests::fetch(guest.guest(), &|line| eprintln!("{line}"))?;
    let busybox = read(&files.busybox)?;
    let script = args.script.as_ref().map(std::fs::read_to_string).transpose()?;
    let initramfs = match &script {
        Some(script) => Initramfs::script(&busybox, script),
        None => Initramfs::shell(&busybox),
    };
    write(&args.to.join("kernel"), &read(&files.kernel)?)?;
    write(&args.to.join("initrd"), &initramfs.build()?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).with_context(|| path.display().to_string())?;
    println!("{}", path.display());
    Ok(())
}
