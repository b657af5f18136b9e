//! The local APIC against the SDM, and against what kvm-unit-tests' apic and
//! msr guests look for.

use super::*;

pub(super) const NOW: Now = Now { ns: 0, tsc: 0 };

pub(super) const CONFIG: LocalApicConfig = LocalApicConfig {
    id: 0,
    bootstrap: true,
    x2apic: true,
    tsc_deadline: true,
    physical_address_bits: 40,
};

/// IA32_APIC_BASE in each mode.
const DISABLED: u64 = 0xFEE0_0100;
const XAPIC: u64 = 0xFEE0_0900;
const X2APIC: u64 = 0xFEE0_0D00;

fn at(ns: u64) -> Now {
    Now { ns, tsc: 2 * ns }
}

/// After so many clocks of the timer.
fn clocks(count: u64) -> Now {
    at(count * (1_000_000_000 / APIC_BUS_FREQUENCY_HZ))
}

fn read(apic: &mut LocalApic, offset: u64) -> u32 {
    read_at(apic, offset, NOW)
}

fn read_at(apic: &mut LocalApic, offset: u64, now: Now) -> u32 {
    let mut data = [0; 4];
    apic.read_mmio(offset, &mut data, now);
    u32::from_le_bytes(data)
}

pub(super) fn write(apic: &mut LocalApic, offset: u64, value: u32) -> Effect {
    apic.write_mmio(offset, &value.to_le_bytes(), NOW)
}

/// An xAPIC as guests use it: software-enabled.
fn xapic() -> LocalApic {
    let mut apic = LocalApic::new(CONFIG);
    let _ = write(&mut apic, 0xF0, 0x1FF);
    apic
}

fn x2apic(id: u32) -> LocalApic {
    let mut apic = LocalApic::new(LocalApicConfig { id, ..CONFIG });
    let _ = apic.write_apic_base(X2APIC).unwrap();
    let _ = apic.write_msr(0x80F, 0x1FF, NOW).unwrap();
    apic
}

fn interrupt(apic: &mut LocalApic, vector: u8) {
    assert!(apic.accept(vector, TriggerMode::Edge));
}

#[test]
fn power_on_state() {
    let mut apic = LocalApic::new(CONFIG);
    assert_eq!(apic.apic_base(), XAPIC);
    assert_eq!(apic.mmio_base(), Some(LOCAL_APIC_BASE));
    assert_eq!(read(&mut apic, 0x30) & 0xFF, 0x14);
    assert_eq!(read(&mut apic, 0x30) >> 16 & 0xFF, 5);
    assert_eq!(read(&mut apic, 0xE0), u32::MAX);
    assert_eq!(read(&mut apic, 0xF0), 0xFF);
    for entry in (0x320..=0x370).step_by(0x10) {
        assert_eq!(read(&mut apic, entry), 0x1_0000, "{entry:#x}");
    }
    for zero in [0x20, 0x80, 0xA0, 0xD0, 0x280, 0x300, 0x310, 0x380, 0x390, 0x3E0] {
        assert_eq!(read(&mut apic, zero), 0, "{zero:#x}");
    }
    assert_eq!(apic.next_deadline(), None);
    let secondary = LocalApic::new(LocalApicConfig { bootstrap: false, ..CONFIG });
    assert_eq!(secondary.apic_base(), XAPIC & !(1 << 8));
}

#[test]
fn apic_base_transitions() {
    for (from, to, legal) in [
        (DISABLED, DISABLED, true),
        (DISABLED, XAPIC, true),
        (DISABLED, X2APIC, false),
        (XAPIC, DISABLED, true),
        (XAPIC, XAPIC, true),
        (XAPIC, X2APIC, true),
        (X2APIC, DISABLED, true),
        (X2APIC, XAPIC, false),
        (X2APIC, X2APIC, true),
    ] {
        let mut apic = LocalApic::new(CONFIG);
        let _ = apic.write_apic_base(from).unwrap();
        assert_eq!(apic.write_apic_base(to).is_ok(), legal, "{from:#x} {to:#x}");
        assert_eq!(apic.apic_base(), if legal { to } else { from });
        // x2APIC mode without the global enable is no mode at all.
        assert!(apic.write_apic_base(DISABLED | 1 << 10).is_err());
    }
}

