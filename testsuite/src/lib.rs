//! Runners and fixtures for whole-machine tests.
