//! The drives and the screen of `ringshift run`, and the firmware that boots from them.

use crate::cli::{BootFrom, MediaArgs};
use anyhow::{Context, Result};
use machine::block::{BlockDevice, Overlay, RawFile};
use machine::firmware;
use machine::{BootOrder, Drives, Firmware, Peripherals};
use std::path::Path;

impl MediaArgs {
    /// Whether a drive, or firmware, was named.
    pub(crate) fn any(&self) -> bool {
        !(self.disk.is_empty() && self.cdrom.is_empty() && self.floppy.is_empty())
            || self.bios.is_some()
    }

    /// Opens the drives, for one run of the machine.
    fn drives(&self) -> Result<Drives> {
        let open = |paths: &[std::path::PathBuf], read_only: bool| {
            paths.iter().map(|path| self.open(path, read_only)).collect::<Result<Vec<_>>>()
        };
        Ok(Drives {
            disks: open(&self.disk, false)?,
            cdroms: open(&self.cdrom, true)?,
            floppies: open(&self.floppy, false)?,
        })
    }

    /// What goes beside a kernel, for one run of the machine. There is a screen where somebody
    /// looks at it.
    pub(crate) fn peripherals(&self) -> Result<Peripherals> {
        // Without the ROM there is no font, which the text display does without.
        let screen = self.screenshot.is_some();
        let vga_bios = screen.then(|| firmware::vga_bios().unwrap_or_default());
        Ok(Peripherals { drives: self.drives()?, vga_bios })
    }

    /// Opens everything, for one run of the machine.
    pub(crate) fn firmware(&self) -> Result<Firmware> {
        Ok(Firmware {
            bios: firmware::bios(self.bios.as_deref())?,
            vga_bios: Some(firmware::vga_bios()?),
            serial_console: true,
            drives: self.drives()?,
            boot: self.order(),
        })
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

    fn open(&self, path: &Path, read_only: bool) -> Result<Box<dyn BlockDevice>> {
        let image = RawFile::open(path, read_only || self.snapshot)
            .with_context(|| format!("image {}", path.display()))?;
        Ok(if self.snapshot && !read_only {
            Box::new(Overlay::new(Box::new(image)))
        } else {
            Box::new(image)
        })
    }
}
