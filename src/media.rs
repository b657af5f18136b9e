//! The drives and the screen of `ringshift run`, and the firmware that boots from them.

use crate::cli::{BootFrom, MediaArgs, Vga};
use crate::display::Display;
use crate::drive_image::DriveImage;
use anyhow::{Context, Result, bail};
use machine::block::{BlockDevice, Medium};
use machine::firmware;
use machine::{BootOrder, Drives, Firmware, Peripherals};

/// Places on the board: two channels of two drives, and two floppy drives.
const DRIVES: usize = 4;
const FLOPPIES: usize = 2;

/// Drives and firmware, opened once for a guest: what a snapshot holds survives the guest's reset,
/// and an image keeps the format that it had at first.
pub(crate) struct OpenMedia {
    bios: Vec<u8>,
    vga_bios: Option<Vec<u8>>,
    drives: Drives,
    /// Firmware shows its screen on COM1, where it shows nowhere else.
    serial_console: bool,
    boot: BootOrder,
}

impl OpenMedia {
    /// What goes beside a kernel.
    pub(crate) fn peripherals(&self) -> Peripherals {
        Peripherals { drives: self.drives.clone(), vga_bios: self.vga_bios.clone() }
    }

    /// A machine without a kernel boots from this.
    pub(crate) fn firmware(&self) -> Firmware {
        Firmware {
            bios: self.bios.clone(),
            vga_bios: self.vga_bios.clone(),
            serial_console: self.serial_console,
            drives: self.drives.clone(),
            boot: self.boot,
        }
    }
}

impl MediaArgs {
    /// Whether a drive, or firmware, was named.
    pub(crate) fn any(&self) -> bool {
        !(self.disk.is_empty() && self.cdrom.is_empty() && self.floppy.is_empty())
            || self.bios.is_some()
    }

    /// Opens everything, for `firmware` to boot or for a kernel that is entered directly.
    pub(crate) fn open(&self, firmware: bool) -> Result<OpenMedia> {
        self.open_with(firmware, |image, name| {
            Medium::threaded(image, name).context("starting a drive's thread")
        })
    }

    /// Opens everything for one of several machines that must run alike: changes are kept aside, and
    /// drives answer at once.
    pub(crate) fn open_alike(&self, firmware: bool) -> Result<OpenMedia> {
        let aside = MediaArgs { snapshot: true, ..self.clone() };
        aside.open_with(firmware, |image, _| Ok(Medium::inline(image)))
    }

    fn open_with(
        &self,
        firmware: bool,
        serve: impl Fn(Box<dyn BlockDevice>, &str) -> Result<Medium>,
    ) -> Result<OpenMedia> {
        let drives = self.disk.len() + self.cdrom.len();
        if drives > DRIVES {
            bail!("{drives} disks and CD-ROMs: the board has places for {DRIVES}");
        }
        if self.floppy.len() > FLOPPIES {
            bail!("{} floppies: the board has {FLOPPIES} drives", self.floppy.len());
        }
        let open = |kind: &str, images: &[DriveImage], read_only: bool| {
            let numbered = images.iter().enumerate();
            numbered
                .map(|(index, image)| {
                    let name = format!("{kind}{index}");
                    serve(self.image(image, &name, read_only)?, &name)
                })
                .collect::<Result<Vec<_>>>()
        };
        let vga = self.has_vga(firmware)?;
        let (bios, vga_bios) = if firmware {
            let rom = vga.then(firmware::vga_bios).transpose()?;
            (firmware::bios(self.bios.as_deref())?, rom)
        } else {
            if self.bios.is_some() {
                bail!(
                    "--bios: this kernel is entered directly; --boot-protocol 16 starts it through the BIOS"
                );
            }
            // Without the ROM there is no font, which the text display does without.
            (Vec::new(), vga.then(|| firmware::vga_bios().unwrap_or_default()))
        };
        Ok(OpenMedia {
            bios,
            vga_bios,
            drives: Drives {
                disks: open("disk", &self.disk, false)?,
                cdroms: open("cdrom", &self.cdrom, true)?,
                floppies: open("floppy", &self.floppy, false)?,
            },
            serial_console: self.display == Display::None,
            boot: self.order(),
        })
    }

    /// Whether there is a VGA adapter.
    fn has_vga(&self, firmware: bool) -> Result<bool> {
        let shown = self.screenshot.is_some() || self.display != Display::None;
        match self.vga {
            None => Ok(firmware || shown),
            Some(Vga::Std) => Ok(true),
            Some(Vga::None) if !shown => Ok(false),
            Some(Vga::None) => {
                bail!(
                    "--vga none: without an adapter there is no screen for --display or --screenshot"
                )
            }
        }
    }

    /// The order asked for, or the kind of drive that there is.
    fn order(&self) -> BootOrder {
        match self.boot {
            Some(BootFrom::Disk) => BootOrder::Disk,
            Some(BootFrom::Cdrom) => BootOrder::Cdrom,
            Some(BootFrom::Floppy) => BootOrder::Floppy,
            None if !self.cdrom.is_empty() => BootOrder::Cdrom,
            None if self.disk.is_empty() => BootOrder::Floppy,
            None => BootOrder::Disk,
        }
    }

    /// Opens an image for the drive `name`.
    fn image(
        &self,
        image: &DriveImage,
        name: &str,
        read_only: bool,
    ) -> Result<Box<dyn BlockDevice>> {
        let mut options = image.0.clone();
        options.snapshot |= self.snapshot && !options.read_only;
        if read_only {
            (options.read_only, options.snapshot) = (true, false);
        }
        options.open().context(format!("drive {name}"))
    }
}
