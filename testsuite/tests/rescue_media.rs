//! Bootable images from Debian packages: GRUB's rescue media, iPXE, memtest86+.
//!
//! The packages are fetched with apt into the user's cache. Where that is impossible, the tests
//! say so and pass.

use machine::Firmware;
use machine::guests::debian::Architecture;
use machine::guests::host_program::output_of_new;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use testsuite::media::{cdrom, debian_file, debian_files, disk, floppy};
use testsuite::{EngineKind, Guest, StopReason, iso, kernels};

const GRUB_CDROM: &[&str; 1] = &["usr/lib/grub-rescue/grub-rescue-cdrom.iso"];
const GRUB_FLOPPY: &[&str; 1] = &["usr/lib/grub-rescue/grub-rescue-floppy.img"];
const IPXE_CDROM: &[&str; 1] = &["usr/lib/ipxe/ipxe.iso"];
const IPXE_KERNEL: &[&str; 1] = &["boot/ipxe.lkrn"];
const MEMDISK: &[&str; 1] = &["usr/lib/syslinux/memdisk"];
const MEMTEST_64_CDROM: &[&str; 1] = &["usr/lib/memtest86+/memtest86+x64.iso"];
const MEMTEST_32_CDROM: &[&str; 1] = &["usr/lib/memtest86+/memtest86+ia32.iso"];
const MEMTEST_64_KERNEL: &[&str; 1] = &["boot/memtest86+x64.bin"];
const MEMTEST_32_KERNEL: &[&str; 1] = &["boot/memtest86+ia32.bin"];

/// GRUB shows its menu, opens its command line, and calculates.
fn grub_takes_commands(firmware: Option<Firmware>, engine: EngineKind, drive: &str) {
    let Some(firmware) = firmware else { return };
    let guest = Guest::firmware(firmware).memory(128 << 20).engine(engine).start();
    guest.wait_for_screen("The highlighted entry will be executed automatically");
    guest.press("c");
    guest.wait_for_screen("grub>");
    guest.press("set a=shift; echo ring$a\n");
    guest.wait_for_screen("\nringshift");
    guest.press("ls\n");
    guest.wait_for_screen(&format!("\n({drive}) ({drive},msdos1)"));
    guest.quit();
    guest.finish();
}

#[test]
fn grub_from_cdrom() {
    grub_takes_commands(
        debian_file("grub-rescue-pc", GRUB_CDROM).and_then(cdrom),
        EngineKind::Jit,
        "cd",
    );
}

#[test]
fn grub_from_floppy() {
    grub_takes_commands(
        debian_file("grub-rescue-pc", GRUB_FLOPPY).and_then(floppy),
        EngineKind::Jit,
        "fd0",
    );
}

/// The USB image is a link to the CD-ROM's, which has a partition table as well.
#[test]
fn grub_from_disk() {
    grub_takes_commands(
        debian_file("grub-rescue-pc", GRUB_CDROM).and_then(disk),
        EngineKind::Jit,
        "hd0",
    );
}

#[test]
#[ignore = "long: half a minute interpreted"]
fn grub_from_floppy_interpreted() {
    grub_takes_commands(
        debian_file("grub-rescue-pc", GRUB_FLOPPY).and_then(floppy),
        EngineKind::Interp,
        "fd0",
    );
}

/// iPXE finds no network, and its shell calculates.
fn ipxe_shell(firmware: Option<Firmware>, engine: EngineKind) {
    let Some(firmware) = firmware else { return };
    let guest = Guest::firmware(firmware).memory(128 << 20).engine(engine).start();
    guest.wait_for_screen("Press Ctrl-B for the iPXE command line");
    guest.press("\u{2}");
    guest.wait_for_screen("iPXE>");
    guest.press("echo ${version}-ringshift\n");
    guest.wait_for_screen("36a4c85-5.1-ringshift");
    guest.quit();
    guest.finish();
}

#[test]
fn ipxe_from_cdrom() {
    ipxe_shell(debian_file("ipxe", IPXE_CDROM).and_then(cdrom), EngineKind::Jit);
}

/// As a Linux kernel, started in real mode: iPXE's image has no other entry point, and calls the
/// BIOS.
#[test]
fn ipxe_as_kernel() {
    let Some(kernel) = debian_file("ipxe", IPXE_KERNEL) else { return };
    let Some(guest) = Guest::kernel("ipxe", kernel).by_setup_code() else { return };
    // iPXE takes its command line for commands.
    let mut guest = guest.append("echo ring${version} && shell").memory(128 << 20).start();
    guest.wait_for("ring1.0.0+git-20190125.36a4c85-5.1");
    // The BIOS has room for 15 keys from the serial port, and drops others.
    guest.wait_for("iPXE>");
    guest.type_line("set a shift");
    guest.wait_for("iPXE>");
    guest.type_line("echo ring${a}");
    guest.wait_for("\nringshift");
    guest.quit();
    guest.finish();
}

