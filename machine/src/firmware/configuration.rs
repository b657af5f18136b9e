//! What firmware is told: fw_cfg's items and files, and bytes of CMOS.

use super::{BootOrder, Rom, kernel_rom};
use crate::board::{MMIO_START, port};
use crate::boot::MemoryMap;
use crate::machine::MachineError;
use devices::acpi::BoardInfo;
use devices::acpi::loader;
use devices::fw_cfg::{FwCfg, key};
use devices::legacy::rtc::RtcDevice;

/// SeaBIOS: not zero if the PIT is on pin 2 of the I/O APIC (key `FW_CFG_IRQ0_OVERRIDE`).
const IRQ0_OVERRIDE: u16 = 0x8002;
/// In `etc/system-states`, which has a byte for each of S0 to S5: the state exists. Bits 0 to 2 are
/// its SLP_TYP.
const THERE: u8 = 1 << 7;

/// The fw_cfg device of a machine with `ram_size` bytes of RAM. Firmware places the tables for
/// `board` itself.
pub(crate) fn configuration(
    ram_size: u64,
    cpus: u16,
    board: &BoardInfo,
    rom: &mut Rom,
) -> Result<FwCfg, MachineError> {
    let tables = loader::loader_files(board)?;
    let serial_console = rom.serial_console;
    let mut device = FwCfg::new(ram_size, cpus);
    device.set(IRQ0_OVERRIDE, [1u8]);
    // "No graphics" makes SeaBIOS turn to the serial port, whatever the files say.
    device.set(key::NO_GRAPHICS, u16::from(serial_console).to_le_bytes());
    let mut map = Vec::new();
    for (start, size) in MemoryMap::ram_ranges(ram_size, MMIO_START) {
        map.extend(start.to_le_bytes());
        map.extend(size.to_le_bytes());
        map.extend(1u32.to_le_bytes());
    }
    device.add_file("etc/e820", map)?;
    device.add_file(loader::RSDP_FILE, tables.rsdp)?;
    device.add_file(loader::TABLES_FILE, tables.tables)?;
    device.add_file(loader::LOADER_FILE, tables.commands)?;
    // OVMF wakes from S3 only where it was told that there is S3.
    let (suspend, power_off) = (board.power.suspend_type, board.power.power_off_type);
    device
        .add_file("etc/system-states", vec![THERE, 0, 0, THERE | suspend, 0, THERE | power_off])?;
    if serial_console {
        device.add_file("etc/sercon-port", u32::from(port::COM1).to_le_bytes().to_vec())?;
    }
    if let Some(kernel) = rom.kernel.take() {
        // Files under genroms/ are option ROMs, and bootorder says what is booted first.
        device.add_file("genroms/kernel.rom", kernel_rom::build(&kernel))?;
        device.add_file("bootorder", b"/rom@genroms/kernel.rom\0".to_vec())?;
        device.set_linux(kernel.image);
    }
    Ok(device)
}

/// CMOS bytes that PC firmware expects: floppy drives (two at most, by the bytes of the disk in
/// them), equipment, number of processors, boot order.
pub(crate) fn configure_cmos(rtc: &mut RtcDevice, floppies: &[u64], cpus: u8, boot: BootOrder) {
    // 360 KB, 1.2 MB, 720 KB, 1.44 MB, 2.88 MB.
    let kind = |index: usize| {
        floppies.get(index).map_or(0, |bytes| match bytes / 1024 {
            0..=360 => 1,
            361..=720 => 3,
            721..=1200 => 2,
            1201..=1440 => 4,
            _ => 5,
        })
    };
    rtc.set_cmos(0x10, kind(0) << 4 | kind(1));
    // Equipment: x87, PS/2 mouse, floppy drives.
    let floppy_bits = match floppies.len() {
        0 => 0,
        1 => 0x01,
        _ => 0x41,
    };
    rtc.set_cmos(0x14, 0x06 | floppy_bits);
    rtc.set_cmos(0x5F, cpus.saturating_sub(1));
    // Bochs's boot sequence: 1 floppy, 2 hard disk, 3 CD-ROM; first in the low nibble of 0x3D,
    // second in its high one, third in the high nibble of 0x38, whose bit 0 says not to look for a
    // floppy's signature.
    let (first, second, third) = match boot {
        BootOrder::Disk => (2, 3, 1),
        BootOrder::Cdrom => (3, 2, 1),
        BootOrder::Floppy => (1, 2, 3),
    };
    rtc.set_cmos(0x3D, second << 4 | first);
    rtc.set_cmos(0x38, third << 4 | 1);
}
