//! From sections to an image: the passes of the assembler, and what a user of the guest gets.

use crate::asm::{Asm, Assembled, Expected, Symbols};
use crate::layout::{LOAD_BASE, LOAD_END, MEMORY_END, SECTIONS, Section};
use crate::power::TOTAL_CHECKS;
use crate::{compatibility, long_mode, protected_mode, real_mode, user};
use std::collections::BTreeMap;

/// Why the guest could not be built. All but the first are faults of its source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// iced-x86 refused an instruction.
    #[error("cannot assemble the guest: {0}")]
    Assembler(#[from] iced_x86::IcedError),
    /// A branch or an address names a label that is nowhere.
    #[error("the guest refers to the label `{0}`, which is not defined")]
    UndefinedLabel(String),
    /// Two places have one name.
    #[error("the guest defines the label `{0}` twice")]
    DuplicateLabel(String),
    /// A section has outgrown its room in the layout.
    #[error("the guest's section `{name}` has {size} bytes, more than the {limit} of the layout")]
    SectionTooLarge {
        /// The section.
        name: &'static str,
        /// Its size, bytes.
        size: usize,
        /// Its room, bytes.
        limit: usize,
    },
    /// Addresses still move after the last pass.
    #[error("the guest's addresses do not settle in {0} passes")]
    Unsettled(usize),
}

/// How the guest switches the machine off: a 16-bit write to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOff {
    /// The port of the ACPI PM1a control register.
    pub port: u16,
    /// SLP_EN (bit 13) and the SLP_TYP of S5 (bits 10 to 12).
    pub value: u16,
}

impl PowerOff {
    /// The ACPI PM1a control register at a port, and the machine's SLP_TYP for S5, 0 to 7.
    pub const fn acpi(port: u16, sleep_type: u16) -> Self {
        Self { port, value: 1 << 13 | (sleep_type & 7) << 10 }
    }
}

/// The parts of the guest that can be left out, true for those that run (default: all). The
/// climb itself, its exceptions and ring 3 always run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Ring 3 and call gates of protected mode.
    pub call_gates: bool,
    /// A task switch by the processor, in protected mode.
    pub hardware_task_switch: bool,
    /// A virtual-8086 task.
    pub virtual_8086: bool,
    /// x87, SSE and AVX.
    pub floating_point: bool,
    /// Sieve, CRC-32, self-modifying code and atomics: nearly all of the instructions.
    pub computation: bool,
    /// 32-bit code in ring 3 of long mode.
    pub compatibility: bool,
    /// 8259, PIT and the two pre-empted tasks: all that depends on time.
    pub timer: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            call_gates: true,
            hardware_task_switch: true,
            virtual_8086: true,
            floating_point: true,
            computation: true,
            compatibility: true,
            timer: true,
        }
    }
}

/// What the guest is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How to switch off. Default: port 0x604, SLP_TYP 0.
    pub power_off: PowerOff,
    /// The timer's rate, Hz, 19 (the PIT's slowest) to 10,000. Default: 1000.
    pub timer_hz: u32,
    /// Slices of the timer that the two tasks share, 8 to 1024. Default: 16.
    pub slices: u32,
    /// Numbers the sieve looks at, 16 to 1,048,576. Default: a million.
    pub sieve_limit: u32,
    /// How often it does so, from 1: the way to a longer workload, of about fifteen million
    /// instructions each time. Default: 1.
    pub iterations: u32,
    /// What to leave out.
    pub parts: Parts,
    /// Include the checks of what the manual says and QEMU's TCG does not do: segment limits and
    /// types, and the error code of an INT that its gate forbids. Default: true.
    pub strict: bool,
}

impl Options {
    /// For QEMU's `pc` machine under TCG, the place to try the guest itself.
    pub fn qemu() -> Self {
        Self { power_off: PowerOff::acpi(0x604, 0), strict: false, ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            power_off: PowerOff::acpi(0x604, 0),
            timer_hz: 1000,
            slices: 16,
            sieve_limit: 1_000_000,
            iterations: 1,
            parts: Parts::default(),
            strict: true,
        }
    }
}

