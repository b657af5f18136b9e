//! Random guests against the local APIC.

use proptest::prelude::*;

use super::local_tests::{CONFIG, NOW, write};
use super::*;

/// IA32_APIC_BASE in each mode.
const BASES: [u64; 3] = [0xFEE0_0100, 0xFEE0_0900, 0xFEE0_0D00];

#[derive(Clone, Debug)]
enum Action {
    Read(u64, usize),
    Write(u64, u32),
    ReadMsr(u32),
    WriteMsr(u32, u64),
    Base(u64),
    Deadline(u64),
    Lint(u8, bool),
    Message(u64, u32),
    Acknowledge,
    Tick,
}

fn action() -> impl Strategy<Value = Action> {
    let register = (0u64..0x400, 0u64..4).prop_map(|(r, low)| (r << 4 | low) & 0xFFF);
    prop_oneof![
        (register.clone(), 0usize..17).prop_map(|(o, n)| Action::Read(o, n)),
        ((0u64..0x40).prop_map(|r| r << 4), any::<u32>()).prop_map(|(o, v)| Action::Write(o, v)),
        (0x800u32..0x840).prop_map(Action::ReadMsr),
        (0x800u32..0x840, any::<u32>()).prop_map(|(m, v)| Action::WriteMsr(m, v.into())),
        (0x830u32..0x840, 0u64..0x10_0000).prop_map(|(m, v)| Action::WriteMsr(m, v)),
        prop_oneof![prop::sample::select(&BASES[..]), any::<u64>()].prop_map(Action::Base),
        any::<u64>().prop_map(Action::Deadline),
        (any::<u8>(), any::<bool>()).prop_map(|(p, l)| Action::Lint(p, l)),
        (any::<u32>(), any::<u32>())
            .prop_map(|(a, d)| Action::Message(0xFEE0_0000 | u64::from(a & 0xF_FFFF), d)),
        Just(Action::Acknowledge),
        Just(Action::Tick),
    ]
}

proptest! {
    /// No sequence of accesses panics, and the invariants hold throughout: no
    /// illegal vector is ever requested, and what is acknowledged beats what
    /// is in service.
    #[test]
    fn random_accesses(id: u32, actions in prop::collection::vec((action(), any::<u32>()), 0..200)) {
        let mut apic = LocalApic::new(LocalApicConfig { id, ..CONFIG });
        let _ = write(&mut apic, 0xF0, 0x1FF);
        let mut now = NOW;
        for (action, step) in actions {
            now.ns = now.ns.wrapping_add(u64::from(step));
            now.tsc = now.tsc.wrapping_add(u64::from(step) * 3);
            match action {
                Action::Read(offset, size) => {
                    let mut data = [0; 16];
                    apic.read_mmio(offset, &mut data[..size.min(16)], now);
                }
                Action::Write(offset, value) => {
                    let _ = apic.write_mmio(offset, &value.to_le_bytes(), now);
                }
                Action::ReadMsr(msr) => { let _ = apic.read_msr(msr, now); }
                Action::WriteMsr(msr, value) => { let _ = apic.write_msr(msr, value, now); }
                Action::Base(value) => { let _ = apic.write_apic_base(value); }
                Action::Deadline(value) => { let _ = apic.write_tsc_deadline(value, now); }
                Action::Lint(pin, level) => { let _ = apic.set_lint(pin, level); }
                Action::Message(address, data) => {
                    if let Some(message) = InterruptMessage::from_msi(address, data) {
                        route(&message, None, &[apic.address()], step as usize, |_| {
                            let _ = apic.receive(&message);
                        });
                    }
                }
                Action::Acknowledge => {
                    let class = apic.processor_priority() >> 4;
                    let pending = apic.interrupt_pending();
                    let vector = apic.acknowledge();
                    if let Some(pending) = pending {
                        prop_assert_eq!(vector, pending);
                        prop_assert!(vector >> 4 > class);
                    }
                }
                Action::Tick => { apic.tick(now); }
            }
            prop_assert_eq!(apic.irr.word(0) & 0xFFFF, 0);
            prop_assert_eq!(apic.isr.word(0) & 0xFFFF, 0);
        }
    }
}
