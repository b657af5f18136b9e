//! Errors of the x87 as the PC/AT reports them: FERR# becomes IRQ 13, and the handler releases the
//! processor by port 0xF0.
//!
//! | port | read | write |
//! |---|---|---|
//! | 0xF0 | all ones | takes the request back; asserts IGNNE# while FERR# is asserted |
//! | 0xF1 | all ones | nothing: it reset the 80287 |
//!
//! FERR# rising requests the interrupt; FERR# falling takes IGNNE# back.
//!
//! Sources: Intel SDM vol. 1, appendix D.2; Intel 82371FB (PIIX) datasheet, coprocessor error
//! register.

use serde::{Deserialize, Serialize};

use crate::bus::BusDevice;
use crate::interrupt::IrqLine;

/// The circuit's ports, for [`crate::Bus::insert_ports`].
pub const PORTS: &[(u16, u16)] = &[(0xf0, 2)];

/// The circuit's wires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoprocessorErrorState {
    ferr: bool,
    ignne: bool,
    request: bool,
}

impl CoprocessorErrorState {
    fn set_ferr(&mut self, asserted: bool) {
        self.request |= asserted && !self.ferr;
        self.ignne &= asserted;
        self.ferr = asserted;
    }

    fn clear(&mut self) {
        self.request = false;
        self.ignne = self.ferr;
    }
}

/// The circuit between the processor and IRQ 13.
pub struct CoprocessorError {
    state: CoprocessorErrorState,
    irq_13: Box<dyn IrqLine>,
}

impl CoprocessorError {
    /// A circuit without an error.
    pub fn new(irq_13: Box<dyn IrqLine>) -> Self {
        Self { state: CoprocessorErrorState::default(), irq_13 }
    }

    /// FERR#, from the processor.
    pub fn set_ferr(&mut self, asserted: bool) {
        self.state.set_ferr(asserted);
        self.irq_13.set_level(self.state.request);
    }

    /// IGNNE#, to the processor.
    pub fn ignne(&self) -> bool {
        self.state.ignne
    }

    /// The state to save.
    pub fn state(&self) -> &CoprocessorErrorState {
        &self.state
    }

    /// Takes a saved state.
    pub fn restore(&mut self, state: CoprocessorErrorState) {
        self.state = state;
        self.irq_13.set_level(state.request);
    }
}

impl BusDevice for CoprocessorError {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&mut self, offset: u64, _data: &[u8]) {
        if offset == u64::from(PORTS[0].0) {
            self.state.clear();
            self.irq_13.set_level(self.state.request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::ProbeIrq;
    use std::sync::Arc;

    #[test]
    fn an_error_is_requested_once_and_ignored_until_it_is_gone() {
        let irq = Arc::new(ProbeIrq::new());
        let mut circuit = CoprocessorError::new(Box::new(irq.clone()));
        circuit.write(0xf0, &[0]);
        assert!(!circuit.ignne(), "nothing to ignore");
        circuit.set_ferr(true);
        assert!(irq.level() && !circuit.ignne());
        circuit.write(0xf1, &[0]);
        assert!(irq.level());
        circuit.write(0xf0, &[0]);
        assert!(!irq.level() && circuit.ignne());
        circuit.set_ferr(true);
        assert!(!irq.level(), "the same error");
        circuit.set_ferr(false);
        assert!(!circuit.ignne());
        circuit.set_ferr(true);
        assert_eq!((irq.rising_edges(), circuit.ignne()), (2, false));
    }
}
