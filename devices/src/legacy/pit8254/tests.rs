use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::clock::{ManualClock, ProbeTimer};
use crate::interrupt::ProbeIrq;

/// Programs counter 2 (its gate is ours) in `mode` with a two-byte binary count at tick `now`; the
/// count is loaded at `now + 1`.
fn program(pit: &mut Pit, mode: u8, count: u16, now: u64) {
    pit.write_port(0x43, 0xb0 | mode << 1, now);
    let [low, high] = count.to_le_bytes();
    pit.write_port(0x42, low, now);
    pit.write_port(0x42, high, now);
}

fn with_gate(gate: bool) -> Pit {
    let mut pit = Pit::new();
    pit.write_port(0x61, gate.into(), 0);
    pit
}

fn out(pit: &mut Pit, now: u64) -> bool {
    pit.read_port(0x61, now) & 0x20 != 0
}

fn count(pit: &mut Pit, now: u64) -> u16 {
    pit.write_port(0x43, 0x80, now);
    u16::from_le_bytes([pit.read_port(0x42, now), pit.read_port(0x42, now)])
}

fn status(pit: &mut Pit, now: u64) -> u8 {
    pit.write_port(0x43, 0xe8, now);
    pit.read_port(0x42, now)
}

/// The output over ticks `from..to`, as a string of 0 and 1.
fn wave(pit: &mut Pit, from: u64, to: u64) -> String {
    (from..to).map(|tick| if out(pit, tick) { '1' } else { '0' }).collect()
}

#[test]
fn mode_0_rises_at_the_terminal_count_and_stays() {
    let mut pit = with_gate(true);
    program(&mut pit, 0, 4, 10);
    // N + 1 ticks after the write.
    assert_eq!(wave(&mut pit, 10, 18), "00000111");
    assert_eq!(count(&mut pit, 11), 4);
    assert_eq!(count(&mut pit, 14), 1);
    assert_eq!(count(&mut pit, 15), 0);
    assert_eq!(count(&mut pit, 16), 0xffff);
}

#[test]
fn mode_0_first_byte_stops_the_second_restarts() {
    let mut pit = with_gate(true);
    program(&mut pit, 0, 4, 0);
    assert!(out(&mut pit, 20));
    pit.write_port(0x42, 2, 20);
    assert_eq!(wave(&mut pit, 20, 30), "0000000000");
    pit.write_port(0x42, 0, 30);
    assert_eq!(wave(&mut pit, 30, 35), "00011");
}

#[test]
fn mode_0_gate_holds_the_count() {
    let mut pit = with_gate(true);
    program(&mut pit, 0, 10, 0);
    pit.write_port(0x61, 0, 5);
    assert_eq!(count(&mut pit, 50), 6);
    pit.write_port(0x61, 1, 100);
    assert_eq!(wave(&mut pit, 104, 108), "0011");
}

#[test]
fn mode_1_waits_for_the_gate_and_retriggers() {
    let mut pit = with_gate(false);
    program(&mut pit, 1, 3, 0);
    assert_eq!(wave(&mut pit, 0, 4), "1111");
    pit.write_port(0x61, 1, 10);
    assert_eq!(wave(&mut pit, 11, 16), "00011");
    // A retrigger in the pulse makes it longer; a falling gate does nothing.
    pit.write_port(0x61, 0, 20);
    pit.write_port(0x61, 1, 21);
    pit.write_port(0x61, 0, 22);
    pit.write_port(0x61, 1, 23);
    assert_eq!(wave(&mut pit, 22, 29), "0000011");
}

#[test]
fn mode_1_takes_a_new_count_with_the_next_trigger() {
    let mut pit = with_gate(false);
    program(&mut pit, 1, 3, 0);
    pit.write_port(0x61, 1, 0);
    pit.write_port(0x42, 5, 1);
    pit.write_port(0x42, 0, 1);
    assert_eq!(status(&mut pit, 2) & 0x40, 0x40);
    assert_eq!(wave(&mut pit, 1, 6), "00011");
    pit.write_port(0x61, 0, 10);
    pit.write_port(0x61, 1, 10);
    assert_eq!(status(&mut pit, 11) & 0x40, 0);
    assert_eq!(wave(&mut pit, 11, 17), "000001");
}

#[test]
fn mode_2_is_low_for_the_last_tick() {
    let mut pit = with_gate(true);
    program(&mut pit, 2, 4, 0);
    assert_eq!(wave(&mut pit, 1, 13), "111011101110");
    assert_eq!((1..6).map(|tick| count(&mut pit, tick)).collect::<Vec<_>>(), [4, 3, 2, 1, 4]);
}

