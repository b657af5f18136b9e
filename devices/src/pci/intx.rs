//! INTx routing: interrupt pins to the PIIX's PIRQA# to PIRQD#, and those to ISA interrupt lines.
//!
//! Slot `s`'s INTA# to INTD# (0 to 3) are wired to PIRQ number `(s - 1 + pin) mod 4`, as PC
//! firmware expects of an i440FX board. The ISA bridge's PIRQRC registers (0x60 to 0x63) say which
//! ISA line each PIRQ drives; the board wires those lines to the 8259s and, by the same number, to
//! the I/O APIC.

use std::sync::{Arc, Mutex};

use crate::bus::lock;
use crate::interrupt::IrqLine;

/// Number of PIRQ lines.
pub const PIRQ_COUNT: usize = 4;
/// PIRQRC bit 7: the PIRQ is not routed.
const ROUTING_DISABLED: u8 = 0x80;

struct State {
    /// For each PIRQ a bit for each (slot, pin) that asserts it: 32 slots.
    asserted: [u32; PIRQ_COUNT],
    /// PIRQRC[A:D].
    routes: [u8; PIRQ_COUNT],
}

/// The router. Lock order: a device, then the router, then the interrupt controllers.
pub struct IntxRouter {
    state: Mutex<State>,
    /// The ISA lines, 0 to 15.
    lines: Vec<Box<dyn IrqLine>>,
}

/// The PIRQ, 0 to 3, that pin `pin` (0 for INTA#) of slot `slot` is wired to.
pub const fn pirq(slot: u8, pin: u8) -> u8 {
    slot.wrapping_add(3).wrapping_add(pin) & 3
}

impl IntxRouter {
    /// A router with nothing routed. `lines` are the ISA interrupt lines by number.
    pub fn new(lines: Vec<Box<dyn IrqLine>>) -> Arc<Self> {
        let state = State { asserted: [0; PIRQ_COUNT], routes: [ROUTING_DISABLED; PIRQ_COUNT] };
        Arc::new(Self { state: Mutex::new(state), lines })
    }

    /// Sets the routing registers.
    pub(super) fn set_routes(&self, routes: [u8; PIRQ_COUNT]) {
        let mut state = lock(&self.state);
        let old = state.routes;
        if old == routes {
            return;
        }
        state.routes = routes;
        for route in old.into_iter().chain(routes) {
            self.drive(&state, route);
        }
    }

    fn set(&self, slot: u8, pin: u8, high: bool) {
        let mut state = lock(&self.state);
        let index = usize::from(pirq(slot, pin));
        let bit = 1 << (slot & 31);
        let Some(asserted) = state.asserted.get_mut(index) else { return };
        let old = *asserted;
        *asserted = if high { old | bit } else { old & !bit };
        if *asserted != old {
            let route = state.routes.get(index).copied().unwrap_or(ROUTING_DISABLED);
            self.drive(&state, route);
        }
    }

    /// Drives the ISA line that `route` names: the OR of what is routed there.
    fn drive(&self, state: &State, route: u8) {
        if route & ROUTING_DISABLED != 0 {
            return;
        }
        let line = route & 0xf;
        let high = state
            .routes
            .iter()
            .zip(state.asserted)
            .any(|(&other, asserted)| other == line && asserted != 0);
        if let Some(wire) = self.lines.get(usize::from(line)) {
            wire.set_level(high);
        }
    }

    /// The wire of pin `pin` (0 for INTA#) of slot `slot`.
    pub fn line(self: &Arc<Self>, slot: u8, pin: u8) -> Box<dyn IrqLine> {
        Box::new(IntxLine { router: self.clone(), slot, pin })
    }
}

struct IntxLine {
    router: Arc<IntxRouter>,
    slot: u8,
    pin: u8,
}

impl IrqLine for IntxLine {
    fn set_level(&self, high: bool) {
        self.router.set(self.slot, self.pin, high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::ProbeIrq;

    #[test]
    fn shared_lines_are_the_or_of_their_pins() {
        let probes: Vec<Arc<ProbeIrq>> = (0..16).map(|_| Arc::new(ProbeIrq::new())).collect();
        let lines = probes.iter().map(|p| Box::new(p.clone()) as Box<dyn IrqLine>).collect();
        let router = IntxRouter::new(lines);
        let (a, b) = (router.line(1, 0), router.line(2, 0));
        a.set_level(true);
        assert!(probes.iter().all(|probe| !probe.level()), "nothing is routed yet");
        router.set_routes([10, 10, 11, 0x80]);
        assert!(probes[10].level());
        b.set_level(true);
        a.set_level(false);
        assert!(probes[10].level());
        router.set_routes([11, 5, 11, 0x80]);
        assert!(!probes[10].level() && probes[5].level() && !probes[11].level());
        b.set_level(false);
        assert!(!probes[5].level());
    }

    #[test]
    fn slots_rotate_the_pins() {
        assert_eq!([pirq(1, 0), pirq(1, 3), pirq(2, 0), pirq(4, 1)], [0, 3, 1, 0]);
    }
}
