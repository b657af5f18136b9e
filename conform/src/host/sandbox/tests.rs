//! Engines that crash, hang or panic, in real processes.

use super::super::generate::Generator;
use super::super::segments::LDT;
use super::super::state::{Case, Outcome};
use super::super::{
    Engine, GuestError, HostError, Interpreter, Options, Score, Subject, Summary, run_with,
};
use super::{NoAnswer, Sandbox};
use crate::report::Destination;
use crate::{Progress, Shard};
use iced_x86::Code;
use std::arch::asm;
use std::time::Duration;
use std::{hint, process, ptr};

/// An interpreter that does something else first, told the case and how many it has run.
struct Odd {
    right: Interpreter,
    before: fn(&Case, u64),
    ran: u64,
}

impl Subject for Odd {
    fn run(&mut self, case: &Case) -> Result<Outcome, String> {
        (self.before)(case, self.ran);
        self.ran += 1;
        self.right.run(case)
    }

    fn forget(&mut self) {
        self.right.forget();
    }
}

fn options() -> Options {
    let form = Some("Sbb_rm32_r32".to_owned());
    Options { form, count: 20, keep: 30, threads: 1, ..Options::default() }
}

/// The interpreter is odd, and the other engine is not.
fn run_odd(options: &Options, before: fn(&Case, u64)) -> Summary {
    let progress = Progress::new();
    let summary = run_with(options, &progress, &|engine| {
        let right = Interpreter::new(&LDT)?;
        let odd = engine == Engine::Interp;
        Ok(if odd { Box::new(Odd { right, before, ran: 0 }) } else { Box::new(right) })
    });
    let summary = summary.expect("runs");
    assert_eq!(progress.snapshot().done, summary.total().ran);
    summary
}

/// The scores of the odd one and the other, which is to have no trouble.
fn scores(summary: &Summary) -> Score {
    let total = summary.total();
    let [odd, right] = &total.scores[..] else { panic!("{summary}") };
    assert_eq!((right.differed, right.not_run, right.matched), (0, 0, total.ran), "{summary}");
    assert_eq!(odd.matched + odd.differed + odd.not_run, total.ran, "{summary}");
    odd.clone()
}

fn findings(summary: &Summary) -> Vec<(u64, &str)> {
    let found = summary.forms.iter().flat_map(|form| &form.scores[0].findings);
    found.map(|finding| (finding.number, finding.text.as_str())).collect()
}

fn read_from_nowhere(case: &Case, _: u64) {
    if case.number % 8 == 3 {
        // SAFETY: none: nothing is mapped there, and the process dies of it, as it is to.
        unsafe { ptr::read_volatile(ptr::without_provenance::<u8>(0x1010)) };
    }
}

#[test]
fn a_crash_is_a_finding_and_the_run_goes_on() {
    let summary = run_odd(&options(), read_from_nowhere);
    assert_eq!((scores(&summary).differed, summary.total().ran), (3, 20), "{summary}");
    assert!(!summary.passed());
    let found = findings(&summary);
    assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 11, 19]);
    for (number, text) in found {
        assert!(text.starts_with("sbb ") && text.contains("\n  from "), "{text}");
        assert!(text.contains("\n  crash by SIGSEGV: host "), "{text}");
        assert!(text.contains("; fault address 0x1010\n"), "{text}");
        // The host's instruction, a load.
        assert!(text.contains("ours host code at 0x") && text.contains(", mov"), "{text}");
        let again = "--bits 64 --seed 1 --engine interp --form Sbb_rm32_r32 --case ";
        assert!(
            text.ends_with(&format!("again: ringshift conform host {again}{number}")),
            "{text}"
        );
        // What has nothing to do with it is gone.
        assert!(!text.contains("YMM") && !text.contains("RBX="), "{text}");
    }
    let line = summary.coverage();
    let line = line.lines().find(|line| line.starts_with("| SBB |")).expect("a line");
    assert!(line.starts_with("| SBB | 1 | 20 | 17 | 20 | 3 |"), "{line}");
}

