//! Paging: SDM vol. 3A, sections 4.3 to 4.7.

use super::world::{Mode, World};
use super::{Check, check};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::Fault;
use x86::control::{cr0, cr4, efer};
use x86::cpuid::{Feature, Policy};
use x86::fault::pf;

const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const PS: u64 = 1 << 7;
const PAT_LARGE: u64 = 1 << 12;
const XD: u64 = 1 << 63;
const KEY1: u64 = 1 << 59;

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

fn read(a: &mut CodeAssembler) -> Result<(), IcedError> {
    if a.bitness() == 64 { a.mov(eax, dword_ptr(rbx)) } else { a.mov(eax, dword_ptr(ebx)) }
}

fn write(a: &mut CodeAssembler) -> Result<(), IcedError> {
    if a.bitness() == 64 { a.mov(dword_ptr(rbx), eax) } else { a.mov(dword_ptr(ebx), eax) }
}

/// Calls a RET there.
fn execute(a: &mut CodeAssembler) -> Result<(), IcedError> {
    if a.bitness() == 64 { a.call(rbx) } else { a.call(ebx) }
}

/// An access to [`World::linear`].
fn at(
    name: &'static str,
    mode: Mode,
    code: Code,
    bad: impl Fn(&mut World) + 'static,
    fault: u32,
) -> Check {
    let user = matches!(mode, Mode::User | Mode::PagedUser);
    let fault = Fault::page(fault | if user { pf::USER } else { 0 });
    check(name, mode, code, bad, fault).good(move |world| {
        world.cpu.gpr[3] = World::linear(mode);
        world.write(super::world::DATA, &[0xC3]);
    })
}

fn levels(mode: Mode) -> &'static [usize] {
    match mode {
        Mode::Paged | Mode::PagedUser => &[1, 2],
        // The third is a register: see `pdptes`.
        Mode::Pae => &[1, 2],
        _ => &[1, 2, 3, 4],
    }
}

/// Makes the entry at level 2 or 3 map a large page (which begins at 0).
fn large(world: &mut World, mode: Mode, level: usize) {
    let at = World::entry(mode, level);
    if mode == Mode::Paged {
        world.write(at, &0xE7u32.to_le_bytes());
    } else {
        world.put(at, 0xE7);
    }
    world.cpu.gpr[3] += super::world::DATA;
}

fn rights(checks: &mut Vec<Check>) {
    for mode in [Mode::Paged, Mode::Pae, Mode::Long] {
        for &level in levels(mode) {
            let row = |c: Check| c.detail(format!("level {level}"));
            checks.push(row(at("present", mode, read, move |w| w.clear(level, P), 0)));
            let fault = pf::PRESENT | pf::WRITE;
            checks.push(row(at(
                "R/W under CR0.WP",
                mode,
                write,
                move |w| w.clear(level, RW),
                fault,
            )));
            if mode != Mode::Paged {
                let fault = pf::PRESENT | pf::FETCH;
                checks.push(row(at("XD", mode, execute, move |w| w.set(level, XD), fault)));
            }
        }
    }
    for mode in [Mode::PagedUser, Mode::User] {
        for &level in levels(mode) {
            let row = |c: Check| c.detail(format!("level {level}"));
            let clear = |bits| move |w: &mut World| w.clear(level, bits);
            checks.push(row(at("U/S", mode, read, clear(US), pf::PRESENT)));
            checks.push(row(at("R/W at level 3", mode, write, clear(RW), pf::PRESENT | pf::WRITE)));
        }
    }
    let smep = at("SMEP", Mode::Long, execute, |w| w.cpu.cr4 |= cr4::SMEP, pf::PRESENT | pf::FETCH);
    let smap = at("SMAP", Mode::Long, read, |w| w.cpu.cr4 |= cr4::SMAP, pf::PRESENT);
    // The code itself must belong to the supervisor.
    for check in [smep, smap] {
        let good = check.good;
        checks.push(Check {
            good: Box::new(move |w| {
                good(w);
                w.supervisor_code();
            }),
            ..check
        });
    }
    if Policy::host(1).has(Feature::Pku) {
        for (name, code, pkru, bits) in [
            ("protection keys, access", read as Code, 4, 0),
            ("protection keys, write", write as Code, 8, pf::WRITE),
        ] {
            let bad = move |w: &mut World| w.cpu.pkru = pkru;
            let row = at(name, Mode::User, code, bad, pf::PRESENT | pf::PROTECTION_KEY | bits);
            let good = row.good;
            checks.push(Check {
                good: Box::new(move |w| {
                    good(w);
                    w.cpu.cr4 |= cr4::PKE;
                    w.set(1, KEY1);
                }),
                ..row
            });
        }
    }
}

