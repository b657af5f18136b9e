//! Writes the guest to a file, for running it elsewhere:
//!
//! ```text
//! cargo run -p guest --example write_image -- guest.bin --qemu
//! qemu-system-x86_64 -kernel guest.bin -serial stdio -display none -no-reboot \
//!     -device isa-debug-exit,iobase=0xf4,iosize=4
//! ```
//!
//! Without `--qemu` the guest expects Ringshift's ACPI and a processor as the manual describes it.

use guest::{Options, build};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, options) = match arguments.as_slice() {
        [path] => (path, Options::default()),
        [path, flag] if flag == "--qemu" => (path, Options::qemu()),
        _ => return Err("usage: write_image FILE [--qemu]".into()),
    };
    let image = build(&options)?;
    std::fs::write(path, &image.bytes)?;
    println!("{path}: {} bytes, {} checks", image.bytes.len(), image.checks);
    Ok(())
}