/// MEMDISK has no other entry point either. It makes a floppy of its initrd, from which GRUB boots.
#[test]
fn memdisk_as_kernel() {
    let Some(kernel) = debian_file("syslinux-common", MEMDISK) else { return };
    let Some(floppy) = debian_file("grub-rescue-pc", GRUB_FLOPPY) else { return };
    let guest = Guest::kernel("memdisk", kernel).initrd(floppy).memory(128 << 20);
    let Some(guest) = guest.by_setup_code() else { return };
    let guest = guest.start();
    guest.wait_for_screen("The highlighted entry will be executed automatically");
    guest.press("c");
    guest.wait_for_screen("grub>");
    guest.press("ls\n");
    guest.wait_for_screen("\n(fd0)");
    guest.quit();
    guest.finish();
}

/// The same, started by a boot loader.
#[test]
fn ipxe_as_kernel_from_syslinux_floppy() {
    let floppy = debian_file("ipxe", IPXE_KERNEL)
        .and_then(|kernel| syslinux_floppy("ipxe", &kernel))
        .and_then(floppy);
    ipxe_shell(floppy, EngineKind::Jit);
}

/// memtest86+ starts on both processors and finds no error until `until` shows.
fn memtest(guest: Option<Guest>, engine: EngineKind, until: &str) {
    let Some(guest) = guest else { return };
    let guest = guest.memory(64 << 20).cpus(2).engine(engine);
    let guest = guest.timeout(Duration::from_secs(1800)).start();
    guest.wait_for_screen("2 Cores 2 Threads");
    guest.wait_for_screen(until);
    let screen = guest.screen();
    assert!(screen.contains("Errors: 0"), "{screen}");
    guest.quit();
    guest.finish();
}

fn memtest_cdrom(image: &'static [&'static str; 1]) -> Option<Guest> {
    debian_file("memtest86+", image).and_then(cdrom).map(Guest::firmware)
}

/// Without firmware, by the Linux boot protocol.
fn memtest_kernel(image: &'static [&'static str; 1]) -> Option<Guest> {
    Some(Guest::kernel("memtest86+", debian_file("memtest86+", image)?).vga())
}

#[test]
fn memtest_64_from_cdrom() {
    memtest(memtest_cdrom(MEMTEST_64_CDROM), EngineKind::Jit, "Test #5");
}

#[test]
fn memtest_32_from_cdrom() {
    memtest(memtest_cdrom(MEMTEST_32_CDROM), EngineKind::Jit, "Test #5");
}

#[test]
#[ignore = "long: a full pass takes five minutes, of which four wait for bits to fade"]
fn memtest_64_full_pass() {
    memtest(memtest_cdrom(MEMTEST_64_CDROM), EngineKind::Jit, "Pass:  1");
}

#[test]
#[ignore = "long: a full pass takes five minutes, of which four wait for bits to fade"]
fn memtest_32_full_pass() {
    memtest(memtest_cdrom(MEMTEST_32_CDROM), EngineKind::Jit, "Pass:  1");
}

#[test]
fn memtest_64_as_kernel() {
    memtest(memtest_kernel(MEMTEST_64_KERNEL), EngineKind::Jit, "Test #5");
}

#[test]
fn memtest_32_as_kernel() {
    memtest(memtest_kernel(MEMTEST_32_KERNEL), EngineKind::Jit, "Test #5");
}

#[test]
#[ignore = "long: a full pass takes five minutes, of which four wait for bits to fade"]
fn memtest_64_kernel_full_pass() {
    memtest(memtest_kernel(MEMTEST_64_KERNEL), EngineKind::Jit, "Pass:  1");
}

#[test]
#[ignore = "long: a full pass takes five minutes, of which four wait for bits to fade"]
fn memtest_32_kernel_full_pass() {
    memtest(memtest_kernel(MEMTEST_32_KERNEL), EngineKind::Jit, "Pass:  1");
}

const ISOLINUX: &[&str; 1] = &["usr/lib/ISOLINUX/isolinux.bin"];
const ISOLINUX_LOADER: &[&str; 1] = &["usr/lib/syslinux/modules/bios/ldlinux.c32"];
const ISOLINUX_CONFIGURATION: &str = "\
PROMPT 1
LABEL setup
  KERNEL kernel
  INITRD initrd
  APPEND some words
LABEL memtest
  KERNEL memtest
";

