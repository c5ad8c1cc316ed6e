//! vvu