const RESERVED: u32 = pf::PRESENT | pf::RESERVED;

/// Bits that are reserved in entries that map no large page.
fn tables(checks: &mut Vec<Check>) {
    let beyond = Policy::host(1).physical_bits..52;
    for mode in [Mode::Pae, Mode::Long] {
        for &level in levels(mode) {
            for bit in beyond.clone() {
                let bad = move |w: &mut World| w.set(level, 1 << bit);
                let row = at("address bits from MAXPHYADDR", mode, read, bad, RESERVED);
                checks.push(row.detail(format!("level {level}, bit {bit}")));
            }
            // EFER.NXE cannot be cleared while code relies on it: none does.
            let bad = move |w: &mut World| {
                w.cpu.efer &= !efer::NXE;
                w.set(level, XD);
            };
            let row = at("XD without EFER.NXE", mode, read, bad, RESERVED);
            checks.push(row.detail(format!("level {level}")));
        }
    }
    for level in levels(Mode::Pae) {
        for bit in 52..63 {
            let bad = move |w: &mut World| w.set(*level, 1 << bit);
            let row = at("bits 62:52 under PAE", Mode::Pae, read, bad, RESERVED);
            checks.push(row.detail(format!("level {level}, bit {bit}")));
        }
    }
    checks.push(at("PS in a PML4E", Mode::Long, read, |w| w.set(4, PS), RESERVED));
}

/// Bits that are reserved in entries that map large pages. PAT (bit 12) is not one of them.
fn large_pages(checks: &mut Vec<Check>) {
    let rows: [(&'static str, Mode, usize, std::ops::Range<u32>); 4] = [
        ("bits 20:13 of a 2 MiB page", Mode::Pae, 2, 13..21),
        ("bits 20:13 of a 2 MiB page", Mode::Long, 2, 13..21),
        ("bits 29:13 of a 1 GiB page", Mode::Long, 3, 13..30),
        ("bit 21 of a 4 MiB page", Mode::Paged, 2, 21..22),
    ];
    for (name, mode, level, bits) in rows {
        for bit in bits {
            let row = at(name, mode, read, move |w| w.set(level, 1 << bit), RESERVED);
            let good = row.good;
            checks.push(Check {
                detail: format!("bit {bit}"),
                good: Box::new(move |w| {
                    good(w);
                    large(w, mode, level);
                    w.set(level, PAT_LARGE);
                }),
                ..row
            });
        }
    }
    let bad = |w: &mut World| {
        let mut policy = Policy::host(1);
        policy.remove(Feature::Pdpe1gb);
        w.cpu.policy = policy.into();
    };
    let row = at("PS in a PDPTE without 1 GiB pages", Mode::Long, read, bad, RESERVED);
    let good = row.good;
    checks.push(Check {
        good: Box::new(move |w| {
            good(w);
            large(w, Mode::Long, 3);
        }),
        ..row
    });
}

/// PDPTEs are checked when CR3 is loaded.
fn pdptes(checks: &mut Vec<Check>) {
    let bits = [1, 2, 5, 6, 7, 8].into_iter().chain(u32::from(Policy::host(1).physical_bits)..64);
    for bit in bits {
        let load = |a: &mut CodeAssembler| {
            a.mov(eax, cr3)?;
            // Only now: the harness loads them too.
            a.mov(dword_ptr(ebx), ecx)?;
            a.mov(cr3, eax)
        };
        // The entry stays present.
        let bad = move |w: &mut World| {
            w.cpu.gpr[3] = World::entry(Mode::Pae, 3) + u64::from(bit / 32 * 4);
            w.cpu.gpr[1] = 1 << (bit % 32) | u64::from(bit < 32);
        };
        let row = check("reserved bits of a PDPTE", Mode::Pae, load, bad, Fault::GP0);
        checks.push(row.detail(format!("bit {bit}")).good(|w| {
            w.cpu.gpr[3] = World::entry(Mode::Pae, 3);
            w.cpu.gpr[1] = 1;
        }));
    }
}

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    rights(&mut checks);
    tables(&mut checks);
    large_pages(&mut checks);
    pdptes(&mut checks);
    checks.push(
        at("CR0.WP", Mode::Paged, write, |w| w.cpu.cr0 |= cr0::WP, pf::PRESENT | pf::WRITE)
            .detail("clear, then set"),
    );
    let last = checks.last_mut().expect("just pushed");
    let good = std::mem::replace(&mut last.good, Box::new(|_| {}));
    last.good = Box::new(move |w| {
        good(w);
        w.cpu.cr0 &= !cr0::WP;
        w.clear(1, RW);
    });
    checks
}
