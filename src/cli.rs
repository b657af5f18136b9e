//! The arguments.

use crate::boot_protocol::BootProtocol;
use crate::conform::ConformArgs;
use crate::display::Display;
use crate::drive_image::DriveImage;
use crate::explain::ExplainArgs;
use crate::status;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Runs x86 operating systems in an ordinary process: no root, no VT-x, no /dev/kvm.
#[derive(Debug, Parser)]
#[command(name = "ringshift", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a kernel, or a CD-ROM, disk or floppy
    #[command(after_help = status::HELP)]
    Run(Box<RunArgs>),
    /// Show a guest at work: a small kernel built in, or Linux
    Demo(Box<DemoArgs>),
    /// Say what this host offers and what Ringshift makes of it
    Check,
    /// Show guest code beside the host code that it becomes
    Explain(Box<ExplainArgs>),
    /// Compare with real processors: the host CPU, and tests captured from others
    Conform(Box<ConformArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What to boot, recognised by its content: a kernel, an ISO, disk or floppy image
    #[arg(value_name = "IMAGE", conflicts_with = "kernel")]
    pub(crate) image: Option<PathBuf>,
    /// Kernel: a Linux bzImage, or an ELF file with a PVH note or a Multiboot header, which may be
    /// compressed with gzip
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial RAM disk, or the module of a Multiboot kernel
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// Module of a Multiboot kernel: a file, then the arguments it is given; may be repeated
    #[arg(long, value_name = "FILE [ARGUMENTS]")]
    pub(crate) module: Vec<String>,
    /// Kernel command line
    #[arg(
        long,
        value_name = "STRING",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) append: String,
    /// How a Linux kernel is started: 16 is its setup code, through the BIOS, as on a bare PC; 32
    /// and 64 enter it directly. auto chooses: 16 where there is no other entry (ipxe.lkrn, memdisk),
    /// or where the processor lacks what the setup code looks for, so that the kernel can say so
    #[arg(
        long,
        value_name = "auto|16|32|64",
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(crate) boot_protocol: BootProtocol,
    #[command(flatten)]
    pub(crate) media: MediaArgs,
    /// The first serial port: the terminal, nothing, or a file to write (default: the terminal,
    /// or nothing where --display text has that)
    #[arg(long, value_name = "stdio|none|file:PATH", value_parser = parse_serial)]
    pub(crate) serial: Option<Serial>,
    /// End when the guest resets, rather than boot again
    #[arg(long)]
    pub(crate) no_reboot: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// What is in the drives, how firmware boots from them, and what the screen shows.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Drives; without a kernel, the BIOS boots from them")]
pub(crate) struct MediaArgs {
    /// Hard disk: a raw, qcow2 or vmdk image, or a block device. Options follow the name:
    /// disk.img,format=raw (of raw, qcow2, vmdk; else told by the content, and the guest may not
    /// write another format's header into a raw image), snapshot=on (writes are kept aside and
    /// dropped at the end), readonly=on. A comma in the name is doubled
    #[arg(long, value_name = "FILE[,OPTIONS]")]
    pub(crate) disk: Vec<DriveImage>,
    /// CD-ROM: an ISO image
    #[arg(long, value_name = "FILE[,format=FORMAT]")]
    pub(crate) cdrom: Vec<DriveImage>,
    /// Floppy: an image, with options as --disk's
    #[arg(long, value_name = "FILE[,OPTIONS]")]
    pub(crate) floppy: Vec<DriveImage>,
    /// Which drive is tried first (default: a CD-ROM, else a disk, else a floppy)
    #[arg(long, value_enum, conflicts_with = "kernel")]
    pub(crate) boot: Option<BootFrom>,
    /// BIOS image (default: SeaBIOS from the package seabios)
    #[arg(long, value_name = "FILE")]
    pub(crate) bios: Option<PathBuf>,
    /// Keep what the guest writes aside and drop it at the end; the images stay as they are
    #[arg(long)]
    pub(crate) snapshot: bool,
    /// The VGA adapter: std, or none (default: std; beside a kernel that is entered directly only
    /// where --display or --screenshot shows it)
    #[arg(long, value_name = "std|none", value_enum, hide_possible_values = true)]
    pub(crate) vga: Option<Vga>,
    /// The guest's screen and keyboard: nowhere, in the terminal as text (leave with Ctrl-A X), or
    /// for VNC clients at an address of this host, such as vnc=127.0.0.1:5900
    #[arg(
        long,
        value_name = "none|text|vnc=ADDRESS",
        value_parser = crate::display::parse,
        default_value = "none",
        hide_default_value = true
    )]
    pub(crate) display: Display,
    /// Serve VNC at any address: whoever reaches it sees the screen and types, without a password
    #[arg(long)]
    pub(crate) vnc_anywhere: bool,
    /// When the guest ends, write its screen here as a PNG
    #[arg(long, value_name = "FILE")]
    pub(crate) screenshot: Option<PathBuf>,
}