#[test]
fn apic_base_reserved_bits() {
    let mut apic = LocalApic::new(CONFIG);
    for bit in [0, 1, 7, 9, 40, 51, 63] {
        assert!(apic.write_apic_base(XAPIC | 1 << bit).is_err(), "{bit}");
    }
    assert!(apic.write_apic_base(XAPIC | 1 << 39).is_ok());
    assert_eq!(apic.mmio_base(), Some(1 << 39 | LOCAL_APIC_BASE));
    let mut apic = LocalApic::new(LocalApicConfig { x2apic: false, ..CONFIG });
    assert!(apic.write_apic_base(X2APIC).is_err());
}

#[test]
fn disabling_loses_the_state_but_not_cr8() {
    let mut apic = xapic();
    let _ = write(&mut apic, 0x20, 5 << 24);
    interrupt(&mut apic, 0x41);
    let _ = apic.write_apic_base(DISABLED).unwrap();
    assert_eq!(apic.interrupt_pending(), None);
    assert!(apic.extint_accepted());
    assert_eq!(apic.mmio_base(), None);
    assert_eq!(read(&mut apic, 0x30), u32::MAX);
    assert_eq!(write(&mut apic, 0x80, 0xFF), Effect::None);
    apic.set_cr8(0xF);
    assert_eq!(apic.cr8(), 0xF);
    assert_eq!(apic.set_lint(1, true), Reception::Nmi, "LINT1 is the NMI pin of a disabled APIC");
    let _ = apic.write_apic_base(XAPIC).unwrap();
    assert_eq!(read(&mut apic, 0x20), 0);
    assert_eq!(read(&mut apic, 0x80), 0xF0);
    assert_eq!(read(&mut apic, 0xF0), 0xFF);
}

#[test]
fn the_xapic_id_is_writable_and_the_x2apic_id_is_not() {
    let mut apic = LocalApic::new(LocalApicConfig { id: 0x101, ..CONFIG });
    assert_eq!(read(&mut apic, 0x20), 1 << 24);
    let _ = write(&mut apic, 0x20, 0x0700_0000);
    assert_eq!(apic.id(), 7);
    let _ = apic.write_apic_base(X2APIC).unwrap();
    assert_eq!(apic.read_msr(0x802, NOW), Ok(0x101));
    assert!(apic.write_msr(0x802, 0x101, NOW).is_err());
    assert_eq!(apic.read_msr(0x80D, NOW), Ok(0x10_0002));
    assert_eq!(apic.mmio_base(), None);
}

#[test]
fn priorities() {
    let mut apic = xapic();
    interrupt(&mut apic, 0x41);
    interrupt(&mut apic, 0x52);
    assert_eq!(apic.interrupt_pending(), Some(0x52));
    assert_eq!(apic.acknowledge(), 0x52);
    assert_eq!(read(&mut apic, 0xA0), 0x50);
    // 41H waits for 52H, and so does another one of its class.
    assert_eq!(apic.interrupt_pending(), None);
    interrupt(&mut apic, 0x5F);
    assert_eq!(apic.interrupt_pending(), None);
    interrupt(&mut apic, 0x60);
    assert_eq!(apic.acknowledge(), 0x60);
    assert_eq!(apic.eoi(), None);
    assert_eq!(apic.eoi(), None);
    assert_eq!(apic.acknowledge(), 0x5F);
    assert_eq!(write(&mut apic, 0xB0, 0), Effect::None);
    apic.set_cr8(4);
    assert_eq!(apic.interrupt_pending(), None);
    assert_eq!(read(&mut apic, 0x80), 0x40);
    let _ = write(&mut apic, 0x80, 0x3F);
    assert_eq!(apic.processor_priority(), 0x3F);
    assert_eq!(apic.cr8(), 3);
    assert_eq!(apic.interrupt_pending(), Some(0x41));
    assert_eq!(read(&mut apic, 0x220), 2);
    assert_eq!(apic.acknowledge(), 0x41);
    assert_eq!(read(&mut apic, 0x220), 0);
    assert_eq!(read(&mut apic, 0x120), 2);
}

