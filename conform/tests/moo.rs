//! The captured tests through the engines: a sample of them that the repository carries.

use conform::host::Engine;
use conform::moo::{self, Options};
use conform::{Progress, Shard};
use std::path::Path;

#[test]
fn sample_matches_in_all_that_is_defined() {
    for engine in [Engine::Interp, Engine::Jit, Engine::JitHelpers] {
        sample_matches(engine);
    }
}

fn sample_matches(engine: Engine) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/moo");
    let options = Options { paths: vec![dir], engine, ..Options::default() };
    let progress = Progress::new();
    let summary = moo::run(&options, &progress).expect("runs");
    assert!(summary.passed(), "{summary}");
    let score = summary.score();
    assert!(score.run >= 1000, "{summary}");
    assert!(score.strict < score.masked, "undefined flags differ somewhere: {summary}");
    assert!(score.explained > 0, "{summary}");
    assert_eq!(progress.snapshot().done, score.run);
}

#[test]
fn shards_cover_every_file_once() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/moo");
    let files = |shard: &str| {
        let shard = shard.parse::<Shard>().expect("valid");
        let options =
            Options { paths: vec![dir.clone()], shard, index: Some(0), ..Options::default() };
        moo::run(&options, &Progress::new()).expect("runs").files.len()
    };
    assert_eq!(files("1/2") + files("2/2"), files("1/1"));
}

#[test]
fn corrupt_files_are_results() {
    let dir = std::env::temp_dir().join(format!("ringshift-moo-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary directory");
    for (name, bytes) in [
        ("empty.MOO", &b""[..]),
        ("text.MOO", b"hello"),
        ("gzip.MOO.gz", &[0x1F, 0x8B, 8, 0, 0, 0]),
        ("header.MOO", b"MOO \xFF\xFF\xFF\xFF"),
    ] {
        std::fs::write(dir.join(name), bytes).expect("write");
    }
    let options = Options { paths: vec![dir.clone()], ..Options::default() };
    let summary = moo::run(&options, &Progress::new()).expect("runs");
    std::fs::remove_dir_all(&dir).expect("remove");
    assert_eq!(summary.files.len(), 4);
    assert!(summary.files.iter().all(|f| f.unreadable.is_some()) && !summary.passed());
}
