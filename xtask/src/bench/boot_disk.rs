//! `cargo xtask bench --boot-disk`: from the start of the process to the login prompt of a disk that
//! boots by itself, SeaBIOS and GRUB included.

use super::contender;
use super::process::cpu_time;
use super::results::{Results, Run};
use super::{Args, load_average, report};
use anyhow::{Context, Result, ensure};
use machine::guests::debian::Cache;
use machine::guests::disk;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

pub(super) fn run(args: &Args) -> Result<()> {
    let image = args.to.join("boot-disk.img");
    disk::build(&image, &Cache::open()?, &|line| eprintln!("{line}"))?;
    let contenders = contender::choose(args)?;
    let limit = Duration::from_secs_f64(args.timeout);
    let load_before = load_average();
    let mut results = Results::default();
    for round in 1..=args.rounds {
        for contender in &contenders {
            eprint!("round {round} of {}: {:<16} ", args.rounds, contender.name());
            let log = args.to.join(format!("{}-disk-{round}.log", contender.name()));
            let run = to_login(contender.boot_disk(&image, args.memory), limit, &log)?;
            match (&run.init, &run.problem) {
                (Some((wall, cpu)), _) => {
                    let (wall, cpu) = (wall.as_secs_f64(), cpu.as_secs_f64());
                    eprintln!("login after {wall:.2} s (CPU {cpu:.2} s)");
                }
                (None, problem) => {
                    eprintln!("{}; see {}", problem.as_deref().unwrap_or("no login"), log.display())
                }
            }
            results.add(contender.name(), run);
        }
    }
    let guest = "a disk of 65 MiB with GRUB, Debian's cloud kernel and busybox, as a snapshot";
    println!("{}", report::heading(args, &contenders, guest, load_before, load_average()));
    println!("{}", report::starts(&results, "login prompt", false));
    ensure!(!results.any_problem(), "not every run was complete");
    Ok(())
}

/// Runs `command` until the guest asks for a login, then ends it. All output goes to `log`.
fn to_login(mut command: Command, limit: Duration, log: &Path) -> Result<Run> {
    let mut file = std::fs::File::create(log).with_context(|| log.display().to_string())?;
    writeln!(file, "{command:?}")?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let mut stdout = child.stdout.take().context("a pipe")?;
    let (sender, parts) = channel();
    let reader = thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut part) {
            if sender.send((start.elapsed(), part[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    let mut run = Run::default();
    let mut said = Vec::new();
    while run.init.is_none() && run.problem.is_none() {
        match parts.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok((at, part)) => {
                let from = said.len().saturating_sub(disk::LOGIN_PROMPT.len());
                said.extend(part);
                let prompt = disk::LOGIN_PROMPT.as_bytes();
                if said[from..].windows(prompt.len()).any(|window| window == prompt) {
                    run.init = Some((at, cpu_time(child.id()).unwrap_or_default()));
                }
            }
            Err(RecvTimeoutError::Timeout) => run.problem = Some(format!("no login in {limit:?}")),
            Err(RecvTimeoutError::Disconnected) => {
                run.problem = Some("ended before the login".into());
            }
        }
    }
    run.wall = start.elapsed();
    child.kill()?;
    child.wait()?;
    drop(parts);
    let _ = reader.join();
    file.write_all(&said)?;
    Ok(run)
}
