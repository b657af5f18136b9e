//! Guests of a few instructions: how a machine ends, and its serial port.

use std::time::{Duration, Instant};
use testsuite::{EngineKind, Guest, StopReason, kernels};

testsuite::both_engines! {
    power_off_ends_the_machine,
    debug_exit_has_the_odd_status,
    triple_fault_names_the_chain,
    keyboard_controller_resets,
    timeout_stops_a_guest_that_spins,
    timeout_stops_a_guest_that_sleeps,
    quit_stops_from_another_thread,
    input_reaches_the_guest_in_order,
    x87_errors_wait_for_irq_13,
    a_start_up_ipi_starts_at_once,
}

fn run(engine: EngineKind, name: &str, image: Vec<u8>) -> testsuite::End {
    Guest::kernel(name, image).engine(engine).run()
}

fn power_off_ends_the_machine(engine: EngineKind) {
    let end = run(engine, "hello", kernels::hello());
    assert_eq!(end.reason, StopReason::PowerOff);
    assert_eq!(end.output, "hello\r\n");
}

fn debug_exit_has_the_odd_status(engine: EngineKind) {
    for value in [0, 1, 0x21, 0x7F] {
        let end = run(engine, "debug exit", kernels::debug_exit(value));
        assert_eq!(end.reason, StopReason::DebugExit(u32::from(value) << 1 | 1));
    }
}

fn triple_fault_names_the_chain(engine: EngineKind) {
    let end = run(engine, "triple fault", kernels::triple_fault());
    let StopReason::TripleFault(words) = &end.reason else { panic!("{:?}", end.reason) };
    for part in ["#UD", "#DF", "IDT"] {
        assert!(words.contains(part), "no {part} in: {words}");
    }
}

fn keyboard_controller_resets(engine: EngineKind) {
    let end = run(engine, "reset", kernels::reset());
    assert_eq!((end.reason, end.output.as_str()), (StopReason::Reset, "booted\r\n"));
}

fn timeout_stops_a_guest_that_spins(engine: EngineKind) {
    let start = Instant::now();
    let end = Guest::kernel("spin", kernels::spin())
        .engine(engine)
        .timeout(Duration::from_millis(300))
        .run();
    assert_eq!(end.reason, StopReason::Timeout);
    // On a busy host, both its end and its start may be late.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(end.stats.instructions > 1000, "{}", end.stats);
}

fn timeout_stops_a_guest_that_sleeps(engine: EngineKind) {
    let end = Guest::kernel("halted", kernels::halted())
        .engine(engine)
        .timeout(Duration::from_millis(300))
        .run();
    assert_eq!(end.reason, StopReason::Timeout);
    assert!(end.stats.instructions < 1000, "HLT does not wait: {}", end.stats);
}

fn quit_stops_from_another_thread(engine: EngineKind) {
    for image in [kernels::spin(), kernels::halted()] {
        let guest = Guest::kernel("quit", image).engine(engine).start();
        std::thread::sleep(Duration::from_millis(50));
        guest.quit();
        assert_eq!(guest.finish().reason, StopReason::Quit);
    }
}

fn input_reaches_the_guest_in_order(engine: EngineKind) {
    let mut guest = Guest::kernel("echo", kernels::echo()).engine(engine).start();
    guest.wait_for("ready\r\n");
    // Longer than any FIFO.
    let text: String = ('0'..='9').cycle().take(500).collect();
    guest.type_line(&text);
    guest.wait_for(&text);
    guest.type_line("q");
    assert_eq!(guest.finish().reason, StopReason::PowerOff);
}

fn x87_errors_wait_for_irq_13(engine: EngineKind) {
    let end = run(engine, "x87 error", kernels::x87_error());
    assert_eq!((end.reason, end.output.as_str()), (StopReason::PowerOff, "irq 13\r\n"));
}

/// Who sends it may take the code away that the other processor starts with.
fn a_start_up_ipi_starts_at_once(engine: EngineKind) {
    let end = Guest::kernel("start-up", kernels::start_up(100)).engine(engine).cpus(2).run();
    assert_eq!((end.reason, end.output.as_str()), (StopReason::PowerOff, "started\r\n"));
}
