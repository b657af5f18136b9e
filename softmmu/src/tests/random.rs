//! What the TLBs answer equals a fresh walk, under random changes of tables, rights and
//! address spaces, as long as the guest invalidates what it changes.

use proptest::prelude::*;

use super::*;
use crate::flush::InvpcidKind;
use crate::paging::Access;
use crate::walk::entry::{G, XD};

const ROOTS: [u64; 2] = [ROOT, 0x18_0000];

/// Linear pages in play: neighbours, first-level conflicts, a large-page region, both halves.
const PAGES: [u64; 8] = [
    0x0000_1000,
    0x0000_2000,
    0x0100_1000,
    0x0100_2000,
    0x4000_0000,
    0x4000_5000,
    0xFFFF_8000_0000_0000,
    0xFFFF_8000_0040_1000,
];

#[derive(Clone, Copy, Debug)]
enum Op {
    Map { root: usize, page: usize, frame: u64, flags: u64, global: bool, how: u8 },
    Large { root: usize, page: usize, frame: u64, flags: u64, how: u8 },
    Switch { root: usize, no_flush: bool },
    Controls { cr0: bool, smep: bool, smap: bool, pke: bool, pkru: u32 },
    Try { page: usize, cpl: u8, ac: bool, access: u8, offset: u64 },
}

fn flags() -> impl Strategy<Value = u64> {
    (any::<[bool; 4]>(), 0u64..4).prop_map(|(bits, key)| {
        let bit = |on, bit| if on { bit } else { 0 };
        bit(bits[0], RW) | bit(bits[1], US) | bit(bits[2], XD) | bit(!bits[3], P) | P | key << 59
    })
}

fn op() -> impl Strategy<Value = Op> {
    let root = 0usize..2;
    let page = 0usize..PAGES.len();
    prop_oneof![
        3 => (root.clone(), page.clone(), 0u64..16, flags(), any::<bool>(), 0u8..6, any::<bool>())
            .prop_map(|(root, page, frame, flags, global, how, present)| Op::Map {
                root, page, frame, flags: if present { flags } else { flags & !P }, global, how }),
        1 => (root.clone(), page.clone(), 0u64..3, flags(), 0u8..6)
            .prop_map(|(root, page, frame, flags, how)| Op::Large { root, page, frame, flags, how }),
        2 => (root, any::<bool>()).prop_map(|(root, no_flush)| Op::Switch { root, no_flush }),
        1 => (any::<[bool; 4]>(), any::<u8>()).prop_map(|(bits, pkru)| Op::Controls {
            cr0: bits[0], smep: bits[1], smap: bits[2], pke: bits[3], pkru: u32::from(pkru) }),
        8 => (page, prop_oneof![Just(0u8), Just(3)], any::<bool>(), 0u8..4, 0u64..4090)
            .prop_map(|(page, cpl, ac, access, offset)| Op::Try { page, cpl, ac, access, offset }),
    ]
}

struct Pair {
    guest: Guest,
    /// Flushed before each access.
    fresh: Mmu,
    root: usize,
    counter: u64,
}

impl Pair {
    fn new() -> Pair {
        let mut guest = Guest::new(PagingMode::Level4);
        guest.state.cr4 |= cr4::PCIDE;
        guest.state.cr3 = ROOTS[0] | 1;
        guest.reload();
        let fresh = guest.second_vcpu();
        Pair { guest, fresh, root: 0, counter: 0 }
    }

    fn pcid(root: usize) -> u16 {
        root as u16 + 1
    }

    fn is_large(&mut self, root: u64, linear: u64) -> bool {
        let slot = self.guest.path(root, linear, 2).pop().expect("slot");
        self.guest.read(slot, 8) & PS != 0
    }

    /// The entry for a 4 KiB page, or 0 where there is none.
    fn small_entry(&mut self, root: usize, linear: u64) -> u64 {
        if self.is_large(ROOTS[root], linear) {
            return 0;
        }
        let slot = self.guest.path(ROOTS[root], linear, 1).pop().expect("slot");
        self.guest.read(slot, 8)
    }

