//! Stacks: where they lie, and whether an address is on one.
