//! vvu-block
