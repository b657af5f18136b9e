//! The 8042 as a pure register machine, with the firmware that a PC/AT puts into it.

use std::collections::VecDeque;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::keyboard::Keyboard;
use super::mouse::{Mouse, MouseEvent};
use super::translate::Translator;
use crate::legacy::reset::ResetKind;

bitflags! {
    /// The status register, port 0x64.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Status: u8 {
        /// Output buffer full.
        const OBF = 1 << 0;
        /// System flag: the self-test has passed.
        const SYS = 1 << 2;
        /// The last write was a command.
        const A2 = 1 << 3;
        /// The keyboard lock is open.
        const UNLOCKED = 1 << 4;
        /// The output buffer holds a byte of the auxiliary device.
        const AUX_OBF = 1 << 5;
    }

    /// The configuration ("command") byte, which is byte 0 of the controller's RAM.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Config: u8 {
        const KEYBOARD_INTERRUPT = 1 << 0;
        const AUX_INTERRUPT = 1 << 1;
        const SYS = 1 << 2;
        const KEYBOARD_DISABLED = 1 << 4;
        const AUX_DISABLED = 1 << 5;
        const TRANSLATE = 1 << 6;
    }
}

/// Output port: reset, active low.
const OUT_RESET: u8 = 1 << 0;
/// Output port: A20 gate open.
const OUT_A20: u8 = 1 << 1;
/// Output port: the interrupt outputs.
const OUT_KEYBOARD_FULL: u8 = 1 << 4;
const OUT_AUX_FULL: u8 = 1 << 5;
/// Output port: keyboard clock and data, idle high.
const OUT_KEYBOARD_LINES: u8 = 0xc0;
/// Port 0x92: CPU reset, on its rising edge.
const FAST_RESET: u8 = 1 << 0;
/// Port 0x92: A20 gate open.
const FAST_A20: u8 = 1 << 1;

/// The controller's own answers that may wait to be read.
const ANSWER_BYTES: usize = 16;

/// Who sent the byte in the output buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    /// The keyboard, or the controller itself: IRQ1.
    Keyboard,
    /// The auxiliary device: IRQ12.
    Aux,
}

/// What the next write to port 0x60 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum DataWrite {
    ToKeyboard,
    ToAux,
    /// A byte of the controller's RAM.
    Ram(u8),
    OutputPort,
    /// Back to the host, as if a device had sent it.
    Loop(Source),
}

/// The controller and the devices behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    keyboard: Keyboard,
    mouse: Mouse,
    /// The controller's 32 bytes of RAM; byte 0 is the configuration.
    ram: [u8; 32],
    a20: bool,
    last_write_was_command: bool,
    data_write: DataWrite,
    output_buffer: Option<(u8, Source)>,
    /// What port 0x60 reads while nothing is there.
    last_output: u8,
    answers: VecDeque<(u8, Source)>,
    translator: Translator,
    port_92: u8,
}

impl Controller {
    /// The controller as a PC BIOS leaves it: self-test passed, keyboard interrupts and
    /// translation on, the auxiliary port off, A20 open.
    pub fn new() -> Self {
        let mut ram = [0; 32];
        let config =
            Config::KEYBOARD_INTERRUPT | Config::SYS | Config::AUX_DISABLED | Config::TRANSLATE;
        ram[0] = config.bits();
        Self {
            keyboard: Keyboard::new(),
            mouse: Mouse::new(),
            ram,
            a20: true,
            last_write_was_command: false,
            data_write: DataWrite::ToKeyboard,
            output_buffer: None,
            last_output: 0,
            answers: VecDeque::new(),
            translator: Translator::default(),
            port_92: 0,
        }
    }

    fn config(&self) -> Config {
        Config::from_bits_truncate(self.ram[0])
    }

    fn configure(&mut self, flags: Config, on: bool) {
        let mut config = self.config();
        config.set(flags, on);
        self.ram[0] = config.bits();
    }

    /// Whether address line 20 reaches memory: either gate opens it.
    pub fn a20(&self) -> bool {
        self.a20 || self.port_92 & FAST_A20 != 0
    }

    /// The keyboard's lights: Scroll Lock, Num Lock, Caps Lock, from bit 0.
    pub fn leds(&self) -> u8 {
        self.keyboard.leds()
    }

    /// The IRQ1 output.
    pub fn irq_1(&self) -> bool {
        self.config().contains(Config::KEYBOARD_INTERRUPT) && self.holds(Source::Keyboard)
    }

    /// The IRQ12 output.
    pub fn irq_12(&self) -> bool {
        self.config().contains(Config::AUX_INTERRUPT) && self.holds(Source::Aux)
    }

    fn holds(&self, wanted: Source) -> bool {
        self.output_buffer.is_some_and(|(_, source)| source == wanted)
    }

    /// Keys of the user, in scan code set 2; taken as a whole. Returns false if they were lost.
    pub fn key_scancodes(&mut self, set_2: &[u8]) -> bool {
        self.keyboard.key(set_2)
    }

    /// Movement of the user's mouse. Returns false if it was lost.
    pub fn mouse_event(&mut self, event: MouseEvent) -> bool {
        self.mouse.moved(event)
    }

    /// Fills an empty output buffer with the next byte that waits: the controller's answers, then
    /// the keyboard's, then the mouse's. Call it after every change, and between a read and it let
    /// the interrupt outputs be seen low.
    pub fn fill_output_buffer(&mut self) {
        if self.output_buffer.is_none() {
            self.output_buffer = self.next_output();
        }
    }

