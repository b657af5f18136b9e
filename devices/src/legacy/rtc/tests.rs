use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::clock::{ManualClock, NS_PER_SECOND, ProbeTimer};
use crate::interrupt::ProbeIrq;

/// 2024-02-28 23:59:50 UTC, a Wednesday.
const START: u64 = 1_709_164_790;

const A: u8 = 0x0a;
const B: u8 = 0x0b;
const C: u8 = 0x0c;
const D: u8 = 0x0d;

struct Board {
    clock: Arc<ManualClock>,
    irq: Arc<ProbeIrq>,
    timer: Arc<ProbeTimer>,
    rtc: RtcDevice,
}

impl Board {
    fn new() -> Self {
        Self::at(START)
    }

    fn at(unix_seconds: u64) -> Self {
        let clock = Arc::new(ManualClock::new(unix_seconds * NS_PER_SECOND));
        let irq = Arc::new(ProbeIrq::new());
        let timer = Arc::new(ProbeTimer::new());
        let rtc = RtcDevice::new(clock.clone(), Box::new(irq.clone()), Box::new(timer.clone()));
        Self { clock, irq, timer, rtc }
    }

    fn get(&mut self, index: u8) -> u8 {
        self.rtc.write(0x70, &[index]);
        let mut data = [0];
        self.rtc.read(0x71, &mut data);
        data[0]
    }

    fn set(&mut self, index: u8, value: u8) {
        self.rtc.write(0x70, &[index]);
        self.rtc.write(0x71, &[value]);
    }

    /// Hours, minutes, seconds.
    fn time(&mut self) -> [u8; 3] {
        [4, 2, 0].map(|index| self.get(index))
    }

    /// Century, year, month, day, day of the week.
    fn date(&mut self) -> [u8; 5] {
        [0x32, 9, 8, 7, 6].map(|index| self.get(index))
    }

    /// Plays alarms for `ns`; returns how many went off.
    fn run(&mut self, ns: u64) -> usize {
        let end = self.clock.now_ns() + ns;
        let mut alarms = 0;
        while let Some(deadline) = self.timer.deadline().filter(|&deadline| deadline <= end) {
            self.clock.set(deadline.max(self.clock.now_ns()));
            self.rtc.timer_expired(self.clock.now_ns());
            alarms += 1;
            assert!(alarms < 100_000, "the alarm makes no progress");
        }
        self.clock.set(end);
        alarms
    }
}

#[test]
fn shows_the_wall_clock_in_bcd() {
    let mut board = Board::new();
    assert_eq!(board.time(), [0x23, 0x59, 0x50]);
    assert_eq!(board.date(), [0x20, 0x24, 0x02, 0x28, 4]);
    board.run(10 * NS_PER_SECOND);
    assert_eq!(board.time(), [0, 0, 0]);
    assert_eq!(board.date(), [0x20, 0x24, 0x02, 0x29, 5]);
    assert_eq!((board.get(A), board.get(D)), (0x26, 0x80));
}

#[test]
fn binary_and_12_hour_formats() {
    let mut board = Board::new();
    board.set(B, 0x06);
    assert_eq!(board.time(), [23, 59, 50]);
    assert_eq!(board.date(), [20, 24, 2, 28, 4]);
    for (hour, bcd) in [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)] {
        let mut board = Board::at(hour * 3600);
        board.set(B, 0x00);
        assert_eq!(board.get(4), bcd);
    }
}

/// A BIOS's service 1AH, AH=05H, writes year, month and day of a running clock in this order.
#[test]
fn a_date_is_set_byte_by_byte_while_the_clock_runs() {
    let last_of_january = START - 28 * 24 * 3600;
    for (date, expected) in [([0x24, 0x02, 0x15], 0x15), ([0x23, 0x02, 0x01], 0x01)] {
        let mut board = Board::at(last_of_january);
        assert_eq!(board.date()[2..4], [0x01, 0x31]);
        for (index, value) in [9, 8, 7].into_iter().zip(date) {
            board.set(index, value);
        }
        assert_eq!(board.date()[1..4], [date[0], 0x02, expected]);
        assert_eq!(board.time(), [0x23, 0x59, 0x50]);
    }
    // What no month has stands until midnight.
    let mut board = Board::at(last_of_january);
    board.set(8, 0x02);
    assert_eq!(board.date()[2..4], [0x02, 0x31]);
    board.run(10 * NS_PER_SECOND);
    assert_eq!(board.date()[2..4], [0x03, 0x01]);
}

