//! What `ringshift run` boots through firmware: disks, CD-ROMs, floppies.

use crate::cli::{BootFrom, MediaArgs};
use anyhow::{Context, Result};
use machine::block::{BlockDevice, Overlay, RawFile};
use machine::firmware;
use machine::{BootOrder, Drives, Firmware};
use std::path::Path;

impl MediaArgs {
    /// Whether a drive, or firmware, was named.
    pub(crate) fn any(&self) -> bool {
        !(self.disk.is_empty() && self.cdrom.is_empty() && self.floppy.is_empty())
            || self.bios.is_some()
    }

    /// Opens everything, for one run of the machine.
    pub(crate) fn firmware(&self) -> Result<Firmware> {
        let open = |paths: &[std::path::PathBuf], read_only: bool| {
            paths.iter().map(|path| self.open(path, read_only)).collect::<Result<Vec<_>>>()
        };
        Ok(Firmware {
            bios: firmware::bios(self.bios.as_deref())?,
            vga_bios: Some(firmware::vga_bios()?),
            serial_console: true,
            drives: Drives {
                disks: open(&self.disk, false)?,
                cdroms: open(&self.cdrom, true)?,
                floppies: open(&self.floppy, false)?,
            },
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