    fn next_output(&mut self) -> Option<(u8, Source)> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        let config = self.config();
        if !config.contains(Config::KEYBOARD_DISABLED) {
            while let Some(byte) = self.keyboard.next() {
                let translated = if config.contains(Config::TRANSLATE) {
                    self.translator.translate(byte)
                } else {
                    Some(byte)
                };
                if let Some(byte) = translated {
                    return Some((byte, Source::Keyboard));
                }
            }
        }
        if config.contains(Config::AUX_DISABLED) {
            return None;
        }
        self.mouse.next().map(|byte| (byte, Source::Aux))
    }

    fn answer(&mut self, byte: u8) {
        self.answer_as(byte, Source::Keyboard);
    }

    /// A guest that never reads its answers loses the later ones.
    fn answer_as(&mut self, byte: u8, source: Source) {
        if self.answers.len() < ANSWER_BYTES {
            self.answers.push_back((byte, source));
        }
    }

    /// Reads port 0x60, 0x64 or 0x92; others read as all-ones.
    pub fn read_port(&mut self, port: u64) -> u8 {
        match port {
            0x60 => {
                if let Some((byte, _)) = self.output_buffer.take() {
                    self.last_output = byte;
                }
                self.last_output
            }
            0x64 => self.status().bits(),
            0x92 => self.port_92,
            _ => 0xff,
        }
    }

    fn status(&self) -> Status {
        let mut status = Status::UNLOCKED;
        status.set(Status::OBF, self.output_buffer.is_some());
        status.set(Status::AUX_OBF, self.holds(Source::Aux));
        status.set(Status::SYS, self.config().contains(Config::SYS));
        status.set(Status::A2, self.last_write_was_command);
        status
    }

    /// Writes port 0x60, 0x64 or 0x92; others are ignored. Returns the reset that this asks for.
    pub fn write_port(&mut self, port: u64, value: u8) -> Option<ResetKind> {
        match port {
            0x60 => {
                self.last_write_was_command = false;
                self.write_data(value)
            }
            0x64 => {
                self.last_write_was_command = true;
                self.write_command(value)
            }
            0x92 => {
                let rising = value & !self.port_92 & FAST_RESET != 0;
                self.port_92 = value & (FAST_RESET | FAST_A20);
                rising.then_some(ResetKind::Cpu)
            }
            _ => None,
        }
    }

    fn write_data(&mut self, value: u8) -> Option<ResetKind> {
        match std::mem::replace(&mut self.data_write, DataWrite::ToKeyboard) {
            // Sending to a device turns its port on.
            DataWrite::ToKeyboard => {
                self.configure(Config::KEYBOARD_DISABLED, false);
                self.keyboard.receive(value);
            }
            DataWrite::ToAux => {
                self.configure(Config::AUX_DISABLED, false);
                self.mouse.receive(value);
            }
            DataWrite::Ram(address) => {
                if let Some(byte) = self.ram.get_mut(usize::from(address)) {
                    *byte = value;
                }
            }
            DataWrite::OutputPort => {
                self.a20 = value & OUT_A20 != 0;
                return (value & OUT_RESET == 0).then_some(ResetKind::Cpu);
            }
            DataWrite::Loop(source) => self.answer_as(value, source),
        }
        None
    }

    fn write_command(&mut self, command: u8) -> Option<ResetKind> {
        self.data_write = DataWrite::ToKeyboard;
        match command {
            0x20..=0x3f => {
                let byte = self.ram.get(usize::from(command & 0x1f)).copied().unwrap_or(0);
                self.answer(byte);
            }
            0x60..=0x7f => self.data_write = DataWrite::Ram(command & 0x1f),
            // Test password: none is installed.
            0xa4 => self.answer(0xf1),
            0xa7 => self.configure(Config::AUX_DISABLED, true),
            0xa8 => self.configure(Config::AUX_DISABLED, false),
            // Interface tests: no line is stuck.
            0xa9 | 0xab => self.answer(0x00),
            // Self-test.
            0xaa => {
                self.configure(Config::SYS, true);
                self.answer(0x55);
            }
            0xad => self.configure(Config::KEYBOARD_DISABLED, true),
            0xae => self.configure(Config::KEYBOARD_DISABLED, false),
            // Input port: keyboard unlocked, colour display, manufacturing jumper open.
            0xc0 => self.answer(0xa0),
            0xd0 => {
                let port = self.output_port();
                self.answer(port);
            }
            0xd1 => self.data_write = DataWrite::OutputPort,
            0xd2 => self.data_write = DataWrite::Loop(Source::Keyboard),
            0xd3 => self.data_write = DataWrite::Loop(Source::Aux),
            0xd4 => self.data_write = DataWrite::ToAux,
            // A20 at once: close, open.
            0xdd => self.a20 = false,
            0xdf => self.a20 = true,
            // Test inputs: both clocks idle.
            0xe0 => self.answer(0x00),
            // Pulse the output port bits that are 0 in the command.
            0xf0..=0xff => return (command & OUT_RESET == 0).then_some(ResetKind::Cpu),
            _ => {}
        }
        None
    }

    fn output_port(&self) -> u8 {
        let mut port = OUT_KEYBOARD_LINES | OUT_RESET;
        if self.a20 {
            port |= OUT_A20;
        }
        if self.holds(Source::Keyboard) {
            port |= OUT_KEYBOARD_FULL;
        }
        if self.holds(Source::Aux) {
            port |= OUT_AUX_FULL;
        }
        port
    }
}

impl Default for Controller {
    fn default() -> Self {
        Self::new()
    }
}
