//! The guest on somebody else's machine: under QEMU, where it is installed, as a second opinion.

use guest::{DEBUG_EXIT_ALIVE, DEBUG_EXIT_FAILED, Image, Options, Parts, PowerOff, build};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long QEMU may take, including a slow host.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs an image under TCG with one of QEMU's processor models; returns QEMU's exit status and
/// what the serial port showed, or `None` without QEMU.
fn run(image: &Image, name: &str, processor: &str) -> Option<(i32, String)> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let kernel = directory.join(format!("{name}.bin"));
    let serial = directory.join(format!("{name}.txt"));
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
            let output = std::fs::read_to_string(&serial).unwrap_or_default();
            panic!("no end after {LIMIT:?}: {output}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let output = std::fs::read_to_string(&serial).expect("QEMU wrote the serial port's file");
    Some((status.code().expect("QEMU ends by itself"), output))
}

/// Runs the guest and expects its whole transcript and a power-off.
fn passes(options: &Options, name: &str, processor: &str) -> Option<String> {
    let image = build(options).expect("the guest assembles");
    let (status, output) = run(&image, name, processor)?;
    assert_eq!(status, 0, "{output}");
    assert_eq!(image.missing_line(&output), None, "{output}");
    Some(output)
}

#[test]
fn passes_on_the_default_processor() {
    passes(&Options::qemu(), "default", "qemu64");
}

#[test]
fn passes_on_the_largest_processor_and_skips_nothing() {
    if let Some(output) = passes(&Options::qemu(), "largest", "max") {
        assert!(!output.contains("skipped"), "{output}");
    }
}

#[test]
fn passes_without_its_optional_parts() {
    let parts = Parts {
        call_gates: false,
        hardware_task_switch: false,
        virtual_8086: false,
        floating_point: false,
        computation: false,
        compatibility: false,
        timer: false,
    };
    passes(&Options { parts, ..Options::qemu() }, "without-parts", "max");
}

#[test]
fn a_check_that_is_never_reached_is_a_failure() {
    let mut image = build(&Options::qemu()).expect("the guest assembles");
    let linear = image.symbols["kernel/total_checks"];
    // The kernel's linear addresses are physical ones with bit 31 and all above it set.
    let offset = ((linear & 0x7FFF_FFFF) - image.load_address) as usize;
    image.bytes[offset] += 1;
    if let Some((status, output)) = run(&image, "unreached", "max") {
        assert_eq!(status, (DEBUG_EXIT_FAILED << 1 | 1) as i32, "{output}");
        assert!(output.contains("0 checks failed"), "{output}");
        assert!(output.contains("ringshift guest: FAILED"), "{output}");
    }
}

#[test]
fn a_machine_without_power_off_ends_by_debug_exit() {
    let power_off = PowerOff { port: 0x80, value: 0 };
    let image = build(&Options { power_off, ..Options::qemu() }).expect("the guest assembles");
    if let Some((status, output)) = run(&image, "without-power-off", "max") {
        assert_eq!(status, (DEBUG_EXIT_ALIVE << 1 | 1) as i32, "{output}");
        assert_eq!(image.missing_line(&output), None, "{output}");
    }
}
