use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::clock::{ManualClock, ProbeTimer};
use crate::interrupt::ProbeIrq;

struct Bench {
    device: HpetDevice,
    clock: Arc<ManualClock>,
    timer: Arc<ProbeTimer>,
    irq_0: Arc<ProbeIrq>,
    irq_8: Arc<ProbeIrq>,
    pins: Vec<Arc<ProbeIrq>>,
    replaced: Replaced,
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(0));
        let timer = Arc::new(ProbeTimer::new());
        let (irq_0, irq_8) = (Arc::new(ProbeIrq::new()), Arc::new(ProbeIrq::new()));
        let pins: Vec<_> = (0..8).map(|_| Arc::new(ProbeIrq::new())).collect();
        let replaced = Replaced::default();
        let outputs = Outputs {
            irq_0: Box::new(irq_0.clone()),
            irq_8: Box::new(irq_8.clone()),
            pins: pins.iter().map(|pin| Box::new(pin.clone()) as Box<dyn IrqLine>).collect(),
            replaced: replaced.clone(),
        };
        let device = HpetDevice::new(clock.clone(), Box::new(timer.clone()), outputs);
        Self { device, clock, timer, irq_0, irq_8, pins, replaced }
    }

    fn read(&mut self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.device.read(offset, &mut data);
        u64::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, value: u64) {
        self.device.write(offset, &value.to_le_bytes());
    }

    /// Moves time on, calling the device at each alarm as the machine does.
    fn run(&mut self, ns: u64) {
        let end = self.clock.now_ns() + ns;
        while let Some(at) = self.timer.deadline().filter(|&at| at <= end) {
            self.clock.set(at.max(self.clock.now_ns()));
            self.timer.arm(None);
            self.device.timer_expired(self.clock.now_ns());
        }
        self.clock.set(end);
    }
}

#[test]
fn capabilities_tell_three_comparators_and_the_period() {
    let mut bench = Bench::new();
    let capabilities = bench.read(0);
    assert_eq!(capabilities >> 32, 10_000_000, "femtoseconds of a tick");
    assert_eq!(capabilities as u32, 0x8086_a201);
    assert_eq!(block_id(), 0x8086_a201);
    assert_eq!(bench.read(0x100) >> 32, 0x00ff_0000);
}

#[test]
fn the_counter_runs_while_enabled() {
    let mut bench = Bench::new();
    bench.write(0xf0, 7);
    bench.run(1_000);
    assert_eq!(bench.read(0xf0), 7);
    bench.write(0x10, 1);
    bench.run(1_000);
    assert_eq!(bench.read(0xf0), 107);
    bench.write(0xf0, 0);
    assert_eq!(bench.read(0xf0), 107, "a running counter is not written");
    bench.write(0x10, 0);
    bench.run(1_000);
    assert_eq!(bench.read(0xf0), 107);
    // Halves by 32-bit accesses.
    bench.device.write(0xf4, &1u32.to_le_bytes());
    assert_eq!(bench.read(0xf0), 1 << 32 | 107);
    let mut half = [0; 4];
    bench.device.read(0xf4, &mut half);
    assert_eq!(u32::from_le_bytes(half), 1);
}

#[test]
fn one_shot_by_edge() {
    let mut bench = Bench::new();
    bench.write(0x10, 1);
    bench.write(0x100, 16 << 9 | 1 << 2);
    bench.write(0x108, 1_000);
    assert_eq!(bench.timer.deadline(), Some(10_000));
    bench.run(9_999);
    assert_eq!(bench.pins[0].rising_edges(), 0);
    bench.run(1);
    assert_eq!(bench.pins[0].rising_edges(), 1);
    bench.run(1_000_000_000);
    assert_eq!(bench.pins[0].rising_edges(), 1);
    assert_eq!(bench.read(0x20), 0, "status is for level-triggered comparators");
}

#[test]
fn level_is_held_until_acknowledged() {
    let mut bench = Bench::new();
    bench.write(0x10, 1);
    bench.write(0x140, 23 << 9 | 1 << 2 | 1 << 1);
    bench.write(0x148, 50);
    bench.run(500);
    assert!(bench.pins[7].level());
    assert_eq!(bench.read(0x20), 4);
    bench.write(0x20, 3);
    assert!(bench.pins[7].level());
    bench.write(0x20, 4);
    assert!(!bench.pins[7].level());
}