    /// Invalidates `linear` under `root` in one of the ways that suffice.
    fn invalidate(&mut self, root: usize, linear: u64, global: bool, how: u8) {
        let mmu = &mut self.guest.mmu;
        let pcid = Self::pcid(root);
        let current = root == self.root;
        match how {
            0 if current || global => mmu.invlpg(linear),
            1 if !global => mmu.invpcid(InvpcidKind::Address, pcid, linear),
            2 if !global => mmu.invpcid(InvpcidKind::SingleContext, pcid, 0),
            3 if current && !global => {
                mmu.load_cr3(ROOTS[root] | u64::from(pcid), false).expect("cr3");
            }
            4 if !global => mmu.invpcid(InvpcidKind::AllButGlobals, 0, 0),
            _ => mmu.invpcid(InvpcidKind::AllWithGlobals, 0, 0),
        }
    }

    fn run(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Map { root, page, frame, flags, global, how } => {
                let linear = PAGES[page];
                let entry = (DATA + frame * 0x1000) | flags | if global { G } else { 0 };
                let was_large = ROOTS.map(|root| self.is_large(root, linear));
                let was_global = self.small_entry(root, linear) & G != 0;
                // A global page is the same in every address space.
                let roots = if global || was_global { vec![0, 1] } else { vec![root] };
                for root in roots {
                    self.guest.map_at(ROOTS[root], linear, 1, entry);
                    self.invalidate(root, linear, global || was_global, how);
                }
                if was_large.contains(&true) {
                    // A large page was split, which took away the rest of it.
                    self.guest.mmu.flush_all();
                }
            }
            Op::Large { root, page, frame, flags, how } => {
                let linear = PAGES[page];
                let was_large = self.is_large(ROOTS[root], linear);
                if !was_large {
                    // Global pages in the region would no longer be the same in both address
                    // spaces.
                    for linear in PAGES {
                        for root in 0..2 {
                            if self.small_entry(root, linear) & G != 0 {
                                self.guest.map_at(ROOTS[root], linear, 1, 0);
                            }
                        }
                    }
                    self.guest.mmu.flush_all();
                }
                self.guest.map_at(ROOTS[root], linear, 2, (frame + 2) << 21 | flags | PS);
                self.invalidate(root, linear, !was_large, how);
            }
            Op::Switch { root, no_flush } => {
                self.root = root;
                let cr3 = ROOTS[root] | u64::from(Self::pcid(root));
                self.guest.state.cr3 = cr3;
                self.guest.mmu.load_cr3(cr3, no_flush).expect("cr3");
            }
            Op::Controls { cr0, smep, smap, pke, pkru } => {
                let state = &mut self.guest.state;
                let set = |word: &mut u64, bit: u64, on: bool| {
                    *word = *word & !bit | if on { bit } else { 0 };
                };
                set(&mut state.cr0, cr0::WP, cr0);
                set(&mut state.cr4, cr4::SMEP, smep);
                set(&mut state.cr4, cr4::SMAP, smap);
                set(&mut state.cr4, cr4::PKE, pke);
                state.pkru = pkru;
                self.guest.reload();
            }
            Op::Try { page, cpl, ac, access, offset } => {
                let linear = PAGES[page] + offset;
                self.counter += 1;
                let counter = self.counter;
                self.fresh.set_paging(&self.guest.state).expect("paging");
                self.fresh.flush_all();
                self.fresh.set_privilege(cpl, ac);
                self.guest.mmu.set_privilege(cpl, ac);
                let (cached, fresh) = (&mut self.guest.mmu, &mut self.fresh);
                match access {
                    0 => prop_assert_eq!(cached.load::<u32>(linear), fresh.load::<u32>(linear)),
                    1 => {
                        let got = cached.store(linear, counter);
                        let want = fresh.probe(linear, 8, Access::Write);
                        prop_assert_eq!(got, want);
                        if got.is_ok() {
                            prop_assert_eq!(fresh.load::<u64>(linear), Ok(counter));
                        }
                    }
                    2 => prop_assert_eq!(
                        cached.fetch_translate(linear),
                        fresh.fetch_translate(linear)
                    ),
                    _ => {
                        let got = cached.modify(linear, true, |v: u16| v.wrapping_add(1));
                        let want = fresh.probe(linear, 2, Access::Write);
                        prop_assert_eq!(got.map(|_| ()), want);
                        if let Ok(old) = got {
                            prop_assert_eq!(fresh.load::<u16>(linear), Ok(old.wrapping_add(1)));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn cached_translation_equals_a_fresh_walk(ops in prop::collection::vec(op(), 1..150)) {
        let mut pair = Pair::new();
        for op in ops {
            pair.run(op)?;
        }
    }
}
