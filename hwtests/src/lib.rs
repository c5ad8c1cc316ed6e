//! hwtests