#[test]
fn mode_2_takes_a_new_count_at_the_end_of_the_period() {
    let mut pit = with_gate(true);
    program(&mut pit, 2, 4, 0);
    pit.write_port(0x42, 2, 2);
    pit.write_port(0x42, 0, 2);
    assert_eq!(status(&mut pit, 3) & 0x40, 0x40);
    assert_eq!(wave(&mut pit, 1, 9), "11101010");
    assert_eq!(status(&mut pit, 9) & 0x40, 0);
}

#[test]
fn mode_2_gate_low_is_high_output_and_gate_rising_starts_over() {
    let mut pit = with_gate(true);
    program(&mut pit, 2, 4, 0);
    assert!(!out(&mut pit, 4));
    pit.write_port(0x61, 0, 4);
    assert!(out(&mut pit, 4));
    pit.write_port(0x61, 1, 20);
    assert_eq!(wave(&mut pit, 21, 25), "1110");
}

#[test]
fn a_low_gate_does_not_let_a_pending_count_start() {
    let mut pit = with_gate(true);
    program(&mut pit, 2, 4, 0);
    pit.write_port(0x42, 3, 2);
    pit.write_port(0x42, 0, 2);
    pit.write_port(0x61, 0, 3);
    assert_eq!(wave(&mut pit, 3, 12), "111111111");
    pit.write_port(0x61, 1, 20);
    assert_eq!(wave(&mut pit, 21, 27), "110110");
}

#[test]
fn mode_3_halves_even_and_odd_counts() {
    let mut pit = with_gate(true);
    program(&mut pit, 3, 4, 0);
    assert_eq!(wave(&mut pit, 1, 9), "11001100");
    assert_eq!((1..5).map(|tick| count(&mut pit, tick)).collect::<Vec<_>>(), [4, 2, 4, 2]);
    program(&mut pit, 3, 5, 100);
    assert_eq!(wave(&mut pit, 101, 111), "1110011100");
    assert_eq!((101..106).map(|tick| count(&mut pit, tick)).collect::<Vec<_>>(), [4, 2, 0, 4, 2]);
}

#[test]
fn mode_3_takes_a_new_count_at_the_end_of_the_half_period() {
    // Written in the high half: the low half is already the new one.
    let mut pit = with_gate(true);
    program(&mut pit, 3, 8, 0);
    pit.write_port(0x42, 4, 2);
    pit.write_port(0x42, 0, 2);
    assert_eq!(wave(&mut pit, 1, 13), "111100110011");
    // Written in the low half.
    program(&mut pit, 3, 8, 100);
    pit.write_port(0x42, 4, 106);
    pit.write_port(0x42, 0, 106);
    assert_eq!(wave(&mut pit, 101, 113), "111100001100");
}

#[test]
fn mode_4_strobes_once() {
    let mut pit = with_gate(true);
    program(&mut pit, 4, 3, 0);
    assert_eq!(wave(&mut pit, 0, 8), "11110111");
    pit.write_port(0x42, 1, 10);
    pit.write_port(0x42, 0, 10);
    assert_eq!(wave(&mut pit, 10, 15), "11011");
}

#[test]
fn mode_5_strobes_on_each_trigger() {
    let mut pit = with_gate(false);
    program(&mut pit, 5, 2, 0);
    assert_eq!(wave(&mut pit, 0, 8), "11111111");
    pit.write_port(0x61, 1, 10);
    assert_eq!(wave(&mut pit, 11, 16), "11011");
}

#[test]
fn zero_counts_the_most() {
    let mut pit = with_gate(true);
    program(&mut pit, 0, 0, 0);
    assert!(!out(&mut pit, 0x1_0000));
    assert!(out(&mut pit, 0x1_0001));
    // BCD: 10,000.
    pit.write_port(0x43, 0xb1, 0);
    pit.write_port(0x42, 0, 0);
    pit.write_port(0x42, 0, 0);
    assert_eq!(count(&mut pit, 1), 0);
    assert_eq!(count(&mut pit, 2), 0x9999);
    assert!(!out(&mut pit, 10_000));
    assert!(out(&mut pit, 10_001));
}

