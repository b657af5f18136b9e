//! The register machine. Time is in ticks of [`super::TICK_NS`].

use serde::{Deserialize, Serialize};

use super::{COMPARATORS, TICK_FS};

/// General capabilities and ID: revision 1, three comparators, 64-bit counter, legacy replacement.
const CAPABILITIES: u64 =
    TICK_FS << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (COMPARATORS as u64 - 1) << 8 | 1;
/// General configuration: the counter runs and interrupts are allowed.
const ENABLE: u64 = 1 << 0;
/// General configuration: comparators 0 and 1 replace the PIT and the RTC.
const LEGACY_REPLACEMENT: u64 = 1 << 1;

/// Comparator configuration: level-triggered.
const LEVEL: u64 = 1 << 1;
const INTERRUPT_ENABLE: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
/// The next write of the comparator sets the accumulator too.
const SET_VALUE: u64 = 1 << 6;
const FORCE_32_BITS: u64 = 1 << 8;
const ROUTE_SHIFT: u64 = 9;
const ROUTE: u64 = 0x1f << ROUTE_SHIFT;
/// Periodic mode, 64 bits, and the pins of the I/O APIC from 16 on, which no other device has.
const COMPARATOR_CAPABILITIES: u64 = 0x00ff_0000 << 32 | 1 << 5 | 1 << 4;
const WRITABLE: u64 = LEVEL | INTERRUPT_ENABLE | PERIODIC | SET_VALUE | FORCE_32_BITS | ROUTE;

/// A periodic comparator interrupts no sooner than this after the time before: the host stays
/// usable, whatever period the guest asks for.
const MIN_PERIOD: u64 = 20_000 / super::TICK_NS;

/// Where a comparator's interrupt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// In the PIT's place.
    Irq0,
    /// In the RTC's place.
    Irq8,
    /// This pin of the I/O APIC.
    Pin(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Comparator {
    config: u64,
    /// The value that the counter is compared with; in periodic mode it moves on.
    value: u64,
    period: u64,
    /// Tick of the next match.
    next: Option<u64>,
}

impl Default for Comparator {
    fn default() -> Self {
        // After reset it matches nothing for as long as can be.
        Self { config: 0, value: u64::MAX, period: 0, next: None }
    }
}

impl Comparator {
    fn mask(&self) -> u64 {
        if self.config & FORCE_32_BITS != 0 { u32::MAX.into() } else { u64::MAX }
    }

    fn is_periodic(&self) -> bool {
        self.config & PERIODIC != 0
    }

    /// Ticks from a counter value to the next match.
    fn distance(&self, counter: u64) -> u64 {
        self.value.wrapping_sub(counter) & self.mask()
    }

    /// The match of tick `at` has happened; it is tick `now`.
    fn advance(&mut self, at: u64, now: u64) {
        self.next = if self.is_periodic() {
            // Matches that nobody was awake for are one.
            let period = self.period & self.mask();
            let passed = now.saturating_sub(at).max(MIN_PERIOD - 1);
            passed.checked_div(period).map(|missed| {
                let steps = missed.saturating_add(1).saturating_mul(period);
                self.value = self.value.wrapping_add(steps) & self.mask();
                at.saturating_add(steps)
            })
        } else {
            // 32 bits wrap and match again.
            self.mask().checked_add(1).and_then(|wrap| at.checked_add(wrap))
        };
    }
}

/// The registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hpet {
    config: u64,
    /// A bit for each comparator with a level-triggered request.
    status: u64,
    /// The counter while it is halted; else what it is ahead of the clock.
    counter: u64,
    comparators: [Comparator; COMPARATORS],
}

impl Hpet {
    fn enabled(&self) -> bool {
        self.config & ENABLE != 0
    }

    /// Whether comparators 0 and 1 stand in for the PIT and the RTC.
    pub fn legacy_replacement(&self) -> bool {
        self.config & LEGACY_REPLACEMENT != 0
    }

    /// The main counter at tick `now`.
    pub fn counter(&self, now: u64) -> u64 {
        if self.enabled() { self.counter.wrapping_add(now) } else { self.counter }
    }

    /// Where comparator `index` interrupts.
    pub fn route(&self, index: usize) -> Option<Route> {
        let comparator = self.comparators.get(index)?;
        Some(match index {
            0 if self.legacy_replacement() => Route::Irq0,
            1 if self.legacy_replacement() => Route::Irq8,
            _ => Route::Pin(((comparator.config & ROUTE) >> ROUTE_SHIFT) as u8),
        })
    }

