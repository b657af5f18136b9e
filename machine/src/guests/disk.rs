//! A hard disk with Debian's cloud kernel on it that boots by itself: GRUB in front of the first
//! partition, and in that an ext4 file system with the kernel, an initramfs with the disk's drivers,
//! and busybox as user space, up to a login prompt on the serial port.
//!
//! Nothing of it needs root or a loop device. GRUB's own `grub-mkimage` makes the core image; where
//! things go on the disk is written here:
//!
//! | sector | content |
//! |---|---|
//! | 0 | GRUB's `boot.img` up to byte 440, partition table, signature |
//! | 1 | the core image: `boot.img` loads the sector at 1, which loads those from 2 |
//! | 2048 | the file system |
//!
//! The user is root, the password [`PASSWORD`].

use super::cpio::{Archive, CpioError};
use super::debian::{Architecture, Cache, FetchError, FileSet, Package};
use super::host_program::output_of_new;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use thiserror::Error;

/// Root's password on the disk.
pub const PASSWORD: &str = "ringshift";
/// What the login prompt ends with.
pub const LOGIN_PROMPT: &str = "login: ";

const SECTOR: u64 = 512;
const PARTITION_START: u64 = 2048;
const PARTITION_MIB: u64 = 64;

const KERNEL: FileSet = FileSet {
    name: "linux-image-cloud-amd64",
    architecture: Architecture::Amd64,
    // The kernel, then what must be loaded in this order to see the disk.
    paths: &[
        "boot/vmlinuz-",
        "*/scsi_common.ko",
        "*/scsi_mod.ko",
        "*/libata.ko",
        "*/ata_piix.ko",
        "*/sd_mod.ko",
    ],
};

/// GRUB's images, and the modules of the core image with all that they depend on.
const GRUB: FileSet = FileSet {
    name: "grub-pc-bin",
    architecture: Architecture::Amd64,
    paths: &[
        "usr/lib/grub/i386-pc/boot.img",
        "usr/lib/grub/i386-pc/diskboot.img",
        "usr/lib/grub/i386-pc/kernel.img",
        "usr/lib/grub/i386-pc/lzma_decompress.img",
        "usr/lib/grub/i386-pc/moddep.lst",
        "usr/lib/grub/i386-pc/biosdisk.mod",
        "usr/lib/grub/i386-pc/boot.mod",
        "usr/lib/grub/i386-pc/bufio.mod",
        "usr/lib/grub/i386-pc/crypto.mod",
        "usr/lib/grub/i386-pc/datetime.mod",
        "usr/lib/grub/i386-pc/ext2.mod",
        "usr/lib/grub/i386-pc/extcmd.mod",
        "usr/lib/grub/i386-pc/fshelp.mod",
        "usr/lib/grub/i386-pc/gettext.mod",
        "usr/lib/grub/i386-pc/linux.mod",
        "usr/lib/grub/i386-pc/mmap.mod",
        "usr/lib/grub/i386-pc/net.mod",
        "usr/lib/grub/i386-pc/normal.mod",
        "usr/lib/grub/i386-pc/part_msdos.mod",
        "usr/lib/grub/i386-pc/priority_queue.mod",
        "usr/lib/grub/i386-pc/relocator.mod",
        "usr/lib/grub/i386-pc/serial.mod",
        "usr/lib/grub/i386-pc/terminal.mod",
        "usr/lib/grub/i386-pc/terminfo.mod",
        "usr/lib/grub/i386-pc/vbe.mod",
        "usr/lib/grub/i386-pc/verifiers.mod",
        "usr/lib/grub/i386-pc/video.mod",
        "usr/lib/grub/i386-pc/video_fb.mod",
    ],
};

const GRUB_TOOLS: FileSet = FileSet {
    name: "grub-common",
    architecture: Architecture::Amd64,
    paths: &["usr/bin/grub-mkimage"],
};

const CORE_MODULES: &[&str] = &["biosdisk", "part_msdos", "ext2", "linux", "normal", "serial"];

const GRUB_CFG: &str = "\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout=0
menuentry linux {
  linux /boot/vmlinuz root=/dev/sda1 console=ttyS0 panic=-1
  initrd /boot/initrd.img
}
";

/// Loads the drivers, waits for the disk, and goes on there.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in scsi_common scsi_mod libata ata_piix sd_mod; do
  /bin/busybox insmod /modules/$module.ko
done
tries=0
until [ -b /dev/sda1 ] || [ $tries -ge 1200 ]; do
  /bin/busybox usleep 50000
  tries=$((tries + 1))
done
/bin/busybox mount -t ext4 /dev/sda1 /root || exec /bin/busybox sh
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
";

