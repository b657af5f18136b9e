//! Debian's own kernels, unmodified, to user space and back.
//!
//! They are fetched with apt into the user's cache. Where that is impossible, the tests say so and
//! pass.

use machine::EngineKind;
use testsuite::{Debian, End, Guest, StopReason};

/// What the script must say, put together in the guest so that no echo of it counts.
const SCRIPT: &str = "\
m=RINGSHIFT
echo $m-USER-SPACE $(uname -m)
awk 'BEGIN { for (i = 1; i <= 1000; i++) s += i * i; print \"sum\", s, \"third\", 1 / 3 }'
sleep 1 && echo $m-SLEPT
grep -c . /proc/interrupts > /dev/null && echo $m-INTERRUPTS
dmesg | grep -iE 'BUG:|WARNING:|Oops|unchecked MSR|stall' && echo $m-TROUBLE
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
    assert!(said("RINGSHIFT-DONE"), "{}", end.output);
    assert!(!said("RINGSHIFT-TROUBLE"), "the kernel complained:\n{}", end.output);
    assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
    eprintln!("{}", end.stats);
}

#[test]
fn cloud_kernel_boots_and_powers_off() {
    let Some(guest) = Guest::debian(Debian::CloudAmd64, SCRIPT) else { return };
    check(&guest.run(), "x86_64");
}

#[test]
fn cloud_kernel_translated() {
    let Some(guest) = Guest::debian(Debian::CloudAmd64, SCRIPT) else { return };
    check(&guest.engine(EngineKind::Jit).run(), "x86_64");
}

#[test]
fn pae_kernel_translated() {
    let Some(guest) = Guest::debian(Debian::Pae686, SCRIPT) else { return };
    check(&guest.engine(EngineKind::Jit).run(), "i686");
}

#[test]
fn pae_kernel_boots_and_powers_off() {
    let Some(guest) = Guest::debian(Debian::Pae686, SCRIPT) else { return };
    check(&guest.run(), "i686");
}

#[test]
fn shell_answers() {
    let Some(guest) = Guest::debian_shell(Debian::CloudAmd64) else { return };
    let mut guest = guest.append(QUICK).start();
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
#[test]
fn reboot_reaches_the_machine() {
    let Some(guest) = Guest::debian(Debian::CloudAmd64, "reboot -f") else { return };
    let end = guest.append(QUICK).run();
    assert_eq!(end.reason, StopReason::Reset, "{}", end.output);
}