#[test]
fn a_withdrawn_interrupt_is_spurious() {
    let mut apic = xapic();
    interrupt(&mut apic, 0x41);
    apic.set_cr8(0xF);
    assert_eq!(apic.acknowledge(), 0xFF);
    assert_eq!(read(&mut apic, 0x120), 0);
    apic.set_cr8(0);
    assert_eq!(apic.acknowledge(), 0x41);
}

#[test]
fn level_interrupts_set_tmr_and_broadcast_their_eoi() {
    let mut apic = xapic();
    assert!(apic.accept(0x41, TriggerMode::Level));
    assert_eq!(read(&mut apic, 0x1A0), 2);
    assert_eq!(apic.acknowledge(), 0x41);
    assert_eq!(write(&mut apic, 0xB0, 0), Effect::Eoi(0x41));
    // TMR keeps its bit until the vector is accepted as an edge.
    assert_eq!(read(&mut apic, 0x1A0), 2);
    interrupt(&mut apic, 0x41);
    assert_eq!(read(&mut apic, 0x1A0), 0);

    let _ = write(&mut apic, 0xF0, 0x11FF);
    assert!(apic.accept(0x42, TriggerMode::Level));
    apic.acknowledge();
    assert_eq!(apic.eoi(), None, "SVR bit 12 suppresses the broadcast");
}

#[test]
fn software_disable() {
    let mut apic = xapic();
    interrupt(&mut apic, 0x41);
    let _ = write(&mut apic, 0x320, 0x31);
    let _ = write(&mut apic, 0xF0, 0xFF);
    assert_eq!(read(&mut apic, 0x320), 0x1_0031);
    let _ = write(&mut apic, 0x320, 0x31);
    assert_eq!(read(&mut apic, 0x320), 0x1_0031, "masks stay set");
    assert!(!apic.accept(0x42, TriggerMode::Edge));
    // What was accepted before stays pending.
    assert_eq!(apic.interrupt_pending(), Some(0x41));
    for (mode, reception) in [
        (DeliveryMode::Nmi, Reception::Nmi),
        (DeliveryMode::Init, Reception::Init),
        (DeliveryMode::Smi, Reception::Smi),
        (DeliveryMode::StartUp, Reception::StartUp(0x9A)),
        (DeliveryMode::Fixed, Reception::Dropped),
        (DeliveryMode::Reserved, Reception::Dropped),
    ] {
        let message = InterruptMessage {
            vector: 0x9A,
            delivery_mode: mode,
            destination: Destination::Physical(0),
            trigger: TriggerMode::Edge,
        };
        assert_eq!(apic.receive(&message), reception);
    }
}

#[test]
fn errors_are_latched_by_writing_esr() {
    let mut apic = xapic();
    let _ = write(&mut apic, 0x370, 0xFE);
    assert!(!apic.accept(0xF, TriggerMode::Edge));
    assert_eq!(apic.acknowledge(), 0xFE);
    let _ = apic.eoi();
    // Only the first error since the last write interrupts.
    assert_eq!(write(&mut apic, 0x300, 0x4005), Effect::None);
    assert_eq!(read(&mut apic, 0x10), 0);
    assert_eq!(apic.interrupt_pending(), None);
    assert_eq!(read(&mut apic, 0x280), 0);
    let _ = write(&mut apic, 0x280, 0);
    assert_eq!(read(&mut apic, 0x280), 0xE0);
    let _ = write(&mut apic, 0x280, 0);
    assert_eq!(read(&mut apic, 0x280), 0);
    let _ = write(&mut apic, 0x3F0, 0xF1);
    let _ = write(&mut apic, 0x280, 0);
    assert_eq!(read(&mut apic, 0x280), 0x80, "no SELF IPI in xAPIC mode");
}

#[test]
fn an_error_interrupt_with_an_illegal_vector_ends() {
    let mut apic = xapic();
    let _ = write(&mut apic, 0x370, 0x05);
    let _ = read(&mut apic, 0x0);
    let _ = write(&mut apic, 0x280, 0);
    assert_eq!(read(&mut apic, 0x280), 0xC0);
}

