//! The 8042 keyboard controller of a PC/AT, with a PS/2 keyboard and mouse, and port 0x92.
//!
//! | port | read | write |
//! |---|---|---|
//! | 0x60 | output buffer | to the keyboard, or the parameter of a command |
//! | 0x64 | status | command |
//! | 0x92 | as written | bit 0 CPU reset (on its rising edge), bit 1 A20 gate |
//!
//! The controller is quick: it has taken a byte before the write returns (IBF is always 0) and
//! fills the output buffer as soon as it is empty. IRQ1 and IRQ12 follow the output buffer's state,
//! and dip between two bytes. Address line 20 is open if the controller or port 0x92 opens it.
//! Resets (command 0xFE, the output port, port 0x92) are those of the CPU alone; a PC's firmware
//! makes a whole reset of them unless the CMOS shutdown byte says otherwise.
//!
//! Sources: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
//! Controller"; IBM PC/AT Technical Reference, section 1, "Keyboard Controller"; Intel 82371AB
//! (PIIX4) datasheet, section 4.2.4 (port 0x92).

mod controller;
mod keyboard;
mod mouse;
mod ps2;
#[cfg(test)]
mod tests;
mod translate;
pub mod us_layout;

pub use controller::Controller;
pub use mouse::MouseEvent;

use crate::bus::{BusDevice, read_bytes, write_bytes};
use crate::interrupt::IrqLine;
use crate::legacy::reset::ResetRequest;

/// The ports, for [`crate::Bus::insert_ports`].
pub const PORTS: &[(u16, u16)] = &[(0x60, 1), (0x64, 1), (0x92, 1)];

/// Where the controller's outputs go. Both callbacks run with the device locked: note the
/// request, act later.
pub struct Outputs {
    /// IRQ1: the keyboard.
    pub irq_1: Box<dyn IrqLine>,
    /// IRQ12: the mouse.
    pub irq_12: Box<dyn IrqLine>,
    /// Hears the A20 gate's new state when it changes: `true` is open.
    pub a20: Box<dyn Fn(bool) + Send>,
    /// Hears of resets.
    pub reset: ResetRequest,
}

/// The attachment: the controller on the bus.
pub struct I8042Device {
    controller: Controller,
    outputs: Outputs,
}

impl I8042Device {
    /// Attaches a controller as a PC BIOS leaves it. The A20 gate is open, which `outputs.a20` is
    /// told.
    pub fn new(outputs: Outputs) -> Self {
        let device = Self { controller: Controller::new(), outputs };
        (device.outputs.a20)(device.controller.a20());
        device
    }

    /// The user presses or releases keys: bytes of scan code set 2 (the keyboard's own; the
    /// controller translates to set 1 where the guest wants it), taken as a whole. Returns false
    /// if they were lost: the keyboard's buffer is full, or the guest has turned scanning off.
    pub fn key_scancodes(&mut self, set_2: &[u8]) -> bool {
        let taken = self.controller.key_scancodes(set_2);
        self.fill_and_drive();
        taken
    }

    /// The user moves the mouse or its buttons. Returns false if it was lost.
    pub fn mouse_event(&mut self, event: MouseEvent) -> bool {
        let taken = self.controller.mouse_event(event);
        self.fill_and_drive();
        taken
    }

    /// The state to save.
    pub fn state(&self) -> &Controller {
        &self.controller
    }

    /// Takes a saved state and drives all outputs to match.
    pub fn restore(&mut self, controller: Controller) {
        self.controller = controller;
        (self.outputs.a20)(self.controller.a20());
        self.fill_and_drive();
    }

    /// Shows the interrupt outputs as an access left them, then lets the next byte come.
    fn fill_and_drive(&mut self) {
        self.drive();
        self.controller.fill_output_buffer();
        self.drive();
    }

    fn drive(&self) {
        self.outputs.irq_1.set_level(self.controller.irq_1());
        self.outputs.irq_12.set_level(self.controller.irq_12());
    }

    fn write_port(&mut self, port: u64, value: u8) {
        let a20_before = self.controller.a20();
        let reset = self.controller.write_port(port, value);
        let a20 = self.controller.a20();
        if a20 != a20_before {
            (self.outputs.a20)(a20);
        }
        self.fill_and_drive();
        if let Some(kind) = reset {
            (self.outputs.reset)(kind);
        }
    }
}

impl BusDevice for I8042Device {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, |port| {
            let value = self.controller.read_port(port);
            self.fill_and_drive();
            value
        });
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        write_bytes(offset, data, |port, value| self.write_port(port, value));
    }
}