#[test]
fn setting_the_clock_the_way_linux_does() {
    let mut board = Board::new();
    board.run(700_000_000);
    board.set(B, 0x82);
    board.set(A, 0x76);
    // Stopped: what is written is what is read, and nothing moves.
    for (index, value) in
        [(0, 0x58), (2, 0x59), (4, 0x23), (7, 0x31), (8, 0x12), (9, 0x99), (0x32, 0x19)]
    {
        board.set(index, value);
    }
    board.run(5 * NS_PER_SECOND);
    assert_eq!(board.time(), [0x23, 0x59, 0x58]);
    board.set(B, 0x02);
    board.set(A, 0x26);
    // The first update comes half a second after the divider's reset.
    board.run(499_000_000);
    assert_eq!(board.time(), [0x23, 0x59, 0x58]);
    board.run(2_000_000);
    assert_eq!(board.time(), [0x23, 0x59, 0x59]);
    board.run(NS_PER_SECOND);
    assert_eq!(board.time(), [0, 0, 0]);
    // The weekday was not set: it went on from Wednesday.
    assert_eq!(board.date(), [0x20, 0x00, 0x01, 0x01, 5]);
}

#[test]
fn set_alone_keeps_the_phase() {
    let mut board = Board::new();
    board.run(300_000_000);
    board.set(B, 0x82);
    board.set(0, 0x10);
    board.run(5 * NS_PER_SECOND);
    board.set(B, 0x02);
    board.run(699_000_000);
    assert_eq!(board.get(0), 0x10);
    board.run(2_000_000);
    assert_eq!(board.get(0), 0x11);
}

#[test]
fn a_field_written_while_running_moves_the_time() {
    let mut board = Board::new();
    board.set(2, 0x30);
    assert_eq!(board.time(), [0x23, 0x30, 0x50]);
    board.set(6, 7);
    board.run(30 * 60 * NS_PER_SECOND);
    assert_eq!(board.time(), [0, 0, 0x50]);
    assert_eq!(board.get(6), 1);
}

#[test]
fn offset_shifts_the_time() {
    let mut board = Board::new();
    board.rtc.set_time_offset(-86_400);
    assert_eq!(board.date(), [0x20, 0x24, 0x02, 0x27, 3]);
}

#[test]
fn uip_announces_the_update() {
    let mut board = Board::new();
    board.run(997_700_000);
    assert_eq!(board.get(A) & 0x80, 0);
    board.run(100_000);
    assert_eq!(board.get(A) & 0x80, 0x80);
    assert_eq!(board.get(0), 0x50);
    board.run(2_200_000);
    assert_eq!(board.get(A) & 0x80, 0);
    assert_eq!(board.get(0), 0x51);
    // SET takes it down; it cannot be written.
    board.run(997_000_000);
    board.set(B, 0x82);
    board.set(A, 0xa6);
    assert_eq!(board.get(A), 0x26);
}

#[test]
fn flags_rise_without_interrupts_and_reading_clears_them() {
    let mut board = Board::new();
    assert_eq!(board.get(C), 0);
    board.run(NS_PER_SECOND);
    assert_eq!(board.timer.deadline(), None);
    assert_eq!(board.get(C), 0x50);
    assert_eq!(board.get(C), 0);
    assert_eq!(board.irq.rising_edges(), 0);
}

