//! Ringshift's own guest: the first end-to-end test.

use guest::Options;
use machine::EngineKind;
use machine::lockstep::{self, Verdict};
use testsuite::{Guest, StopReason};

fn passes(options: &Options) {
    let image = guest::build(options).expect("the guest assembles");
    for engine in [EngineKind::Interp, EngineKind::Jit] {
        let end = Guest::embedded(&image).engine(engine).run();
        assert_eq!(end.reason, StopReason::PowerOff, "{engine:?}: {}", end.output);
        assert_eq!(image.missing_line(&end.output), None, "{engine:?}: {}", end.output);
    }
}

#[test]
fn every_check_passes() {
    passes(&Options::default());
}

#[test]
fn in_the_least_memory() {
    let image = guest::build(&Options::default()).expect("the guest assembles");
    let end = Guest::embedded(&image).memory(image.memory_size).run();
    assert_eq!(image.missing_line(&end.output), None, "{}", end.output);
}

#[test]
fn with_a_faster_timer_and_more_slices() {
    passes(&Options { timer_hz: 5000, slices: 200, ..Options::default() });
}

#[test]
fn with_a_slow_timer() {
    passes(&Options { timer_hz: 50, slices: 8, ..Options::default() });
}

#[test]
fn both_engines_in_lockstep() {
    let image = guest::build(&Options::default()).expect("the guest assembles");
    let options = lockstep::Options {
        kernel: machine::Kernel { image: image.bytes, ..machine::Kernel::default() },
        memory: 64 << 20,
        instructions: None,
    };
    match lockstep::run(&options, Box::new(std::io::sink())).expect("the machines can be built") {
        Verdict::Same { reason: Some(StopReason::PowerOff), instructions } => {
            assert!(instructions > 1_000_000, "only {instructions} instructions were compared");
        }
        other => panic!("{other:?}"),
    }
}
