//! The 16550A as a pure register machine.
//!
//! Names follow the National Semiconductor PC16550D datasheet (TL/C/8652).

use std::collections::VecDeque;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

/// Bytes in the receiver FIFO.
pub(super) const FIFO_DEPTH: usize = 16;

bitflags! {
    /// Interrupt enable register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Ier: u8 {
        /// Received data available, and character time-out.
        const ERBFI = 1 << 0;
        /// Transmitter holding register empty.
        const ETBEI = 1 << 1;
        /// Receiver line status.
        const ELSI = 1 << 2;
        /// Modem status.
        const EDSSI = 1 << 3;
    }

    /// FIFO control register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Fcr: u8 {
        const ENABLE = 1 << 0;
        const RESET_RECEIVER = 1 << 1;
        /// DMA mode select: moves pins that a PC does not connect.
        const DMA_MODE = 1 << 3;
        /// Receiver trigger level: 1, 4, 8 or 14 bytes.
        const TRIGGER = 3 << 6;
    }

    /// Modem control register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Mcr: u8 {
        const DTR = 1 << 0;
        const RTS = 1 << 1;
        const OUT1 = 1 << 2;
        const OUT2 = 1 << 3;
        const LOOPBACK = 1 << 4;
    }

    /// Line status register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Lsr: u8 {
        /// Data ready.
        const DR = 1 << 0;
        /// Overrun error.
        const OE = 1 << 1;
        /// Framing error.
        const FE = 1 << 3;
        /// Break interrupt.
        const BI = 1 << 4;
        /// Transmitter holding register empty.
        const THRE = 1 << 5;
        /// Transmitter empty.
        const TEMT = 1 << 6;
        /// A character in the FIFO has an error.
        const FIFO_ERROR = 1 << 7;
    }

    /// Modem status register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Msr: u8 {
        const DCTS = 1 << 0;
        const DDSR = 1 << 1;
        /// Trailing edge of RI.
        const TERI = 1 << 2;
        const DDCD = 1 << 3;
        const CTS = 1 << 4;
        const DSR = 1 << 5;
        const RI = 1 << 6;
        const DCD = 1 << 7;
        const DELTAS = 0x0f;
    }
}

/// LCR: send a break.
const LCR_BREAK: u8 = 1 << 6;
/// LCR: offsets 0 and 1 are the divisor latch.
const LCR_DLAB: u8 = 1 << 7;
/// IIR bits 7:6: the FIFOs are on.
const IIR_FIFOS_ENABLED: u8 = 0xc0;

/// The sources of the interrupt output, as IIR bits 3:0 name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    ReceiverLineStatus,
    ReceivedDataAvailable,
    CharacterTimeout,
    TransmitterEmpty,
    ModemStatus,
}

impl Source {
    fn code(self) -> u8 {
        match self {
            Self::ReceiverLineStatus => 0x06,
            Self::ReceivedDataAvailable => 0x04,
            Self::CharacterTimeout => 0x0c,
            Self::TransmitterEmpty => 0x02,
            Self::ModemStatus => 0x00,
        }
    }
}

/// A character in the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Received {
    byte: u8,
    /// The line was in the break condition: LSR shows BI and FE once.
    is_break: bool,
}

/// The registers of a 16550A.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uart {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    /// MSR bits 3:0.
    modem_deltas: u8,
    scratch: u8,
    divisor: [u8; 2],
    receiver: VecDeque<Received>,
    overrun: bool,
    /// The transmitter has run empty since IIR last said so.
    transmitter_interrupt: bool,
    /// Transmitter holding register, between the write and [`Self::transmit`].
    holding: Option<u8>,
}

