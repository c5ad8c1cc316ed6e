//! pcidev
