//! Guest RAM, page walks and the software TLB.
