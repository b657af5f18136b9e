//! One of the 8254's three counters, as a function of time.
//!
//! Nothing counts here: a channel remembers the clock tick at which its counting element was
//! loaded and computes its value and output from the ticks that have passed since. Names follow
//! the datasheet (Intel 231164-005, "8254 Programmable Interval Timer").

use serde::{Deserialize, Serialize};

/// What the counter does with its gate and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mode {
    /// Mode 0: output low until the terminal count.
    InterruptOnTerminalCount,
    /// Mode 1: the gate starts a low pulse.
    OneShot,
    /// Mode 2: low for the last tick of each period.
    RateGenerator,
    /// Mode 3: high for the first half of each period.
    SquareWave,
    /// Mode 4: low for one tick at the terminal count.
    SoftwareStrobe,
    /// Mode 5: as mode 4, started by the gate.
    HardwareStrobe,
}

impl Mode {
    /// Bits 3:1 of a control word; the top bit is ignored in modes 2 and 3.
    fn from_control(control: u8) -> Self {
        match (control >> 1) & 7 {
            0 => Self::InterruptOnTerminalCount,
            1 => Self::OneShot,
            4 => Self::SoftwareStrobe,
            5 => Self::HardwareStrobe,
            low_bits if low_bits & 1 == 0 => Self::RateGenerator,
            _ => Self::SquareWave,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::InterruptOnTerminalCount => 0,
            Self::OneShot => 1,
            Self::RateGenerator => 2,
            Self::SquareWave => 3,
            Self::SoftwareStrobe => 4,
            Self::HardwareStrobe => 5,
        }
    }

    fn is_periodic(self) -> bool {
        matches!(self, Self::RateGenerator | Self::SquareWave)
    }

    /// Whether only a rising gate starts the counter.
    fn needs_trigger(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }

    /// The output after a control word, and whenever the counter does not run.
    fn idle_output(self) -> bool {
        self != Self::InterruptOnTerminalCount
    }
}

/// Which bytes of the 16-bit count an access moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Access {
    Low,
    High,
    /// Low, then high.
    Both,
}

/// The counting element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Run {
    /// Nothing loaded: a control word, or half a count, was written, or no trigger has come.
    Stopped {
        /// What the counting element was left at, as it reads.
        value: u16,
    },
    /// Held by a low gate, `elapsed` ticks after the load.
    Held { elapsed: u64 },
    /// Loaded at tick `since`, which may be the tick to come.
    Counting { since: u64 },
}

/// A count that a periodic mode takes over at the end of its running period or half-period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct PendingCount {
    count: u32,
    at: u64,
}

