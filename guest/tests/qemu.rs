//! The guest on somebody else's machine: under QEMU, where it is installed, as a second opinion.

use guest::{Options, build};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long QEMU may take, including a slow host.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the guest under TCG with one of QEMU's processor models; returns what the serial port
/// showed, or `None` without QEMU.
fn run(processor: &str) -> Option<String> {
    let image = build(&Options::qemu()).expect("the guest assembles");
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let kernel = directory.join(format!("guest-{processor}.bin"));
    let serial = directory.join(format!("guest-{processor}.txt"));
    std::fs::write(&kernel, &image.bytes).expect("the image can be written");
    let machine = ["-M", "pc", "-accel", "tcg", "-m", "16", "-display", "none", "-no-reboot"];
    let spawned = Command::new("qemu-system-x86_64")
        .args(machine)
        .args(["-cpu", processor, "-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .arg("-kernel")
        .arg(&kernel)
        .arg("-serial")
        .arg(format!("file:{}", serial.display()))
        .stdin(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: qemu-system-x86_64 does not start: {error}");
            return None;
        }
    };
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("QEMU can be waited for") {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill().expect("QEMU can be killed");
            child.wait().expect("QEMU can be waited for");
            panic!("no end after {LIMIT:?}: {}", std::fs::read_to_string(&serial).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let output = std::fs::read_to_string(&serial).expect("QEMU wrote the serial port's file");
    assert!(status.success(), "{status}: {output}");
    assert_eq!(image.missing_line(&output), None, "{output}");
    Some(output)
}

#[test]
fn passes_on_the_default_processor() {
    run("qemu64");
}

#[test]
fn passes_on_the_largest_processor_and_skips_nothing() {
    if let Some(output) = run("max") {
        assert!(!output.contains("skipped"), "{output}");
    }
}