#[test]
fn mmio_sizes_and_alignment() {
    let mut apic = xapic();
    let mut byte = [0];
    apic.read_mmio(0xF1, &mut byte, NOW);
    assert_eq!(byte, [0x01]);
    let mut wide = [0xAA; 16];
    apic.read_mmio(0xF0, &mut wide, NOW);
    assert_eq!(wide[..4], [0xFF, 1, 0, 0]);
    assert_eq!(wide[4..], [0; 12]);
    assert_eq!(apic.write_mmio(0x80, &[0x55], NOW), Effect::None);
    assert_eq!(apic.write_mmio(0x84, &[0x55; 4], NOW), Effect::None);
    assert_eq!(apic.write_mmio(0x80, &[0x55; 8], NOW), Effect::None);
    assert_eq!(read(&mut apic, 0x80), 0);
}

#[test]
fn xapic_ipis() {
    let mut apic = xapic();
    assert_eq!(write(&mut apic, 0x310, 0x02FF_FFFF), Effect::None);
    assert_eq!(read(&mut apic, 0x310), 0x0200_0000);
    let Effect::Ipi(message) = write(&mut apic, 0x300, 0xFFF0_5000 | 0x0941) else {
        panic!("no message");
    };
    assert_eq!(message.destination, Destination::Logical(2));
    assert_eq!(message.delivery_mode, DeliveryMode::LowestPriority);
    assert_eq!(read(&mut apic, 0x300), 0x4941, "delivery status is idle");

    // To itself, without the level bit as kvm-unit-tests has it.
    assert_eq!(write(&mut apic, 0x300, 0x4_00F1), Effect::None);
    assert_eq!(apic.interrupt_pending(), Some(0xF1));
    assert!(matches!(
        write(&mut apic, 0x300, 0xC_4500),
        Effect::Ipi(InterruptMessage {
            delivery_mode: DeliveryMode::Init,
            destination: Destination::AllExcludingSelf,
            ..
        })
    ));
    assert_eq!(write(&mut apic, 0x300, 0xC_8500), Effect::None);
}

#[test]
fn x2apic_access_rights() {
    let mut apic = x2apic(0x21);
    for number in 0..0x100 {
        let msr = 0x800 + number;
        let (readable, writable) = match number {
            2 | 3 | 0xA | 0xD | 0x10..=0x27 | 0x39 => (true, false),
            8 | 0xF | 0x28 | 0x30 | 0x32..=0x38 | 0x3E => (true, true),
            0xB | 0x3F => (false, true),
            _ => (false, false),
        };
        assert_eq!(apic.read_msr(msr, NOW).is_ok(), readable, "{msr:#x}");
        // Only the ICR has a high half; in the other registers it is reserved.
        let high = apic.write_msr(msr, 0xFFFF_FFFF_0000_0000, NOW);
        assert_eq!(high.is_ok(), number == 0x30, "{msr:#x}");
        assert_eq!(apic.write_msr(msr, 0, NOW).is_ok(), writable, "{msr:#x}");
    }
    let mut apic = xapic();
    for msr in 0x800..=0x8FF {
        assert!(apic.read_msr(msr, NOW).is_err());
        assert!(apic.write_msr(msr, 0, NOW).is_err());
    }
    assert!(apic.read_msr(0x7FF, NOW).is_err());
    assert!(apic.read_msr(u32::MAX, NOW).is_err());
}

#[test]
fn x2apic_reserved_bits() {
    let mut apic = x2apic(0);
    for (msr, reserved) in [
        (0x808, 1 << 8),
        (0x80B, 1),
        (0x80F, 1 << 10),
        (0x80F, 1 << 13),
        (0x828, 1),
        (0x830, 1 << 13),
        (0x830, 1 << 16),
        (0x830, 1 << 20),
        (0x832, 1 << 8),
        (0x832, 1 << 19),
        (0x833, 1 << 13),
        (0x835, 1 << 17),
        (0x837, 1 << 8),
        (0x83E, 1 << 2),
        (0x83F, 1 << 8),
    ] {
        assert!(apic.write_msr(msr, reserved, NOW).is_err(), "{msr:#x} {reserved:#x}");
    }
    // Read-only status bits may be written back.
    assert!(apic.write_msr(0x835, 0x1_5700, NOW).is_ok());
    assert_eq!(apic.read_msr(0x835, NOW), Ok(0x1_0700));
}

