//! The program itself: arguments, exit statuses, what it says on standard error.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use testsuite::{EngineKind, kernels};

testsuite::both_engines! {
    power_off_is_success,
    debug_exit_value_is_the_status,
    triple_fault_has_a_post_mortem,
    timeout_is_124,
    reset_boots_again_unless_told_not_to,
    serial_output_goes_where_it_is_sent,
    all_output_arrives,
    blocked_output_does_not_outlive_the_timeout,
    closed_output_ends_the_guest,
    piped_input_reaches_the_guest,
    stats_are_printed,
    truncated_kernels_are_no_panic,
    demo_passes_its_own_checks,
}

fn ringshift(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringshift"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
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

/// The argument of --engine.
fn name(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Interp => "interp",
        EngineKind::Jit => "jit",
    }
}

/// Boots a kernel with further arguments.
fn boot(engine: EngineKind, file_name: &str, image: &[u8], args: &[&str]) -> Output {
    let engine = name(engine);
    // Tests run beside one another.
    let kernel = file(&format!("{file_name}-{engine}"), image);
    let mut all = vec!["run", "--memory", "32M", "--engine", engine, "--kernel", &kernel];
    all.extend_from_slice(args);
    ringshift(&all)
}

fn power_off_is_success(engine: EngineKind) {
    let output = boot(engine, "hello", &kernels::hello(), &[]);
    assert_eq!(status(&output), 0, "{output:?}");
    assert_eq!(output.stdout, b"hello\r\n");
    assert_eq!(stderr(&output), "");
}

fn debug_exit_value_is_the_status(engine: EngineKind) {
    for value in [0x10, 0x21, 0x7F] {
        let output = boot(engine, &format!("exit-{value}"), &kernels::debug_exit(value), &[]);
        assert_eq!(status(&output), i32::from(value) << 1 | 1);
    }
}

fn triple_fault_has_a_post_mortem(engine: EngineKind) {
    let output = boot(engine, "triple-fault", &kernels::triple_fault(), &[]);
    assert_eq!(status(&output), 3);
    let words = stderr(&output);
    for part in ["Triple fault", "#UD", "#DF", "IDT"] {
        assert!(words.contains(part), "no {part} in: {words}");
    }
}

fn timeout_is_124(engine: EngineKind) {
    let start = Instant::now();
    let output = boot(engine, "spin", &kernels::spin(), &["--timeout", "0.5"]);
    assert_eq!(status(&output), 124);
    assert!(stderr(&output).contains("timeout"));
    assert!(start.elapsed() >= Duration::from_millis(500));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

fn reset_boots_again_unless_told_not_to(engine: EngineKind) {
    // Read until it has booted three times, however long that takes; then nobody listens.
    let kernel = file(&format!("reset-{}", name(engine)), &kernels::reset());
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringshift"))
        .args(["run", "--engine", name(engine), "--memory", "32M"])
        .args(["--timeout", "300", "--kernel", &kernel])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut boots = [0; 24];
    child.stdout.take().unwrap().read_exact(&mut boots).unwrap();
    assert_eq!(&boots, b"booted\r\nbooted\r\nbooted\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(2));

    // The time limit is for all boots together.
    let output = boot(engine, "reset-for-ever", &kernels::reset(), &["--timeout", "1"]);
    assert_eq!(status(&output), 124);

    let output = boot(engine, "no-reboot", &kernels::reset(), &["--no-reboot"]);
    assert_eq!(status(&output), 0);
    assert_eq!(output.stdout, b"booted\r\n");
}

fn serial_output_goes_where_it_is_sent(engine: EngineKind) {
    let target = file(&format!("serial-{}.txt", name(engine)), b"old content");
    let output =
        boot(engine, "to-file", &kernels::hello(), &["--serial", &format!("file:{target}")]);
    assert_eq!((status(&output), output.stdout.as_slice()), (0, &b""[..]));
    assert_eq!(std::fs::read(&target).unwrap(), b"hello\r\n");

    let output = boot(engine, "to-none", &kernels::hello(), &["--serial", "none"]);
    assert_eq!((status(&output), output.stdout.as_slice()), (0, &b""[..]));
}

/// Nothing is lost at the end, however much there is.
fn all_output_arrives(engine: EngineKind) {
    let output = boot(engine, "flood", &kernels::flood(5000), &[]);
    assert_eq!(status(&output), 0);
    assert_eq!(output.stdout.len(), 5000 * 64);
}

/// A reader that takes nothing cannot keep the guest from its timeout.
fn blocked_output_does_not_outlive_the_timeout(engine: EngineKind) {
    let kernel = file(&format!("blocked-{}", name(engine)), &kernels::flood(1_000_000));
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringshift"))
        .args(["run", "--engine", name(engine), "--memory", "32M"])
        .args(["--timeout", "0.5", "--kernel", &kernel])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let unread = child.stdout.take();
    assert_eq!(child.wait().unwrap().code(), Some(124));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    drop(unread);
}

fn closed_output_ends_the_guest(engine: EngineKind) {
    let kernel = file(&format!("closed-{}", name(engine)), &kernels::flood(100_000_000));
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringshift"))
        .args(["run", "--engine", name(engine), "--memory", "32M"])
        .args(["--timeout", "300", "--kernel", &kernel])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("standard output"), "{output:?}");
}

fn piped_input_reaches_the_guest(engine: EngineKind) {
    use std::io::Write;
    let kernel = file(&format!("echo-{}", name(engine)), &kernels::echo());
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringshift"))
        .args(["run", "--engine", name(engine), "--memory", "32M"])
        .args(["--timeout", "300", "--kernel", &kernel])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Ctrl-A is only a byte in a pipe.
    let text = format!("{}\x01x", "abc".repeat(100));
    child.stdin.take().unwrap().write_all(format!("{text}q").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 0);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("ready\r\n{text}q"));
}

