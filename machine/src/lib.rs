//! The virtual machine: vCPU run loop, board, boot loaders.
