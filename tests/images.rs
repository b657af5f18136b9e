//! `ringshift run IMAGE` and `--disk`: images as the command line takes them.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use testsuite::kernels;

fn ringshift(args: &[&str]) -> Output {
    run(&["--timeout", "40"], args)
}

fn run(limit: &[&str], args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringshift"))
        .args(["run", "--memory", "32M"])
        .args(limit)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file of this content, for as long as the build directory lives.
fn file(name: &str, content: &[u8]) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("the build directory is writable");
    path.to_str().expect("the build directory has a plain name").to_owned()
}

/// Whether firmware is there; says why not.
fn firmware() -> bool {
    let found = machine::Firmware::seabios();
    if let Err(reason) = &found {
        eprintln!("SKIPPED: {reason}");
    }
    found.is_ok()
}

/// Boot code that says `text` on COM1, and goes on with `then`.
fn boot_code(text: &str, then: &[u8]) -> Vec<u8> {
    let mut code = Vec::new();
    for byte in text.bytes() {
        // mov dx, 0x3f8; mov al, byte; out dx, al
        code.extend([0xBA, 0xF8, 0x03, 0xB0, byte, 0xEE]);
    }
    code.extend(then);
    code.resize(510, 0);
    code.extend([0x55, 0xAA]);
    code
}

/// mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt
const POWER_OFF: &[u8] = &[0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF, 0xF4];

fn image(size: usize, boot: Vec<u8>) -> Vec<u8> {
    let mut image = boot;
    image.resize(size, 0);
    image
}

#[test]
fn a_kernel_is_recognised() {
    let output = ringshift(&[&file("a-kernel", &kernels::hello())]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"hello\r\n"[..]));
}

