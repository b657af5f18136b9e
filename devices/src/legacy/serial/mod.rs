//! A COM port: a 16550A UART whose line is a byte stream of the host.
//!
//! | offset | read | write |
//! |---|---|---|
//! | 0 | RBR (DLAB: divisor, low) | THR (DLAB: divisor, low) |
//! | 1 | IER (DLAB: divisor, high) | IER (DLAB: divisor, high) |
//! | 2 | IIR | FCR |
//! | 3, 4, 7 | LCR, MCR, scratch | the same |
//! | 5, 6 | LSR, MSR | nothing |
//!
//! The usual bases and lines: COM1 0x3F8 IRQ4, COM2 0x2F8 IRQ3, COM3 0x3E8 IRQ4, COM4 0x2E8 IRQ3.
//!
//! Characters take no time: a byte written to THR has left before the write returns, whatever the
//! divisor says, and the character time-out follows the last byte of input at once. The interrupt
//! output dips when THR is written and rises when the byte has left, so that an edge-triggered
//! controller sees a request for every byte. OUT2 does not gate it: kernels that were grown in
//! virtual machines do not set it.
//!
//! Why not `vm-superio`'s `Serial`: it ignores FCR (no trigger levels, no time-out indication, no
//! FIFO reset, always a 64-byte FIFO), has no overrun, break or MSR deltas, and signals its
//! interrupt as events rather than as a level, so a PIC or IOAPIC input cannot follow it.
//!
//! Source: National Semiconductor PC16550D datasheet (TL/C/8652).

#[cfg(test)]
mod tests;
mod uart16550a;

use std::io::Write;

use crate::bus::{BusDevice, read_bytes, write_bytes};
use crate::interrupt::IrqLine;
pub use uart16550a::Uart;

/// Bytes of register space.
pub const REGISTERS: u64 = 8;

/// The attachment: the UART on the bus, its interrupt line and the host's end of its line.
pub struct Serial {
    uart: Uart,
    irq: Box<dyn IrqLine>,
    output: Box<dyn Write + Send>,
    input_ready: Option<Box<dyn Fn() + Send>>,
}

impl Serial {
    /// Attaches a UART after reset. What the guest sends goes to `output`, flushed after each
    /// byte; errors of `output` are dropped, as a line without a listener drops bytes.
    pub fn new(irq: Box<dyn IrqLine>, output: Box<dyn Write + Send>) -> Self {
        Self { uart: Uart::new(), irq, output, input_ready: None }
    }

    /// Calls `ready` whenever a receiver that was full has room again. It runs with the device
    /// locked: wake the thread that has input, do not call back.
    pub fn on_input_ready(&mut self, ready: Box<dyn Fn() + Send>) {
        self.input_ready = Some(ready);
    }

    /// Gives the guest as much of `input` as the receiver has room for; returns how many bytes.
    pub fn enqueue_input(&mut self, input: &[u8]) -> usize {
        let accepted = input.len().min(self.uart.input_room());
        for &byte in input.iter().take(accepted) {
            self.uart.receive(byte);
        }
        self.drive();
        accepted
    }

    /// How many bytes [`Self::enqueue_input`] would accept, 0 to 16.
    pub fn input_room(&self) -> usize {
        self.uart.input_room()
    }

    /// Sends the guest a break: the Linux console's SysRq.
    pub fn send_break(&mut self) {
        self.uart.receive_break();
        self.drive();
    }

    /// The state to save.
    pub fn state(&self) -> &Uart {
        &self.uart
    }

    /// Takes a saved state and drives the interrupt line to match.
    pub fn restore(&mut self, uart: Uart) {
        self.uart = uart;
        self.drive();
    }

    fn drive(&self) {
        self.irq.set_level(self.uart.interrupt());
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        self.uart.write(offset, value);
        self.drive();
        if let Some(byte) = self.uart.transmit() {
            // Nobody to tell: see `new`.
            let _ = self.output.write_all(&[byte]).and_then(|()| self.output.flush());
        }
        self.drive();
    }

    /// Runs an access and tells the host if it made room.
    fn watch_room(&mut self, access: impl FnOnce(&mut Self)) {
        let was_full = self.uart.input_room() == 0;
        access(self);
        let has_room = self.uart.input_room() > 0;
        if let Some(ready) = self.input_ready.as_ref().filter(|_| was_full && has_room) {
            ready();
        }
    }
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.watch_room(|serial| {
            read_bytes(offset, data, |offset| serial.uart.read(offset));
            serial.drive();
        });
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.watch_room(|serial| {
            write_bytes(offset, data, |offset, value| serial.write_register(offset, value));
        });
    }
}
