//! One 8259A: eight request inputs, a priority resolver, and an INT output.
//!
//! Names follow the datasheet (Intel 231468-003, "8259A Programmable Interrupt Controller").

use serde::{Deserialize, Serialize};

/// ICW1: an ICW4 will follow.
const ICW1_IC4: u8 = 1 << 0;
/// ICW1: single, so no ICW3 will follow.
const ICW1_SNGL: u8 = 1 << 1;
/// Marks a write at A0 = 0 as ICW1.
const ICW1: u8 = 1 << 4;
/// ICW4: automatic end of interrupt.
const ICW4_AEOI: u8 = 1 << 1;
/// ICW4: special fully nested mode.
const ICW4_SFNM: u8 = 1 << 4;
/// Marks a write at A0 = 0 without [`ICW1`] as OCW3.
const OCW3: u8 = 1 << 3;
/// OCW3: which register the next reads at A0 = 0 return; [`OCW3_RR`] makes it count.
const OCW3_RIS: u8 = 1 << 0;
const OCW3_RR: u8 = 1 << 1;
const OCW3_POLL: u8 = 1 << 2;
/// OCW3: the new special mask mode; [`OCW3_ESMM`] makes it count.
const OCW3_SMM: u8 = 1 << 5;
const OCW3_ESMM: u8 = 1 << 6;
/// Bit 7 of the poll answer: an interrupt was pending and is now in service.
const POLL_INTERRUPT: u8 = 1 << 7;

/// The next write that A0 = 1 expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum InitStep {
    /// The initialization sequence is over: OCW1.
    Done,
    /// The vector base.
    Icw2,
    /// The cascade wiring.
    Icw3,
    /// The modes.
    Icw4,
}

/// The registers of one 8259A.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chip {
    /// Levels at the request inputs.
    pub(super) lines: u8,
    /// Interrupt request register.
    pub(super) irr: u8,
    /// In-service register.
    pub(super) isr: u8,
    /// Interrupt mask register (OCW1).
    pub(super) imr: u8,
    /// Inputs that are level-triggered: the chip set's edge/level control register, which replaces
    /// the LTIM bit of ICW1.
    pub(super) elcr: u8,
    /// ICW2: the vector of input 0; its low three bits are 0.
    pub(super) vector_base: u8,
    /// ICW3: on the master a mask of the inputs that have a slave, on a slave its identity.
    pub(super) icw3: u8,
    /// The input of lowest priority, 0 to 7; the next one in the ring has the highest.
    lowest_priority: u8,
    init: InitStep,
    icw4_follows: bool,
    /// ICW1's SNGL: without slaves.
    single: bool,
    special_fully_nested: bool,
    automatic_eoi: bool,
    rotate_in_automatic_eoi: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
}

impl Chip {
    /// A chip that nobody has programmed: everything masked, so that it stays silent.
    pub(super) fn new(icw3: u8) -> Self {
        Self {
            lines: 0,
            irr: 0,
            isr: 0,
            imr: 0xff,
            elcr: 0,
            vector_base: 0,
            icw3,
            lowest_priority: 7,
            init: InitStep::Done,
            icw4_follows: false,
            single: false,
            special_fully_nested: false,
            automatic_eoi: false,
            rotate_in_automatic_eoi: false,
            special_mask: false,
            read_isr: false,
            poll: false,
        }
    }

    /// Drives input `input` (0 to 7).
    ///
    /// An edge is latched until it is acknowledged, but only while the input stays high: a request
    /// withdrawn too early becomes a spurious interrupt (datasheet, "Edge and Level Triggered
    /// Modes").
    pub(super) fn set_line(&mut self, input: u8, high: bool) {
        let bit = bit(input);
        let was_high = self.lines & bit != 0;
        if !high {
            self.lines &= !bit;
            self.irr &= !bit;
            return;
        }
        self.lines |= bit;
        if self.elcr & bit != 0 || !was_high {
            self.irr |= bit;
        }
    }

    /// Replaces the edge/level control register.
    pub(super) fn set_elcr(&mut self, elcr: u8) {
        self.elcr = elcr;
        self.irr |= self.lines & elcr;
    }