#[test]
fn periodic_mode_keeps_its_rate() {
    let mut bench = Bench::new();
    bench.write(0x10, 1);
    // As Linux does: set-value, first match, then the period.
    bench.write(0x100, 20 << 9 | 1 << 8 | 1 << 6 | 1 << 3 | 1 << 2);
    bench.write(0x108, 150_000);
    bench.write(0x108, 100_000);
    bench.run(1_500_000);
    assert_eq!(bench.pins[4].rising_edges(), 1);
    bench.run(10_000_000);
    assert_eq!(bench.pins[4].rising_edges(), 11);
    assert_eq!(bench.read(0x108), 1_250_000);
    // A host that slept: what was missed is one interrupt, and the phase stays.
    bench.clock.advance(35_500_000);
    bench.run(0);
    assert_eq!(bench.pins[4].rising_edges(), 12);
    assert!(bench.timer.deadline().unwrap() <= bench.clock.now_ns() + 1_000_000);
}

#[test]
fn a_hostile_period_does_not_flood() {
    let mut bench = Bench::new();
    bench.write(0x10, 1);
    bench.write(0x100, 20 << 9 | 1 << 6 | 1 << 3 | 1 << 2);
    bench.write(0x108, 1);
    bench.run(10_000_000);
    assert!(bench.pins[4].rising_edges() <= 600, "{}", bench.pins[4].rising_edges());
    bench.write(0x108, 0);
    bench.run(10_000_000);
}

#[test]
fn thirty_two_bits_wrap_and_match_again() {
    let mut bench = Bench::new();
    bench.write(0xf0, 0xffff_fff0);
    bench.write(0x100, 16 << 9 | 1 << 8 | 1 << 2);
    bench.write(0x108, 0x10);
    bench.write(0x10, 1);
    assert_eq!(bench.timer.deadline(), Some(0x20 * TICK_NS));
    bench.run(0x20 * TICK_NS);
    assert_eq!(bench.pins[0].rising_edges(), 1);
    assert_eq!(bench.timer.deadline(), Some((0x20 + (1 << 32)) * TICK_NS));
}

#[test]
fn legacy_replacement_takes_both_lines() {
    let mut bench = Bench::new();
    let pit = LegacyLine { line: Box::new(bench.irq_0.clone()), replaced: bench.replaced.clone() };
    pit.set_level(true);
    assert!(bench.irq_0.level());
    bench.write(0x10, 3);
    assert!(!bench.irq_0.level());
    pit.set_level(true);
    assert!(!bench.irq_0.level(), "the PIT is cut off");
    bench.write(0x100, 1 << 2);
    bench.write(0x108, 1_000);
    bench.write(0x120, 1 << 2);
    bench.write(0x128, 2_000);
    bench.run(20_000);
    let (irq_0, irq_8) = (bench.irq_0.rising_edges(), bench.irq_8.rising_edges());
    assert_eq!((irq_0, irq_8), (2, 1));
    bench.write(0x10, 1);
    pit.set_level(true);
    assert!(bench.irq_0.level());
}

#[test]
fn state_survives_saving() {
    let mut bench = Bench::new();
    bench.write(0x10, 1);
    bench.write(0x100, 16 << 9 | 1 << 2);
    bench.write(0x108, 1_000);
    let saved = serde_json::to_string(bench.device.state()).unwrap();
    let mut other = Bench::new();
    other.device.restore(serde_json::from_str(&saved).unwrap());
    assert_eq!(other.timer.deadline(), Some(10_000));
}

proptest! {
    #[test]
    fn random_accesses(accesses in prop::collection::vec(
        (any::<bool>(), 0u64..0x180, prop::sample::select(vec![1usize, 2, 4, 8]), any::<u64>(), 0u64..1_000_000),
        0..200,
    )) {
        let mut bench = Bench::new();
        for (write, offset, len, value, ns) in accesses {
            let mut data = value.to_le_bytes();
            if write {
                bench.device.write(offset, &data[..len]);
            } else {
                bench.device.read(offset, &mut data[..len]);
            }
            bench.clock.advance(ns);
            bench.device.timer_expired(bench.clock.now_ns());
        }
    }
}
