//! ACPI S3: the guest sleeps with its memory kept, and goes on where it said.

use testsuite::{Debian, End, EngineKind, Guest, StopReason, kernels};

testsuite::both_engines! {
    an_alarm_wakes_at_the_waking_vector,
    the_power_button_wakes,
    the_extended_waking_vector_goes_before,
    without_a_waking_vector_in_reach_it_starts_anew,
    linux_sleeps_and_wakes,
    linux_sleeps_and_wakes_through_firmware,
}

fn an_alarm_wakes_at_the_waking_vector(engine: EngineKind) {
    let image = kernels::suspend(kernels::Wakener::Alarm, kernels::Waking::Real);
    let end = Guest::kernel("suspend", image).engine(engine).cpus(2).run();
    assert_eq!((end.reason, end.output.as_str()), (StopReason::PowerOff, "sleep\r\nkept\r\n"));
}

fn the_power_button_wakes(engine: EngineKind) {
    let image = kernels::suspend(kernels::Wakener::PowerButton, kernels::Waking::Real);
    let mut guest = Guest::kernel("suspend", image).engine(engine).start();
    guest.wait_for("sleep\r\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    guest.press_power_button();
    let end = guest.finish();
    assert_eq!((end.reason, end.output.as_str()), (StopReason::PowerOff, "sleep\r\nkept\r\n"));
}

fn the_extended_waking_vector_goes_before(engine: EngineKind) {
    let image = kernels::suspend(kernels::Wakener::Alarm, kernels::Waking::Flat);
    let end = Guest::kernel("suspend", image).engine(engine).run();
    assert_eq!((end.reason, end.output.as_str()), (StopReason::PowerOff, "sleep\r\nflat\r\n"));
}

fn without_a_waking_vector_in_reach_it_starts_anew(engine: EngineKind) {
    for waking in [kernels::Waking::None, kernels::Waking::High] {
        let image = kernels::suspend(kernels::Wakener::Alarm, waking);
        let end = Guest::kernel("suspend", image).engine(engine).run();
        assert_eq!((end.reason, end.output.as_str()), (StopReason::Reset, "sleep\r\n"));
    }
}

/// Sleeps twice for two seconds each, with a file in memory and a process on each processor.
const SCRIPT: &str = "\
dmesg -n 1
m=RINGSHIFT
echo kept > /root/file
for turn in 1 2; do
  echo +2 > /sys/class/rtc/rtc0/wakealarm
  echo mem > /sys/power/state && echo $m-WOKE-$turn
done
echo $m-FILE $(cat /root/file) CPUS $(nproc)
for cpu in $(seq 0 $(($(nproc) - 1))); do
  taskset -c $cpu sleep 0.1 && echo $m-SLEPT-$cpu
done
dmesg | grep -iE 'BUG:|WARNING:|Oops|unchecked MSR|stall|lockup|not responding' && echo $m-TROUBLE
echo $m-DONE
";

fn check(end: &End) {
    let expected = "RINGSHIFT-WOKE-1\r\nRINGSHIFT-WOKE-2\r\nRINGSHIFT-FILE kept CPUS 2\r\n\
        RINGSHIFT-SLEPT-0\r\nRINGSHIFT-SLEPT-1\r\nRINGSHIFT-DONE";
    assert!(end.output.contains(expected), "{}", end.output);
    assert_eq!(end.reason, StopReason::PowerOff, "{}", end.output);
    eprintln!("{}", end.stats);
}

fn linux(engine: EngineKind) -> Option<Guest> {
    let guest = Guest::debian(Debian::CloudAmd64, SCRIPT)?;
    Some(guest.append("quiet cryptomgr.notests").cpus(2).engine(engine))
}

fn linux_sleeps_and_wakes(engine: EngineKind) {
    let Some(guest) = linux(engine) else { return };
    check(&guest.run());
}

fn linux_sleeps_and_wakes_through_firmware(engine: EngineKind) {
    let Some(guest) = linux(engine).and_then(Guest::by_setup_code) else { return };
    check(&guest.run());
}