#[test]
fn x2apic_ipis() {
    let mut apic = x2apic(0x21);
    assert_eq!(apic.read_msr(0x80D, NOW), Ok(0x2_0002));
    let Ok(Effect::Ipi(message)) = apic.write_msr(0x830, 0x0000_0105_0000_5041, NOW) else {
        panic!("no message");
    };
    assert_eq!(message.destination, Destination::Physical(0x105));
    assert_eq!(apic.read_msr(0x830, NOW), Ok(0x0000_0105_0000_4041));
    assert_eq!(apic.write_msr(0x83F, 0xF1, NOW), Ok(Effect::None));
    assert_eq!(apic.acknowledge(), 0xF1);
    assert_eq!(apic.write_msr(0x83F, 0, NOW), Ok(Effect::None));
    let _ = apic.write_msr(0x828, 0, NOW).unwrap();
    assert_eq!(apic.read_msr(0x828, NOW), Ok(0x60));
}

#[test]
fn timer_interrupts() {
    let mut apic = xapic();
    let _ = write(&mut apic, 0x3E0, 0xB);
    let _ = write(&mut apic, 0x320, 0xEE);
    assert_eq!(write(&mut apic, 0x380, 0x1_0000), Effect::TimerChanged);
    assert_eq!(apic.next_deadline(), Some(Deadline::Nanoseconds(clocks(0x1_0000).ns)));
    assert_eq!(read_at(&mut apic, 0x390, clocks(0x8000)), 0x8000);
    assert!(!apic.tick(clocks(0xFFFF)));
    assert!(apic.tick(clocks(0x1_0000)));
    assert_eq!(apic.acknowledge(), 0xEE);
    assert_eq!(apic.next_deadline(), None);
    assert_eq!(read_at(&mut apic, 0x390, clocks(0x2_0000)), 0);
    assert_eq!(read(&mut apic, 0x380), 0x1_0000);
}

#[test]
fn a_masked_timer_counts_silently() {
    let mut apic = xapic();
    let _ = write(&mut apic, 0x3E0, 0xB);
    let _ = write(&mut apic, 0x320, 0x3_00EE);
    let _ = write(&mut apic, 0x380, 100_000);
    assert_eq!(apic.next_deadline(), None);
    // The period that ended under the mask stays silent after unmasking.
    let _ = apic.write_mmio(0x320, &0x2_00EEu32.to_le_bytes(), clocks(150_000));
    assert_eq!(apic.interrupt_pending(), None);
    assert_eq!(apic.next_deadline(), Some(Deadline::Nanoseconds(clocks(200_000).ns)));
    assert!(apic.tick(clocks(200_000)));
}

#[test]
fn timer_mode_changes() {
    let mut apic = xapic();
    let _ = write(&mut apic, 0x3E0, 0xB);
    let lvt = |apic: &mut LocalApic, value: u32, now| {
        let _ = apic.write_mmio(0x320, &value.to_le_bytes(), now);
    };
    let _ = write(&mut apic, 0x380, 1000);
    lvt(&mut apic, 0x2_00EE, clocks(600));
    assert_eq!(read_at(&mut apic, 0x390, clocks(600)), 400, "goes on");
    assert_eq!(read_at(&mut apic, 0x390, clocks(1100)), 900, "reloaded");
    lvt(&mut apic, 0x0_00EE, clocks(1500));
    assert_eq!(read_at(&mut apic, 0x390, clocks(1500)), 500);
    assert_eq!(read_at(&mut apic, 0x390, clocks(2000)), 0);
    lvt(&mut apic, 0x2_00EE, clocks(2500));
    assert_eq!(read_at(&mut apic, 0x390, clocks(9000)), 0, "stays at zero");
    let _ = apic.write_mmio(0x380, &1000u32.to_le_bytes(), clocks(9000));
    lvt(&mut apic, 0x4_00EE, clocks(9000));
    assert_eq!(apic.next_deadline(), None, "disarmed");
    let _ = apic.write_mmio(0x380, &1000u32.to_le_bytes(), clocks(9000));
    lvt(&mut apic, 0x0_00EE, clocks(9000));
    assert_eq!(read_at(&mut apic, 0x390, clocks(9000)), 0);
}

