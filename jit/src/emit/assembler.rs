//! The assembler of a block, whose cold code comes to lie apart from the hot code.
//!
//! Hot code alone should fill the cache lines that the host fetches. Offsets count through both
//! parts, hot code first; addresses know about the gap.

use crate::arena::Spot;
use dynasmrt::components::{LabelRegistry, PatchLoc, RelocRegistry, StaticLabel};
use dynasmrt::x64::X64Relocation;
use dynasmrt::{AssemblyOffset, DynamicLabel, DynasmApi, DynasmError, DynasmLabelApi};
use dynasmrt::{LabelKind, TargetKind};

pub(crate) struct Assembler {
    bytes: Vec<u8>,
    spot: Spot,
    /// Where the cold part begins.
    split: Option<usize>,
    labels: LabelRegistry,
    relocs: RelocRegistry<X64Relocation>,
    error: Option<DynasmError>,
}

impl Assembler {
    pub(crate) fn new(spot: Spot) -> Assembler {
        Assembler {
            bytes: Vec::with_capacity(1024),
            spot,
            split: None,
            labels: LabelRegistry::new(),
            relocs: RelocRegistry::new(),
            error: None,
        }
    }

    pub(crate) fn new_dynamic_label(&mut self) -> DynamicLabel {
        self.labels.new_dynamic_label()
    }

    /// What follows is cold.
    pub(crate) fn begin_cold(&mut self) {
        self.split.get_or_insert(self.bytes.len());
    }

    /// The address that code at an offset will have.
    pub(crate) fn address(&self, offset: usize) -> u64 {
        match self.split {
            Some(split) if offset >= split => self.spot.cold + (offset - split) as u64,
            Some(_) | None => self.spot.hot + offset as u64,
        }
    }

    /// The address that offset 0 would have if all code lay in the part where `offset` is.
    fn base(&self, offset: usize) -> usize {
        (self.address(offset) as usize).wrapping_sub(offset)
    }

    /// Makes the 32-bit displacement at one offset lead to another.
    pub(crate) fn lead(&mut self, site: usize, target: usize) -> Option<()> {
        let relative = self.address(target).wrapping_sub(self.address(site) + 4) as u32;
        self.bytes.get_mut(site..site + 4)?.copy_from_slice(&relative.to_le_bytes());
        Some(())
    }

    /// Resolves all labels and returns hot and cold code.
    pub(crate) fn finalize(mut self) -> Result<(Vec<u8>, Vec<u8>), DynasmError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let mut relocs = std::mem::replace(&mut self.relocs, RelocRegistry::new());
        for (loc, label) in relocs.take_statics() {
            let target = self.labels.resolve_static(&label)?;
            self.resolve(&loc, target.0, TargetKind::Local(label.get_name()))?;
        }
        for (loc, id) in relocs.take_dynamics() {
            let target = self.labels.resolve_dynamic(id)?;
            self.resolve(&loc, target.0, TargetKind::Dynamic(id))?;
        }
        let cold = self.bytes.split_off(self.split.unwrap_or(self.bytes.len()));
        Ok((self.bytes, cold))
    }

    fn resolve(
        &mut self,
        loc: &PatchLoc<X64Relocation>,
        target: usize,
        kind: TargetKind,
    ) -> Result<(), DynasmError> {
        let range = loc.range(0);
        let base = self.base(range.start);
        let target = (self.address(target) as usize).wrapping_sub(base);
        loc.patch(&mut self.bytes[range], base, target)
            .map_err(|_| DynasmError::ImpossibleRelocation(kind))
    }
}

impl Extend<u8> for Assembler {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, iter: T) {
        self.bytes.extend(iter);
    }
}

impl<'a> Extend<&'a u8> for Assembler {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, iter: T) {
        self.bytes.extend(iter);
    }
}

impl DynasmApi for Assembler {
    fn offset(&self) -> AssemblyOffset {
        AssemblyOffset(self.bytes.len())
    }
    fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }
    fn align(&mut self, alignment: usize, with: u8) {
        while !self.bytes.len().is_multiple_of(alignment) {
            self.bytes.push(with);
        }
    }
}

