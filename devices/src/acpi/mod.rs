//! The tables by which a guest finds its hardware: ACPI and, for old kernels,
//! the MultiProcessor Specification's.
//!
//! [`BoardInfo`] says what the board has; [`build`] lays the tables out in
//! guest memory. The machine only copies the bytes.
//!
//! | file | holds |
//! |---|---|
//! | `root.rs` | RSDP, RSDT, XSDT: how the others are found |
//! | `fixed.rs` | FADT and FACS: the fixed hardware |
//! | `madt.rs` | MADT: processors and interrupt controllers |
//! | `hpet.rs` | HPET description |
//! | `dsdt.rs` | DSDT: devices and sleep states, in AML |
//! | `pci.rs` | the PCI host bridge, in AML |
//! | `loader.rs` | the tables for firmware that places them itself |
//! | `mp_table.rs` | MP floating pointer and configuration table |
//!
//! Source: Advanced Configuration and Power Interface Specification 6.5;
//! MultiProcessor Specification 1.4.

mod dsdt;
mod fixed;
mod hpet;
pub mod loader;
mod madt;
mod mp_table;
pub mod pci;
mod root;
#[cfg(test)]
mod tests;

use acpi_tables::Aml;
use thiserror::Error;

use crate::legacy::acpi_pm;

/// OEM ID of every table.
const OEM_ID: [u8; 6] = *b"RINGSH";
/// OEM table ID of every table.
const OEM_TABLE_ID: [u8; 8] = *b"RINGSHFT";
/// OEM revision of every table.
const OEM_REVISION: u32 = 1;

/// What the tables tell of the board. Addresses are guest physical, ports are
/// I/O ports, interrupts are ISA interrupt numbers (equal to global system
/// interrupts but for IRQ 0, which is on I/O APIC pin 2).
#[derive(Clone, Debug)]
pub struct BoardInfo {
    /// Local APIC ID of each processor, the bootstrap processor's first.
    pub apic_ids: Vec<u32>,
    /// CPUID leaf 1 EAX, for the MP table.
    pub processor_signature: u32,
    /// CPUID leaf 1 EDX, for the MP table.
    pub processor_features: u32,
    /// Address of the local APICs' register page.
    pub local_apic_base: u32,
    /// ID of the I/O APIC, 0 to 15. In an MP table it must differ from the
    /// local APIC IDs, which Linux repairs and older kernels may not.
    pub io_apic_id: u8,
    /// Address of the I/O APIC.
    pub io_apic_base: u32,
    /// Fixed ACPI hardware.
    pub power: PowerInfo,
    /// Register and value that reset the machine.
    pub reset: ResetInfo,
    /// 16550 serial ports, COM1 first.
    pub serial_ports: Vec<SerialPortInfo>,
    /// Whether there is an i8042 with keyboard and mouse.
    pub keyboard_controller: bool,
    /// Whether there is a VGA adapter. Without one the guest is told not to
    /// look for it.
    pub vga: bool,
    /// The HPET, if there is one.
    pub hpet: Option<HpetInfo>,
    /// First of the 12 ports of the firmware configuration device, if any.
    pub firmware_configuration: Option<u16>,
    /// Further AML terms for the scope `\_SB`, such as a PCI host bridge.
    pub devices: Vec<u8>,
}

/// The fixed hardware register blocks of ACPI, chapter "ACPI Hardware
/// Specification".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerInfo {
    /// How the guest switches ACPI mode on; `None` if it always is on.
    pub smi_command: Option<SmiCommandInfo>,
    /// System control interrupt: level-triggered, active high.
    pub sci_irq: u8,
    /// PM1a event block (status and enable): 4 ports.
    pub pm1a_event: u16,
    /// PM1a control block: 2 ports.
    pub pm1a_control: u16,
    /// Power management timer, 3.579545 MHz: 4 ports.
    pub timer: u16,
    /// Whether the timer counts 32 bits, not 24.
    pub timer_32_bits: bool,
    /// General-purpose event block 0, status half then enable half.
    pub gpe0: u16,
    /// Ports of that block, an even number.
    pub gpe0_length: u8,
    /// SLP_TYP value, 0 to 7, that with SLP_EN suspends to RAM.
    pub suspend_type: u8,
    /// SLP_TYP value, 0 to 7, that with SLP_EN powers off.
    pub power_off_type: u8,
}

/// The port that stands for firmware's SMI handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmiCommandInfo {
    /// Port, B2H on a PC.
    pub port: u16,
    /// The value that switches ACPI mode on: SCI_EN sets.
    pub acpi_enable: u8,
    /// The value that switches it off.
    pub acpi_disable: u8,
}

