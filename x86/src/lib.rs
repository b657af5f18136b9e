//! Architecture facts and guest CPU state. No I/O and no unsafe code.