const INITTAB: &str = "\
::sysinit:/etc/rcS
ttyS0::respawn:/bin/busybox getty -L 115200 ttyS0 vt100
::ctrlaltdel:/bin/busybox reboot
::shutdown:/bin/busybox umount -a -r
";

const RC: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox --install -s /bin
/bin/busybox hostname disk
";

/// [`PASSWORD`], as crypt(3) stores it.
const PASSWD: &str = "root:$1$ring$lXOewS6EMSGYwFTEKWzv7.:0:0:root:/root:/bin/sh\n";

/// Why a disk could not be made.
#[derive(Debug, Error)]
pub enum DiskError {
    /// A package.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The initramfs.
    #[error(transparent)]
    Cpio(#[from] CpioError),
    /// A program of the host is missing, or a library that it needs.
    #[error("{program} does not run here: {reason}")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// What is missing, and what to install.
        reason: String,
    },
    /// A program of the host failed.
    #[error("{program} failed: {message}")]
    Program {
        /// The program.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// The core image does not fit before the partition.
    #[error("GRUB's core image has {0} bytes, more than there are before the first partition")]
    CoreSize(u64),
    /// A file.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        error: io::Error,
    },
}

impl DiskError {
    /// Whether the host lacks something, rather than that something went wrong.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Fetch(_) | Self::NoProgram { .. } => true,
            Self::Cpio(_) | Self::Program { .. } | Self::CoreSize(_) | Self::Io { .. } => false,
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |error| DiskError::Io { path, error }
}

/// Makes the raw image `path`. What is needed is taken from `cache`, or else from the network;
/// `progress` is called with a line of text at every step that takes time.
///
/// # Errors
/// [`DiskError`]: what is missing, or what failed.
pub fn build(path: &Path, cache: &Cache, progress: &dyn Fn(&str)) -> Result<(), DiskError> {
    let kernel = cache.kernel_files(&KERNEL, progress)?;
    let busybox = cache.file(&Package::busybox(Architecture::Amd64), progress)?;
    let grub = cache.files(&GRUB, progress)?;
    let tools = cache.files(&GRUB_TOOLS, progress)?;
    let scratch = Scratch::new(path)?;
    let boot_image = read(&grub[0])?;
    let modules = grub[0].parent().unwrap_or(Path::new("")).to_owned();
    let core = core_image(&tools[0], &modules, &scratch.0)?;
    let root = root_directory(&kernel, &busybox, &scratch.0)?;

    let size = PARTITION_START * SECTOR + (PARTITION_MIB << 20);
    let disk = File::create(path).map_err(at(path))?;
    disk.set_len(size).map_err(at(path))?;
    file_system(path, &root)?;
    if core.len() as u64 > (PARTITION_START - 1) * SECTOR {
        return Err(DiskError::CoreSize(core.len() as u64));
    }
    disk.write_all_at(&boot_sector(&boot_image), 0).map_err(at(path))?;
    disk.write_all_at(&core, SECTOR).map_err(at(path))?;
    disk.sync_all().map_err(at(path))
}

/// What boots from the disk by `--kernel` and `--initrd` too, with `root=/dev/sda1`: the kernel's
/// file, and the content of the initramfs.
///
/// # Errors
/// As [`build`].
pub fn kernel_and_initrd(
    cache: &Cache,
    progress: &dyn Fn(&str),
) -> Result<(PathBuf, Vec<u8>), DiskError> {
    let mut kernel = cache.kernel_files(&KERNEL, progress)?;
    let busybox = cache.file(&Package::busybox(Architecture::Amd64), progress)?;
    let modules = kernel.split_off(1);
    let initrd = initramfs(&modules, &read(&busybox)?)?;
    // The file set begins with the kernel.
    Ok((kernel.remove(0), initrd))
}

/// GRUB's boot code, with one active Linux partition.
fn boot_sector(boot_image: &[u8]) -> Vec<u8> {
    const LINUX: u8 = 0x83;
    // A place that cylinders, heads and sectors cannot tell.
    const BEYOND: [u8; 3] = [0xFE, 0xFF, 0xFF];
    let mut sector: Vec<u8> = boot_image.iter().copied().take(440).collect();
    sector.resize(446, 0);
    sector.push(0x80);
    sector.extend(BEYOND);
    sector.push(LINUX);
    sector.extend(BEYOND);
    sector.extend((PARTITION_START as u32).to_le_bytes());
    sector.extend((((PARTITION_MIB << 20) / SECTOR) as u32).to_le_bytes());
    sector.resize(510, 0);
    sector.extend([0x55, 0xAA]);
    sector
}

