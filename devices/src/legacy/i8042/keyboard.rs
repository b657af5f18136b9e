//! A PS/2 keyboard (an enhanced 101-key "MF2"): commands and answers.

use serde::{Deserialize, Serialize};

use super::ps2::{ACKNOWLEDGE, RESEND, SELF_TEST_PASSED, Sender};
use super::translate::Translator;

/// First byte value that is a command even where a parameter is due.
const FIRST_COMMAND: u8 = 0xed;
/// 10.9 characters a second after half a second: the typematic rate after a reset.
const DEFAULT_TYPEMATIC: u8 = 0x2b;

/// A command whose parameter is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Awaits {
    Command,
    Leds,
    ScanCodeSet,
    Typematic,
}

/// The keyboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keyboard {
    sender: Sender,
    awaits: Awaits,
    scanning: bool,
    /// 1 or 2.
    scan_code_set: u8,
    /// Scroll Lock, Num Lock, Caps Lock, from bit 0.
    leds: u8,
    typematic: u8,
    /// For set 1: keys come to us in set 2.
    to_set_1: Translator,
}

impl Keyboard {
    /// A keyboard after its power-on test, whose report nobody waited for.
    pub(super) fn new() -> Self {
        Self {
            sender: Sender::default(),
            awaits: Awaits::Command,
            scanning: true,
            scan_code_set: 2,
            leds: 0,
            typematic: DEFAULT_TYPEMATIC,
            to_set_1: Translator::default(),
        }
    }

    pub(super) fn leds(&self) -> u8 {
        self.leds
    }

    /// The user's keys, in set 2. Returns false if they were lost: no room, or scanning is off.
    pub(super) fn key(&mut self, set_2: &[u8]) -> bool {
        if !self.scanning {
            return false;
        }
        if self.scan_code_set != 1 {
            return self.sender.queue_input(set_2);
        }
        let set_1: Vec<u8> =
            set_2.iter().filter_map(|&byte| self.to_set_1.translate(byte)).collect();
        self.sender.queue_input(&set_1)
    }

    /// The next byte to the controller.
    pub(super) fn next(&mut self) -> Option<u8> {
        self.sender.next()
    }

    /// A byte from the controller.
    pub(super) fn receive(&mut self, byte: u8) {
        let awaits = std::mem::replace(&mut self.awaits, Awaits::Command);
        match awaits {
            _ if byte >= FIRST_COMMAND => self.command(byte),
            Awaits::Command => self.sender.answer(&[RESEND]),
            Awaits::Leds => {
                self.leds = byte & 7;
                self.sender.answer(&[ACKNOWLEDGE]);
            }
            Awaits::Typematic => {
                self.typematic = byte & 0x7f;
                self.sender.answer(&[ACKNOWLEDGE]);
            }
            Awaits::ScanCodeSet => match byte {
                0 => self.sender.answer(&[ACKNOWLEDGE, self.scan_code_set]),
                1 | 2 => {
                    self.scan_code_set = byte;
                    self.sender.clear_input();
                    self.sender.answer(&[ACKNOWLEDGE]);
                }
                // Set 3 exists on paper; nothing uses it, and drivers fall back to set 2.
                _ => self.sender.answer(&[RESEND]),
            },
        }
    }

    fn command(&mut self, command: u8) {
        match command {
            0xed => self.expect(Awaits::Leds),
            // Echo.
            0xee => self.sender.answer(&[0xee]),
            0xf0 => self.expect(Awaits::ScanCodeSet),
            // Identify.
            0xf2 => self.sender.answer(&[ACKNOWLEDGE, 0xab, 0x83]),
            0xf3 => self.expect(Awaits::Typematic),
            0xf4 => self.default_and_acknowledge(false, true),
            0xf5 => self.default_and_acknowledge(true, false),
            0xf6 => self.default_and_acknowledge(true, self.scanning),
            0xfe => self.sender.resend(),
            0xff => {
                *self = Self::new();
                self.sender.answer(&[ACKNOWLEDGE, SELF_TEST_PASSED]);
            }
            _ => self.sender.answer(&[RESEND]),
        }
    }

    fn expect(&mut self, parameter: Awaits) {
        self.awaits = parameter;
        self.sender.answer(&[ACKNOWLEDGE]);
    }

    /// Enable, disable and set-defaults: all clear the buffer.
    fn default_and_acknowledge(&mut self, defaults: bool, scanning: bool) {
        if defaults {
            self.scan_code_set = 2;
            self.typematic = DEFAULT_TYPEMATIC;
        }
        self.scanning = scanning;
        self.to_set_1 = Translator::default();
        self.sender.clear_input();
        self.sender.answer(&[ACKNOWLEDGE]);
    }
}
