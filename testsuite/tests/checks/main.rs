//! What permissive emulators let pass: limits and types of segments, reserved bits, addresses that
//! are not canonical.
//!
//! Each [`Check`] is a piece of code in two settings, a good and a bad one. In the good one it runs
//! to its end, in the bad one it takes the fault that the manual says: so the test fails where the
//! check is not made, and where something else stops the code. Both engines run every check, the
//! translator with code that it has translated in the good setting.
//!
//! docs/STRICT.md lists them; the last test here keeps the list complete. [`hidden`] checks what
//! exists at all, by the guest's CPUID.

mod addresses;
mod control;
mod descriptors;
mod encodings;
mod hidden;
mod msrs;
mod paging;
mod segments;
mod task_state;
mod tasks;
mod transfers;
mod world;

use world::{END, World};
use x86::Fault;

/// Something to set up before the code runs.
type Setting = Box<dyn Fn(&mut World)>;

/// One thing that a processor checks.
struct Check {
    /// What is checked, as docs/STRICT.md has it. Several of one name differ by [`Check::detail`].
    name: &'static str,
    /// Which bit, register or value.
    detail: String,
    mode: world::Mode,
    code: Vec<u8>,
    good: Setting,
    bad: Setting,
    /// The fault in the bad setting.
    fault: Fault,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// At the UD2 behind the code.
    AtEnd,
    /// In a fault elsewhere.
    Fault(Fault),
    /// Otherwise.
    Strange(String),
}

/// A check whose code is assembled, and whose good setting is how the mode begins.
fn check(
    name: &'static str,
    mode: world::Mode,
    code: impl Fn(&mut iced_x86::code_asm::CodeAssembler) -> Result<(), iced_x86::IcedError>,
    bad: impl Fn(&mut World) + 'static,
    fault: Fault,
) -> Check {
    let mut assembler = iced_x86::code_asm::CodeAssembler::new(mode.bits()).expect("a code size");
    code(&mut assembler).expect("instructions");
    let code = if assembler.instructions().is_empty() {
        Vec::new()
    } else {
        assembler.assemble(world::CODE).expect("assembles")
    };
    bytes(name, mode, &code, bad, fault)
}

/// [`check`] of bytes.
fn bytes(
    name: &'static str,
    mode: world::Mode,
    code: &[u8],
    bad: impl Fn(&mut World) + 'static,
    fault: Fault,
) -> Check {
    Check {
        name,
        detail: String::new(),
        mode,
        code: code.to_vec(),
        good: Box::new(|_| {}),
        bad: Box::new(bad),
        fault,
    }
}

/// Code that belongs to level 0: NOPs in the good setting, at level 3.
fn level_3(
    name: &'static str,
    code: impl Fn(&mut iced_x86::code_asm::CodeAssembler) -> Result<(), iced_x86::IcedError>,
) -> Check {
    let real = check(name, world::Mode::User, code, |_| {}, Fault::GP0);
    let privileged = real.code.clone();
    let detail = format!("{privileged:02x?}");
    let nops = vec![0x90; privileged.len()];
    bytes(name, world::Mode::User, &nops, move |w| w.write(world::CODE, &privileged), Fault::GP0)
        .detail(detail)
}

impl Check {
    /// With this good setting. The bad one comes on top of it.
    fn good(mut self, good: impl Fn(&mut World) + 'static) -> Check {
        self.good = Box::new(good);
        self
    }

    fn detail(mut self, detail: impl Into<String>) -> Check {
        self.detail = detail.into();
        self
    }

    /// What went wrong on `world`'s engine.
    fn problems(&self, world: &mut World) -> Vec<String> {
        let mut problems = Vec::new();
        // The bad setting may be another mode to the translator, which meets it anew: so twice.
        for (round, bad) in [false, false, true, true, false].into_iter().enumerate() {
            world.begin(self.mode, &self.code);
            (self.good)(world);
            if bad {
                (self.bad)(world);
            }
            let ended = world.run();
            let wanted = if bad { Ended::Fault(self.fault) } else { Ended::AtEnd };
            if ended != wanted {
                let setting = if bad { "bad" } else { "good" };
                problems.push(format!(
                    "{} {} ({:?}, {setting} setting, round {round}, {}): {ended:?}, not {wanted:?}",
                    self.name,
                    self.detail,
                    self.mode,
                    world.engine()
                ));
            }
        }
        problems
    }
}

fn run(checks: &[Check]) {
    let mut problems = Vec::new();
    for mut world in [World::interpreted(), World::translated()] {
        for check in checks {
            problems.extend(check.problems(&mut world));
        }
    }
    assert!(
        problems.is_empty(),
        "{} of {} checks:\n{}",
        problems.len(),
        checks.len(),
        problems.join("\n")
    );
}

macro_rules! groups {
    ($($group:ident),*) => {
        $(
            #[test]
            fn $group() {
                run(&$group::checks());
            }
        )*

        fn all() -> Vec<Check> {
            [$($group::checks()),*].into_iter().flatten().collect()
        }
    };
}

groups!(
    addresses,
    control,
    descriptors,
    encodings,
    msrs,
    paging,
    segments,
    task_state,
    tasks,
    transfers
);

#[test]
fn the_list_is_complete() {
    let list = include_str!("../../../docs/STRICT.md");
    let mut missing: Vec<_> = all().iter().map(|check| check.name).collect();
    missing.sort_unstable();
    missing.dedup();
    missing.retain(|name| !list.contains(&format!("| {name} |")));
    assert!(missing.is_empty(), "docs/STRICT.md lacks: {missing:#?}");
}

const _: () = assert!(END.len() == 2);
