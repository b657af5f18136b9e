//! Bootable images from Debian packages: GRUB's rescue media, iPXE, memtest86+.
//!
//! The packages are fetched with apt into the user's cache. Where that is impossible, the tests
//! say so and pass.

use machine::Firmware;
use testsuite::media::{cdrom, debian_file, disk, floppy};
use testsuite::{EngineKind, Guest};

const GRUB_CDROM: &[&str; 1] = &["usr/lib/grub-rescue/grub-rescue-cdrom.iso"];
const GRUB_FLOPPY: &[&str; 1] = &["usr/lib/grub-rescue/grub-rescue-floppy.img"];
const IPXE_CDROM: &[&str; 1] = &["usr/lib/ipxe/ipxe.iso"];
const MEMTEST_64_CDROM: &[&str; 1] = &["usr/lib/memtest86+/memtest86+x64.iso"];
const MEMTEST_32_CDROM: &[&str; 1] = &["usr/lib/memtest86+/memtest86+ia32.iso"];

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
fn ipxe_shell(engine: EngineKind) {
    let Some(firmware) = debian_file("ipxe", IPXE_CDROM).and_then(cdrom) else { return };
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
    ipxe_shell(EngineKind::Jit);
}

/// memtest86+ starts on both processors and finds no error until `until` shows.
fn memtest(image: &'static [&'static str; 1], engine: EngineKind, until: &str) {
    let Some(firmware) = debian_file("memtest86+", image).and_then(cdrom) else { return };
    let guest = Guest::firmware(firmware).memory(64 << 20).cpus(2).engine(engine);
    let guest = guest.timeout(std::time::Duration::from_secs(1800)).start();
    guest.wait_for_screen("2 Cores 2 Threads");
    guest.wait_for_screen(until);
    let screen = guest.screen();
    assert!(screen.contains("Errors: 0"), "{screen}");
    guest.quit();
    guest.finish();
}

#[test]
fn memtest_64_from_cdrom() {
    memtest(MEMTEST_64_CDROM, EngineKind::Jit, "Test #5");
}

#[test]
fn memtest_32_from_cdrom() {
    memtest(MEMTEST_32_CDROM, EngineKind::Jit, "Test #5");
}

#[test]
#[ignore = "long: a full pass takes five minutes, of which four wait for bits to fade"]
fn memtest_64_full_pass() {
    memtest(MEMTEST_64_CDROM, EngineKind::Jit, "Pass:  1");
}

#[test]
#[ignore = "long: a full pass takes five minutes, of which four wait for bits to fade"]
fn memtest_32_full_pass() {
    memtest(MEMTEST_32_CDROM, EngineKind::Jit, "Pass:  1");
}
