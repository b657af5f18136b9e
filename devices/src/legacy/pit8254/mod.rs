//! The 8254 programmable interval timer and system control port B.
//!
//! | port | read | write |
//! |---|---|---|
//! | 0x40 to 0x42 | counter 0 to 2: latched status, latched count, or count | count |
//! | 0x43 | nothing (all-ones) | control word, counter latch or read-back command |
//! | 0x61 | bits 3:0 as written, 4 refresh toggle, 5 OUT of counter 2, 7:6 no error | 0 gate of counter 2, 1 speaker data, 2 and 3 error masks |
//!
//! All counters run at 1.193182 MHz. Counter 0 drives IRQ0; counter 1 paced memory refresh, of
//! which only the toggle in port 0x61 is left; counter 2 is the speaker's and the usual yardstick
//! of kernels that calibrate the TSC. The gates of counters 0 and 1 are tied high.
//!
//! IRQ0 sees the rising edges of OUT, at their time. The low phases of the periodic modes are
//! not played on the wire: nothing can observe them there but a request that loses its edge.
//!
//! Sources: Intel 8254 datasheet (231164-005); Intel 82371AB (PIIX4) datasheet, section 4.2.2 and
//! the NMI status and control register.

mod channel;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::{BusDevice, read_bytes, write_bytes};
use crate::clock::{Clock, Timer, TimerClient, ns_to_ticks, ticks_to_ns};
use crate::interrupt::IrqLine;
use channel::Channel;

/// The ports, for [`crate::Bus::insert_ports`].
pub const PORTS: &[(u16, u16)] = &[(0x40, 4), (0x61, 1)];

/// Frequency of the counters' clock input.
pub const PIT_HZ: u64 = 1_193_182;

/// Ticks between memory refreshes: what a PC BIOS gives counter 1.
const REFRESH_TICKS: u64 = 18;
/// No alarm follows the one before it sooner than this: a guest that asks a periodic mode for a
/// tick every two microseconds gets fewer of them, and the host stays usable.
const MIN_PERIOD_NS: u64 = 20_000;

/// Bits of port 0x61 that software writes.
const CONTROL_B_WRITABLE: u8 = 0x0f;
const CONTROL_B_GATE_2: u8 = 1 << 0;
const CONTROL_B_REFRESH: u8 = 1 << 4;
const CONTROL_B_OUT_2: u8 = 1 << 5;

/// The three counters and port 0x61: the pure register machine. Time is in ticks of [`PIT_HZ`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pit {
    channels: [Channel; 3],
    control_b: u8,
    /// Tick of counter 0's next rising output that IRQ0 has not seen.
    irq_edge: Option<u64>,
}

impl Pit {
    /// The timer at power-on: nothing counts.
    pub fn new() -> Self {
        Self {
            channels: [Channel::new(true), Channel::new(true), Channel::new(false)],
            control_b: 0,
            irq_edge: None,
        }
    }

    /// Programs the timer as a PC BIOS leaves it: counter 0 in mode 3 at 18.2 Hz, counter 1 in
    /// mode 2 for memory refresh.
    pub fn program_as_bios(&mut self, now: u64) {
        for (port, value) in
            [(0x43, 0x36), (0x40, 0), (0x40, 0), (0x43, 0x54), (0x41, REFRESH_TICKS as u8)]
        {
            self.write_port(port, value, now);
        }
    }

    /// Reads the register at `port` at tick `now`; ports that are not the timer's read as all-ones.
    pub fn read_port(&mut self, port: u64, now: u64) -> u8 {
        let [zero, one, two] = &mut self.channels;
        match port {
            0x40 => zero.read(now),
            0x41 => one.read(now),
            0x42 => two.read(now),
            0x61 => {
                let refresh = (now / REFRESH_TICKS) & 1 != 0;
                self.control_b
                    | if refresh { CONTROL_B_REFRESH } else { 0 }
                    | if two.output(now) { CONTROL_B_OUT_2 } else { 0 }
            }
            _ => 0xff,
        }
    }

    /// Writes the register at `port` at tick `now`; ports that are not the timer's are ignored.
    pub fn write_port(&mut self, port: u64, value: u8, now: u64) {
        let [zero, one, two] = &mut self.channels;
        match port {
            0x40 => zero.write_count(value, now),
            0x41 => one.write_count(value, now),
            0x42 => two.write_count(value, now),
            0x43 => self.write_control(value, now),
            0x61 => {
                self.control_b = value & CONTROL_B_WRITABLE;
                let gate = value & CONTROL_B_GATE_2 != 0;
                if gate != two.gate() {
                    two.set_gate(gate, now);
                }
            }
            _ => {}
        }
        self.irq_edge = self.channels[0].next_rise(now);
    }

