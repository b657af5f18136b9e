//! DSDT: the devices that no bus can enumerate, in AML.

use acpi_tables::aml::{
    Device, EISAName, IO, Memory32Fixed, Name, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::{Aml, AmlSink};

use super::{BoardInfo, HpetInfo, bytes_of, table};

/// `_STA`: present, enabled, functioning, but not worth showing.
const PRESENT_HIDDEN: u8 = 0x0B;

pub(super) fn build(board: &BoardInfo) -> Vec<u8> {
    let mut system_bus = Vec::new();
    for uid in 0..board.apic_ids.len() {
        system_bus.extend(processor(uid as u32));
    }
    system_bus.extend(motherboard(board));
    system_bus.extend(pc_devices());
    for (uid, port) in board.serial_ports.iter().enumerate() {
        let uid = uid as u32 + 1;
        let resources = [ports(port.port, 8), irq(port.irq)].concat();
        system_bus.extend(device(&format!("COM{:X}", uid & 0xF), "PNP0501", Some(uid), &resources));
    }
    if board.keyboard_controller {
        let resources = [ports(0x60, 1), ports(0x64, 1), irq(1)].concat();
        system_bus.extend(device("KBD_", "PNP0303", None, &resources));
        system_bus.extend(device("MOU_", "PNP0F13", None, &irq(12)));
    }
    if let Some(hpet) = &board.hpet {
        system_bus.extend(hpet_device(hpet));
    }
    if let Some(port) = board.firmware_configuration {
        system_bus.extend(firmware_configuration(port));
    }
    system_bus.extend(&board.devices);

    let mut body = sleep_state("_S3_", board.power.suspend_type);
    body.extend(sleep_state("_S5_", board.power.power_off_type));
    body.extend(bytes_of(&Scope::new(Path::new("\\_SB_"), vec![&Raw(&system_bus)])));
    table(*b"DSDT", 2, &body)
}

/// A sleep state: the SLP_TYP values for PM1a and PM1b, and two reserved numbers.
fn sleep_state(name: &str, sleep_type: u8) -> Vec<u8> {
    let zero = 0u8;
    let package = Package::new(vec![&sleep_type, &zero, &zero, &zero]);
    bytes_of(&Name::new(Path::new(name), &package))
}

/// Bytes that are AML already.
struct Raw<'a>(&'a [u8]);

impl Aml for Raw<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.0);
    }
}

/// Small resource descriptor for ISA interrupts, without flags: edge-triggered,
/// active high, exclusive (ACPI, "IRQ Descriptor").
struct IrqNoFlags(u8);

impl Aml for IrqNoFlags {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x22);
        sink.word(1u16.checked_shl(self.0.into()).unwrap_or(0));
    }
}

fn ports(first: u16, length: u8) -> Vec<u8> {
    bytes_of(&IO::new(first, first, 1, length))
}

fn irq(number: u8) -> Vec<u8> {
    bytes_of(&IrqNoFlags(number))
}

/// A device with an EISA `_HID`, an optional `_UID`, and current resources if
/// there are any.
fn device(name: &str, hid: &str, uid: Option<u32>, resources: &[u8]) -> Vec<u8> {
    let mut body = bytes_of(&Name::new(Path::new("_HID"), &EISAName::new(hid)));
    if let Some(uid) = uid {
        body.extend(bytes_of(&Name::new(Path::new("_UID"), &uid)));
    }
    if !resources.is_empty() {
        body.extend(current_resources(resources));
    }
    bytes_of(&Device::new(Path::new(name), vec![&Raw(&body)]))
}

fn current_resources(resources: &[u8]) -> Vec<u8> {
    let resources = Raw(resources);
    let template = ResourceTemplate::new(vec![&resources]);
    bytes_of(&Name::new(Path::new("_CRS"), &template))
}

/// A processor device; `_UID` ties it to its MADT entry.
fn processor(uid: u32) -> Vec<u8> {
    let hid = Name::new(Path::new("_HID"), &"ACPI0007");
    let uid_name = Name::new(Path::new("_UID"), &uid);
    let path = Path::new(&format!("C{:03X}", uid & 0xFFF));
    bytes_of(&Device::new(path, vec![&hid, &uid_name]))
}

/// What the motherboard itself decodes: guests must put nothing else there.
fn motherboard(board: &BoardInfo) -> Vec<u8> {
    let power = &board.power;
    // The command port's neighbour is its status port.
    let smi = power.smi_command.map_or(Vec::new(), |command| ports(command.port, 2));
    let resources = [
        smi,
        ports(power.pm1a_event, 4),
        ports(power.pm1a_control, 2),
        ports(power.timer, 4),
        ports(power.gpe0, power.gpe0_length),
        ports(board.reset.port, 1),
        ports(0x80, 1),
        ports(0x92, 1),
        bytes_of(&Memory32Fixed::new(true, board.io_apic_base, 0x1000)),
        bytes_of(&Memory32Fixed::new(true, board.local_apic_base, 0x1000)),
    ]
    .concat();
    device("MBRD", "PNP0C02", Some(0), &resources)
}

/// The devices of every PC, at the addresses that they always had.
fn pc_devices() -> Vec<u8> {
    [
        device(
            "PIC_",
            "PNP0000",
            None,
            &[ports(0x20, 2), ports(0xA0, 2), ports(0x4D0, 2), irq(2)].concat(),
        ),
        device("TIMR", "PNP0100", None, &[ports(0x40, 4), irq(0)].concat()),
        device("RTC_", "PNP0B00", None, &[ports(0x70, 2), irq(8)].concat()),
        device("SPKR", "PNP0800", None, &ports(0x61, 1)),
        device("FPU_", "PNP0C04", None, &[ports(0xF0, 1), irq(13)].concat()),
    ]
    .concat()
}

fn hpet_device(hpet: &HpetInfo) -> Vec<u8> {
    let registers = bytes_of(&Memory32Fixed::new(true, hpet.base, 0x400));
    device("HPET", "PNP0103", Some(0), &registers)
}

/// QEMU's firmware configuration device, under the name that Linux's driver
/// looks for.
fn firmware_configuration(port: u16) -> Vec<u8> {
    let hid = Name::new(Path::new("_HID"), &"QEMU0002");
    let status = Name::new(Path::new("_STA"), &PRESENT_HIDDEN);
    let resources = current_resources(&ports(port, 12));
    bytes_of(&Device::new(Path::new("FWCF"), vec![&hid, &status, &Raw(&resources)]))
}
