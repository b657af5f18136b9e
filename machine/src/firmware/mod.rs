//! Booting as a bare PC does: firmware in ROM at the top of 4 GiB, the rest from disks.
//!
//! | file | holds |
//! |---|---|
//! | `locate.rs` | where the host keeps SeaBIOS and its VGA BIOS |
//! | `shadow.rs` | the ROM, and RAM in its place below 1 MiB |
//! | `configuration.rs` | what firmware is told through fw_cfg and CMOS |
//! | `kernel_rom.rs` | the option ROM that starts a kernel by its setup code |
//! | `log.rs` | firmware's debug port |

mod configuration;
mod kernel_rom;
mod locate;
mod log;
mod shadow;

pub(crate) use configuration::{configuration, configure_cmos};
pub use locate::{FirmwareError, bios, vga_bios};
pub(crate) use log::LogLines;
pub(crate) use shadow::{ShadowRam, rom_range};

use crate::boot::RealModeLinux;
use crate::chipset::Peripherals;
use devices::block::Medium;

/// Which kind of drive is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BootOrder {
    /// Hard disk, then CD-ROM, then floppy.
    #[default]
    Disk,
    /// CD-ROM, then hard disk, then floppy.
    Cdrom,
    /// Floppy, then hard disk, then CD-ROM.
    Floppy,
}

/// What is in the drives.
#[derive(Clone, Debug, Default)]
pub struct Drives {
    /// Hard disks, at most four together with the CD-ROMs.
    pub disks: Vec<Medium>,
    /// CD-ROMs.
    pub cdroms: Vec<Medium>,
    /// Floppies, at most two.
    pub floppies: Vec<Medium>,
}

/// A machine that boots from its firmware.
pub struct Firmware {
    /// The BIOS image: a multiple of 4 KiB, from 64 KiB to 16 MiB.
    pub bios: Vec<u8>,
    /// The VGA adapter's option ROM. Without one there is no VGA adapter.
    pub vga_bios: Option<Vec<u8>>,
    /// Whether firmware shows its screen on COM1 too and takes keys from there.
    pub serial_console: bool,
    /// What is in the drives.
    pub drives: Drives,
    /// Which is tried first.
    pub boot: BootOrder,
}

/// The firmware itself, apart from the board's devices.
pub(crate) struct Rom {
    pub(crate) bios: Vec<u8>,
    pub(crate) serial_console: bool,
    pub(crate) boot: BootOrder,
    /// The kernel that goes before all drives.
    pub(crate) kernel: Option<RealModeLinux>,
}

/// Sizes of BIOS images that can be.
pub(crate) const BIOS_SIZES: std::ops::RangeInclusive<u64> = 0x1_0000..=0x100_0000;

impl Firmware {
    pub(crate) fn split(self) -> (Rom, Peripherals) {
        let Firmware { bios, vga_bios, serial_console, drives, boot } = self;
        (Rom { bios, serial_console, boot, kernel: None }, Peripherals { drives, vga_bios })
    }

    /// SeaBIOS and its VGA BIOS from the host's standard places, empty drives.
    ///
    /// # Errors
    /// [`FirmwareError`] if they are not there.
    pub fn seabios() -> Result<Firmware, FirmwareError> {
        Ok(Firmware {
            bios: bios(None)?,
            vga_bios: Some(vga_bios()?),
            serial_console: false,
            drives: Drives::default(),
            boot: BootOrder::default(),
        })
    }
}