/// The VGA adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vga {
    /// Bochs's and QEMU's standard adapter
    Std,
    /// There is none
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BootFrom {
    /// The first hard disk
    Disk,
    /// The first CD-ROM
    Cdrom,
    /// The first floppy
    Floppy,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The guest (default: the built-in kernel)
    #[arg(value_enum)]
    pub(crate) guest: Option<DemoGuest>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoGuest {
    /// Debian's kernel and busybox, fetched with apt, to a shell
    Linux,
}

/// What `run` and `demo` have in common.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// Guest memory in bytes, or with a suffix K, M or G
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "512M",
        value_parser = parse_size
    )]
    pub(crate) memory: u64,
    /// Number of virtual CPUs
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(machine::MAX_CPUS))
    )]
    pub(crate) cpus: u32,
    /// The processor: host, 486, pentium, core2, x86-64-v2, x86-64-v3 or x86-64-v4, with features
    /// added or taken away or its vendor changed, such as host,-x2apic,vendor=GenuineIntel
    #[arg(long, value_name = "MODEL", default_value = "host")]
    pub(crate) cpu: machine::Model,
    /// What executes guest code
    #[arg(long, value_enum, default_value_t = Engine::Jit)]
    pub(crate) engine: Engine,
    /// Stop after this much time
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Count instructions, which slows the translator by a few percent, and print all counters at
    /// the end, on standard error
    #[arg(long)]
    pub(crate) stats: bool,
    /// Keep each translation of an address until the guest invalidates it, whatever the TLB's size:
    /// what the guest forgets to flush it goes on seeing; at the end, print how often it did
    #[arg(long)]
    pub(crate) strict: bool,
    /// Run both engines side by side on deterministic time and stop at the first difference
    #[arg(long)]
    pub(crate) lockstep: bool,
    /// With --lockstep: stop after this many guest instructions
    #[arg(long, value_name = "NUMBER", requires = "lockstep")]
    pub(crate) instructions: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// Translate hot code, interpret the rest
    Jit,
    /// Interpret everything
    Interp,
}

/// The host's end of the first serial port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Serial {
    /// Standard input and output.
    Stdio,
    /// Output is dropped, there is no input.
    None,
    /// Output goes to a file, there is no input.
    File(PathBuf),
}

fn parse_serial(text: &str) -> Result<Serial, String> {
    match text.split_once(':') {
        None if text == "stdio" => Ok(Serial::Stdio),
        None if text == "none" => Ok(Serial::None),
        Some(("file", path)) if !path.is_empty() => Ok(Serial::File(path.into())),
        _ => Err("give stdio, none or file:PATH".into()),
    }
}

/// A size in bytes: a number, or one with a suffix K, M or G for powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 =
        digits.parse().map_err(|_| "give a number of bytes, or one with K, M or G".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "this is more than 64 bits can say".to_owned())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("give a number of seconds above 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("1048576"), Ok(1 << 20));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("2g"), Ok(2 << 30));
        assert_eq!(parse_size("640K"), Ok(640 << 10));
        for wrong in ["", "M", "-1", "1.5G", "12Q", "é", "99999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds() {
        assert_eq!(parse_seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_seconds("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["", "0", "-1", "nan", "inf", "1e300", "soon"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn serial_targets() {
        assert_eq!(parse_serial("stdio"), Ok(Serial::Stdio));
        assert_eq!(parse_serial("none"), Ok(Serial::None));
        assert_eq!(parse_serial("file:a:b"), Ok(Serial::File("a:b".into())));
        for wrong in ["", "file:", "file", "pty", "stdio:"] {
            assert!(parse_serial(wrong).is_err(), "{wrong}");
        }
    }
}
