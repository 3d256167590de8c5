//! P-256 agreement and the registry of labels.
