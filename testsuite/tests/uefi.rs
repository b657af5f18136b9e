//! UEFI firmware in place of SeaBIOS: OVMF, of the Debian package ovmf, with its console on COM1.

use machine::guests;
use machine::guests::initramfs::Initramfs;
use machine::{Drives, Firmware};
use testsuite::media::{cdrom, debian_file, disk};
use testsuite::{Debian, EngineKind, Guest, StopReason, fat};

const OVMF: &[&str; 1] = &["usr/share/ovmf/OVMF.fd"];

/// With OVMF instead of SeaBIOS.
fn uefi(firmware: Firmware) -> Option<Guest> {
    let bios = debian_file("ovmf", OVMF)?;
    Some(Guest::firmware(Firmware { bios, ..firmware }).memory(256 << 20))
}

const SCRIPT: &str = "\
dmesg -n 1
m=RINGSHIFT
[ -d /sys/firmware/efi ] && echo $m-UEFI CPUS $(nproc)
echo +2 > /sys/class/rtc/rtc0/wakealarm
echo mem > /sys/power/state && echo $m-WOKE CPUS $(nproc)
dmesg | grep -iE 'BUG:|WARNING:|Oops|ACPI.*(Warning|Error)' && echo $m-TROUBLE
echo $m-DONE
";

/// OVMF's shell takes commands, and starts Debian's kernel from a disk.
fn the_shell_starts_linux(engine: EngineKind) {
    let files = match guests::available(Debian::CloudAmd64) {
        Ok(files) => files,
        Err(skipped) => return eprintln!("{skipped}"),
    };
    let read = |path| std::fs::read(path).expect("a fetched file is readable");
    let busybox = read(&files.busybox);
    let initrd = Initramfs::script(&busybox, SCRIPT).build().expect("the initramfs is well formed");
    let volume = fat::volume(&[(b"LINUX   EFI", &read(&files.kernel)), (b"INITRD     ", &initrd)]);
    let Some(guest) = disk(volume).and_then(uefi) else { return };
    let mut guest = guest.cpus(2).engine(engine).start();
    guest.wait_for("UEFI Interactive Shell");
    guest.wait_for("FS0:");
    guest.wait_for("Shell> ");
    guest.type_line("set a shift");
    guest.wait_for("Shell> ");
    guest.type_line("echo ring%a%");
    guest.wait_for("ringshift");
    guest.wait_for("Shell> ");
    guest.type_line("fs0:\\linux.efi console=ttyS0 panic=-1 quiet initrd=\\initrd");
    guest.wait_for("RINGSHIFT-UEFI CPUS 2");
    guest.wait_for("RINGSHIFT-WOKE CPUS 2");
    guest.wait_for("RINGSHIFT-DONE");
    let end = guest.finish();
    assert!(!end.output.contains("TROUBLE"), "{}", end.output);
    assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
}

#[test]
fn linux_from_the_shell() {
    the_shell_starts_linux(EngineKind::Jit);
}

#[test]
#[ignore = "long: the firmware unpacks itself"]
fn linux_from_the_shell_interpreted() {
    the_shell_starts_linux(EngineKind::Interp);
}

/// OVMF finds the program that a CD-ROM boots by UEFI; the program then has the screen.
#[test]
fn a_cdrom_boots() {
    let image = debian_file("memtest86+", &["usr/lib/memtest86+/memtest86+x64.iso"]);
    let Some(guest) = image.and_then(cdrom).and_then(uefi) else { return };
    let mut guest = guest.start();
    guest.wait_for("BdsDxe: starting Boot0001 \"UEFI RINGSHIFT CD-ROM");
    guest.quit();
    guest.finish();
}

/// Without drives and without a screen, too.
#[test]
fn a_bare_machine_reaches_the_shell() {
    let none = Firmware {
        bios: Vec::new(),
        vga_bios: None,
        serial_console: false,
        drives: Drives::default(),
        boot: machine::BootOrder::default(),
    };
    let Some(guest) = uefi(none) else { return };
    let mut guest = guest.start();
    guest.wait_for("Shell> ");
    guest.type_line("reset -c");
    let end = guest.finish();
    assert_eq!(end.reason, StopReason::Reset, "{}", end.output);
}
