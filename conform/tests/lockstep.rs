//! The built-in guest as a kernel of the lockstep suite, and what is no kernel.

use conform::lockstep::{self, Ending, Options};
use conform::{Progress, Shard};
use std::fs;
use std::path::PathBuf;

fn options(paths: Vec<PathBuf>) -> Options {
    Options {
        paths,
        initrd: None,
        append: String::new(),
        memory: 64 << 20,
        instructions: 300_000,
        strict: true,
        shard: Shard::ALL,
    }
}

#[test]
fn kernels_of_a_directory_are_run_one_by_one() {
    let directory = std::env::temp_dir().join(format!("ringshift-lockstep-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let image = guest::build(&guest::Options::default()).expect("the guest assembles");
    fs::write(directory.join("a.flat"), &image.bytes).expect("written");
    fs::write(directory.join("b.flat"), b"no kernel").expect("written");
    fs::write(directory.join("c.txt"), b"not looked at").expect("written");
    let progress = Progress::new();
    let run = |options: &Options| lockstep::run(options, &progress).expect("runs");
    let summary = run(&options(vec![directory.clone()]));
    let [good, bad] = &summary.kernels[..] else { panic!("{summary}") };
    assert!(
        matches!(good.ending, Ending::Same { instructions, reason: None } if instructions >= 300_000),
        "{summary}"
    );
    assert!(matches!(bad.ending, Ending::Error(_)), "{summary}");
    assert!(!summary.passed());
    let report = summary.report();
    assert_eq!(report.suites[0].groups.iter().filter(|group| group.failures.is_empty()).count(), 1);
    assert!(summary.to_string().contains("again: ringshift conform lockstep"), "{summary}");
    assert_eq!(progress.snapshot().done, 2);

    let half = Options { shard: "1/2".parse().expect("valid"), ..options(vec![directory.clone()]) };
    assert!(run(&half).passed());
    fs::remove_dir_all(&directory).expect("removed");
    assert!(lockstep::run(&options(vec![directory]), &progress).is_err());
}
