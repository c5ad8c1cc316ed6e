//! The programs as their users see them: what they say, and how they end.

mod harness;
mod vvu_block;