#[test]
fn reports_hold_the_crash() {
    let summary = run_odd(&options(), read_from_nowhere);
    let report = summary.report();
    let failed = |i: usize| report.suites[i].groups[0].failures.len();
    assert_eq!((failed(0), failed(1)), (3, 0));
    let directory = std::env::temp_dir().join(format!("ringshift-crash-{}", process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    for (name, to) in
        [("r.xml", Destination::Junit as fn(_) -> _), ("r.json", Destination::Json as fn(_) -> _)]
    {
        let path = directory.join(name);
        report.write(&to(path.clone())).expect("writes");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(text.matches("crash by SIGSEGV").count(), 3, "{text}");
        assert!(text.contains("--form Sbb_rm32_r32 --case 11"), "{text}");
    }
    std::fs::remove_dir_all(&directory).expect("removes");
}

#[test]
fn threads_and_shards_do_not_change_what_crashes() {
    let filter = Some("sbb".to_owned());
    let all = Options { form: None, filter, count: 5, keep: 1, ..options() };
    let texts = |summary: &Summary| {
        let texts = findings(summary).into_iter().map(|(_, text)| text.to_owned());
        texts.collect::<Vec<_>>()
    };
    let one = texts(&run_odd(&all, read_from_nowhere));
    assert!(one.len() > 10, "{one:#?}");
    assert_eq!(texts(&run_odd(&Options { threads: 3, ..all.clone() }, read_from_nowhere)), one);
    let part = |shard: &str| {
        let shard: Shard = shard.parse().expect("valid");
        texts(&run_odd(&Options { shard, ..all.clone() }, read_from_nowhere))
    };
    let (mut parts, mut whole) = ([part("1/2"), part("2/2")].concat(), one);
    parts.sort();
    whole.sort();
    assert_eq!(parts, whole);
}

#[test]
fn every_way_to_die_has_its_name() {
    let summary = run_odd(&Options { count: 9, ..options() }, |case, _| {
        // SAFETY: none: the process dies of it, as it is to.
        unsafe {
            match case.number {
                1 => asm!("ud2"),
                2 => asm!("xor edx, edx", "div edx", out("eax") _, out("edx") _),
                3 => asm!("int3"),
                4 => drop(libc::raise(libc::SIGBUS)),
                5 => process::abort(),
                6 => process::exit(7),
                // An address that is not canonical.
                7 => asm!("mov al, [{}]", in(reg) 1u64 << 63, out("al") _),
                _ => {}
            }
        }
    });
    assert_eq!(scores(&summary).matched, 2, "{summary}");
    let expected = [
        ("SIGILL", "host code at 0x"),
        ("SIGFPE", "host code at 0x"),
        ("SIGTRAP", "host code at 0x"),
        ("SIGBUS", "host code at 0x"),
        ("SIGABRT", "the place is not known"),
        ("exit with status 7", "no fault"),
        ("SIGSEGV", "host code at 0x"),
    ];
    let found = findings(&summary);
    assert_eq!(found.len(), expected.len());
    for ((number, text), (of, place)) in found.into_iter().zip(expected) {
        let line = text.lines().find(|line| line.starts_with(&format!("  crash by {of}: host ")));
        let line = line.unwrap_or_else(|| panic!("{number}: {text}"));
        assert!(line.contains(&format!(", ours {place}")), "{number}: {text}");
    }
    let found = findings(&summary);
    assert!(found[0].1.contains(", ud2;"), "{}", found[0].1);
    assert!(found[1].1.contains(", div edx;"), "{}", found[1].1);
    assert!(found[3].1.contains("; sent by a process\n"), "{}", found[3].1);
    assert!(found[6].1.contains("; no fault address\n"), "{}", found[6].1);
}

fn spin(_: &Case, _: u64) {
    loop {
        hint::spin_loop();
    }
}

#[test]
fn a_hang_is_a_finding_and_the_run_goes_on() {
    let summary = run_odd(&Options { count: 6, ..options() }, |case, ran| {
        if case.number == 2 {
            spin(case, ran);
        }
    });
    assert_eq!((scores(&summary).differed, scores(&summary).matched), (1, 5), "{summary}");
    let [(2, text)] = findings(&summary)[..] else { panic!("{summary}") };
    assert!(text.contains("\n  hang: host completed, ours host code at 0x"), "{text}");
    assert!(text.ends_with("--engine interp --form Sbb_rm32_r32 --case 2"), "{text}");
}

#[test]
fn hangs_without_end_are_given_up() {
    let summary = run_odd(&Options { count: 300, keep: 1, ..options() }, spin);
    let score = scores(&summary);
    assert_eq!((score.differed, score.not_run), (3, 297), "{summary}");
    assert!(summary.coverage().contains("interp crashed or hung too often: 297 not run"));
    assert!(summary.to_string().contains("3 of 300 differ, 297 not run"), "{summary}");
}

#[test]
fn crashes_without_end_are_given_up() {
    let summary = run_odd(&Options { count: 150, keep: 1, ..options() }, |_, _| process::abort());
    let score = scores(&summary);
    assert_eq!((score.differed, score.not_run), (100, 50), "{summary}");
}

#[test]
fn a_crash_behind_other_cases_says_so() {
    let summary = run_odd(&options(), |_, ran| {
        if ran == 12 {
            process::abort();
        }
    });
    assert_eq!(scores(&summary).differed, 1, "{summary}");
    let [(12, text)] = findings(&summary)[..] else { panic!("{summary}") };
    assert!(text.contains("only behind other cases"), "{text}");
    assert!(text.ends_with("--engine interp --form Sbb_rm32_r32 --count 13"), "{text}");
}

#[test]
fn a_panic_says_where() {
    let summary = run_odd(&options(), |case, _| assert_ne!(case.number, 4, "just so"));
    let [(4, text)] = findings(&summary)[..] else { panic!("{summary}") };
    assert!(text.contains("ending: host completed, ours PANIC at "), "{text}");
    assert!(text.contains("tests.rs:"), "{text}");
}

#[test]
fn what_cannot_be_made_is_an_error() {
    type Make = fn() -> Result<Box<dyn Subject>, GuestError>;
    let error = |make: Make| match run_with(&options(), &Progress::new(), &|_| make()) {
        Err(HostError::Sandbox(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(error(|| process::abort()), "cannot make the engine: SIGABRT");
    let text = error(|| panic!("no"));
    assert!(text.contains("PANIC at "), "{text}");
    let fault = || GuestError::Paging(x86::Fault::gp(0));
    assert!(error(|| Err(GuestError::Paging(x86::Fault::gp(0)))).contains(&fault().to_string()));
}

#[test]
fn a_hang_is_no_answer_and_the_next_case_has_one() {
    let mut sandbox = Sandbox::new(&LDT).expect("a sandbox");
    // Of processor time, and more than it takes to set up another child.
    sandbox.patience = Duration::from_millis(300);
    let good = Generator::new(1, 64).case(Code::Nopd, 0).expect("a case");
    let mut endless = good.clone();
    // jmp to itself, without single steps
    endless.code[..2].copy_from_slice(&[0xEB, 0xFE]);
    endless.linear = super::super::layout::WINDOW + super::super::layout::CODE as u64;
    endless.state.rip = endless.linear;
    endless.state.rflags &= !x86::flags::TF;
    let outcomes = sandbox.run(&[good.clone(), endless, good]).expect("runs");
    assert_eq!(outcomes[1], Err(NoAnswer::Hang));
    assert!(outcomes[0].is_ok() && outcomes[0] == outcomes[2]);
}
