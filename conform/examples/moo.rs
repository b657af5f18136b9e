//! Runs the MOO suite over paths: for work on the suite itself.

use conform::host::Engine;
use conform::{Progress, moo};

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    let mut options = moo::Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-f" => options.filter = args.next(),
            "--jit" => options.engine = Engine::Jit,
            "-i" => options.index = args.next().and_then(|n| n.parse().ok()),
            _ => options.paths.push(arg.into()),
        }
    }
    match moo::run(&options, &Progress::new()) {
        Ok(summary) => println!("{summary}"),
        Err(error) => eprintln!("{error}"),
    }
}
