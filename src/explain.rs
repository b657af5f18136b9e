//! `ringshift explain`: guest code beside the host code that it becomes.

use crate::cli::parse_size;
use crate::run::read;
use crate::status;
use anyhow::{Context, Result, bail};
use clap::Args;
use machine::Kernel;
use machine::explain::{self, Boot, Code, Explanation, Program};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where raw code lies unless something is said.
const BASE: u64 = 0x1000;
/// Bytes of a file that are read at most.
const FILE_LIMIT: u64 = 1 << 30;

/// What `ringshift explain --help` ends with.
const EXAMPLES: &str = "\
Examples:
  ringshift explain --hex '48 8b 47 08'                  one instruction: a load
  ringshift explain --cold --hex '53 48 8b 1f 5b c3'     with slow paths and trampolines
  ringshift explain --bits 32 code.bin                   a raw binary
  ringshift explain --at main ./program                  a function of a program
  ringshift explain --kernel vmlinuz                     the block of a kernel entered most often
  ringshift explain --kernel vmlinuz --append nokaslr --at 0xffffffff81000040";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// A raw binary, an ELF program, or - for hexadecimal bytes on standard input
    #[arg(required_unless_present_any = ["hex", "kernel"], conflicts_with_all = ["hex", "kernel"])]
    file: Option<PathBuf>,
    /// Code as hexadecimal bytes
    #[arg(long, value_name = "BYTES", conflicts_with = "kernel")]
    hex: Option<String>,
    /// Boot this kernel until the block has been translated, and explain it as it is, with its links
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The address of the block, or a symbol of an ELF file (default: a program's entry point, the
    /// first byte of raw code, the block of a kernel that is entered most often)
    #[arg(long, value_name = "ADDR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    at: Option<String>,
    /// Raw code: its width, 16, 32 or 64 [default: 64]
    #[arg(long, value_name = "N", conflicts_with = "kernel")]
    bits: Option<u32>,
    /// Raw code: the address of its first byte [default: 0x1000]
    #[arg(long, value_name = "ADDR", value_parser = parse_address, conflicts_with = "kernel")]
    base: Option<u64>,
    /// The privilege level: 0 or 3 [default: 3 for an ELF program, 0 for raw code]
    #[arg(long, value_name = "N", conflicts_with = "kernel")]
    ring: Option<u8>,
    /// With --kernel: initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel", conflicts_with_all = ["hex", "file"])]
    initrd: Option<PathBuf>,
    /// With --kernel: its command line
    #[arg(long, value_name = "STRING", default_value = "", hide_default_value = true)]
    #[arg(allow_hyphen_values = true, conflicts_with_all = ["hex", "file"])]
    append: String,
    /// With --kernel: guest memory in bytes, or with a suffix K, M or G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_size)]
    memory: u64,
    /// With --kernel: boot for at most so many instructions
    #[arg(long, value_name = "NUMBER", default_value_t = 300_000_000)]
    instructions: u64,
    /// Show the cold section (slow paths, side exits, trampolines) and all copies of a loop
    #[arg(long)]
    cold: bool,
    /// Show the bytes of guest and host code
    #[arg(long)]
    bytes: bool,
    /// Columns to fill [default: those of the terminal, or 100]
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(40..=1000))]
    width: Option<u16>,
    /// Leave the legend out
    #[arg(long)]
    no_legend: bool,
}

pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let explanation = match (&args.kernel, &args.hex, &args.file) {
        (Some(kernel), ..) => booted(args, kernel)?,
        (None, Some(text), _) => raw(args, &hex(text)?, "--hex")?,
        (None, None, Some(path)) if path.as_os_str() == "-" => {
            let mut text = String::new();
            let read = std::io::stdin().take(FILE_LIMIT).read_to_string(&mut text);
            read.context("standard input: hexadecimal bytes are expected")?;
            raw(args, &hex(&text)?, "standard input")?
        }
        (None, None, Some(path)) => from_file(args, path)?,
        (None, None, None) => bail!("nothing to explain: give FILE, --hex or --kernel"),
    };
    let mut view = explanation.view();
    view.width = args.width.map_or_else(terminal_width, usize::from);
    view.colour = wants_colour();
    (view.cold, view.bytes, view.legend) = (args.cold, args.bytes, !args.no_legend);
    use std::io::Write;
    match write!(std::io::stdout(), "{view}") {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other.context("standard output")?,
    }
    Ok(ExitCode::from(status::OK))
}

