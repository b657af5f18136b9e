//! What an engine that links code across pages must know of changed translations.

/// Regions kept before everything counts as changed.
const MAX_REGIONS: usize = 64;

/// Translations that may have changed since an engine last looked.
#[derive(Clone, Default, Debug)]
pub struct MappingChanges {
    /// Something below is set.
    pub any: bool,
    /// All translations, global ones too.
    pub everything: bool,
    /// All translations that are not global.
    pub not_global: bool,
    /// Linear address and size (a power of two, at least a page) of invalidated regions.
    pub regions: Vec<(u64, u64)>,
}

impl MappingChanges {
    /// Everything changed.
    pub(crate) fn all(&mut self) {
        self.any = true;
        self.everything = true;
        self.regions.clear();
    }

    /// What is not global changed.
    pub(crate) fn local(&mut self) {
        self.any = true;
        self.not_global = true;
    }

    /// `size` bytes around `linear` changed.
    pub(crate) fn region(&mut self, linear: u64, size: u64) {
        self.any = true;
        if self.everything {
            return;
        }
        if self.regions.len() >= MAX_REGIONS {
            return self.all();
        }
        self.regions.push((linear & !(size - 1), size));
    }
}
