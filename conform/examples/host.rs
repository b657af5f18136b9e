//! Runs the host suite: for work on the suite itself.

use conform::{Progress, host};

fn main() {
    let mut args = std::env::args().skip(1);
    let mut options = host::Options::default();
    let mut table = false;
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(1);
        match arg.as_str() {
            "--seed" => options.seed = number(),
            "--count" => options.count = number(),
            "--bits" => options.bits = number() as u32,
            "--case" => options.case = Some(number()),
            "--threads" => options.threads = number() as usize,
            "--keep" => options.keep = number() as usize,
            "--jit" => options.engines = vec![host::Engine::Jit],
            "--all" => options.engines = host::Engine::ALL.to_vec(),
            "--form" => options.form = args.next(),
            "--table" => table = true,
            _ => options.filter = Some(arg),
        }
    }
    match host::run(&options, &Progress::new()) {
        Ok(summary) if table => println!("{}", summary.coverage()),
        Ok(summary) => println!("{summary}"),
        Err(error) => eprintln!("{error}"),
    }
}
