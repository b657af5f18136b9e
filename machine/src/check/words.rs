//! The report in words.

use std::fmt;

use super::{HostReport, KvmDevice, Nesting, Virtualization};

/// Width of the column of names.
const NAMES: usize = 22;
/// Width of a line of text.
const WIDTH: usize = 80;
/// Mappings below which a process comes near the kernel's limit.
const FEW_MAPPINGS: u64 = 65530;

impl fmt::Display for HostReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Processor")?;
        for (name, value) in self.processor() {
            row(f, name, &value)?;
        }
        writeln!(f, "\nKernel and limits")?;
        for (name, value) in self.kernel_and_limits() {
            row(f, name, &value)?;
        }
        writeln!(f, "\nWhat Ringshift makes of it")?;
        for sentence in self.conclusions() {
            wrapped(f, "  - ", "    ", &sentence)?;
        }
        Ok(())
    }
}

impl HostReport {
    fn processor(&self) -> Vec<(&'static str, String)> {
        let cpu = &self.cpu;
        vec![
            ("model", cpu.brand.clone()),
            ("cores", cpu.cores.to_string()),
            (
                "host is",
                match &cpu.hypervisor {
                    Some(signature) => format!("a virtual machine itself ({signature})"),
                    None => "not a virtual machine, as far as the processor tells".into(),
                },
            ),
            (
                "VT-x or SVM",
                match cpu.virtualization {
                    Some(Virtualization::VtX) => format!("VT-x, EPT {}", nesting(cpu.nesting)),
                    Some(Virtualization::Svm) => format!("SVM, NPT {}", nesting(cpu.nesting)),
                    None => "neither".into(),
                },
            ),
            ("instruction set", format!("x86-64-v{}", cpu.level)),
            ("vectors", self.list(is_vector)),
            ("other extensions", self.list(|name| !is_vector(name))),
            ("protection keys", enabled(cpu.protection_keys)),
            ("FSGSBASE", enabled(cpu.fsgsbase)),
            ("invariant TSC", yes(cpu.invariant_tsc)),
            ("57-bit addresses", yes(cpu.la57)),
        ]
    }

    fn kernel_and_limits(&self) -> Vec<(&'static str, String)> {
        let kernel = &self.kernel;
        let number = |value: Option<u64>| value.map_or("unknown".into(), |value| value.to_string());
        let limit =
            |value: Option<u64>| value.map_or("unlimited".into(), |value| value.to_string());
        vec![
            ("release", kernel.release.clone()),
            (
                "/dev/kvm",
                match kernel.kvm {
                    KvmDevice::Absent => "absent".into(),
                    KvmDevice::Denied => "present, not accessible to this user".into(),
                    KvmDevice::Usable => "present and accessible".into(),
                },
            ),
            (
                "modify_ldt",
                match kernel.modify_ldt {
                    Some(true) => "available".into(),
                    Some(false) => "not in this kernel".into(),
                    None => "unknown (the kernel hides its symbols)".into(),
                },
            ),
            ("memfd", if kernel.memfd { "available".into() } else { "refused".into() }),
            ("vm.memfd_noexec", number(kernel.memfd_noexec)),
            ("vm.max_map_count", number(kernel.max_map_count)),
            (
                "vm.overcommit_memory",
                match kernel.overcommit_memory {
                    Some(0) => "0 (heuristic)".into(),
                    Some(1) => "1 (always)".into(),
                    Some(2) => "2 (never)".into(),
                    other => number(other),
                },
            ),
            ("vm.mmap_min_addr", number(kernel.mmap_min_addr)),
            (
                "memory",
                kernel.memory.map_or("unknown".into(), |(total, available)| {
                    format!("{}, of which {} available", size(total), size(available))
                }),
            ),
            ("RLIMIT_AS", self.limits.address_space.map_or("unlimited".into(), size)),
            ("RLIMIT_NPROC", limit(self.limits.threads)),
            ("RLIMIT_NOFILE", limit(self.limits.files)),
        ]
    }

    /// What follows for Ringshift from what was found.
    fn conclusions(&self) -> Vec<String> {
        let (cpu, kernel) = (&self.cpu, &self.kernel);
        let mut sentences: Vec<String> = self
            .obstacles()
            .into_iter()
            .map(|why| format!("No guest can run here: {why}."))
            .collect();
        if sentences.is_empty() {
            sentences.push("Guests can run here.".into());
        }
        sentences.push(match (cpu.virtualization, kernel.kvm) {
            (_, KvmDevice::Usable) => {
                "Ringshift leaves /dev/kvm alone: guests run as they would without it.".into()
            }
            (Some(_), _) => "The processor's virtualization is out of this process's reach. \
                Ringshift does without it."
                .into(),
            (None, _) => {
                "There is no hardware virtualization here. Ringshift does without it.".into()
            }
        });
        let vectors = ["avx512f", "avx2", "avx", "sse4.2"].into_iter().find(|name| cpu.has(name));
        sentences.push(format!(
            "Guests can be offered no more than the processor has, which is vector instructions \
             up to {}: the processor itself executes them.",
            vectors.unwrap_or("sse2").to_uppercase()
        ));
        if let Some((_, available)) = kernel.memory {
            let most = self.limits.address_space.map_or(available, |limit| available.min(limit));
            sentences.push(format!(
                "Guest memory takes host memory as the guest touches it. About {} is free for it.",
                size(most)
            ));
        }
        if kernel.overcommit_memory == Some(2) {
            sentences.push(
                "The kernel does not overcommit memory (vm.overcommit_memory is 2): a guest's \
                 memory may be refused though it would never be touched."
                    .into(),
            );
        }
        if kernel.memfd_noexec == Some(2) {
            sentences.push(
                "The kernel refuses executable memfds (vm.memfd_noexec is 2), which translated \
                 code needs: guests are interpreted, many times slower."
                    .into(),
            );
        }
        sentences.push(match (cpu.fsgsbase.1, cpu.protection_keys.1) {
            (true, true) => "A guest's address space can be mapped as it is and switched without \
                a system call (FSGSBASE, protection keys)."
                .into(),
            (true, false) => "A guest's address space can be mapped and selected without a system \
                call (FSGSBASE), but not guarded without one: there are no protection keys."
                .into(),
            (false, _) => "Segment bases take a system call to change (no FSGSBASE): a guest's \
                memory is reached through the software TLB only."
                .into(),
        });
        if kernel.max_map_count.is_some_and(|count| count < FEW_MAPPINGS) {
            sentences.push(format!(
                "vm.max_map_count is low: with fewer than {FEW_MAPPINGS} mappings, less of a \
                 guest's address space can be mapped as it is."
            ));
        }
        if !cpu.invariant_tsc {
            sentences
                .push("The time stamp counter is not invariant: guest clocks may drift.".into());
        }
        sentences
    }

