//! The one definition of what each instruction does.