/// The guest, ready to be loaded.
#[derive(Clone, Debug)]
pub struct Image {
    /// A Multiboot 1 kernel with addresses in its header (flag 16).
    pub bytes: Vec<u8>,
    /// Physical address of its first byte.
    pub load_address: u64,
    /// Physical address of its entry point, in 32-bit protected mode.
    pub entry: u64,
    /// Memory the machine must have, bytes.
    pub memory_size: u64,
    /// What the serial port must show, in this order: each line starts with one of these, and
    /// other lines may stand between them.
    pub transcript: Vec<String>,
    /// How many checks the guest makes.
    pub checks: u32,
    /// Linear address of every label and variable, by `section/name`; the sections are
    /// `protected`, `real`, `kernel` (high half) and `user`.
    pub symbols: BTreeMap<String, u64>,
}

impl Image {
    /// The symbol at or before a linear address and the distance from it, bytes; for none in the
    /// image, `None`.
    pub fn symbol_at(&self, address: u64) -> Option<(&str, u64)> {
        let section = SECTIONS
            .iter()
            .find(|section| address.wrapping_sub(section.origin) < section.size as u64)?;
        self.symbols
            .iter()
            .filter(|(_, at)| (section.origin..=address).contains(at))
            .max_by_key(|(_, at)| **at)
            .map(|(name, at)| (name.as_str(), address - at))
    }

    /// The first line of the transcript that `output` does not show in its place, if any.
    pub fn missing_line(&self, output: &str) -> Option<&str> {
        let mut lines = output.lines();
        self.transcript
            .iter()
            .find(|expected| !lines.any(|line| line.starts_with(expected.as_str())))
            .map(String::as_str)
    }
}

/// Passes after which addresses must have settled. The second sees every address; later ones
/// see branches and immediates that changed their length with them.
const PASSES: usize = 8;

/// Assembles the guest.
pub fn build(options: &Options) -> Result<Image, Error> {
    let mut known = Symbols::new();
    for _ in 0..PASSES {
        let sections = SECTIONS
            .iter()
            .map(|section| assemble(section, options, &known))
            .collect::<Result<Vec<_>, _>>()?;
        let checks = sections.iter().map(|section| section.checks).sum();
        let mut found: Symbols =
            sections.iter().flat_map(|section| section.symbols.clone()).collect();
        found.insert(TOTAL_CHECKS.to_owned(), u64::from(checks));
        if found == known {
            return link(sections, checks);
        }
        known = found;
    }
    Err(Error::Unsettled(PASSES))
}

/// One pass over one section.
fn assemble(
    section: &'static Section,
    options: &Options,
    known: &Symbols,
) -> Result<Assembled, Error> {
    let mut a = Asm::new(section, options, known)?;
    match section.name {
        "protected" => protected_mode::section(&mut a)?,
        "real" => real_mode::section(&mut a)?,
        "kernel" => long_mode::section(&mut a)?,
        "user" => user::section(&mut a)?,
        _ => compatibility::section(&mut a)?,
    }
    a.finish()
}

/// Puts the sections in their places.
fn link(sections: Vec<Assembled>, checks: u32) -> Result<Image, Error> {
    let mut bytes = vec![0; (LOAD_END - LOAD_BASE) as usize];
    let mut symbols = Symbols::new();
    for (place, section) in SECTIONS.iter().zip(&sections) {
        if let Some(name) = section.unknown.first() {
            return Err(Error::UndefinedLabel(name.clone()));
        }
        let offset = (place.load - LOAD_BASE) as usize;
        bytes[offset..offset + section.bytes.len()].copy_from_slice(&section.bytes);
        let exported = section.symbols.iter().filter(|(name, _)| !section.locals.contains(*name));
        symbols.extend(exported.map(|(name, address)| (name.clone(), *address)));
    }
    let entry = symbols.get("protected/entry").copied().unwrap_or(LOAD_BASE);
    Ok(Image {
        bytes,
        load_address: LOAD_BASE,
        entry,
        memory_size: MEMORY_END,
        transcript: transcript(&sections, 0),
        checks,
        symbols,
    })
}

/// The lines of a section, with those of the sections it goes to in their places.
fn transcript(sections: &[Assembled], index: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for expected in sections.get(index).into_iter().flat_map(|section| &section.transcript) {
        match expected {
            Expected::Line(line) => lines.push(line.clone()),
            Expected::Section(name) => {
                let index = SECTIONS.iter().position(|section| section.name == *name);
                lines.extend(index.map(|index| transcript(sections, index)).unwrap_or_default());
            }
        }
    }
    lines
}
