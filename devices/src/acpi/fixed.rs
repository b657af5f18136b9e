//! FADT and FACS: the fixed hardware.

use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{BoardInfo, OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes_of};

/// IA-PC boot architecture flag: there are user-visible devices on an LPC or
/// ISA bus.
const LEGACY_DEVICES: u16 = 1 << 0;
/// IA-PC boot architecture flag: there is an 8042 at ports 60H and 64H.
const KEYBOARD_8042: u16 = 1 << 1;
/// IA-PC boot architecture flag: do not probe for VGA.
const VGA_NOT_PRESENT: u16 = 1 << 2;

/// Length of the PM1a event block, in ports.
const PM1_EVENT_LENGTH: u8 = 4;
/// Length of the PM1a control block.
const PM1_CONTROL_LENGTH: u8 = 2;
/// Length of the PM timer block.
const PM_TIMER_LENGTH: u8 = 4;

/// The firmware ACPI control structure.
pub(super) fn facs() -> Vec<u8> {
    bytes_of(&FACS::new())
}

/// The fixed ACPI description table.
pub(super) fn fadt(board: &BoardInfo, facs: u32, dsdt: u32) -> Vec<u8> {
    let power = &board.power;
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::Unspecified)
        .firmware_ctrl_32(facs)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // No sleep button. The RTC's alarm is a fixed event.
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup);
    if power.timer_32_bits {
        fadt = fadt.flag(Flags::TmrValExt);
    }
    fadt.dsdt = dsdt.into();
    fadt.x_dsdt = u64::from(dsdt).into();
    // Without a command port the machine always is in ACPI mode.
    if let Some(command) = power.smi_command {
        fadt.smi_cmd = u32::from(command.port).into();
        fadt.acpi_enable = command.acpi_enable;
        fadt.acpi_disable = command.acpi_disable;
    }
    fadt.sci_int = u16::from(power.sci_irq).into();

    fadt.pm1a_evt_blk = u32::from(power.pm1a_event).into();
    fadt.pm1_evt_len = PM1_EVENT_LENGTH;
    fadt.x_pm1a_evt_blk = ports(power.pm1a_event, PM1_EVENT_LENGTH, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(power.pm1a_control).into();
    fadt.pm1_cnt_len = PM1_CONTROL_LENGTH;
    fadt.x_pm1a_cnt_blk = ports(power.pm1a_control, PM1_CONTROL_LENGTH, AccessSize::WordAccess);
    fadt.pm_tmr_blk = u32::from(power.timer).into();
    fadt.pm_tmr_len = PM_TIMER_LENGTH;
    fadt.x_pm_tmr_blk = ports(power.timer, PM_TIMER_LENGTH, AccessSize::DwordAccess);
    fadt.gpe0_blk = u32::from(power.gpe0).into();
    fadt.gpe0_blk_len = power.gpe0_length;
    fadt.x_gpe0_blk = ports(power.gpe0, power.gpe0_length, AccessSize::ByteAccess);

    // Latencies above these limits mean that there is no C2 and no C3 state.
    fadt.p_lvl2_lat = 101.into();
    fadt.p_lvl3_lat = 1001.into();
    // CMOS index of the century; no alarm registers beyond the day's.
    fadt.century = 0x32;

    let mut boot_flags = LEGACY_DEVICES;
    if board.keyboard_controller {
        boot_flags |= KEYBOARD_8042;
    }
    if !board.vga {
        boot_flags |= VGA_NOT_PRESENT;
    }
    fadt.iapc_boot_arch = boot_flags.into();
    fadt.reset_reg = ports(board.reset.port, 1, AccessSize::ByteAccess);
    fadt.reset_value = board.reset.value;
    bytes_of(&fadt.finalize())
}

/// The address of a block of `length` I/O ports.
fn ports(first: u16, length: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, length.saturating_mul(8), 0, access, first.into())
}
