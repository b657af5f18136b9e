//! Differences between two CPU states, for lockstep runs and conformance suites.

use crate::Cpu;
use std::fmt;

/// A register in which two states differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The register's name.
    pub register: String,
    /// Its value in the first state.
    pub first: u128,
    /// Its value in the second.
    pub second: u128,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} {:#x} {:#x}", self.register, self.first, self.second)
    }
}

/// Every architectural register in which `a` and `b` differ. What is derived (mode, key) or
/// belongs to the platform (counters, CPUID policy) is left out.
pub fn differences(a: &Cpu, b: &Cpu) -> Vec<Difference> {
    const GPR: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    const SEG: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
    let mut list = List(Vec::new());
    for (i, name) in GPR.iter().enumerate() {
        list.check(name, a.gpr[i], b.gpr[i]);
    }
    list.check("rip", a.rip, b.rip);
    list.check("rflags", a.rflags, b.rflags);
    list.check("instructions", a.instructions, b.instructions);
    let segments = a.seg.iter().zip(&b.seg).zip(SEG);
    let system = [((&a.ldtr, &b.ldtr), "ldtr"), ((&a.tr, &b.tr), "tr")];
    for ((x, y), name) in segments.chain(system) {
        list.check(name, u64::from(x.selector), u64::from(y.selector));
        list.check(&format!("{name}.base"), x.base, y.base);
        list.check(&format!("{name}.limit"), u64::from(x.limit), u64::from(y.limit));
        list.check(&format!("{name}.access"), u64::from(x.access), u64::from(y.access));
    }
    for (name, x, y) in [
        ("gdtr.base", a.gdtr.base, b.gdtr.base),
        ("gdtr.limit", u64::from(a.gdtr.limit), u64::from(b.gdtr.limit)),
        ("idtr.base", a.idtr.base, b.idtr.base),
        ("idtr.limit", u64::from(a.idtr.limit), u64::from(b.idtr.limit)),
        ("cr0", a.cr0, b.cr0),
        ("cr2", a.cr2, b.cr2),
        ("cr3", a.cr3, b.cr3),
        ("cr4", a.cr4, b.cr4),
        ("xcr0", a.xcr0, b.xcr0),
        ("dr0", a.dr[0], b.dr[0]),
        ("dr1", a.dr[1], b.dr[1]),
        ("dr2", a.dr[2], b.dr[2]),
        ("dr3", a.dr[3], b.dr[3]),
        ("dr6", a.dr6, b.dr6),
        ("dr7", a.dr7, b.dr7),
        ("efer", a.efer, b.efer),
        ("star", a.star, b.star),
        ("lstar", a.lstar, b.lstar),
        ("cstar", a.cstar, b.cstar),
        ("fmask", a.fmask, b.fmask),
        ("kernel_gs_base", a.kernel_gs_base, b.kernel_gs_base),
        ("sysenter_cs", a.sysenter_cs, b.sysenter_cs),
        ("sysenter_esp", a.sysenter_esp, b.sysenter_esp),
        ("sysenter_eip", a.sysenter_eip, b.sysenter_eip),
        ("tsc_aux", u64::from(a.tsc_aux), u64::from(b.tsc_aux)),
        ("tsc_offset", a.tsc_offset, b.tsc_offset),
        ("pkru", u64::from(a.pkru), u64::from(b.pkru)),
        ("mxcsr", u64::from(a.mxcsr), u64::from(b.mxcsr)),
        ("activity", a.activity as u64, b.activity as u64),
        ("shadow", a.shadow as u64, b.shadow as u64),
        ("fcw", u64::from(a.x87.fcw), u64::from(b.x87.fcw)),
        ("fsw", u64::from(a.x87.fsw), u64::from(b.x87.fsw)),
        ("ftw", u64::from(a.x87.ftw), u64::from(b.x87.ftw)),
    ] {
        list.check(name, x, y);
    }
    for i in 0..8 {
        list.check(&format!("k{i}"), a.opmask[i], b.opmask[i]);
        let value = |x: &[u8; 16]| u128::from_le_bytes(*x) & ((1 << 80) - 1);
        list.wide(&format!("st{i}"), value(&a.x87.st[i]), value(&b.x87.st[i]));
    }
    for (i, (x, y)) in a.vector.iter().zip(&b.vector).enumerate() {
        for lane in 0..4 {
            let value = |r: &[u64; 8]| u128::from(r[2 * lane]) | u128::from(r[2 * lane + 1]) << 64;
            list.wide(&format!("zmm{i}[{lane}]"), value(&x.0), value(&y.0));
        }
    }
    list.0
}

struct List(Vec<Difference>);

impl List {
    fn check(&mut self, name: &str, first: u64, second: u64) {
        self.wide(name, first.into(), second.into());
    }

    fn wide(&mut self, name: &str, first: u128, second: u128) {
        if first != second {
            self.0.push(Difference { register: name.into(), first, second });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_differs_and_nothing_else() {
        let a = Cpu::new();
        let mut b = Cpu::new();
        assert_eq!(differences(&a, &b), []);
        b.gpr[3] = 7;
        b.vector[2].0[3] = 1;
        let names: Vec<_> = differences(&a, &b).into_iter().map(|d| d.register).collect();
        assert_eq!(names, ["rbx", "zmm2[1]"]);
    }
}
