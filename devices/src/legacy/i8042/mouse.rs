//! A PS/2 mouse, with the wheel of an IntelliMouse for drivers that knock for it.

use serde::{Deserialize, Serialize};

use super::ps2::{ACKNOWLEDGE, RESEND, SELF_TEST_PASSED, Sender};

/// The sample rates that, set one after another, turn the wheel on.
const WHEEL_KNOCK: [u8; 3] = [200, 100, 80];
const DEFAULT_RATE: u8 = 100;
/// Counts per millimetre are 1 << resolution.
const DEFAULT_RESOLUTION: u8 = 2;

/// What the user did with the mouse since the last report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MouseEvent {
    /// Counts to the right.
    pub dx: i16,
    /// Counts up, away from the user.
    pub dy: i16,
    /// Steps of the wheel, positive towards the user.
    pub wheel: i8,
    /// Buttons that are down: bit 0 left, 1 right, 2 middle.
    pub buttons: u8,
}

/// A command whose parameter is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Awaits {
    Command,
    SampleRate,
    Resolution,
}

/// The mouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mouse {
    sender: Sender,
    awaits: Awaits,
    /// Reports movement by itself, if in stream mode.
    reporting: bool,
    remote: bool,
    /// Echoes what it receives.
    wrap: bool,
    double_scaling: bool,
    resolution: u8,
    sample_rate: u8,
    last_rates: [u8; 3],
    has_wheel: bool,
    buttons: u8,
    /// Movement that no report has told, since there was no room for one: the counters run on.
    #[serde(default)]
    untold: Option<Counters>,
}

/// Movement, to the right, up, and of the wheel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counters {
    dx: i16,
    dy: i16,
    wheel: i8,
}

impl Mouse {
    /// A mouse after its power-on test, whose report nobody waited for.
    pub(super) fn new() -> Self {
        Self {
            sender: Sender::default(),
            awaits: Awaits::Command,
            reporting: false,
            remote: false,
            wrap: false,
            double_scaling: false,
            resolution: DEFAULT_RESOLUTION,
            sample_rate: DEFAULT_RATE,
            last_rates: [0; 3],
            has_wheel: false,
            buttons: 0,
            untold: None,
        }
    }

    /// The user's movement. Returns false if it was lost: nobody asked for it.
    pub(super) fn moved(&mut self, event: MouseEvent) -> bool {
        self.buttons = event.buttons & 7;
        if !self.reporting || self.remote || self.wrap {
            return false;
        }
        let before = self.untold.unwrap_or_default();
        self.untold = Some(Counters {
            dx: before.dx.saturating_add(event.dx),
            dy: before.dy.saturating_add(event.dy),
            wheel: before.wheel.saturating_add(event.wheel),
        });
        self.report();
        true
    }

    /// Reports what is untold, if there is room.
    fn report(&mut self) {
        let Some(Counters { dx, dy, wheel }) = self.untold else { return };
        let (packet, len) = self.packet(MouseEvent { dx, dy, wheel, buttons: self.buttons });
        if packet.get(..len).is_some_and(|packet| self.sender.queue_input(packet)) {
            self.untold = None;
        }
    }

    /// Forgets what the user did.
    fn clear_input(&mut self) {
        self.sender.clear_input();
        self.untold = None;
    }

    /// A report: flags, horizontal, vertical and, on a wheel mouse, wheel.
    fn packet(&self, event: MouseEvent) -> ([u8; 4], usize) {
        let (dx, dy) = (event.dx.clamp(-255, 255), event.dy.clamp(-255, 255));
        let flags = self.buttons
            | (1 << 3)
            | (u8::from(dx < 0) << 4)
            | (u8::from(dy < 0) << 5)
            | (u8::from(dx != event.dx) << 6)
            | (u8::from(dy != event.dy) << 7);
        let wheel = event.wheel.clamp(-8, 7) as u8;
        ([flags, dx as u8, dy as u8, wheel], if self.has_wheel { 4 } else { 3 })
    }

    /// The next byte to the controller.
    pub(super) fn next(&mut self) -> Option<u8> {
        let byte = self.sender.next();
        self.report();
        byte
    }

    /// A byte from the controller.
    pub(super) fn receive(&mut self, byte: u8) {
        const RESET: u8 = 0xff;
        const RESET_WRAP: u8 = 0xec;
        if self.wrap && !matches!(byte, RESET | RESET_WRAP) {
            return self.sender.answer(&[byte]);
        }
        let awaits = std::mem::replace(&mut self.awaits, Awaits::Command);
        match awaits {
            Awaits::Command => self.command(byte),
            Awaits::SampleRate if byte <= 200 => {
                let [_, second, third] = self.last_rates;
                self.last_rates = [second, third, byte];
                self.has_wheel |= self.last_rates == WHEEL_KNOCK;
                self.sample_rate = byte;
                self.sender.answer(&[ACKNOWLEDGE]);
            }
            Awaits::Resolution if byte <= 3 => {
                self.resolution = byte;
                self.sender.answer(&[ACKNOWLEDGE]);
            }
            Awaits::SampleRate | Awaits::Resolution => self.sender.answer(&[RESEND]),
        }
    }

    fn command(&mut self, command: u8) {
        match command {
            0xe6 => self.double_scaling = false,
            0xe7 => self.double_scaling = true,
            0xe8 => self.awaits = Awaits::Resolution,
            // Status request.
            0xe9 => {
                let answer = [ACKNOWLEDGE, self.status(), self.resolution, self.sample_rate];
                return self.sender.answer(&answer);
            }
            0xea => self.remote = false,
            // Read data: nothing has moved that was not reported.
            0xeb => {
                let ([flags, dx, dy, wheel], len) = self.packet(MouseEvent::default());
                let answer = [ACKNOWLEDGE, flags, dx, dy, wheel];
                return self.sender.answer(answer.get(..=len).unwrap_or(&answer));
            }
            0xec => self.wrap = false,
            0xee => {
                self.wrap = true;
                self.untold = None;
            }
            0xf0 => {
                self.remote = true;
                self.untold = None;
            }
            // Identify.
            0xf2 => {
                let identity = if self.has_wheel { 3 } else { 0 };
                return self.sender.answer(&[ACKNOWLEDGE, identity]);
            }
            0xf3 => self.awaits = Awaits::SampleRate,
            0xf4 => self.reporting = true,
            0xf5 => {
                self.reporting = false;
                self.clear_input();
            }
            0xf6 => self.set_defaults(),
            0xfe => return self.sender.resend(),
            0xff => {
                *self = Self::new();
                return self.sender.answer(&[ACKNOWLEDGE, SELF_TEST_PASSED, 0]);
            }
            _ => return self.sender.answer(&[RESEND]),
        }
        self.sender.answer(&[ACKNOWLEDGE]);
    }

    /// The status byte: mode, reporting, scaling, and the buttons in reverse order.
    fn status(&self) -> u8 {
        let button = |bit: u8| (self.buttons >> bit) & 1;
        (u8::from(self.remote) << 6)
            | (u8::from(self.reporting) << 5)
            | (u8::from(self.double_scaling) << 4)
            | (button(0) << 2)
            | (button(2) << 1)
            | button(1)
    }

    fn set_defaults(&mut self) {
        self.reporting = false;
        self.remote = false;
        self.double_scaling = false;
        self.resolution = DEFAULT_RESOLUTION;
        self.sample_rate = DEFAULT_RATE;
        self.clear_input();
    }
}