    fn write_control(&mut self, control: u8, now: u64) {
        let Some(channel) = self.channels.get_mut(usize::from(control >> 6)) else {
            return self.read_back(control, now);
        };
        if (control >> 4) & 3 == 0 {
            channel.latch_count(now);
        } else {
            channel.write_control(control, now);
        }
    }

    /// The read-back command: latches counts and statuses of any counters (bits 5 and 4 are
    /// active low).
    fn read_back(&mut self, command: u8, now: u64) {
        for (index, channel) in self.channels.iter_mut().enumerate() {
            if (command >> (index + 1)) & 1 == 0 {
                continue;
            }
            if command & 0x20 == 0 {
                channel.latch_count(now);
            }
            if command & 0x10 == 0 {
                channel.latch_status(now);
            }
        }
    }

    /// Whether the speaker's driver is enabled (port 0x61 bit 1).
    pub fn speaker_enabled(&self) -> bool {
        self.control_b & 2 != 0
    }

    /// The level of counter 0's output.
    fn output_0(&mut self, now: u64) -> bool {
        self.channels[0].output(now)
    }

    /// Whether counter 0's output has risen since the last call.
    fn take_irq_edge(&mut self, now: u64) -> bool {
        let risen = self.irq_edge.is_some_and(|edge| edge <= now);
        if risen {
            self.irq_edge = self.channels[0].next_rise(now);
        }
        risen
    }
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

/// The attachment: the timer on the bus, driving IRQ0.
pub struct PitDevice {
    pit: Pit,
    clock: Arc<dyn Clock>,
    irq: Box<dyn IrqLine>,
    timer: Box<dyn Timer>,
    /// When the alarm last went off.
    last_alarm_ns: u64,
}

impl PitDevice {
    /// Attaches a timer at power-on: `irq` is IRQ0, `timer` its own alarm.
    pub fn new(clock: Arc<dyn Clock>, irq: Box<dyn IrqLine>, timer: Box<dyn Timer>) -> Self {
        Self { pit: Pit::new(), clock, irq, timer, last_alarm_ns: 0 }
    }

    /// Programs the timer as a PC BIOS leaves it: see [`Pit::program_as_bios`].
    pub fn program_as_bios(&mut self) {
        let now = self.now();
        self.pit.program_as_bios(now);
        self.drive(now);
    }

    /// The state to save.
    pub fn state(&self) -> &Pit {
        &self.pit
    }

    /// Takes a saved state, rearms the alarm and drives the wire. The clock must go on from where
    /// it was when the state was saved.
    pub fn restore(&mut self, pit: Pit) {
        self.pit = pit;
        let now = self.now();
        self.deliver_edge(now);
        self.drive(now);
    }

    fn now(&self) -> u64 {
        ns_to_ticks(self.clock.now_ns(), PIT_HZ)
    }

    /// Plays an edge whose time has come, if the alarm has not.
    fn deliver_edge(&mut self, now: u64) {
        if self.pit.take_irq_edge(now) {
            self.irq.pulse_high();
        }
    }

    /// Drives the wire's level and the alarm after a change.
    fn drive(&mut self, now: u64) {
        let level = self.pit.channels[0].is_periodic() || self.pit.output_0(now);
        self.irq.set_level(level);
        let earliest = self.last_alarm_ns.saturating_add(MIN_PERIOD_NS);
        let deadline = self.pit.irq_edge.map(|edge| ticks_to_ns(edge, PIT_HZ).max(earliest));
        self.timer.arm(deadline);
    }
}

impl BusDevice for PitDevice {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let now = self.now();
        read_bytes(offset, data, |port| self.pit.read_port(port, now));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let now = self.now();
        self.deliver_edge(now);
        write_bytes(offset, data, |port, value| self.pit.write_port(port, value, now));
        self.drive(now);
    }
}

impl TimerClient for PitDevice {
    fn timer_expired(&mut self, now_ns: u64) {
        let now = ns_to_ticks(now_ns, PIT_HZ);
        self.last_alarm_ns = now_ns;
        self.deliver_edge(now);
        self.drive(now);
    }
}