impl Uart {
    /// The registers after a master reset.
    pub fn new() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            modem_deltas: 0,
            scratch: 0,
            // 9,600 baud from 1.8432 MHz, as a PC BIOS leaves it; the chip itself has no default.
            divisor: [12, 0],
            receiver: VecDeque::new(),
            overrun: false,
            transmitter_interrupt: false,
            holding: None,
        }
    }

    fn fifos_enabled(&self) -> bool {
        self.fcr & Fcr::ENABLE.bits() != 0
    }

    fn loopback(&self) -> bool {
        self.mcr & Mcr::LOOPBACK.bits() != 0
    }

    fn divisor_latch(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    fn depth(&self) -> usize {
        if self.fifos_enabled() { FIFO_DEPTH } else { 1 }
    }

    fn trigger_level(&self) -> usize {
        match (self.fcr & Fcr::TRIGGER.bits()) >> 6 {
            _ if !self.fifos_enabled() => 1,
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        }
    }

    /// How many bytes the receiver takes without an overrun; none in loopback, which disconnects
    /// the line.
    pub fn input_room(&self) -> usize {
        if self.loopback() { 0 } else { self.depth().saturating_sub(self.receiver.len()) }
    }

    /// A byte arrives on the line. Loopback ignores the line.
    pub fn receive(&mut self, byte: u8) {
        if !self.loopback() {
            self.accept(Received { byte, is_break: false });
        }
    }

    /// A break arrives on the line.
    pub fn receive_break(&mut self) {
        if !self.loopback() {
            self.accept(Received { byte: 0, is_break: true });
        }
    }

    /// A full FIFO keeps what it has; without FIFOs the newcomer replaces the unread character.
    fn accept(&mut self, received: Received) {
        if self.receiver.len() >= self.depth() {
            self.overrun = true;
            if self.fifos_enabled() {
                return;
            }
            self.receiver.clear();
        }
        self.receiver.push_back(received);
    }

    /// Moves the holding register's byte out. Returns it if it goes onto the line (loopback
    /// receives it instead); the transmitter is empty afterwards.
    pub fn transmit(&mut self) -> Option<u8> {
        let byte = self.holding.take()?;
        self.transmitter_interrupt = true;
        if self.loopback() {
            self.accept(Received { byte, is_break: false });
            return None;
        }
        // A line held in the break condition carries nothing.
        (self.lcr & LCR_BREAK == 0).then_some(byte)
    }

    /// The pending source of highest priority.
    pub(super) fn source(&self) -> Option<Source> {
        let ier = Ier::from_bits_truncate(self.ier);
        let received = self.receiver.len();
        if ier.contains(Ier::ELSI) && self.line_errors().intersects(Lsr::OE | Lsr::BI) {
            Some(Source::ReceiverLineStatus)
        } else if ier.contains(Ier::ERBFI) && received >= self.trigger_level() {
            Some(Source::ReceivedDataAvailable)
        } else if ier.contains(Ier::ERBFI) && received > 0 {
            // Input comes at once or not at all, so the four character times have passed.
            Some(Source::CharacterTimeout)
        } else if ier.contains(Ier::ETBEI) && self.transmitter_interrupt {
            Some(Source::TransmitterEmpty)
        } else if ier.contains(Ier::EDSSI) && self.modem_deltas != 0 {
            Some(Source::ModemStatus)
        } else {
            None
        }
    }

    /// The interrupt output.
    pub fn interrupt(&self) -> bool {
        self.source().is_some()
    }

    /// Reads the register at `offset` (0 to 7); others read as all-ones.
    pub fn read(&mut self, offset: u64) -> u8 {
        match offset {
            0 if self.divisor_latch() => self.divisor[0],
            1 if self.divisor_latch() => self.divisor[1],
            0 => self.receiver.pop_front().map_or(0, |received| received.byte),
            1 => self.ier,
            2 => self.read_iir(),
            3 => self.lcr,
            4 => self.mcr,
            5 => self.read_lsr(),
            6 => self.modem_lines().bits() | std::mem::take(&mut self.modem_deltas),
            7 => self.scratch,
            _ => 0xff,
        }
    }

    /// Writes the register at `offset` (0 to 7); others are ignored. After a write of the
    /// transmitter holding register call [`Self::transmit`].
    pub fn write(&mut self, offset: u64, value: u8) {
        match offset {
            0 if self.divisor_latch() => self.divisor[0] = value,
            1 if self.divisor_latch() => self.divisor[1] = value,
            0 => {
                self.holding = Some(value);
                self.transmitter_interrupt = false;
            }
            1 => self.write_ier(value),
            2 => self.write_fcr(value),
            3 => self.write_lcr(value),
            4 => self.write_mcr(value),
            7 => self.scratch = value,
            // LSR and MSR are read-only.
            _ => {}
        }
    }

    /// Enabling the transmitter's interrupt while it is empty raises it: drivers start sending
    /// that way, and Linux probes for chips that fail to.
    fn write_ier(&mut self, value: u8) {
        let value = value & Ier::all().bits();
        let enabled = value & !self.ier & Ier::ETBEI.bits() != 0;
        if enabled && self.holding.is_none() {
            self.transmitter_interrupt = true;
        }
        self.ier = value;
    }

    fn read_iir(&mut self) -> u8 {
        let fifos = if self.fifos_enabled() { IIR_FIFOS_ENABLED } else { 0 };
        let Some(source) = self.source() else { return fifos | 1 };
        if source == Source::TransmitterEmpty {
            self.transmitter_interrupt = false;
        }
        fifos | source.code()
    }

    fn write_fcr(&mut self, value: u8) {
        let fcr = Fcr::from_bits_truncate(value);
        let toggles = fcr.contains(Fcr::ENABLE) != self.fifos_enabled();
        if toggles || (fcr.contains(Fcr::ENABLE | Fcr::RESET_RECEIVER)) {
            self.receiver.clear();
        }
        // Without the enable bit the others are not programmed.
        self.fcr = if fcr.contains(Fcr::ENABLE) {
            (fcr & (Fcr::ENABLE | Fcr::DMA_MODE | Fcr::TRIGGER)).bits()
        } else {
            0
        };
    }

    fn write_lcr(&mut self, value: u8) {
        let breaks = value & !self.lcr & LCR_BREAK != 0;
        self.lcr = value;
        if breaks && self.loopback() {
            self.accept(Received { byte: 0, is_break: true });
        }
    }

    fn write_mcr(&mut self, value: u8) {
        let before = self.modem_lines();
        self.mcr = value & Mcr::all().bits();
        let after = self.modem_lines();
        let changed = before ^ after;
        let mut deltas = Msr::empty();
        deltas.set(Msr::DCTS, changed.contains(Msr::CTS));
        deltas.set(Msr::DDSR, changed.contains(Msr::DSR));
        deltas.set(Msr::TERI, changed.contains(Msr::RI) && !after.contains(Msr::RI));
        deltas.set(Msr::DDCD, changed.contains(Msr::DCD));
        self.modem_deltas |= (deltas & Msr::DELTAS).bits();
    }

    /// The modem inputs: a peer that is there and ready, or in loopback our own outputs.
    fn modem_lines(&self) -> Msr {
        if !self.loopback() {
            return Msr::CTS | Msr::DSR | Msr::DCD;
        }
        let mcr = Mcr::from_bits_truncate(self.mcr);
        let mut lines = Msr::empty();
        lines.set(Msr::CTS, mcr.contains(Mcr::RTS));
        lines.set(Msr::DSR, mcr.contains(Mcr::DTR));
        lines.set(Msr::RI, mcr.contains(Mcr::OUT1));
        lines.set(Msr::DCD, mcr.contains(Mcr::OUT2));
        lines
    }

    /// The error bits of LSR. A break shows when its character is the next to be read.
    fn line_errors(&self) -> Lsr {
        let mut errors = Lsr::empty();
        errors.set(Lsr::OE, self.overrun);
        let breaks = self.receiver.front().is_some_and(|received| received.is_break);
        errors.set(Lsr::BI | Lsr::FE, breaks);
        let any = self.fifos_enabled() && self.receiver.iter().any(|received| received.is_break);
        errors.set(Lsr::FIFO_ERROR, any);
        errors
    }

    /// LSR; reading it clears the errors that it shows.
    fn read_lsr(&mut self) -> u8 {
        let mut lsr = self.line_errors();
        lsr.set(Lsr::DR, !self.receiver.is_empty());
        lsr.set(Lsr::THRE | Lsr::TEMT, self.holding.is_none());
        self.overrun = false;
        if let Some(received) = self.receiver.front_mut() {
            received.is_break = false;
        }
        lsr.bits()
    }
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}