    fn list(&self, wanted: impl Fn(&str) -> bool) -> String {
        let names: Vec<&str> = self
            .cpu
            .extensions
            .iter()
            .filter(|(name, present)| *present && wanted(name))
            .map(|(name, _)| *name)
            .collect();
        names.join(" ")
    }
}

/// Whether an extension is one of the SSE or AVX families.
fn is_vector(name: &str) -> bool {
    name.contains("sse") || name.starts_with("avx")
}

fn nesting(nesting: Nesting) -> &'static str {
    match nesting {
        Nesting::Present => "present",
        Nesting::Absent => "absent",
        Nesting::Unknown => "unknown",
    }
}

fn enabled((processor, kernel): (bool, bool)) -> String {
    match (processor, kernel) {
        (_, true) => "yes",
        (true, false) => "in the processor, but not enabled by the kernel",
        (false, false) => "no",
    }
    .into()
}

fn yes(value: bool) -> String {
    if value { "yes".into() } else { "no".into() }
}

/// A number of bytes, in the unit that suits it.
fn size(bytes: u64) -> String {
    let mib = bytes >> 20;
    if mib >= 10 << 10 { format!("{} GiB", mib >> 10) } else { format!("{mib} MiB") }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    wrapped(f, &format!("  {name:<NAMES$}"), &" ".repeat(NAMES + 2), value)
}

/// Writes `text` in lines of [`WIDTH`] columns, `first` before the first line
/// and `rest` before the others.
fn wrapped(f: &mut fmt::Formatter<'_>, first: &str, rest: &str, text: &str) -> fmt::Result {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.len() + 1 + word.len() > WIDTH {
            writeln!(f, "{line}")?;
            line = rest.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    writeln!(f, "{}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use crate::check::{Cpu, HostReport, Kernel, KvmDevice, Limits, Nesting, report};

    fn poor_host() -> HostReport {
        HostReport {
            cpu: Cpu {
                brand: "Some CPU".into(),
                cores: 1,
                level: 1,
                extensions: vec![("sse2", true), ("avx2", false)],
                virtualization: None,
                nesting: Nesting::Absent,
                protection_keys: (true, false),
                fsgsbase: (false, false),
                invariant_tsc: false,
                la57: false,
                hypervisor: Some("KVMKVMKVM".into()),
            },
            kernel: Kernel {
                release: "5.4".into(),
                kvm: KvmDevice::Denied,
                modify_ldt: None,
                memfd: false,
                memfd_noexec: Some(2),
                max_map_count: Some(1000),
                overcommit_memory: Some(2),
                mmap_min_addr: Some(65536),
                memory: Some((20 << 30, 12 << 30)),
            },
            limits: Limits { address_space: Some(512 << 20), threads: None, files: Some(64) },
        }
    }

    #[test]
    fn a_poor_host_is_told_all_that_is_wrong() {
        let words = poor_host().to_string();
        let flat = words.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "a virtual machine itself (KVMKVMKVM)",
            "VT-x or SVM neither",
            "protection keys in the processor, but not enabled by the kernel",
            "/dev/kvm present, not accessible to this user",
            "memory 20 GiB, of which 12 GiB available",
            "RLIMIT_AS 512 MiB",
            "RLIMIT_NPROC unlimited",
            "No guest can run here: memfd_create fails",
            "No guest can run here: the processor lacks",
            "About 512 MiB is free for it",
            "vm.overcommit_memory is 2",
            "guests are interpreted, many times slower",
            "reached through the software TLB only",
            "vm.max_map_count is low",
            "guest clocks may drift",
            "up to SSE2",
        ] {
            assert!(flat.contains(part), "{part:?} is not in\n{words}");
        }
        assert!(words.lines().all(|line| line.len() <= 80), "{words}");
    }

    #[test]
    fn this_host_is_reported() {
        let report = report();
        let words = report.to_string();
        assert!(words.contains(&report.kernel.release), "{words}");
        assert_eq!(report.obstacles().is_empty(), words.contains("Guests can run here."));
    }
}