fn core_image(tool: &Path, modules: &Path, scratch: &Path) -> Result<Vec<u8>, DiskError> {
    const PROGRAM: &str = "grub-mkimage";
    // Files in the cache are not to be executed.
    let program = scratch.join(PROGRAM);
    fs::copy(tool, &program).map_err(at(&program))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(at(&program))?;
    let core = scratch.join("core.img");
    let mut command = Command::new(&program);
    command.args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-d"]).arg(modules);
    command.arg("-o").arg(&core).args(CORE_MODULES);
    run(PROGRAM, &mut command, "install the libraries of the package grub-common")?;
    read(&core)
}

/// The file system's content, in a directory.
fn root_directory(
    kernel: &[PathBuf],
    busybox: &Path,
    scratch: &Path,
) -> Result<PathBuf, DiskError> {
    let root = scratch.join("root");
    for directory in ["bin", "sbin", "etc", "boot/grub", "proc", "sys", "dev", "tmp", "root"] {
        let directory = root.join(directory);
        fs::create_dir_all(&directory).map_err(at(&directory))?;
    }
    let busybox = read(busybox)?;
    let put = |name: &str, mode: u32, content: &[u8]| {
        let path = root.join(name);
        fs::write(&path, content).map_err(at(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(at(&path))
    };
    put("bin/busybox", 0o755, &busybox)?;
    for (link, target) in [("bin/sh", "busybox"), ("sbin/init", "../bin/busybox")] {
        let path = root.join(link);
        std::os::unix::fs::symlink(target, &path).map_err(at(&path))?;
    }
    put("etc/inittab", 0o644, INITTAB.as_bytes())?;
    put("etc/rcS", 0o755, RC.as_bytes())?;
    put("etc/passwd", 0o644, PASSWD.as_bytes())?;
    put("boot/grub/grub.cfg", 0o644, GRUB_CFG.as_bytes())?;
    if let [image, modules @ ..] = kernel {
        put("boot/vmlinuz", 0o644, &read(image)?)?;
        put("boot/initrd.img", 0o644, &initramfs(modules, &busybox)?)?;
    }
    Ok(root)
}

/// An initramfs that loads the disk's drivers and goes on there.
fn initramfs(modules: &[PathBuf], busybox: &[u8]) -> Result<Vec<u8>, DiskError> {
    let mut archive = Archive::new();
    archive.directory("dev", 0o755)?;
    archive.directory("root", 0o755)?;
    archive.file("bin/busybox", 0o755, busybox)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    for module in modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{name}"), 0o644, &read(module)?)?;
    }
    Ok(archive.finish())
}

/// Makes the partition's file system with what is in `root`.
fn file_system(disk: &Path, root: &Path) -> Result<(), DiskError> {
    const PROGRAM: &str = "mke2fs";
    // No feature that GRUB does not know; and not in every user's PATH.
    const FEATURES: &str =
        "none,has_journal,ext_attr,dir_index,filetype,extent,sparse_super,large_file";
    let found =
        ["/usr/sbin/mke2fs", "/sbin/mke2fs"].into_iter().find(|path| Path::new(path).is_file());
    let mut command = Command::new(found.unwrap_or(PROGRAM));
    command.args(["-q", "-F", "-t", "ext4", "-O", FEATURES, "-b", "1024", "-d"]).arg(root);
    let offset = PARTITION_START * SECTOR;
    command.arg("-E").arg(format!("offset={offset},root_owner=0:0"));
    command.arg(disk).arg(format!("{PARTITION_MIB}M"));
    run(PROGRAM, &mut command, "install the package e2fsprogs")
}

fn run(program: &'static str, command: &mut Command, advice: &str) -> Result<(), DiskError> {
    let output = output_of_new(command.env("LC_ALL", "C"))
        .map_err(|error| DiskError::NoProgram { program, reason: format!("{error}; {advice}") })?;
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(()),
        // The dynamic loader's status.
        Some(127) => Err(DiskError::NoProgram { program, reason: format!("{message}; {advice}") }),
        Some(_) | None => Err(DiskError::Program { program, message }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, DiskError> {
    fs::read(path).map_err(at(path))
}

/// A directory beside the image for what goes into it, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(image: &Path) -> Result<Scratch, DiskError> {
        let mut name = image.file_name().unwrap_or_default().to_owned();
        name.push(".parts");
        let path = image.with_file_name(name);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
        fs::create_dir_all(&path).map_err(at(&path))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_has_one_active_linux_partition() {
        let sector = boot_sector(&[0x90; 512]);
        assert_eq!(sector.len(), 512);
        assert_eq!((sector[439], sector[440], sector[446], sector[450]), (0x90, 0, 0x80, 0x83));
        assert_eq!(sector[454..458], 2048u32.to_le_bytes());
        assert_eq!(sector[458..462], (64u32 * 2048).to_le_bytes());
        assert_eq!(sector[510..], [0x55, 0xAA]);
    }
}