    /// Whether comparator `index` asserts its line: level-triggered, enabled and not acknowledged.
    pub fn level(&self, index: usize) -> bool {
        self.comparators.get(index).is_some_and(|comparator| {
            self.status >> index & 1 != 0 && comparator.config & INTERRUPT_ENABLE != 0
        })
    }

    /// The tick of the next match that interrupts.
    pub fn next_alarm(&self) -> Option<u64> {
        let interrupts = |c: &&Comparator| c.config & INTERRUPT_ENABLE != 0;
        self.comparators.iter().filter(interrupts).filter_map(|comparator| comparator.next).min()
    }

    /// Takes the matches up to tick `now`. Returns a bit for each comparator whose edge-triggered
    /// interrupt fires; level-triggered ones show in [`Hpet::level`].
    pub fn advance(&mut self, now: u64) -> u64 {
        let mut edges = 0;
        for (index, comparator) in self.comparators.iter_mut().enumerate() {
            let Some(at) = comparator.next.filter(|&at| at <= now) else { continue };
            comparator.advance(at, now);
            let bit = 1 << index;
            match (comparator.config & LEVEL != 0, comparator.config & INTERRUPT_ENABLE != 0) {
                (true, _) => self.status |= bit,
                (false, true) => edges |= bit,
                (false, false) => {}
            }
        }
        edges
    }

    /// Reads the 64-bit register at `offset`, a multiple of 8.
    pub fn read(&self, offset: u64, now: u64) -> u64 {
        match offset {
            0x000 => CAPABILITIES,
            0x010 => self.config,
            0x020 => self.status,
            0x0f0 => self.counter(now),
            _ => match self.decode(offset) {
                Some((index, 0)) => self.comparators[index].config | COMPARATOR_CAPABILITIES,
                Some((index, 8)) => self.comparators[index].value,
                // No message-signalled interrupts.
                _ => 0,
            },
        }
    }

    /// Writes the bits of `mask` of the register at `offset`, a multiple of 8. The caller has
    /// taken the matches up to `now`.
    pub fn write(&mut self, offset: u64, value: u64, mask: u64, now: u64) {
        let merge = |old: u64| old & !mask | value & mask;
        match offset {
            0x010 => {
                let config = merge(self.config) & (ENABLE | LEGACY_REPLACEMENT);
                let counter = self.counter(now);
                self.config = config;
                self.counter = if self.enabled() { counter.wrapping_sub(now) } else { counter };
                self.schedule_all(now);
            }
            0x020 => self.status &= !(value & mask),
            // Only a halted counter can be written.
            0x0f0 if !self.enabled() => self.counter = merge(self.counter),
            _ => {
                if let Some((index, register)) = self.decode(offset) {
                    self.write_comparator(index, register, value, mask);
                    self.schedule(index, now);
                }
            }
        }
    }

    fn decode(&self, offset: u64) -> Option<(usize, u64)> {
        let inside = offset.checked_sub(0x100)?;
        let index = (inside / 0x20) as usize;
        (index < COMPARATORS).then_some((index, inside % 0x20))
    }

    fn write_comparator(&mut self, index: usize, register: u64, value: u64, mask: u64) {
        let comparator = &mut self.comparators[index];
        let merge = |old: u64| old & !mask | value & mask;
        match register {
            0 => {
                comparator.config = merge(comparator.config) & WRITABLE;
                comparator.value &= comparator.mask();
                if comparator.config & LEVEL == 0 {
                    self.status &= !(1 << index);
                }
            }
            8 => {
                let periodic = comparator.is_periodic();
                if !periodic || comparator.config & SET_VALUE != 0 {
                    comparator.value = merge(comparator.value) & comparator.mask();
                }
                if periodic {
                    comparator.period = merge(comparator.period) & comparator.mask();
                }
                comparator.config &= !SET_VALUE;
            }
            _ => {}
        }
    }

    fn schedule_all(&mut self, now: u64) {
        for index in 0..COMPARATORS {
            self.schedule(index, now);
        }
    }

    fn schedule(&mut self, index: usize, now: u64) {
        let counter = self.counter(now);
        let enabled = self.enabled();
        let comparator = &mut self.comparators[index];
        comparator.next =
            if enabled { now.checked_add(comparator.distance(counter)) } else { None };
    }
}