/// The registers of one counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Channel {
    mode: Mode,
    access: Access,
    bcd: bool,
    gate: bool,
    /// The count register: 1 to 65,536 (10,000 in BCD). `None` between a control word and a count.
    count: Option<u32>,
    /// The count that the counting element runs from.
    loaded: u32,
    run: Run,
    pending: Option<PendingCount>,
    /// The counting element has not taken over what was last written.
    null_count: bool,
    /// The low byte of a two-byte count, waiting for the high one.
    low_byte: Option<u8>,
    /// The next read of a two-byte count returns the high byte.
    read_high: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Channel {
    /// A counter that nobody has programmed; `gate` is the level at its gate input.
    pub(super) fn new(gate: bool) -> Self {
        Self {
            mode: Mode::SquareWave,
            access: Access::Both,
            bcd: false,
            gate,
            count: None,
            loaded: 0x1_0000,
            run: Run::Stopped { value: 0 },
            pending: None,
            null_count: true,
            low_byte: None,
            read_high: false,
            latched_count: None,
            latched_status: None,
        }
    }

    pub(super) fn is_periodic(&self) -> bool {
        self.mode.is_periodic()
    }

    /// A control word for this counter, not a latch command.
    pub(super) fn write_control(&mut self, control: u8, now: u64) {
        let value = self.value(now);
        self.mode = Mode::from_control(control);
        self.access = match (control >> 4) & 3 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::Both,
        };
        self.bcd = control & 1 != 0;
        self.count = None;
        self.run = Run::Stopped { value };
        self.pending = None;
        self.null_count = true;
        self.low_byte = None;
        self.read_high = false;
        self.latched_count = None;
        self.latched_status = None;
    }

    /// A write of the count, a byte at a time as the access mode says.
    pub(super) fn write_count(&mut self, byte: u8, now: u64) {
        self.settle(now);
        let register = match self.access {
            Access::Low => u16::from(byte),
            Access::High => u16::from(byte) << 8,
            Access::Both => match self.low_byte.take() {
                Some(low) => u16::from_le_bytes([low, byte]),
                None => {
                    self.low_byte = Some(byte);
                    if self.mode == Mode::InterruptOnTerminalCount {
                        // Half a count stops mode 0 and takes its output low.
                        self.run = Run::Stopped { value: self.value(now) };
                    }
                    return;
                }
            },
        };
        let count = self.decode(register);
        self.count = Some(count);
        self.null_count = true;
        match self.run {
            _ if self.mode.needs_trigger() => {}
            Run::Counting { .. } if self.mode.is_periodic() => {
                let at = self.next_boundary(now);
                self.pending = Some(PendingCount { count, at });
            }
            Run::Stopped { .. } | Run::Held { .. } | Run::Counting { .. } => self.load(count, now),
        }
    }

    /// Loads the counting element on the next tick.
    fn load(&mut self, count: u32, now: u64) {
        self.loaded = count;
        self.pending = None;
        self.null_count = false;
        self.run = if self.gate || self.mode.needs_trigger() {
            Run::Counting { since: now.wrapping_add(1) }
        } else {
            Run::Held { elapsed: 0 }
        };
    }

    /// The level at the gate input.
    pub(super) fn gate(&self) -> bool {
        self.gate
    }

    /// Drives the gate input.
    pub(super) fn set_gate(&mut self, gate: bool, now: u64) {
        self.settle(now);
        let rising = gate && !self.gate;
        let falling = !gate && self.gate;
        self.gate = gate;
        if rising && (self.mode.needs_trigger() || self.mode.is_periodic()) {
            // A trigger: start over from the count register.
            if let Some(count) = self.count {
                self.load(count, now);
            }
            return;
        }
        match self.run {
            Run::Held { elapsed } if rising => {
                self.run = Run::Counting { since: now.wrapping_sub(elapsed) };
            }
            Run::Counting { since } if falling && !self.mode.needs_trigger() => {
                self.run = Run::Held { elapsed: elapsed(since, now) };
                // Counting starts again from the count register, not at the end of a period.
                self.pending = None;
            }
            Run::Stopped { .. } | Run::Held { .. } | Run::Counting { .. } => {}
        }
    }

    /// Takes over a pending count whose time has come.
    fn settle(&mut self, now: u64) {
        let Some(PendingCount { count, at }) = self.pending.filter(|pending| pending.at <= now)
        else {
            return;
        };
        let starts_low = self.mode == Mode::SquareWave && !self.output_when_settled(at);
        self.loaded = count;
        self.pending = None;
        self.null_count = false;
        // Starting with the low half means being half a period into the new one.
        let phase = if starts_low { high_half(u64::from(count)) } else { 0 };
        self.run = Run::Counting { since: at.wrapping_sub(phase) };
    }

    /// The end of the running period (mode 2) or half-period (mode 3), after `now`.
    fn next_boundary(&self, now: u64) -> u64 {
        let Run::Counting { since } = self.run else { return now.wrapping_add(1) };
        let period = self.period();
        let into = elapsed(since, now) % period;
        let high = high_half(self.period());
        let left =
            if self.mode == Mode::SquareWave && into < high { high - into } else { period - into };
        later(since, now).wrapping_add(left)
    }

    /// The level of the output at tick `now`.
    pub(super) fn output(&mut self, now: u64) -> bool {
        self.settle(now);
        self.output_when_settled(now)
    }

    fn output_when_settled(&self, now: u64) -> bool {
        let elapsed = match self.run {
            Run::Stopped { .. } => return self.mode.idle_output(),
            // A low gate takes the periodic modes' output high at once.
            Run::Held { .. } if self.mode.is_periodic() => return true,
            Run::Held { elapsed } => elapsed,
            Run::Counting { since } => elapsed(since, now),
        };
        let count = self.period();
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::OneShot => elapsed >= count,
            Mode::RateGenerator => elapsed % count != count - 1,
            Mode::SquareWave => elapsed % count < high_half(self.period()),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => elapsed != count,
        }
    }

    /// The tick of the output's next low-to-high transition after `now`.
    pub(super) fn next_rise(&mut self, now: u64) -> Option<u64> {
        self.settle(now);
        let Run::Counting { since } = self.run else { return None };
        let count = self.period();
        let once = |tick: u64| Some(tick).filter(|&tick| tick > now);
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::OneShot => once(since.wrapping_add(count)),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => once(since.wrapping_add(count + 1)),
            Mode::RateGenerator | Mode::SquareWave => {
                let into = elapsed(since, now) % count;
                let rise = later(since, now).wrapping_add(count - into);
                match self.pending {
                    // The new count starts with its low half.
                    Some(pending) if pending.at < rise => {
                        let low_half = u64::from(pending.count / 2);
                        (low_half > 0).then_some(pending.at.wrapping_add(low_half))
                    }
                    // A count of 1 is illegal: mode 3's output stays high until the next count's
                    // low half, mode 2's stays low.
                    Some(pending) if self.mode == Mode::SquareWave && count == 1 => {
                        let next = u64::from(pending.count);
                        (next > 1).then_some(pending.at.wrapping_add(next))
                    }
                    Some(pending) if self.mode == Mode::RateGenerator && pending.count == 1 => None,
                    Some(_) => Some(rise),
                    // A count of 1 is illegal: the output never moves.
                    None => (count > 1).then_some(rise),
                }
            }
        }
    }

    /// The counting element as it reads: binary or BCD.
    fn value(&mut self, now: u64) -> u16 {
        self.settle(now);
        let elapsed = match self.run {
            Run::Stopped { value } => return value,
            Run::Held { elapsed } => elapsed,
            Run::Counting { since } => elapsed(since, now),
        };
        let count = self.period();
        let value = match self.mode {
            Mode::RateGenerator => count - elapsed % count,
            Mode::SquareWave => {
                let into = elapsed % count;
                let high = high_half(self.period());
                let into_half = if into < high { into } else { into - high };
                (count & !1).saturating_sub(2 * into_half)
            }
            Mode::InterruptOnTerminalCount
            | Mode::OneShot
            | Mode::SoftwareStrobe
            | Mode::HardwareStrobe => {
                // Past the terminal count the counter goes on from the top.
                let modulus = u64::from(self.modulus());
                (count % modulus + modulus - elapsed % modulus) % modulus
            }
        };
        self.encode(value)
    }

    /// The running count, never 0: a damaged snapshot must not divide by it.
    fn period(&self) -> u64 {
        u64::from(self.loaded.max(1))
    }

    fn modulus(&self) -> u32 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// The count that a register value means; 0 stands for the largest one. Digits above 9, which
    /// BCD does not have, weigh what they say.
    fn decode(&self, register: u16) -> u32 {
        let count = if self.bcd {
            (0..4)
                .rev()
                .fold(0, |count, digit| count * 10 + u32::from((register >> (4 * digit)) & 15))
        } else {
            u32::from(register)
        };
        if count == 0 { self.modulus() } else { count }
    }

    fn encode(&self, value: u64) -> u16 {
        if !self.bcd {
            return value as u16;
        }
        let value = value % 10_000;
        [1_000, 100, 10, 1].iter().fold(0, |bcd, weight| (bcd << 4) | (value / weight % 10) as u16)
    }

    /// The counter latch command: a count that is already latched stays.
    pub(super) fn latch_count(&mut self, now: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.value(now));
        }
    }

    /// The status half of the read-back command.
    pub(super) fn latch_status(&mut self, now: u64) {
        if self.latched_status.is_some() {
            return;
        }
        let output = self.output(now);
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::Both => 3,
        };
        self.latched_status = Some(
            (u8::from(output) << 7)
                | (u8::from(self.is_null_count(now)) << 6)
                | (access << 4)
                | (self.mode.number() << 1)
                | u8::from(self.bcd),
        );
    }

    fn is_null_count(&self, now: u64) -> bool {
        self.null_count || matches!(self.run, Run::Counting { since } if is_ahead(since, now))
    }

    /// A read of the counter's port: the latched status, the latched count, or the count itself.
    pub(super) fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = match self.latched_count {
            Some(count) => count,
            None => self.value(now),
        }
        .to_le_bytes();
        let (byte, done) = match self.access {
            Access::Low => (low, true),
            Access::High => (high, true),
            Access::Both => {
                let second = self.read_high;
                self.read_high = !second;
                (if second { high } else { low }, second)
            }
        };
        if done {
            self.latched_count = None;
        }
        byte
    }
}

/// Whether tick `tick` is to come. A load may lie before tick 0, where it wraps, so the sign of the
/// difference decides.
fn is_ahead(tick: u64, now: u64) -> bool {
    now.wrapping_sub(tick) >> 63 != 0
}

/// Ticks since the load; none as long as the load is to come.
fn elapsed(since: u64, now: u64) -> u64 {
    if is_ahead(since, now) { 0 } else { now.wrapping_sub(since) }
}

/// The later of a load and now.
fn later(since: u64, now: u64) -> u64 {
    if is_ahead(since, now) { since } else { now }
}

/// Ticks of a square wave's high half: the longer one if the count is odd.
fn high_half(count: u64) -> u64 {
    count.div_ceil(2)
}
