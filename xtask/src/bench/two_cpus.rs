//! `cargo xtask bench --two-cpus`: what a second virtual CPU is worth. A guest with two of them runs
//! a loop of its shell once, then two of the same loop side by side, in turns, and tells the times by
//! its own clock.

use super::contender::{self, Contender};
use super::guest::{DONE, Guest};
use super::process::{self, End, Limits};
use super::{Args, load_average};
use anyhow::{Context, Result, bail, ensure};
use std::time::Duration;

/// What a line with a measurement begins with.
const ALONE: &str = "BENCH: alone ";
const BOTH: &str = "BENCH: both ";

/// The guest's first program. The loop is as long as it must be to take the time asked for.
fn script(rounds: u32, seconds: f64) -> String {
    let centiseconds = (seconds * 100.0) as u64;
    format!(
        "\
#!/bin/busybox sh
/bin/busybox dmesg -n 1
/bin/busybox mkdir -p /proc
/bin/busybox mount -t proc proc /proc
work() {{ i=0; while [ $i -lt $count ]; do i=$((i + 1)); done; }}
now() {{ read up idle < /proc/uptime; echo $((${{up%.*}} * 100 + 1${{up#*.}} - 100)); }}
count=5000
spent=0
while [ $spent -lt {centiseconds} ]; do
  count=$((count * 2))
  start=$(now); work; spent=$(($(now) - start))
done
round=0
while [ $round -lt {rounds} ]; do
  start=$(now); work; echo \"{ALONE}$(($(now) - start))\"
  start=$(now); work & work & wait; echo \"{BOTH}$(($(now) - start))\"
  round=$((round + 1))
done
echo '{DONE}'
/bin/busybox poweroff -f
"
    )
}

/// One engine's times in centiseconds, by rounds.
#[derive(Default)]
struct Times {
    alone: Vec<u32>,
    both: Vec<u32>,
}

impl Times {
    fn note(&mut self, line: &str) {
        let number = |prefix| line.trim_end().strip_prefix(prefix)?.parse::<u32>().ok();
        self.alone.extend(number(ALONE));
        self.both.extend(number(BOTH));
    }

    /// How many times as fast two are side by side as one after the other, by rounds.
    fn speedups(&self) -> Vec<f64> {
        let rounds = self.alone.iter().zip(&self.both);
        rounds.map(|(&alone, &both)| 2.0 * f64::from(alone) / f64::from(both.max(1))).collect()
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    let guest = Guest::with_init(&script(args.rounds, args.seconds), args)?;
    let limits = Limits {
        silence: Duration::from_secs_f64(args.silence),
        total: Duration::from_secs_f64(args.timeout),
    };
    for contender in contender::choose(args)? {
        if !matches!(contender, Contender::Ringshift { .. }) {
            continue;
        }
        let before = load_average();
        let mut command = contender.boot(&guest, args.memory);
        command.args(["--cpus", "2"]);
        let mut times = Times::default();
        let mut done = false;
        let (end, _) = process::observe(command, limits, |line, _| {
            times.note(&line.text);
            done |= line.text.ends_with(DONE);
        })?;
        let name = contender.name();
        match end {
            End::Exit(status) => ensure!(status.success() && done, "{name}: ended with {status}"),
            End::Silent(time) => bail!("{name}: stopped after {time:?} of silence"),
            End::TooLong(time) => bail!("{name}: stopped after {time:?}"),
        }
        let after = load_average();
        println!(
            "{name}: a loop of the guest's shell on two virtual CPUs, load {before} to {after}"
        );
        println!("| round | alone, s | two side by side, s | times as fast |");
        println!("|---|---|---|---|");
        let mut speedups = times.speedups();
        let rounds = times.alone.iter().zip(&times.both).zip(&speedups).enumerate();
        for (round, ((&alone, &both), speedup)) in rounds {
            let [alone, both] = [alone, both].map(|time| f64::from(time) / 100.0);
            println!("| {} | {alone:.2} | {both:.2} | {speedup:.2} |", round + 1);
        }
        speedups.sort_by(f64::total_cmp);
        let median = speedups.get(speedups.len() / 2).context("the guest measured nothing")?;
        println!("median: {median:.2} times as fast\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_guest_are_understood() {
        let mut times = Times::default();
        for line in ["BENCH: alone 100\r", "noise", "BENCH: both 125", "BENCH: both x"] {
            times.note(line);
        }
        assert_eq!(times.speedups(), [1.6]);
    }
}