#[test]
fn update_interrupt_waits_for_register_c() {
    let mut board = Board::new();
    board.set(B, 0x12);
    assert_eq!(board.run(NS_PER_SECOND * 5), 1);
    assert!(board.irq.level());
    assert_eq!(board.get(C) & 0x90, 0x90);
    assert!(!board.irq.level());
    assert_eq!(board.run(NS_PER_SECOND), 1);
    assert_eq!(board.irq.rising_edges(), 2);
    // Enabling an interrupt whose flag is up raises it at once.
    board.set(B, 0x02);
    assert!(!board.irq.level());
    board.set(B, 0x12);
    assert!(board.irq.level());
    // SET ends update interrupts for good.
    board.set(B, 0x92);
    assert_eq!(board.get(B), 0x82);
    assert!(!board.irq.level());
}

#[test]
fn periodic_interrupt_runs_at_every_rate() {
    for (rate, hz) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (13, 8), (15, 2)] {
        let mut board = Board::new();
        board.set(A, 0x20 | rate);
        board.set(B, 0x42);
        let mut interrupts = 0;
        let end = board.clock.now_ns() + NS_PER_SECOND;
        while board.timer.deadline().is_some_and(|deadline| deadline <= end) {
            let deadline = board.timer.deadline().unwrap();
            board.clock.set(deadline);
            board.rtc.timer_expired(deadline);
            assert!(board.irq.level());
            assert_eq!(board.get(C) & 0xc0, 0xc0);
            interrupts += 1;
        }
        assert_eq!(interrupts, hz, "rate {rate}");
    }
    let mut board = Board::new();
    board.set(A, 0x20);
    board.set(B, 0x42);
    assert_eq!(board.timer.deadline(), None, "rate 0 is off");
}

#[test]
fn alarm_matches_once_a_day_and_by_wildcards() {
    let mut board = Board::new();
    for (index, value) in [(1, 0x05), (3, 0x00), (5, 0x00)] {
        board.set(index, value);
    }
    board.set(B, 0x22);
    board.run(14 * NS_PER_SECOND);
    assert!(!board.irq.level());
    board.run(NS_PER_SECOND);
    assert!(board.irq.level());
    assert_eq!(board.get(C) & 0xb0, 0xb0);
    board.run(86_399 * NS_PER_SECOND);
    assert!(!board.irq.level());
    board.run(NS_PER_SECOND);
    assert!(board.irq.level());
    // Any hour, any minute: once a minute.
    board.set(5, 0xff);
    board.set(3, 0xc0);
    board.get(C);
    board.run(60 * NS_PER_SECOND);
    assert!(board.irq.level());
}

#[test]
fn alarm_in_the_12_hour_format() {
    let mut board = Board::at(13 * 3600 - 1);
    board.set(B, 0x20);
    for (index, value) in [(1, 0x00), (3, 0x00), (5, 0x81)] {
        board.set(index, value);
    }
    board.run(NS_PER_SECOND);
    assert!(board.irq.level());
}

#[test]
fn an_impossible_alarm_never_comes() {
    let mut board = Board::new();
    board.set(5, 0x77);
    board.set(B, 0x22);
    assert_eq!(board.timer.deadline(), None);
}

#[test]
fn a_stopped_clock_flags_nothing() {
    let mut board = Board::new();
    board.set(A, 0x66);
    board.get(C);
    board.run(3 * NS_PER_SECOND);
    assert_eq!(board.get(C), 0);
    assert_eq!(board.get(0), 0x50);
}

#[test]
fn reset_disables_interrupts_and_keeps_ram() {
    let mut board = Board::new();
    board.rtc.write(0x70, &[0x8f]);
    assert!(board.rtc.nmi_masked());
    board.rtc.write(0x71, &[0x0a]);
    board.set(B, 0x7e);
    board.run(NS_PER_SECOND);
    board.rtc.reset();
    assert_eq!((board.get(B), board.get(C)), (0x06, 0));
    assert!(!board.irq.level() && !board.rtc.nmi_masked());
    assert_eq!(board.get(SHUTDOWN_STATUS), 0x0a);
}