#[test]
fn bcd_counts_in_digits() {
    let mut pit = with_gate(true);
    pit.write_port(0x43, 0xb5, 0);
    pit.write_port(0x42, 0x20, 0);
    pit.write_port(0x42, 0x01, 0);
    assert_eq!(count(&mut pit, 1), 0x120);
    assert_eq!(count(&mut pit, 2), 0x119);
    assert_eq!(count(&mut pit, 120), 0x001);
    assert_eq!(count(&mut pit, 121), 0x120);
}

#[test]
fn single_byte_access_modes() {
    let mut pit = with_gate(true);
    pit.write_port(0x43, 0x94, 0);
    pit.write_port(0x42, 0x12, 0);
    assert_eq!(pit.read_port(0x42, 1), 0x12);
    assert_eq!(pit.read_port(0x42, 2), 0x11);
    pit.write_port(0x43, 0xa4, 0);
    pit.write_port(0x42, 0x12, 0);
    assert_eq!(pit.read_port(0x42, 1), 0x12);
    assert_eq!(pit.read_port(0x42, 2), 0x11);
}

#[test]
fn a_latch_holds_until_read_and_ignores_further_latches() {
    let mut pit = with_gate(true);
    program(&mut pit, 2, 0x1234, 0);
    pit.write_port(0x43, 0x80, 1);
    pit.write_port(0x43, 0x80, 50);
    assert_eq!(pit.read_port(0x42, 60), 0x34);
    assert_eq!(pit.read_port(0x42, 60), 0x12);
    assert_eq!(count(&mut pit, 61), 0x1234 - 60);
}

#[test]
fn read_back_returns_status_before_count() {
    let mut pit = with_gate(true);
    program(&mut pit, 3, 0x2000, 0);
    assert_eq!(status(&mut pit, 0), 0xf6, "not loaded before the next tick");
    pit.write_port(0x43, 0xc8, 1);
    assert_eq!(pit.read_port(0x42, 9), 0xb6);
    assert_eq!(pit.read_port(0x42, 9), 0x00);
    assert_eq!(pit.read_port(0x42, 9), 0x20);
    // Several counters at once.
    pit.write_port(0x40, 7, 10);
    pit.write_port(0x43, 0xee, 10);
    assert_eq!(pit.read_port(0x40, 11) & 0x40, 0x40);
    assert_eq!(pit.read_port(0x41, 11) & 0x40, 0x40);
    assert_eq!(pit.read_port(0x42, 11), 0xb6);
}

#[test]
fn modes_6_and_7_are_2_and_3() {
    let mut pit = with_gate(true);
    program(&mut pit, 6, 9, 0);
    assert_eq!(status(&mut pit, 1) & 0x0e, 0x04);
    program(&mut pit, 7, 9, 0);
    assert_eq!(status(&mut pit, 1) & 0x0e, 0x06);
}

#[test]
fn port_61_keeps_its_bits_and_toggles_refresh() {
    let mut pit = Pit::new();
    pit.write_port(0x61, 0xff, 0);
    assert_eq!(pit.read_port(0x61, 0) & 0xdf, 0x0f);
    assert!(pit.speaker_enabled());
    assert_eq!(pit.read_port(0x61, 18) & 0x10, 0x10);
    assert_eq!(pit.read_port(0x61, 36) & 0x10, 0);
    assert_eq!(pit.read_port(0x43, 0), 0xff);
}

struct Board {
    clock: Arc<ManualClock>,
    irq: Arc<ProbeIrq>,
    timer: Arc<ProbeTimer>,
    pit: PitDevice,
}

impl Board {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(0));
        let irq = Arc::new(ProbeIrq::new());
        let timer = Arc::new(ProbeTimer::new());
        let pit = PitDevice::new(clock.clone(), Box::new(irq.clone()), Box::new(timer.clone()));
        Self { clock, irq, timer, pit }
    }

    fn program(&mut self, control: u8, count: u16) {
        let [low, high] = count.to_le_bytes();
        self.pit.write(0x43, &[control]);
        self.pit.write(0x40, &[low]);
        self.pit.write(0x40, &[high]);
    }

    /// Plays alarms until `ns`.
    fn run_until(&mut self, ns: u64) {
        while let Some(deadline) = self.timer.deadline().filter(|&deadline| deadline <= ns) {
            self.clock.set(deadline.max(self.clock.now_ns()));
            self.pit.timer_expired(self.clock.now_ns());
        }
        self.clock.set(ns);
    }
}

