//! A small seeded run against the host CPU, in each code size, and that a wrong engine is found.

use conform::Progress;
use conform::host::segments::LDT;
use conform::host::state::{Case, Outcome};
use conform::host::{self, Engine, GuestError, Interpreter, Options, Subject};

fn agree(bits: u32) {
    let engines = Engine::ALL.to_vec();
    let options = Options { bits, engines, count: 8, seed: 20, ..Options::default() };
    let progress = Progress::new();
    let summary = host::run(&options, &progress).expect("runs");
    assert!(summary.passed(), "{summary}");
    let total = summary.total();
    assert!(total.ran > 20_000, "{summary}");
    assert_eq!(total.scores.len(), 3);
    for score in &total.scores {
        assert_eq!(score.matched + score.not_offered, total.ran, "{summary}");
        assert!(score.matched - total.undefined > 10_000, "{summary}");
    }
    assert_eq!(progress.snapshot().done, total.ran + total.no_answer);
}

#[test]
fn the_engines_agree_with_the_host_in_64_bit_code() {
    agree(64);
}

#[test]
fn the_engines_agree_with_the_host_in_32_bit_code() {
    agree(32);
}

#[test]
fn the_engines_agree_with_the_host_in_16_bit_code() {
    agree(16);
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

    fn forget(&mut self) {
        self.0.forget();
    }
}

/// An interpreter that is wrong about CF in the first case that it runs.
struct WrongAtFirst {
    right: Interpreter,
    fresh: bool,
}

impl Subject for WrongAtFirst {
    fn run(&mut self, case: &Case) -> Result<Outcome, String> {
        let mut outcome = self.right.run(case)?;
        outcome.state.rflags ^= u64::from(std::mem::take(&mut self.fresh));
        Ok(outcome)
    }

    fn forget(&mut self) {
        self.right.forget();
        self.fresh = true;
    }
}

#[test]
fn what_only_a_fresh_engine_does_is_shrunk() {
    let filter = Some("nop".to_owned());
    let engines = vec![Engine::Interp];
    let options = Options { filter, engines, count: 20, threads: 1, ..Options::default() };
    let make = |_| -> Result<Box<dyn Subject>, GuestError> {
        Ok(Box::new(WrongAtFirst { right: Interpreter::new(&LDT)?, fresh: true }))
    };
    let summary = host::run_with(&options, &Progress::new(), &make).expect("runs");
    assert_eq!(summary.total().scores[0].differed, 1, "{summary}");
    let findings = summary.forms.iter().flat_map(|form| &form.scores[0].findings);
    let text = &findings.last().expect("a finding").text;
    assert!(text.contains("RFLAGS: host") && !text.contains("RBX="), "{text}");
}

#[test]
fn a_wrong_engine_is_found_and_shrunk() {
    let filter = Some("sbb".to_owned());
    let options = Options { filter, count: 300, threads: 1, ..Options::default() };
    // The interpreter is wrong, and the other engine is not.
    let make = |engine| -> Result<Box<dyn Subject>, GuestError> {
        let right = Interpreter::new(&LDT)?;
        Ok(if engine == Engine::Interp { Box::new(Wrong(right)) } else { Box::new(right) })
    };
    let summary = host::run_with(&options, &Progress::new(), &make).expect("runs");
    assert!(!summary.passed(), "{summary}");
    let text = summary.to_string();
    let [wrong, right] = &summary.total().scores[..] else { panic!("{summary}") };
    assert_eq!((wrong.engine, right.engine), (Engine::Interp, Engine::Jit));
    assert!(wrong.differed > 0 && right.differed == 0, "{text}");
    let findings = summary.forms.iter().map(|form| form.scores[0].findings.first());
    let finding = findings.flatten().next().expect("a finding");
    assert!(text.contains("RAX: host"), "{text}");
    assert!(
        finding.text.contains("conform host --bits 64 --seed 1 --engine interp --form Sbb"),
        "{text}"
    );
    // What has nothing to do with it is gone from the state.
    assert!(!finding.text.contains("YMM") && !finding.text.contains("ST0"), "{text}");
    let failed =
        summary.report().suites.into_iter().map(|suite| {
            (suite.suite, suite.groups.iter().any(|group| !group.failures.is_empty()))
        });
    let expected = [("host-64-interp".to_owned(), true), ("host-64-jit".to_owned(), false)];
    assert_eq!(failed.collect::<Vec<_>>(), expected);
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