#[test]
fn tsc_deadline_timer() {
    let mut apic = xapic();
    assert_eq!(apic.write_tsc_deadline(100, NOW), Effect::TimerChanged);
    assert_eq!(apic.tsc_deadline(NOW), 0, "ignored in the other modes");
    let _ = write(&mut apic, 0x320, 0x4_00EF);
    let _ = apic.write_tsc_deadline(100, NOW);
    assert_eq!(apic.tsc_deadline(NOW), 100);
    assert_eq!(apic.next_deadline(), Some(Deadline::Tsc(100)));
    assert!(!apic.tick(at(49)));
    assert!(apic.tick(at(50)));
    assert_eq!(apic.acknowledge(), 0xEF);
    let _ = apic.eoi();
    assert_eq!(apic.tsc_deadline(at(50)), 0);
    // A deadline that has passed fires with the write itself.
    let _ = apic.write_tsc_deadline(100, at(50));
    assert_eq!(apic.interrupt_pending(), Some(0xEF));
    assert_eq!(apic.tsc_deadline(at(50)), 0);
    let _ = apic.write_tsc_deadline(1 << 40, at(50));
    let _ = write(&mut apic, 0x320, 0xEF);
    assert_eq!(apic.tsc_deadline(at(50)), 0, "a mode change disarms");
    let mut apic = LocalApic::new(LocalApicConfig { tsc_deadline: false, ..CONFIG });
    let _ = write(&mut apic, 0x320, 0x5_00EF);
    assert_eq!(read(&mut apic, 0x320), 0x1_00EF);
}

#[test]
fn lint_pins() {
    let mut apic = LocalApic::new(CONFIG);
    assert!(!apic.extint_accepted());
    assert_eq!(apic.set_lint(0, true), Reception::Dropped);
    let _ = apic.set_lint(0, false);
    apic.enter_virtual_wire_mode();
    assert!(apic.extint_accepted());
    assert_eq!(apic.set_lint(0, true), Reception::ExtInt);
    assert_eq!(apic.set_lint(0, true), Reception::Dropped, "no new edge");
    assert_eq!(apic.set_lint(1, true), Reception::Nmi);
    let _ = write(&mut apic, 0x350, 0x1_0700);
    assert!(!apic.extint_accepted());

    let _ = apic.set_lint(1, false);
    let _ = write(&mut apic, 0x360, 0x44);
    assert_eq!(apic.set_lint(1, true), Reception::Interrupt);
    assert_eq!(apic.interrupt_pending(), Some(0x44));
}

#[test]
fn lint0_level_interrupt_comes_again_until_the_line_falls() {
    let mut apic = xapic();
    let _ = write(&mut apic, 0x350, 0x8055);
    assert_eq!(apic.set_lint(0, true), Reception::Interrupt);
    assert_eq!(read(&mut apic, 0x350), 0xC055, "remote IRR");
    assert_eq!(apic.acknowledge(), 0x55);
    assert_eq!(apic.eoi(), Some(0x55));
    assert_eq!(apic.acknowledge(), 0x55);
    let _ = apic.set_lint(0, false);
    assert_eq!(apic.eoi(), Some(0x55));
    assert_eq!(apic.interrupt_pending(), None);
    assert_eq!(read(&mut apic, 0x350), 0x8055);
}

#[test]
fn performance_counter_interrupt_masks_itself() {
    let mut apic = xapic();
    let _ = write(&mut apic, 0x340, 0x400);
    assert_eq!(apic.raise_local(LvtEntry::PerformanceCounter), Reception::Nmi);
    assert_eq!(read(&mut apic, 0x340), 0x1_0400);
    assert_eq!(apic.raise_local(LvtEntry::PerformanceCounter), Reception::Dropped);
}

#[test]
fn init_keeps_mode_and_id() {
    let mut apic = xapic();
    let _ = write(&mut apic, 0x20, 9 << 24);
    let _ = apic.write_apic_base(0xFED4_0900).unwrap();
    interrupt(&mut apic, 0x41);
    apic.set_cr8(3);
    apic.init_reset();
    assert_eq!(apic.apic_base(), 0xFED4_0900);
    assert_eq!(apic.id(), 9);
    assert_eq!(apic.cr8(), 0);
    assert_eq!(apic.interrupt_pending(), None);
    assert!(!apic.software_enabled());
    apic.reset();
    assert_eq!(apic, LocalApic::new(CONFIG));

    let mut apic = x2apic(7);
    apic.init_reset();
    assert_eq!(apic.mode(), ApicMode::X2Apic);
}
