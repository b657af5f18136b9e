//! Guests of a few instructions: how a machine ends, and its serial port.

use std::time::{Duration, Instant};
use testsuite::{Guest, StopReason, kernels};

fn run(name: &str, image: Vec<u8>) -> testsuite::End {
    Guest::kernel(name, image).run()
}

#[test]
fn power_off_ends_the_machine() {
    let end = run("hello", kernels::hello());
    assert_eq!(end.reason, StopReason::PowerOff);
    assert_eq!(end.output, "hello\r\n");
}

#[test]
fn debug_exit_has_the_odd_status() {
    for value in [0, 1, 0x21, 0x7F] {
        let end = run("debug exit", kernels::debug_exit(value));
        assert_eq!(end.reason, StopReason::DebugExit(u32::from(value) << 1 | 1));
    }
}

#[test]
fn triple_fault_names_the_chain() {
    let end = run("triple fault", kernels::triple_fault());
    let StopReason::TripleFault(words) = &end.reason else { panic!("{:?}", end.reason) };
    for part in ["#UD", "#DF", "IDT"] {
        assert!(words.contains(part), "no {part} in: {words}");
    }
}

#[test]
fn keyboard_controller_resets() {
    let end = run("reset", kernels::reset());
    assert_eq!((end.reason, end.output.as_str()), (StopReason::Reset, "booted\r\n"));
}

#[test]
fn timeout_stops_a_guest_that_spins() {
    let start = Instant::now();
    let end = Guest::kernel("spin", kernels::spin()).timeout(Duration::from_millis(300)).run();
    assert_eq!(end.reason, StopReason::Timeout);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(end.stats.instructions > 100_000, "{}", end.stats);
}

#[test]
fn timeout_stops_a_guest_that_sleeps() {
    let end = Guest::kernel("halted", kernels::halted()).timeout(Duration::from_millis(300)).run();
    assert_eq!(end.reason, StopReason::Timeout);
    assert!(end.stats.instructions < 1000, "HLT does not wait: {}", end.stats);
}

#[test]
fn quit_stops_from_another_thread() {
    for image in [kernels::spin(), kernels::halted()] {
        let guest = Guest::kernel("quit", image).start();
        std::thread::sleep(Duration::from_millis(50));
        guest.quit();
        assert_eq!(guest.finish().reason, StopReason::Quit);
    }
}

#[test]
fn input_reaches_the_guest_in_order() {
    let mut guest = Guest::kernel("echo", kernels::echo()).start();
    guest.wait_for("ready\r\n");
    // Longer than any FIFO.
    let text: String = ('0'..='9').cycle().take(500).collect();
    guest.type_line(&text);
    guest.wait_for(&text);
    guest.type_line("q");
    assert_eq!(guest.finish().reason, StopReason::PowerOff);
}