/// A CD-ROM of our own with ISOLINUX, which waits at its prompt for one of two kernels.
fn isolinux() -> Option<Firmware> {
    let boot = debian_file("isolinux", ISOLINUX)?;
    let loader = debian_file("syslinux-common", ISOLINUX_LOADER)?;
    let memtest = debian_file("memtest86+", MEMTEST_64_KERNEL)?;
    let files: [(&str, &[u8]); 6] = [
        ("INITRD", &[&b"initrd!!"[..], &[7; 300_000]].concat()),
        ("ISOLINUX.BIN", &boot),
        ("ISOLINUX.CFG", ISOLINUX_CONFIGURATION.as_bytes()),
        ("KERNEL", &kernels::setup_code()),
        ("LDLINUX.C32", &loader),
        ("MEMTEST", &memtest),
    ];
    cdrom(iso::volume(&files, "ISOLINUX.BIN"))
}

fn isolinux_starts_setup_code(engine: EngineKind) {
    let Some(firmware) = isolinux() else { return };
    let guest = Guest::firmware(firmware).engine(engine).start();
    guest.wait_for_screen("ISOLINUX 6.04");
    guest.wait_for_screen("boot:");
    guest.press("setup\n");
    let end = guest.finish();
    assert!(end.output.contains("some words"), "{}", end.output);
    assert!(end.output.contains("|payload!|initrd!!"), "{}", end.output);
    assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
}

#[test]
fn setup_code_from_isolinux_cdrom() {
    isolinux_starts_setup_code(EngineKind::Jit);
}

#[test]
fn setup_code_from_isolinux_cdrom_interpreted() {
    isolinux_starts_setup_code(EngineKind::Interp);
}

#[test]
fn memtest_from_isolinux_cdrom() {
    let Some(firmware) = isolinux() else { return };
    let guest = Guest::firmware(firmware).cpus(2).timeout(Duration::from_secs(600)).start();
    guest.wait_for_screen("boot:");
    guest.press("memtest\n");
    guest.wait_for_screen("2 Cores 2 Threads");
    guest.wait_for_screen("Test #2");
    assert!(guest.screen().contains("Errors: 0"), "{}", guest.screen());
    guest.quit();
    guest.finish();
}

const SYSLINUX_CONFIGURATION: &str = "DEFAULT kernel\nLABEL kernel\n  KERNEL kernel\n";

/// A floppy with SYSLINUX that starts `kernel`, made by Debian's mtools and syslinux. These are
/// programs of the host: `None` where they do not run.
fn syslinux_floppy(name: &str, kernel: &[u8]) -> Option<Vec<u8>> {
    let directory = format!("ringshift-floppy-{name}-{}", std::process::id());
    let directory = std::env::temp_dir().join(directory);
    std::fs::create_dir_all(&directory).expect("the temporary directory can be written");
    let image = make_syslinux_floppy(&directory, kernel);
    std::fs::remove_dir_all(&directory).expect("the temporary directory can be written");
    image
}

fn make_syslinux_floppy(directory: &Path, kernel: &[u8]) -> Option<Vec<u8>> {
    let mut programs = debian_files("mtools", Architecture::Amd64, &["usr/bin/mtools"])?;
    programs.extend(debian_files("syslinux", Architecture::Amd64, &["usr/bin/syslinux"])?);
    let write = |name: &str, content: &[u8]| {
        std::fs::write(directory.join(name), content).expect("the directory can be written");
    };
    write("kernel", kernel);
    write("syslinux.cfg", SYSLINUX_CONFIGURATION.as_bytes());
    for (name, content) in ["mtools", "syslinux"].iter().zip(&programs) {
        use std::os::unix::fs::PermissionsExt;
        write(name, content);
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.join(name), executable).expect("own files have modes");
    }
    for name in ["mformat", "mcopy", "mattrib", "mmove", "mdel"] {
        std::os::unix::fs::symlink("mtools", directory.join(name)).expect("links can be made");
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", directory.display());
    for words in [
        "mformat -C -f 1440 -i floppy ::",
        "syslinux --install floppy",
        "mcopy -i floppy kernel syslinux.cfg ::",
    ] {
        let mut words = words.split(' ');
        let program = directory.join(words.next().unwrap_or_default());
        let mut command = Command::new(&program);
        command.args(words).env("PATH", &path).current_dir(directory);
        match output_of_new(&mut command) {
            Ok(output) if output.status.success() => {}
            Ok(output) => panic!("{}: {output:?}", program.display()),
            Err(error) => {
                eprintln!("SKIPPED: {} does not run here: {error}", program.display());
                return None;
            }
        }
    }
    Some(std::fs::read(directory.join("floppy")).expect("mformat made an image"))
}

#[test]
fn memtest_from_syslinux_floppy() {
    let guest = debian_file("memtest86+", MEMTEST_64_KERNEL)
        .and_then(|kernel| syslinux_floppy("memtest", &kernel))
        .and_then(floppy)
        .map(Guest::firmware);
    memtest(guest, EngineKind::Jit, "Test #5");
}