#[test]
fn a_one_shot_interrupts_once() {
    let mut board = Board::new();
    board.program(0x30, 11_932);
    assert!(!board.irq.level());
    board.run_until(9_900_000);
    assert_eq!(board.irq.rising_edges(), 0);
    board.run_until(50_000_000);
    assert_eq!(board.irq.rising_edges(), 1);
    assert!(board.irq.level());
    assert_eq!(board.timer.deadline(), None);
    board.program(0x30, 11_932);
    assert!(!board.irq.level(), "a control word takes mode 0's output low");
}

#[test]
fn periodic_modes_interrupt_at_their_rate() {
    for control in [0x34, 0x36] {
        let mut board = Board::new();
        board.program(control, 11_932);
        let before = board.irq.rising_edges();
        // 100 Hz, a little less.
        board.run_until(1_005_000_000);
        assert_eq!(board.irq.rising_edges() - before, 100);
    }
}

#[test]
fn a_late_alarm_is_made_up_once_and_keeps_the_phase() {
    let mut board = Board::new();
    board.program(0x34, 11_932);
    let before = board.irq.rising_edges();
    board.clock.set(35_000_000);
    board.pit.timer_expired(35_000_000);
    assert_eq!(board.irq.rising_edges() - before, 1);
    let next = board.timer.deadline().unwrap();
    assert!((39_999_000..40_003_000).contains(&next), "{next}");
}

#[test]
fn an_edge_due_before_reprogramming_is_not_lost() {
    let mut board = Board::new();
    board.program(0x30, 100);
    board.clock.set(1_000_000);
    board.program(0x30, 100);
    assert_eq!(board.irq.rising_edges(), 1);
}

#[test]
fn absurd_rates_leave_the_host_alone() {
    let mut board = Board::new();
    board.program(0x34, 2);
    let before = board.irq.rising_edges();
    board.run_until(10_000_000);
    let edges = board.irq.rising_edges() - before;
    assert!((400..=500).contains(&edges), "{edges}");
    board.program(0x34, 1);
    board.run_until(20_000_000);
    assert_eq!(board.timer.deadline(), None);
}

#[test]
fn bios_programming_ticks_18_times_a_second() {
    let mut board = Board::new();
    board.pit.program_as_bios();
    let before = board.irq.rising_edges();
    board.run_until(10_000_000_000);
    assert_eq!(board.irq.rising_edges() - before, 182);
}

#[test]
fn rate_generator_stays_low_from_a_count_of_1_on() {
    let mut pit = Pit::new();
    pit.write_port(0x43, 0x54, 0);
    pit.write_port(0x41, 200, 0);
    pit.write_port(0x41, 1, 0);
    let channel = &mut pit.channels[1];
    assert_eq!(channel.next_rise(0), None);
    assert!(!channel.output(1_000));
}

#[test]
fn restore_rearms() {
    let mut board = Board::new();
    board.program(0x34, 1_000);
    let saved = serde_json::to_string(board.pit.state()).unwrap();
    let deadline = board.timer.deadline();
    let mut other = Board::new();
    other.pit.restore(serde_json::from_str(&saved).unwrap());
    assert_eq!(other.timer.deadline(), deadline);
    assert_eq!(other.pit.state(), board.pit.state());
}

proptest! {
    /// Any register traffic at any time, and the next rise is where the output rises.
    #[test]
    fn random_use_is_consistent(
        accesses in prop::collection::vec((0usize..5, any::<u8>(), any::<bool>(), 0u64..3000), 0..100),
    ) {
        const ADDRESSES: [u64; 5] = [0x40, 0x41, 0x42, 0x43, 0x61];
        let mut pit = Pit::new();
        let mut now = 0;
        for (port, value, write, ticks) in accesses {
            now += ticks;
            if write {
                pit.write_port(ADDRESSES[port], value, now);
            } else {
                pit.read_port(ADDRESSES[port], now);
            }
        }
        for channel in &mut pit.channels {
            if let Some(rise) = channel.next_rise(now) {
                prop_assert!(rise > now);
                prop_assert!(!channel.clone().output(rise - 1) && channel.clone().output(rise));
                // And no earlier.
                let mut scan = channel.clone();
                let mut level = scan.output(now);
                for tick in now + 1..rise.min(now + 2000) {
                    let next = scan.output(tick);
                    prop_assert!(level || !next, "rose at {} instead of {}", tick, rise);
                    level = next;
                }
            }
        }
        let saved = serde_json::to_string(&pit).unwrap();
        prop_assert_eq!(serde_json::from_str::<Pit>(&saved).unwrap(), pit);
    }
}