/// An image that has no other entry goes through its setup code without being told to, beside a
/// disk that would boot, and with a VGA adapter or without.
#[test]
fn a_kernel_of_setup_code_alone_is_started_by_the_bios() {
    if !firmware() {
        return;
    }
    let kernel = file("setup-kernel", &kernels::setup_code());
    let initrd = file("setup-initrd", b"initrd!!");
    let disk = file("setup-disk", &image(4 << 20, boot_code("from the disk", POWER_OFF)));
    for vga in ["std", "none"] {
        let arguments = ["--initrd", &initrd, "--append", "words", "--disk", &disk, "--vga", vga];
        let output = ringshift(&[&[kernel.as_str()][..], &arguments].concat());
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("words|payload!|initrd!!"), "{said}{}", stderr(&output));
        assert!(!said.contains("from the disk"), "{said}");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    for (arguments, words) in [
        (&["--bios", "/nonexistent"][..], "this kernel is started by its 16-bit setup code"),
        (&["--vga", "none", "--display", "vnc=127.0.0.1:0"], "without an adapter"),
        (&["--boot-protocol", "64"], "no 64-bit entry point"),
        (&["--boot-protocol", "32", "--bios", "/nonexistent"], "--boot-protocol 16 starts it"),
    ] {
        let output = ringshift(&[&[kernel.as_str()][..], arguments].concat());
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn disks_and_floppies_are_recognised_and_boot() {
    if !firmware() {
        return;
    }
    let disk = image(4 << 20, boot_code("from the disk", POWER_OFF));
    let floppy = image(1440 << 10, boot_code("from the floppy", POWER_OFF));
    for (name, content, text) in
        [("a-disk", disk, "from the disk"), ("a-floppy", floppy, "from the floppy")]
    {
        let output = ringshift(&[&file(name, &content)]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains(text), "{output:?}");
    }
}

#[test]
fn what_is_not_recognised_is_told_with_what_was_looked_for() {
    let output = ringshift(&[&file("a-text", b"just some text, and nothing else")]);
    assert_eq!(output.status.code(), Some(2));
    for part in ["a-text", "bzImage", "ELF", "Multiboot", "CD001", "55 AA", "qcow2", "vmdk"] {
        assert!(stderr(&output).contains(part), "no {part} in: {}", stderr(&output));
    }
    let mut volume = vec![0; 1 << 20];
    volume[0x8000..0x8007].copy_from_slice(b"\x01CD001\x01");
    let output = ringshift(&[&file("a-volume", &volume)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("El Torito"), "{}", stderr(&output));
}

#[test]
fn images_that_cannot_be_opened_are_told() {
    if !firmware() {
        return;
    }
    let disk = file("options", &image(1 << 20, boot_code("", POWER_OFF)));
    for (arguments, words) in [
        (vec![format!("{disk},format=qcow2")], "the magic number"),
        (vec![format!("{disk},format=vdi")], "is no image format"),
        (vec![format!("{disk},cache=none")], "is no option"),
        (vec![disk.clone(), disk.clone()], "in use"),
        (vec![format!("{disk},readonly=on"); 5], "places for 4"),
        (vec!["/nonexistent/disk".to_owned()], "/nonexistent/disk"),
    ] {
        let disks: Vec<&str> = arguments.iter().flat_map(|disk| ["--disk", disk]).collect();
        let output = ringshift(&disks);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(words), "no {words} in: {}", stderr(&output));
    }
}

/// The guest counts its boots in its second sector and resets, until the third.
#[test]
fn drives_stay_open_over_a_reset() {
    if !firmware() {
        return;
    }
    let count: &[u8] = &[
        0x31, 0xC0, 0x8E, 0xD8, 0x8E, 0xC0, // xor ax, ax; mov ds, ax; mov es, ax
        0xBB, 0x00, 0x80, 0xB8, 0x01, 0x02, // mov bx, 0x8000; mov ax, 0x0201
        0xB9, 0x02, 0x00, 0xBA, 0x80, 0x00, // mov cx, 2; mov dx, 0x80
        0xCD, 0x13, // int 0x13
        0xFE, 0x06, 0x00, 0x80, // inc byte [0x8000]
        0xB8, 0x01, 0x03, 0xCD, 0x13, // mov ax, 0x0301; int 0x13
        0x80, 0x3E, 0x00, 0x80, 0x03, // cmp byte [0x8000], 3
        0x73, 0x06, // jae off
        0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, // mov dx, 0xcf9; mov al, 6; out dx, al
    ];
    let boot = boot_code("boot", &[count, POWER_OFF].concat());
    for (options, kept) in [("", 3), (",snapshot=on", 0)] {
        let path = file("counter", &image(1 << 20, boot.clone()));
        let output = ringshift(&["--disk", &format!("{path}{options}")]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let boots = String::from_utf8_lossy(&output.stdout).matches("boot").count();
        assert_eq!(boots, 3, "{options}");
        assert_eq!(std::fs::read(&path).unwrap()[512], kept, "{options}");
    }
}

#[test]
fn a_guest_that_writes_a_qcow2_header_into_a_raw_image_is_told_of() {
    if !firmware() {
        return;
    }
    // mov ax, 0x0301; mov cx, 1; mov dh, 0; mov bx, 0x7e00 with "QFI\xfb" there; int 0x13
    let write: &[u8] = &[
        0x31, 0xC0, 0x8E, 0xD8, 0x8E, 0xC0, // xor ax, ax; mov ds, ax; mov es, ax
        0xC7, 0x06, 0x00, 0x80, b'Q', b'F', // mov word [0x8000], "QF"
        0xC7, 0x06, 0x02, 0x80, b'I', 0xFB, // mov word [0x8002], "I\xfb"
        0xBB, 0x00, 0x80, 0xB8, 0x01, 0x03, // mov bx, 0x8000; mov ax, 0x0301
        0xB9, 0x01, 0x00, 0xB6, 0x00, 0xCD, 0x13, // mov cx, 1; mov dh, 0; int 0x13
    ];
    let boot = boot_code("", &[write, POWER_OFF].concat());
    let path = file("header", &image(1 << 20, boot));
    let before = std::fs::read(&path).unwrap();
    let output = ringshift(&["--disk", &path]);
    assert!(stderr(&output).contains("format=raw"), "{output:?}");
    assert!(std::fs::read(&path).unwrap() == before);
    let output = ringshift(&["--disk", &format!("{path},format=raw")]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    assert!(std::fs::read(&path).unwrap().starts_with(b"QFI\xfb"));
}

/// Firmware, disk and all, on both engines: nothing depends on when a drive's thread runs.
#[test]
fn a_disk_boots_in_lockstep() {
    if !firmware() {
        return;
    }
    let path = file("lockstep", &image(4 << 20, boot_code("in step", POWER_OFF)));
    let before = std::fs::read(&path).unwrap();
    let output = run(&["--instructions", "2000000000"], &["--lockstep", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("no difference"), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("in step"));
    assert!(std::fs::read(&path).unwrap() == before);
}
