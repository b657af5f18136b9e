//! Kernels and firmware other than Linux and SeaBIOS, from Debian packages: Xen, GNU Mach, U-Boot.
//!
//! The packages are fetched with apt into the user's cache. Where that is impossible, the tests
//! say so and pass.

use flate2::read::GzDecoder;
use machine::guests::debian::Architecture;
use machine::guests::{self, initramfs::Initramfs};
use machine::{BootOrder, Drives, Firmware};
use std::io::Read;
use testsuite::media::{debian_file, debian_files};
use testsuite::{Debian, EngineKind, Guest, StopReason};

fn unpacked(compressed: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    GzDecoder::new(compressed).read_to_end(&mut content).expect("the package's file is whole");
    content
}

const DOM0_SCRIPT: &str = "\
dmesg -n 1
m=RINGSHIFT
echo $m-UNDER-$(cat /sys/hypervisor/type) $(uname -m) $(nproc)
sleep 0.2 && echo $m-SLEPT
dmesg | grep -iE 'BUG:|WARNING:|Oops|rcu.*stall|lockup' && echo $m-TROUBLE
echo $m-DONE
";

/// Xen starts Linux as its first domain, which works, and powers the machine off.
fn xen(cpus: u32, engine: EngineKind) {
    let Some(xen) = debian_file("xen-hypervisor-4.17-amd64", &["boot/xen-4.17-amd64.gz"]) else {
        return;
    };
    let Ok(files) = guests::available(Debian::Amd64) else { return };
    let read = |path| std::fs::read(path).expect("a fetched file is readable");
    let initrd = Initramfs::script(&read(&files.busybox), DOM0_SCRIPT).build().unwrap();
    let end = Guest::kernel("xen", unpacked(&xen))
        .append("com1=115200,8n1 console=com1 dom0_mem=256M")
        .module(read(&files.kernel), "vmlinuz console=hvc0 cryptomgr.notests")
        .module(initrd, "initrd")
        .memory(640 << 20)
        .cpus(cpus)
        .engine(engine)
        .timeout(std::time::Duration::from_secs(600))
        .run();
    let said = |text: &str| assert!(end.output.contains(text), "no {text}:\n{}", end.output);
    said("Xen version 4.17");
    said(&format!("RINGSHIFT-UNDER-xen x86_64 {cpus}"));
    said("RINGSHIFT-SLEPT");
    said("RINGSHIFT-DONE");
    said("Entering ACPI S5 state");
    assert!(!end.output.contains("RINGSHIFT-TROUBLE"), "{}", end.output);
    assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
}

#[test]
fn xen_translated() {
    xen(1, EngineKind::Jit);
}

#[test]
fn xen_on_2_translated() {
    xen(2, EngineKind::Jit);
}

#[test]
#[ignore = "long: a minute and more"]
fn xen_interpreted() {
    xen(1, EngineKind::Interp);
}

/// GNU Mach finds its memory and devices, and misses the servers that no module brings.
fn gnumach(architecture: Architecture, engine: EngineKind) {
    let files = debian_files("gnumach-image-1.8-486", architecture, &["boot/gnumach-1.8-486.gz"]);
    let Some(file) = files.and_then(|mut files| files.pop()) else { return };
    let mut guest = Guest::kernel("gnumach", unpacked(&file))
        .append("console=com0")
        .memory(128 << 20)
        .engine(engine)
        .start();
    guest.wait_for("GNU Mach 1.8");
    guest.wait_for("pages: 28672 (112M)");
    guest.wait_for("RTC time is ");
    guest.wait_for("bootstrap_create: No bootstrap code loaded with the kernel!");
    guest.quit();
    guest.finish();
}

#[test]
fn gnumach_32() {
    gnumach(Architecture::I386, EngineKind::Interp);
    gnumach(Architecture::I386, EngineKind::Jit);
}

#[test]
fn gnumach_64() {
    gnumach(Architecture::Amd64, EngineKind::Interp);
    gnumach(Architecture::Amd64, EngineKind::Jit);
}

/// U-Boot in place of SeaBIOS reaches its prompt on COM1 and takes commands.
///
/// There is no VGA adapter (`--vga none`): the VGA BIOS reads the adapter's EDID at BAR 2, which
/// SeaBIOS allows it by large segment limits in real mode. U-Boot calls it with limits of 64 KiB,
/// and a processor answers that with #GP.
fn u_boot(path: &'static [&'static str; 1], engine: EngineKind) {
    let Some(bios) = debian_file("u-boot-qemu", path) else { return };
    let firmware = Firmware {
        bios,
        vga_bios: None,
        serial_console: false,
        drives: Drives::default(),
        boot: BootOrder::default(),
    };
    let mut guest = Guest::firmware(firmware).memory(128 << 20).engine(engine).start();
    guest.wait_for("U-Boot 2023.01");
    guest.wait_for("DRAM:  128 MiB");
    guest.wait_for("Hit any key to stop autoboot");
    guest.type_line("");
    guest.wait_for("=> ");
    guest.type_line("setenv a shift; echo ring$a");
    guest.wait_for("\nringshift");
    guest.type_line("pci");
    guest.wait_for("00.01.01   0x8086     0x7010     Mass storage controller");
    guest.quit();
    guest.finish();
}

const U_BOOT_32: &[&str; 1] = &["usr/lib/u-boot/qemu-x86/u-boot.rom"];
const U_BOOT_64: &[&str; 1] = &["usr/lib/u-boot/qemu-x86_64/u-boot.rom"];

#[test]
fn u_boot_32() {
    u_boot(U_BOOT_32, EngineKind::Jit);
}

#[test]
fn u_boot_64() {
    u_boot(U_BOOT_64, EngineKind::Jit);
}

#[test]
fn u_boot_32_interpreted() {
    u_boot(U_BOOT_32, EngineKind::Interp);
}