impl DynasmLabelApi for Assembler {
    type Relocation = X64Relocation;

    fn local_label(&mut self, name: &'static str) {
        let offset = self.offset();
        self.labels.define_local(name, offset);
    }
    fn global_label(&mut self, name: &'static str) {
        let offset = self.offset();
        if let Err(error) = self.labels.define_global(name, offset) {
            self.error = Some(error);
        }
    }
    fn dynamic_label(&mut self, id: DynamicLabel) {
        let offset = self.offset();
        if let Err(error) = self.labels.define_dynamic(id, offset) {
            self.error = Some(error);
        }
    }
    fn global_relocation(
        &mut self,
        name: &'static str,
        target_offset: isize,
        field_offset: u8,
        ref_offset: u8,
        kind: X64Relocation,
    ) {
        let loc = PatchLoc::new(self.offset(), target_offset, field_offset, ref_offset, kind);
        self.relocs.add_static(StaticLabel::global(name), loc);
    }
    fn dynamic_relocation(
        &mut self,
        id: DynamicLabel,
        target_offset: isize,
        field_offset: u8,
        ref_offset: u8,
        kind: X64Relocation,
    ) {
        let loc = PatchLoc::new(self.offset(), target_offset, field_offset, ref_offset, kind);
        self.relocs.add_dynamic(id, loc);
    }
    fn forward_relocation(
        &mut self,
        name: &'static str,
        target_offset: isize,
        field_offset: u8,
        ref_offset: u8,
        kind: X64Relocation,
    ) {
        let label = match self.labels.place_local_reference(name) {
            Some(label) => label.next(),
            None => StaticLabel::first(name),
        };
        let loc = PatchLoc::new(self.offset(), target_offset, field_offset, ref_offset, kind);
        self.relocs.add_static(label, loc);
    }
    fn backward_relocation(
        &mut self,
        name: &'static str,
        target_offset: isize,
        field_offset: u8,
        ref_offset: u8,
        kind: X64Relocation,
    ) {
        let Some(label) = self.labels.place_local_reference(name) else {
            self.error = Some(DynasmError::UnknownLabel(LabelKind::Local(name)));
            return;
        };
        let loc = PatchLoc::new(self.offset(), target_offset, field_offset, ref_offset, kind);
        self.relocs.add_static(label, loc);
    }
    fn value_relocation(
        &mut self,
        value: usize,
        field_offset: u8,
        ref_offset: u8,
        kind: X64Relocation,
    ) {
        let loc = PatchLoc::new(self.offset(), 0, field_offset, ref_offset, kind);
        let range = loc.range(0);
        let base = self.base(range.start);
        if loc.patch(&mut self.bytes[range], base, value).is_err() {
            self.error = Some(DynasmError::ImpossibleRelocation(TargetKind::Value(value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dynasmrt::dynasm;

    #[test]
    fn jumps_between_the_parts() {
        let mut ops = Assembler::new(Spot { hot: 0x1000, cold: 0x5000 });
        let (slow, back) = (ops.new_dynamic_label(), ops.new_dynamic_label());
        dynasm!(ops ; .arch x64 ; jne =>slow ; =>back ; nop ; jmp =>back);
        let end = ops.offset().0;
        ops.begin_cold();
        assert_eq!((ops.address(end - 1), ops.address(end)), (0x1000 + end as u64 - 1, 0x5000));
        dynasm!(ops ; .arch x64 ; nop ; =>slow ; jmp =>back ; jmp =>slow);
        let (hot, cold) = ops.finalize().unwrap();
        let targets = |code: &[u8], ip| -> Vec<u64> {
            let decoder = iced_x86::Decoder::with_ip(64, code, ip, 0);
            decoder.into_iter().filter(|i| i.op_count() == 1).map(|i| i.near_branch64()).collect()
        };
        assert_eq!(targets(&hot, 0x1000), [0x5001, 0x1006]);
        assert_eq!(targets(&cold, 0x5000), [0x1006, 0x5001]);
    }
}
