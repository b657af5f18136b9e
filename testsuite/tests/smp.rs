//! Debian's kernels on one, two and four virtual CPUs, under load.

use std::fmt::Write;
use testsuite::programs::{self, CONTENTION_RIGHT};
use testsuite::{Debian, EngineKind, Guest, StopReason};

/// Pipelines on every processor at once, timers on each, and the threads of
/// [`programs::contention`], which also runs with its threads on one processor each.
///
/// `ROUNDS` is how often each job of the pipelines goes round.
const SCRIPT: &str = "\
dmesg -n 1
m=RINGSHIFT
echo $m-CPUS $(nproc)
/contention
for job in 1 2 3 4; do
  (i=0; while [ $i -lt ROUNDS ]; do echo $i | cat | grep -q \"^$i\\$\" || echo $m-LOST; i=$((i + 1)); done) &
done
wait
for cpu in $(seq 0 $(($(nproc) - 1))); do
  taskset -c $cpu sleep 0.1 && echo $m-SLEPT-$cpu
done
dmesg | grep -iE 'BUG:|WARNING:|Oops|unchecked MSR|stall|lockup|not responding' && echo $m-TROUBLE
echo $m-DONE
";

fn runs_on(guest: Debian, cpus: u32, engine: EngineKind) {
    let (rounds, turns) = match engine {
        EngineKind::Jit => ("25", 20_000),
        EngineKind::Interp => ("5", 2000),
    };
    let script = SCRIPT.replace("ROUNDS", rounds);
    let contention = programs::contention(4, turns);
    let Some(guest) = Guest::debian_with(guest, &script, &[("contention", &contention)]) else {
        return;
    };
    let end = guest.cpus(cpus).engine(engine).run();
    let mut expected = format!("RINGSHIFT-CPUS {cpus}\r\n{CONTENTION_RIGHT}\r\n");
    for cpu in 0..cpus {
        let _ = write!(expected, "RINGSHIFT-SLEPT-{cpu}\r\n");
    }
    expected.push_str("RINGSHIFT-DONE");
    assert!(end.output.contains(&expected), "{}", end.output);
    assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
    eprintln!("{}", end.stats);
}

macro_rules! tests {
    ($($(#[$attribute:meta])* $name:ident: $guest:ident, $cpus:literal, $engine:ident;)*) => {$(
        $(#[$attribute])*
        #[test]
        fn $name() {
            runs_on(Debian::$guest, $cpus, EngineKind::$engine);
        }
    )*};
}

tests! {
    #[ignore = "one of many alike"]
    cloud_on_1_translated: CloudAmd64, 1, Jit;
    cloud_on_2_translated: CloudAmd64, 2, Jit;
    cloud_on_4_translated: CloudAmd64, 4, Jit;
    #[ignore = "one of many alike"]
    amd64_on_1_translated: Amd64, 1, Jit;
    amd64_on_2_translated: Amd64, 2, Jit;
    #[ignore = "one of many alike"]
    amd64_on_4_translated: Amd64, 4, Jit;
    #[ignore = "one of many alike"]
    pae_on_1_translated: Pae686, 1, Jit;
    pae_on_2_translated: Pae686, 2, Jit;
    #[ignore = "one of many alike"]
    pae_on_4_translated: Pae686, 4, Jit;
    cloud_on_2_interpreted: CloudAmd64, 2, Interp;
    #[ignore = "one of many alike"]
    cloud_on_4_interpreted: CloudAmd64, 4, Interp;
    #[ignore = "one of many alike"]
    amd64_on_1_interpreted: Amd64, 1, Interp;
    #[ignore = "one of many alike"]
    amd64_on_2_interpreted: Amd64, 2, Interp;
    #[ignore = "one of many alike"]
    amd64_on_4_interpreted: Amd64, 4, Interp;
    #[ignore = "one of many alike"]
    pae_on_2_interpreted: Pae686, 2, Interp;
    #[ignore = "one of many alike"]
    pae_on_4_interpreted: Pae686, 4, Interp;
}