fn stats_are_printed(engine: EngineKind) {
    let output = boot(engine, "stats", &kernels::flood(100), &["--stats"]);
    assert_eq!(status(&output), 0);
    let words = stderr(&output);
    for part in ["instructions", "MIPS", "blocks", "TLB", "wall", "CPU"] {
        assert!(words.contains(part), "no {part} in: {words}");
    }
    // How instructions ran, with the share of each kind.
    for part in ["copies on the host CPU", "emitted by hand", "Top instructions", "Top blocks"] {
        assert_eq!(words.contains(part), engine == EngineKind::Jit, "{part}: {words}");
    }
}

/// Each is refused with status 2 and words that name the file and say what is wrong.
#[test]
fn bad_kernels_are_refused() {
    let elf = |tail: &[u8]| [b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", tail].concat();
    let random: Vec<u8> =
        (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut header_far_away = kernels::hello();
    header_far_away[16..20].copy_from_slice(&0xFFFF_F000u32.to_le_bytes());
    let mut many_segments = elf(&[0xFF; 48]);
    many_segments[54..58].copy_from_slice(&[0x38, 0, 0xFF, 0xFF]);
    let mut setup = vec![0; 0x1000];
    setup[0x1F1] = 0xFF;
    setup[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    setup[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
    let cases: [(&str, &[u8]); 9] = [
        ("empty", b""),
        ("text", b"#!/bin/sh\n"),
        ("zeros", &[0; 4096]),
        ("random", &random),
        ("elf-cut-short", &elf(&[])),
        ("elf-hostile", &elf(&[0xFF; 100])),
        ("elf-many-segments", &many_segments),
        ("multiboot-far-away", &header_far_away),
        ("bzimage-cut-short", &setup),
    ];
    for (name, content) in cases {
        let output = boot(EngineKind::Jit, name, content, &["--timeout", "5"]);
        let words = stderr(&output);
        assert_eq!(status(&output), 2, "{name}: {words}");
        assert!(words.contains(name), "the file is not named: {words}");
        assert!(words.lines().count() == 1, "{words}");
    }
}

/// A kernel cut off anywhere is refused, or boots and fails in its own way.
fn truncated_kernels_are_no_panic(engine: EngineKind) {
    let image = kernels::hello();
    for length in (0..image.len()).step_by(7) {
        let output = boot(engine, "truncated", &image[..length], &["--timeout", "1"]);
        assert!([0, 2, 3, 124].contains(&status(&output)), "{length}: {output:?}");
        assert!(!stderr(&output).contains("panicked"), "{length}: {output:?}");
    }
}

#[test]
fn unreadable_files_are_named() {
    for args in [
        &["run", "--kernel", "/nonexistent/kernel"][..],
        &["run", "--kernel", "/"],
        &["run", "--kernel", "/dev/zero", "--memory", "16M"],
        &["run", "--kernel", "/dev/null"],
    ] {
        let output = ringshift(args);
        assert_eq!(status(&output), 2, "{output:?}");
        assert!(stderr(&output).contains(args[2]), "{output:?}");
    }
    let kernel = file("good-kernel", &kernels::hello());
    let output = ringshift(&["run", "--kernel", &kernel, "--initrd", "/nonexistent/initrd"]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("/nonexistent/initrd"), "{output:?}");
    let output = ringshift(&["run", "--kernel", &kernel, "--serial", "file:/nonexistent/out"]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("/nonexistent/out"), "{output:?}");
}

#[test]
fn bad_usage_is_refused() {
    let kernel = file("usage-kernel", &kernels::hello());
    for args in [
        &[][..],
        &["fly"],
        &["run"],
        &["run", "--memory", "lots", "--kernel", &kernel],
        &["run", "--memory", "12", "--kernel", &kernel],
        &["run", "--memory", "9999999G", "--kernel", &kernel],
        &["run", "--timeout", "-1", "--kernel", &kernel],
        &["run", "--engine", "magic", "--kernel", &kernel],
        &["run", "--serial", "pigeon", "--kernel", &kernel],
        &["run", "--initrd", &kernel],
        // What lockstep would not do must not seem done.
        &["run", "--lockstep", "--instructions", "10", "--timeout", "9", "--kernel", &kernel],
        &["run", "--lockstep", "--instructions", "10", "--cpus", "2", "--kernel", &kernel],
        &["run", "--lockstep", "--instructions", "10", "--cpu", "pentium", "--kernel", &kernel],
        &["demo", "windows"],
    ] {
        let output = ringshift(args);
        assert_eq!(status(&output), 2, "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

fn demo_passes_its_own_checks(engine: EngineKind) {
    let output = ringshift(&["demo", "--engine", name(engine), "--timeout", "120"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(status(&output), 0, "{text}");
    assert!(text.contains("Verdict: all as promised"), "{text}");
}

#[test]
fn a_timeout_beyond_all_time_never_passes() {
    let kernel = file("endless-timeout-kernel", &kernels::hello());
    let args = ["run", "--memory", "32M", "--timeout", "1e19", "--kernel", &kernel];
    let output = ringshift(&args);
    assert_eq!(status(&output), 0, "{output:?}");
    assert_eq!(output.stdout, b"hello\r\n");
}

#[test]
fn check_describes_the_host() {
    let output = ringshift(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(status(&output), 0, "{text}");
    for part in ["/dev/kvm", "FSGSBASE", "protection keys", "What Ringshift makes of it"] {
        assert!(text.contains(part), "no {part} in: {text}");
    }
}
