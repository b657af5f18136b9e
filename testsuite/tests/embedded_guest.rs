//! Ringshift's own guest: the first end-to-end test.

use guest::Options;
use machine::lockstep::{self, Verdict};
use testsuite::{EngineKind, Guest, StopReason};

testsuite::both_engines! {
    every_check_passes,
    in_the_least_memory,
    with_a_faster_timer_and_more_slices,
    with_a_slow_timer,
}

fn passes(engine: EngineKind, options: &Options) {
    let image = guest::build(options).expect("the guest assembles");
    let end = Guest::embedded(&image).engine(engine).run();
    assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
    assert_eq!(image.missing_line(&end.output), None, "{}", end.output);
}

fn every_check_passes(engine: EngineKind) {
    passes(engine, &Options::default());
}

fn in_the_least_memory(engine: EngineKind) {
    let image = guest::build(&Options::default()).expect("the guest assembles");
    let end = Guest::embedded(&image).engine(engine).memory(image.memory_size).run();
    assert_eq!(image.missing_line(&end.output), None, "{}", end.output);
}

fn with_a_faster_timer_and_more_slices(engine: EngineKind) {
    passes(engine, &Options { timer_hz: 5000, slices: 200, ..Options::default() });
}

fn with_a_slow_timer(engine: EngineKind) {
    passes(engine, &Options { timer_hz: 50, slices: 8, ..Options::default() });
}

#[test]
fn both_engines_in_lockstep() {
    let image = guest::build(&Options::default()).expect("the guest assembles");
    let options = lockstep::Options {
        kernel: machine::Kernel { image: image.bytes, ..machine::Kernel::default() },
        memory: 64 << 20,
        instructions: None,
        strict: true,
    };
    match lockstep::run(&options, Box::new(std::io::sink())).expect("the machines can be built") {
        Verdict::Same { reason: Some(StopReason::PowerOff), instructions } => {
            assert!(instructions > 1_000_000, "only {instructions} instructions were compared");
        }
        other => panic!("{other:?}"),
    }
}
