//! Interrupt wires: what a device drives and an interrupt controller receives.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One interrupt request wire, from a device to an interrupt controller.
///
/// The wire carries a level; whether the controller answers to the level or to its rising edge is
/// the controller's business. Drivers may repeat the level that the wire already has.
pub trait IrqLine: Send + Sync {
    /// Drives the wire: `true` asserts the request.
    fn set_level(&self, high: bool);

    /// Drives a low phase and then a rising edge; the wire stays high.
    fn pulse_high(&self) {
        self.set_level(false);
        self.set_level(true);
    }
}

impl<T: IrqLine + ?Sized> IrqLine for std::sync::Arc<T> {
    fn set_level(&self, high: bool) {
        (**self).set_level(high);
    }
}

/// A wire that ends nowhere, for a device whose interrupt is not routed.
#[derive(Debug, Default, Clone, Copy)]
pub struct UnconnectedIrq;

impl IrqLine for UnconnectedIrq {
    fn set_level(&self, _high: bool) {}
}

/// A wire that remembers its level and counts its rising edges: the test's end of an [`IrqLine`].
#[derive(Debug, Default)]
pub struct ProbeIrq {
    level: AtomicBool,
    rising_edges: AtomicU64,
}

impl ProbeIrq {
    /// A low wire without history.
    pub fn new() -> Self {
        Self::default()
    }

    /// The level last driven.
    pub fn level(&self) -> bool {
        self.level.load(Ordering::SeqCst)
    }

    /// How often the wire has gone from low to high.
    pub fn rising_edges(&self) -> u64 {
        self.rising_edges.load(Ordering::SeqCst)
    }
}

impl IrqLine for ProbeIrq {
    fn set_level(&self, high: bool) {
        if !self.level.swap(high, Ordering::SeqCst) && high {
            self.rising_edges.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_counts_rising_edges_only() {
        let irq = ProbeIrq::new();
        irq.set_level(true);
        irq.set_level(true);
        irq.set_level(false);
        assert_eq!((irq.level(), irq.rising_edges()), (false, 1));
        irq.pulse_high();
        irq.pulse_high();
        assert_eq!((irq.level(), irq.rising_edges()), (true, 3));
    }
}
