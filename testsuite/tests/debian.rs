//! Debian's own kernels, unmodified, to user space and back.
//!
//! They are fetched with apt into the user's cache. Where that is impossible, the tests say so and
//! pass.

use testsuite::{Debian, End, EngineKind, Guest, StopReason};

testsuite::both_engines! {
    cloud_kernel_boots_and_powers_off,
    pae_kernel_boots_and_powers_off,
    hpet_keeps_time,
    shell_answers,
    reboot_reaches_the_machine,
}

/// What the script must say, put together in the guest so that no echo of it counts.
const SCRIPT: &str = "\
m=RINGSHIFT
echo $m-USER-SPACE $(uname -m)
awk 'BEGIN { for (i = 1; i <= 1000; i++) s += i * i; print \"sum\", s, \"third\", 1 / 3 }'
sleep 1 && echo $m-SLEPT
grep -c . /proc/interrupts > /dev/null && echo $m-INTERRUPTS
dmesg | grep -iE 'BUG:|WARNING:|Oops|unchecked MSR|stall' && echo $m-TROUBLE
echo $m-PCI $(ls /sys/bus/pci/devices)
echo $m-DONE
";

/// Leaves out the kernel's tests of its cryptography, half of its start.
const QUICK: &str = "quiet cryptomgr.notests";

fn check(end: &End, machine: &str) {
    let said = |text: &str| end.output.contains(text);
    assert!(said(&format!("RINGSHIFT-USER-SPACE {machine}")), "{}", end.output);
    assert!(said("sum 333833500 third 0.333333"), "{}", end.output);
    assert!(said("RINGSHIFT-SLEPT"), "{}", end.output);
    assert!(said("RINGSHIFT-INTERRUPTS"), "{}", end.output);
    assert!(said("RINGSHIFT-PCI 0000:00:00.0 0000:00:01.0 0000:00:01.1"), "{}", end.output);
    assert!(said("RINGSHIFT-DONE"), "{}", end.output);
    assert!(!said("RINGSHIFT-TROUBLE"), "the kernel complained:\n{}", end.output);
    assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
    eprintln!("{}", end.stats);
}

fn cloud_kernel_boots_and_powers_off(engine: EngineKind) {
    let Some(guest) = Guest::debian(Debian::CloudAmd64, SCRIPT) else { return };
    check(&guest.engine(engine).run(), "x86_64");
}

fn pae_kernel_boots_and_powers_off(engine: EngineKind) {
    let Some(guest) = Guest::debian(Debian::Pae686, SCRIPT) else { return };
    check(&guest.engine(engine).run(), "i686");
}

/// Half a second by the guest's timers is half a second by the HPET, once the host is not busy: it is
/// never less.
fn hpet_keeps_time(engine: EngineKind) {
    let script = "\
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  read a b < /proc/uptime; sleep 0.5; read c d < /proc/uptime
  verdict=$(awk \"BEGIN { t = $c - $a; print t < 0.49 ? \\\"LOST\\\" : t < 1 ? \\\"KEPT\\\" : \\\"LATE\\\" }\")
  echo TIME-$verdict
  [ $verdict = LATE ] || break
done
";
    let Some(guest) = Guest::debian(Debian::CloudAmd64, script) else { return };
    let guest = guest.append(QUICK).append("clocksource=hpet notsc no-kvmclock");
    let end = guest.engine(engine).run();
    assert!(end.output.contains("hpet\r\n") && end.output.contains("TIME-KEPT"), "{}", end.output);
}

fn shell_answers(engine: EngineKind) {
    let Some(guest) = Guest::debian_shell(Debian::CloudAmd64) else { return };
    let mut guest = guest.append(QUICK).engine(engine).start();
    guest.wait_for("/root # ");
    guest.type_line("echo $((6 * 7))-is-the-answer");
    guest.wait_for("42-is-the-answer");
    guest.wait_for("/root # ");
    guest.type_line("cat /proc/cpuinfo | grep -c processor");
    guest.wait_for("\n1\r\n");
    guest.wait_for("/root # ");
    guest.type_line("exit");
    let end = guest.finish();
    assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
}

/// A kernel that is told to do so reboots rather than powers off.
fn reboot_reaches_the_machine(engine: EngineKind) {
    let Some(guest) = Guest::debian(Debian::CloudAmd64, "reboot -f") else { return };
    let end = guest.append(QUICK).engine(engine).run();
    assert_eq!(end.reason, StopReason::Reset, "{}", end.output);
}
