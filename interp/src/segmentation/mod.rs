//! Segmentation: descriptors, segment registers, the task-state segment, and what goes through
//! them (SDM vol. 3A, chapters 3, 5 and 7).

pub(crate) mod descriptor;
pub(crate) mod far_call;
pub(crate) mod far_jump;
pub(crate) mod far_return;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod gate;
pub mod load;
#[cfg(test)]
mod property_tests;
pub(crate) mod stack;
pub(crate) mod task_switch;
pub mod tss;

/// The selector without its RPL, as error codes carry it (SDM vol. 3A, section 6.13).
pub(crate) const fn error_code(selector: u16) -> u16 {
    selector & !3
}

/// Requested privilege level of a selector.
pub(crate) const fn rpl(selector: u16) -> u8 {
    selector as u8 & 3
}

/// Whether a selector is null: index 0 of the GDT, any RPL.
pub(crate) const fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}