fn booted(args: &ExplainArgs, path: &Path) -> Result<Explanation> {
    let initrd = args.initrd.as_ref().map(|path| read(path, "initrd", args.memory)).transpose()?;
    let kernel = Kernel {
        image: read(path, "kernel", args.memory)?,
        name: path.display().to_string(),
        initrd,
        command_line: args.append.clone(),
        ..Kernel::default()
    };
    let what = match &args.at {
        Some(at) => format!("until the block at {at} has been translated"),
        None => format!("for {} instructions, to find its hottest block", args.instructions),
    };
    if std::io::stderr().is_terminal() {
        eprintln!("ringshift: booting {} {what}", path.display());
    }
    let boot =
        Boot { kernel, memory: args.memory, at: args.at.clone(), instructions: args.instructions };
    Ok(explain::boot(&boot, Box::new(std::io::sink()))?)
}

fn from_file(args: &ExplainArgs, path: &Path) -> Result<Explanation> {
    let name = path.display().to_string();
    let content = read(path, "file", FILE_LIMIT)?;
    if !Program::is_one(&content) {
        return raw(args, &content, &name);
    }
    if args.base.is_some() || args.bits.is_some() {
        bail!(
            "{name}: an ELF file says itself where it lies and how wide its code is: leave --base and --bits out"
        );
    }
    let program = Program::parse(&content).with_context(|| name.clone())?;
    let found = program.find(args.at.as_deref()).with_context(|| name.clone())?;
    let ring = args.ring.unwrap_or(3);
    let code = Code { bytes: found.bytes, rip: found.rip, bits: found.bits, ring };
    code.explain().with_context(|| name)
}

/// Code without a file format around it.
fn raw(args: &ExplainArgs, bytes: &[u8], name: &str) -> Result<Explanation> {
    let base = args.base.unwrap_or(BASE);
    let rip = match &args.at {
        None => base,
        Some(at) => parse_address(at).map_err(|error| anyhow::anyhow!("--at {at}: {error}"))?,
    };
    let offset = usize::try_from(rip.wrapping_sub(base)).unwrap_or(usize::MAX);
    let Some(rest) = bytes.get(offset..) else {
        bail!("{name}: --at {rip:#x} is not in its {} bytes from {base:#x} on", bytes.len());
    };
    let (bits, ring) = (args.bits.unwrap_or(64), args.ring.unwrap_or(0));
    Code { bytes: rest, rip, bits, ring }.explain().with_context(|| name.to_owned())
}

fn parse_address(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    number.ok_or_else(|| "give an address such as 0x1000; raw code has no symbols".into())
}

/// Bytes as people write them: `48 8b 07`, `488b07`, `0x48, 0x8b`, `\x48\x8b`.
fn hex(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let is_separator = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '\\');
    for word in text.split(is_separator).filter(|word| !word.is_empty()) {
        let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix('x')).unwrap_or(word);
        let good = digits.bytes().all(|b| b.is_ascii_hexdigit()) && digits.len() % 2 == 0;
        if digits.is_empty() || !good {
            bail!("{word:?} is no hexadecimal bytes: write them as in \"48 8b 07\"");
        }
        for pair in digits.as_bytes().chunks(2) {
            let digit = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
            bytes.push(digit(pair[0]) << 4 | digit(pair[1]));
        }
    }
    if bytes.is_empty() {
        bail!("no bytes: write them as in \"48 8b 07\"");
    }
    Ok(bytes)
}

/// On a terminal, unless the user does not want it (no-color.org).
fn wants_colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !unwanted && !dumb
}

fn terminal_width() -> usize {
    let window = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok();
    let window = window.map(|window| usize::from(window.ws_col)).filter(|&width| width != 0);
    let variable = || std::env::var("COLUMNS").ok()?.parse().ok();
    window.or_else(variable).unwrap_or(100).clamp(40, 160)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_many_ways() {
        for text in ["48 8b 07", "488B07", "0x48, 0x8b, 0x07", "\\x48\\x8b\\x07", "48\n8b07\n"] {
            assert_eq!(hex(text).unwrap(), [0x48, 0x8B, 0x07], "{text}");
        }
        for wrong in ["", " ", "4", "48 8", "zz", "0x", "é0"] {
            assert!(hex(wrong).is_err(), "{wrong}");
        }
    }
}
