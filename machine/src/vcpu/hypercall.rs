//! KVM's hypercalls (Linux Documentation/virt/kvm/x86/hypercalls.rst), as far as CPUID reports
//! them.

use crate::interrupts::Interrupts;
use devices::apic::{DeliveryMode, Destination, InterruptMessage, TriggerMode};

/// Send an IPI to many processors at once.
const KVM_HC_SEND_IPI: u64 = 10;
/// An argument is wrong.
const KVM_EINVAL: i64 = -22;

/// ICR fields that KVM_HC_SEND_IPI does not take: the destination mode and the shorthand.
const ICR_UNSUPPORTED: u64 = 1 << 11 | 3 << 18;

/// Carries out hypercall `number` of vCPU `sender`; `None` where there is none.
pub(super) fn call(
    interrupts: &Interrupts,
    sender: usize,
    number: u64,
    arguments: [u64; 4],
    long: bool,
) -> Option<i64> {
    match number {
        KVM_HC_SEND_IPI => Some(send_ipi(interrupts, sender, arguments, long)),
        _ => None,
    }
}

/// The first two arguments are a bitmap of APIC IDs, whose bit 0 stands for the ID in the third;
/// the fourth is the low half of an ICR. Answers with the number of processors reached.
fn send_ipi(
    interrupts: &Interrupts,
    sender: usize,
    [low, high, first, icr]: [u64; 4],
    long: bool,
) -> i64 {
    if icr & ICR_UNSUPPORTED != 0 {
        return KVM_EINVAL;
    }
    let width = if long { 64 } else { 32 };
    let bitmap = u128::from(low) | u128::from(high) << width;
    let mut reached = 0;
    for vcpu in &interrupts.vcpus {
        let id = vcpu.apic_id();
        let Some(bit) = u64::from(id).checked_sub(first & 0xFFFF_FFFF) else { continue };
        if bit < 2 * width && bitmap >> bit & 1 != 0 {
            let message = InterruptMessage {
                vector: icr as u8,
                delivery_mode: DeliveryMode::from_bits((icr >> 8) as u32),
                destination: Destination::Physical(id),
                trigger: TriggerMode::Edge,
            };
            reached += interrupts.deliver(&message, Some(sender)) as i64;
        }
    }
    reached
}
