//! Linux images started by their own 16-bit setup code, through SeaBIOS.
//!
//! SeaBIOS is the package seabios, and Debian's kernels are fetched with apt into the user's cache.
//! Where that is impossible, the tests say so and pass.

use machine::boot::wants_setup_code;
use machine::guests;
use testsuite::{Debian, EngineKind, Guest, StopReason, kernels};

testsuite::both_engines! {
    setup_code_finds_its_parts,
    setup_code_starts_debians_kernel,
    a_kernel_refuses_a_processor,
}

fn setup_code_finds_its_parts(engine: EngineKind) {
    for megabytes in [4, 100, 4000] {
        let guest = Guest::kernel("setup code", kernels::setup_code())
            .append("some words")
            .initrd([&b"initrd!!"[..], &[7; 100_000]].concat())
            .memory(megabytes << 20)
            .engine(engine);
        let Some(guest) = guest.by_setup_code() else { return };
        let end = guest.run();
        assert!(end.output.contains("some words|payload!|initrd!!"), "{}", end.output);
        assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
    }
}

fn setup_code_starts_debians_kernel(engine: EngineKind) {
    let Some(guest) = Guest::debian(Debian::CloudAmd64, "echo user $((6 * 7))") else { return };
    let guest = guest.append("quiet cryptomgr.notests").engine(engine);
    let Some(guest) = guest.by_setup_code() else { return };
    let end = guest.run();
    assert!(end.output.contains("user 42"), "{}", end.output);
    assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
}

/// What the setup code says where its kernel cannot run, on the screen and on COM1.
fn a_kernel_refuses_a_processor(engine: EngineKind) {
    for (kernel, cpu, words) in [
        (
            Debian::Pae686,
            "pentium",
            "This kernel requires an i686 CPU, but only detected an i586 CPU.",
        ),
        (Debian::Pae686, "486", "This kernel requires an i686 CPU, but only detected an i486 CPU."),
        (
            Debian::CloudAmd64,
            "pentium",
            "This kernel requires an x86-64 CPU, but only detected an i586 CPU.",
        ),
    ] {
        let Ok(files) = guests::available(kernel) else { return };
        let image = std::fs::read(files.kernel).expect("a fetched file is readable");
        let model: machine::Model = cpu.parse().expect("a known model");
        assert!(wants_setup_code(&image, &model.policy(1).expect("the host can")));
        assert!(!wants_setup_code(
            &image,
            &machine::Model::default().policy(1).expect("the host can")
        ));
        let guest = Guest::kernel("debian", image).cpu(cpu).engine(engine);
        let Some(guest) = guest.by_setup_code() else { return };
        let mut guest = guest.start();
        guest.wait_for(words);
        guest.wait_for_screen(words);
        guest.wait_for("Unable to boot - please use a kernel appropriate for your CPU.");
        guest.quit();
        guest.finish();
    }
}
