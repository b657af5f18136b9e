//! Reports of walks.

use super::*;

const LINEAR: u64 = 0x0060_4000;

#[test]
fn a_trace_agrees_with_the_walk_and_touches_nothing() {
    for mode in MODES {
        let mut guest = Guest::new(mode);
        let leaf = guest.map(LINEAR, DATA | ALL);
        let large_level = if mode == PagingMode::Legacy32 { 22 } else { 21 };
        guest.map_at(ROOT, 5 << large_level, 2, (1 << large_level) | ALL | PS);
        for linear in [LINEAR + 0x123, (5 << large_level) + 0x4_5678] {
            let trace = guest.mmu.trace_walk(linear);
            assert_eq!(guest.accessed_dirty(leaf).0, linear & 0xFFF == 0x678);
            let page = guest.mmu.fetch_translate(linear).expect("fetch");
            assert_eq!(trace.gpa, Some(page.gpa), "{mode:?}");
            assert!(trace.steps.iter().all(|step| step.usable()));
        }
        let slots = guest.path(ROOT, LINEAR, 1);
        let trace = guest.mmu.trace_walk(LINEAR);
        let traced: Vec<u64> = trace.steps.iter().map(|step| step.gpa).collect();
        assert_eq!(traced, slots, "{mode:?}");
    }
}

#[test]
fn a_trace_says_where_and_why_a_walk_ends() {
    let mut guest = Guest::new(PagingMode::Level4);
    let slot = guest.map_at(ROOT, LINEAR, 2, 0x20_0000 | P | RW | 1 << 45);
    let trace = guest.mmu.trace_walk(LINEAR);
    assert_eq!(trace.gpa, None);
    let last = trace.steps.last().expect("steps");
    assert_eq!((last.name, last.gpa, last.reserved), ("PDE", slot, 1 << 45));
    assert_eq!(
        last.to_string(),
        format!(
            "PDE at {slot:#x} = 0x200000200003: present, writable, supervisor, \
             reserved bits 0x200000000000 are set"
        )
    );
    guest.map_at(ROOT, LINEAR, 2, 0);
    let text = guest.mmu.trace_walk(LINEAR).to_string();
    assert!(text.contains("= 0x0: not present") && text.ends_with("no translation"), "{text}");
    let guest = Guest::new(PagingMode::None);
    assert_eq!(guest.mmu.trace_walk(0x1234).gpa, Some(0x1234));
}