impl PowerInfo {
    /// The register blocks of [`acpi_pm`] with its block mapped at port `base`.
    pub fn piix4(base: u16, sci_irq: u8) -> Self {
        let at = |offset: u64| base.wrapping_add(offset as u16);
        Self {
            smi_command: Some(SmiCommandInfo {
                port: acpi_pm::SMI_COMMAND_PORT as u16,
                acpi_enable: acpi_pm::ACPI_ENABLE,
                acpi_disable: acpi_pm::ACPI_DISABLE,
            }),
            sci_irq,
            pm1a_event: at(acpi_pm::PM1A_EVENT),
            pm1a_control: at(acpi_pm::PM1A_CONTROL),
            timer: at(acpi_pm::PM_TIMER),
            timer_32_bits: false,
            gpe0: at(acpi_pm::GPE0),
            gpe0_length: 4,
            suspend_type: acpi_pm::SLEEP_TYPE_S3,
            power_off_type: acpi_pm::SLEEP_TYPE_S5,
        }
    }
}

/// The reset register: an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetInfo {
    /// Port, CF9H on a PC.
    pub port: u16,
    /// The value to write, 6 on a PC.
    pub value: u8,
}

/// A 16550 serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialPortInfo {
    /// First of 8 ports.
    pub port: u16,
    /// Interrupt, edge-triggered.
    pub irq: u8,
}

/// A high precision event timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpetInfo {
    /// Address of its 1 KiB register block.
    pub base: u32,
    /// Low half of its general capabilities and ID register.
    pub event_timer_block_id: u32,
    /// Least period, in main counter ticks, that periodic mode can keep up.
    pub minimum_tick: u16,
}

/// Why the tables could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AcpiError {
    /// The tables for this board do not fit.
    #[error(
        "the firmware tables need {needed} bytes but only {available} are there; use fewer processors"
    )]
    TooLarge {
        /// Bytes needed.
        needed: u64,
        /// Bytes of the region.
        available: u64,
    },
    /// The region is not aligned to 64 bytes, as the FACS needs it.
    #[error("the firmware tables cannot begin at {0:#x}: it is no multiple of 64")]
    Misaligned(u64),
}

/// Tables laid out in guest memory.
#[derive(Clone, Debug)]
pub struct FirmwareTables {
    /// Address of the RSDP, for boot protocols that pass it on.
    pub rsdp: u64,
    /// Address of the FACS, in which a guest that sleeps leaves where it goes on.
    pub facs: u64,
    /// Guest physical address and content of each table.
    pub regions: Vec<(u64, Vec<u8>)>,
}

/// Where the tables go by default: the last part of the BIOS area, which
/// guests search for the RSDP and for the MP floating pointer. It must be RAM
/// and reserved in the guest's memory map.
pub const TABLES_BASE: u64 = 0xF_0000;
/// End of that area.
pub const TABLES_END: u64 = 0x10_0000;

/// Builds all tables into the region from `base` up to `end`. For guests to
/// find them without being told, the region must lie in E0000H..FFFFFH for
/// ACPI and in F0000H..FFFFFH for the MP table: [`TABLES_BASE`] and
/// [`TABLES_END`] do, and have room for several hundred processors.
///
/// # Errors
/// If the region is too small or misaligned.
pub fn build(board: &BoardInfo, base: u64, end: u64) -> Result<FirmwareTables, AcpiError> {
    if !base.is_multiple_of(64) {
        return Err(AcpiError::Misaligned(base));
    }
    let mut layout = Layout { next: base, regions: Vec::new() };
    let rsdp = layout.reserve(root::RSDP_SIZE);
    let facs = layout.place(fixed::facs());
    let dsdt = layout.place(dsdt::build(board));
    let fadt = layout.place(fixed::fadt(board, facs as u32, dsdt as u32));
    let mut tables = vec![fadt, layout.place(madt::build(board))];
    if let Some(hpet) = &board.hpet {
        tables.push(layout.place(hpet::build(hpet)));
    }
    let rsdt = layout.place(root::rsdt(&tables));
    let xsdt = layout.place(root::xsdt(&tables));
    layout.regions.push((rsdp, root::rsdp(rsdt as u32, xsdt)));
    let configuration = layout.place(mp_table::configuration(board));
    layout.place(mp_table::floating_pointer(configuration as u32));
    // The casts above hold: beyond `end` nothing is returned, and callers
    // place the tables below 4 GiB or get an error.
    let limit = end.min(1 << 32);
    if layout.next > limit {
        return Err(AcpiError::TooLarge {
            needed: layout.next - base,
            available: limit.saturating_sub(base),
        });
    }
    Ok(FirmwareTables { rsdp, facs, regions: layout.regions })
}

/// Hands out addresses one after the other, each aligned to 64 bytes.
struct Layout {
    next: u64,
    regions: Vec<(u64, Vec<u8>)>,
}

impl Layout {
    fn reserve(&mut self, size: usize) -> u64 {
        let address = self.next;
        self.next = (address + size as u64).next_multiple_of(64);
        address
    }

    fn place(&mut self, bytes: Vec<u8>) -> u64 {
        let address = self.reserve(bytes.len());
        self.regions.push((address, bytes));
        address
    }
}

/// The byte that makes the sum of `bytes` zero, modulo 256.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}

/// The bytes of a table or AML object.
fn bytes_of(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

/// A system description table: the common header around `body`.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table =
        acpi_tables::sdt::Sdt::new(signature, 36, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(body);
    table.as_slice().to_vec()
}
