//! A small seeded run against the host CPU, in each code size, and that a wrong engine is found.

use conform::Progress;
use conform::host::segments::LDT;
use conform::host::state::{Case, Outcome};
use conform::host::{self, Engine, Interpreter, Options, Subject};

fn agrees(bits: u32, engine: Engine) {
    let options = Options { bits, engine, count: 8, seed: 20, ..Options::default() };
    let progress = Progress::new();
    let summary = host::run(&options, &progress).expect("runs");
    assert!(summary.passed(), "{summary}");
    let total = summary.total();
    assert!(total.ran > 20_000, "{summary}");
    assert!(total.matched - total.undefined > 10_000, "{summary}");
    assert_eq!(progress.snapshot().done, total.ran + total.no_answer);
}

#[test]
fn agrees_in_64_bit_code() {
    agrees(64, Engine::Interp);
}

#[test]
fn agrees_in_32_bit_code() {
    agrees(32, Engine::Interp);
}

#[test]
fn agrees_in_16_bit_code() {
    agrees(16, Engine::Interp);
}

#[test]
fn translated_code_agrees() {
    for bits in [64, 32, 16] {
        agrees(bits, Engine::Jit);
    }
}

#[test]
fn translated_code_that_only_calls_helpers_agrees() {
    for bits in [64, 32, 16] {
        agrees(bits, Engine::JitHelpers);
    }
}

#[test]
fn the_same_seed_makes_the_same_cases() {
    let generator = |seed| host::generate::Generator::new(seed, 64);
    for (form, _) in host::generate::forms::forms(64).into_iter().step_by(97) {
        let [a, b, c] = [1, 1, 2].map(|seed| generator(seed).case(form, 3));
        let state = |case: &Option<Case>| case.as_ref().map(|c| (c.code, c.state));
        assert_eq!(state(&a), state(&b));
        if a.is_some() {
            assert_ne!(state(&a), state(&c), "{form:?}");
        }
    }
}

/// An interpreter with a bug: where AL should become 0xFF, it becomes zero.
struct Wrong(Interpreter);

impl Subject for Wrong {
    fn run(&mut self, case: &Case) -> Result<Outcome, String> {
        let mut outcome = self.0.run(case)?;
        if outcome.state.gpr[0] as u8 == 0xFF {
            outcome.state.gpr[0] &= !0xFF;
        }
        Ok(outcome)
    }
}

#[test]
fn a_wrong_engine_is_found_and_shrunk() {
    let filter = Some("sbb".to_owned());
    let options = Options { filter, count: 300, threads: 1, ..Options::default() };
    let make = || Ok(Box::new(Wrong(Interpreter::new(&LDT)?)) as Box<dyn Subject>);
    let summary = host::run_with(&options, &Progress::new(), &make).expect("runs");
    assert!(!summary.passed(), "{summary}");
    let text = summary.to_string();
    let finding = summary.forms.iter().find_map(|form| form.findings.first()).expect("a finding");
    assert!(text.contains("RAX: host"), "{text}");
    assert!(
        finding.text.contains("conform host --bits 64 --seed 1 --engine interp --form Sbb"),
        "{text}"
    );
    // What has nothing to do with it is gone from the state.
    assert!(!finding.text.contains("YMM") && !finding.text.contains("ST0"), "{text}");
    assert!(summary.report().groups.iter().any(|group| !group.failures.is_empty()));
}

#[test]
fn every_mnemonic_is_in_the_coverage_table() {
    let options = Options { count: 1, filter: Some("r*".to_owned()), ..Options::default() };
    let summary = host::run(&options, &Progress::new()).expect("runs");
    let table = summary.coverage();
    for (mnemonic, why) in [("RDTSC", "not generated"), ("ROL", ""), ("RDRAND", "random")] {
        let line = table.lines().find(|l| l.starts_with(&format!("| {mnemonic} |"))).expect("line");
        assert!(line.contains(why), "{line}");
    }
}

#[test]
fn nonsense_options_are_errors() {
    let wrong = Options { bits: 8, ..Options::default() };
    assert!(host::run(&wrong, &Progress::new()).is_err());
    let none = Options { filter: Some("bogus".to_owned()), ..Options::default() };
    assert!(host::run(&none, &Progress::new()).is_err());
}