    /// Position of `input` in the priority ring; 0 is the highest.
    fn priority(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest_priority).wrapping_sub(1) & 7
    }

    /// The input of highest priority in a mask of inputs.
    fn highest(&self, inputs: u8) -> Option<u8> {
        (0..8).filter(|&input| inputs & bit(input) != 0).min_by_key(|&input| self.priority(input))
    }

    /// The request that the chip would have serviced now: unmasked, and of higher priority than
    /// whatever is in service.
    pub(super) fn pending(&self) -> Option<u8> {
        let request = self.highest(self.irr & !self.imr)?;
        let Some(serviced) = self.highest(self.unmasked_in_service()) else {
            return Some(request);
        };
        let preempts = self.priority(request) < self.priority(serviced);
        // A slave in service may pass on a request of higher priority within itself.
        let nests = self.special_fully_nested && request == serviced && self.has_slave_at(serviced);
        (preempts || nests).then_some(request)
    }

    /// What is in service and holds lower priorities back: in special mask mode a masked input
    /// does not.
    fn unmasked_in_service(&self) -> u8 {
        if self.special_mask { self.isr & !self.imr } else { self.isr }
    }

    /// Whether ICW3, taken as a master's, says that a slave drives `input`.
    pub(super) fn has_slave_at(&self, input: u8) -> bool {
        !self.single && self.icw3 & bit(input) != 0
    }

    /// The first INTA pulse: takes the pending request into service. `None` means that the request
    /// has gone, which the vector reports as input 7 without anything in service.
    pub(super) fn take(&mut self) -> Option<u8> {
        let input = self.pending()?;
        let bit = bit(input);
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
        if !self.automatic_eoi {
            self.isr |= bit;
        } else if self.rotate_in_automatic_eoi {
            self.lowest_priority = input;
        }
        Some(input)
    }

    /// The vector of `input`, or of the spurious interrupt.
    pub(super) fn vector(&self, input: Option<u8>) -> u8 {
        self.vector_base | input.unwrap_or(7)
    }

    /// A read at A0 = 0.
    pub(super) fn read_command(&mut self) -> u8 {
        if let Some(answer) = self.answer_poll() {
            return answer;
        }
        if self.read_isr { self.isr } else { self.irr }
    }

    /// A read at A0 = 1.
    pub(super) fn read_data(&mut self) -> u8 {
        self.answer_poll().unwrap_or(self.imr)
    }

    /// After a poll command the next read, at either address, stands for the INTA pulses.
    fn answer_poll(&mut self) -> Option<u8> {
        if !std::mem::take(&mut self.poll) {
            return None;
        }
        Some(self.take().map_or(0, |input| POLL_INTERRUPT | input))
    }

    /// A write at A0 = 0: ICW1, OCW2 or OCW3.
    pub(super) fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            self.initialize(value);
        } else if value & OCW3 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    /// A write at A0 = 1: ICW2 to ICW4 in their turn, OCW1 otherwise.
    pub(super) fn write_data(&mut self, value: u8) {
        let after_icw3 = if self.icw4_follows { InitStep::Icw4 } else { InitStep::Done };
        self.init = match self.init {
            InitStep::Done => {
                self.imr = value;
                InitStep::Done
            }
            InitStep::Icw2 => {
                self.vector_base = value & 0xf8;
                if self.single { after_icw3 } else { InitStep::Icw3 }
            }
            InitStep::Icw3 => {
                self.icw3 = value;
                after_icw3
            }
            InitStep::Icw4 => {
                // The microprocessor mode bit is not kept: a PC has no 8080.
                self.automatic_eoi = value & ICW4_AEOI != 0;
                self.special_fully_nested = value & ICW4_SFNM != 0;
                InitStep::Done
            }
        };
    }

    /// ICW1. Edges have to come anew; level-triggered requests are still there.
    fn initialize(&mut self, icw1: u8) {
        self.irr = self.lines & self.elcr;
        self.isr = 0;
        self.imr = 0;
        self.lowest_priority = 7;
        self.special_mask = false;
        self.read_isr = false;
        self.poll = false;
        self.automatic_eoi = false;
        self.rotate_in_automatic_eoi = false;
        self.special_fully_nested = false;
        self.icw4_follows = icw1 & ICW1_IC4 != 0;
        self.single = icw1 & ICW1_SNGL != 0;
        self.init = InitStep::Icw2;
    }

    fn write_ocw2(&mut self, ocw2: u8) {
        let level = ocw2 & 7;
        match ocw2 >> 5 {
            0b000 => self.rotate_in_automatic_eoi = false,
            0b100 => self.rotate_in_automatic_eoi = true,
            0b001 => {
                self.end_highest();
            }
            0b101 => {
                if let Some(ended) = self.end_highest() {
                    self.lowest_priority = ended;
                }
            }
            0b011 => self.isr &= !bit(level),
            0b111 => {
                self.isr &= !bit(level);
                self.lowest_priority = level;
            }
            0b110 => self.lowest_priority = level,
            // 0b010: no operation.
            _ => {}
        }
    }

    /// The non-specific EOI. In special mask mode it passes masked inputs over.
    fn end_highest(&mut self) -> Option<u8> {
        let input = self.highest(self.unmasked_in_service())?;
        self.isr &= !bit(input);
        Some(input)
    }

    fn write_ocw3(&mut self, ocw3: u8) {
        if ocw3 & OCW3_ESMM != 0 {
            self.special_mask = ocw3 & OCW3_SMM != 0;
        }
        if ocw3 & OCW3_POLL != 0 {
            self.poll = true;
        } else if ocw3 & OCW3_RR != 0 {
            self.read_isr = ocw3 & OCW3_RIS != 0;
        }
    }
}

fn bit(input: u8) -> u8 {
    1 << (input & 7)
}