#[test]
fn read_only_registers_and_ports() {
    let mut board = Board::new();
    board.set(C, 0xff);
    board.set(D, 0x00);
    assert_eq!((board.get(C), board.get(D)), (0, 0x80));
    let mut data = [0; 2];
    board.rtc.write(0x70, &[0x40, 0x12]);
    board.rtc.read(0x70, &mut data);
    assert_eq!(data, [0xff, 0x12]);
}

#[test]
fn memory_sizes_as_a_bios_notes_them() {
    let mut board = Board::new();
    board.rtc.set_memory_sizes(MemorySizes { below_4g: 0xc000_0000, above_4g: 5 << 30 });
    let bytes = [0x15, 0x16, 0x17, 0x18, 0x30, 0x31, 0x34, 0x35, 0x5b, 0x5c, 0x5d];
    assert_eq!(
        bytes.map(|index| board.get(index)),
        [0x80, 0x02, 0xff, 0xff, 0xff, 0xff, 0x00, 0xbf, 0x00, 0x40, 0x01]
    );
    let sum: u16 = (0x10..0x2e).map(|index| u16::from(board.get(index))).sum();
    assert_eq!(u16::from_be_bytes([board.get(0x2e), board.get(0x2f)]), sum);
    board.rtc.set_memory_sizes(MemorySizes { below_4g: 4 << 20, above_4g: 0 });
    assert_eq!([0x17, 0x18, 0x34].map(|index| board.get(index)), [0x00, 0x0c, 0x00]);
}

#[test]
fn restore_raises_what_was_due() {
    let mut board = Board::new();
    board.set(B, 0x12);
    let saved = serde_json::to_string(board.rtc.state()).unwrap();
    let mut other = Board::at(START + 100);
    other.rtc.restore(serde_json::from_str(&saved).unwrap());
    assert!(other.irq.level());
    assert_eq!(other.time(), [0x00, 0x01, 0x30]);
}

#[test]
fn a_snapshot_with_too_few_bytes_reads_zeros() {
    let mut saved = serde_json::to_value(Board::new().rtc.state()).unwrap();
    saved["cmos"] = serde_json::json!([]);
    saved["offset_s"] = serde_json::json!(i64::MAX);
    saved["phase_ns"] = serde_json::json!(u64::MAX);
    let mut board = Board::new();
    board.rtc.restore(serde_json::from_value(saved).unwrap());
    board.set(A, 0x26);
    assert_eq!(board.get(0x40), 0);
}

proptest! {
    #[test]
    fn random_use_never_panics_and_keeps_the_line_true(
        accesses in prop::collection::vec((0u8..0x40, any::<u8>(), any::<bool>(), 0u64..2_000_000_000), 0..100),
    ) {
        let mut board = Board::new();
        for (index, value, write, ns) in accesses {
            board.clock.advance(ns);
            if write {
                board.set(index, value);
            } else {
                board.get(index);
            }
            if let Some(deadline) = board.timer.deadline() {
                prop_assert!(deadline > board.clock.now_ns());
                board.clock.set(deadline);
                board.rtc.timer_expired(deadline);
                prop_assert!(board.irq.level(), "an alarm that raised nothing");
            }
            let mut probe = board.rtc.state().clone();
            let moment = Moment { now_ns: board.clock.now_ns(), unix_ns: board.clock.unix_time_ns() };
            prop_assert_eq!(probe.read(C, moment) & 0x80 != 0, board.irq.level());
        }
    }
}

#[test]
fn the_alarm_has_an_output_of_its_own() {
    let mut board = Board::new();
    let alarm = Arc::new(ProbeIrq::new());
    board.rtc.connect_alarm(Box::new(alarm.clone()));
    for index in [1, 3, 5] {
        board.set(index, 0xc0);
    }
    // The update interrupt alone does not raise it, nor does the flag without its enable bit.
    board.set(B, 0x12);
    board.run(NS_PER_SECOND);
    assert!(board.irq.level() && !alarm.level());
    assert_eq!(board.get(C) & 0x30, 0x30);
    board.set(B, 0x22);
    board.run(NS_PER_SECOND);
    assert!(board.irq.level() && alarm.level());
    board.get(C);
    assert!(!alarm.level());
}
