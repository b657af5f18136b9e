//! `ringshift explain`: what it shows, and what it refuses.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Runs `ringshift explain` with no terminal in sight.
fn explain(args: &[&str]) -> Output {
    explain_with_input(args, b"")
}

fn explain_with_input(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringshift"))
        .arg("explain")
        .args(args)
        .env_remove("COLUMNS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn shown(args: &[&str]) -> String {
    let output = explain(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn file(name: &str, content: &[u8]) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_load_and_its_copy() {
    let text = shown(&["--hex", "48 8b 47 08"]);
    for part in
        ["mov rax, [rdi+8]", "= mov rax, [", "tlb.kernel.read", "ja slow.1", "insns, 4→", "Legend"]
    {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    assert!(!text.contains('\x1b'), "colour without a terminal");
    assert!(!text.contains("call helper"), "the cold section is collapsed");
    assert!(shown(&["--cold", "--hex", "48 8b 47 08"]).contains("call helper"));
    assert!(shown(&["--bytes", "--hex", "48 8b 47 08"]).contains("48 8b 47 08"));
    assert!(!shown(&["--no-legend", "--hex", "90"]).contains("Legend"));
}

#[test]
fn every_way_in() {
    let load = [0x8B, 0x07, 0xC3];
    let raw = file("explain.bin", &load);
    let from_file = shown(&["--bits", "32", "--base", "0x8000", &raw]);
    assert!(from_file.contains("Block at 0x8000") && from_file.contains("mov eax, [edi]"));
    let later = shown(&["--base", "0x8000", "--at", "0x8002", &raw]);
    assert!(later.contains("Block at 0x8002") && !later.contains("mov eax"), "{later}");
    let output = explain_with_input(&["-", "--ring", "3"], b"8b 07\nc3\n");
    assert!(String::from_utf8_lossy(&output.stdout).contains("tlb.user.read"), "{output:?}");
    let itself = shown(&["--at", "main", env!("CARGO_BIN_EXE_ringshift")]);
    assert!(itself.contains("64-bit code, ring 3"), "{itself}");
    assert!(shown(&[env!("CARGO_BIN_EXE_ringshift")]).contains("64-bit code, ring 3"));
}

#[test]
fn the_width_is_kept() {
    for width in ["40", "80", "132"] {
        let text = shown(&["--width", width, "--cold", "--hex", "53 48 8b 1f e8 00 01 00 00"]);
        let columns = width.parse().unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
    }
}

#[test]
fn a_block_of_the_built_in_guest() {
    let image = guest::build(&guest::Options::default()).unwrap();
    let kernel = file("explain-kernel", &image.bytes);
    let args = ["--kernel", &kernel, "--memory", "64M", "--instructions", "20000000", "--cold"];
    let text = shown(&args);
    assert!(text.contains("(physical 0x") && text.contains("linked"), "{text}");
    // The same block by its address.
    let at = text.lines().next().unwrap().split_whitespace().nth(2).unwrap().to_owned();
    let again = shown(&[&args[..], &["--at", &at]].concat());
    assert_eq!(again.lines().next(), text.lines().next());
    let never = explain(&[&args[..], &["--at", "0x12345678"]].concat());
    assert_eq!(never.status.code(), Some(2));
    let words = String::from_utf8_lossy(&never.stderr).into_owned();
    assert!(words.contains("no block at 0x12345678 was translated"), "{words}");
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let text = file("explain-text", b"#!/bin/sh\n");
    let broken = file("explain-elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02");
    let itself = env!("CARGO_BIN_EXE_ringshift");
    for (args, words) in [
        (&["--hex", "4x"][..], "hexadecimal"),
        (&["--hex", ""], "no bytes"),
        (&["--hex", "06"], "no instruction"),
        (&["--hex", "48 8b"], "in the middle"),
        (&["--hex", "90", "--bits", "8"], "8-bit"),
        (&["--hex", "90", "--ring", "1"], "ring 1"),
        (&["--hex", "90", "--bits", "16", "--ring", "3"], "ring 3"),
        (&["--hex", "90", "--at", "main"], "raw code has no symbols"),
        (&["--hex", "90", "--at", "0x9999"], "0x9999"),
        (&["--hex", "90", "--base", "0x4000000000000000"], "out of reach"),
        (&["/nonexistent/code"], "/nonexistent/code"),
        (&["/dev/null"], "empty"),
        (&["/"], "directory"),
        (&[&broken], "malformed ELF"),
        (&["--at", "no_such_symbol", itself], "no_such_symbol"),
        (&["--at", "0x10", itself], "no code at 0x10"),
        (&["--bits", "32", itself], "ELF"),
        (&["--kernel", &text], "not a bootable kernel"),
        (&["--kernel", &text, "--at", "start"], "only ELF kernels have symbols"),
    ] {
        let output = explain(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: no {words:?} in: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    for args in [&[][..], &["--hex", "90", itself], &["--initrd", &text, "--hex", "90"]] {
        assert_eq!(explain(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringshift"))
        .args(["explain", "--cold", "--bytes", "--hex", &"48 8b 47 08 ".repeat(60)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
