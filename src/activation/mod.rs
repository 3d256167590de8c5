//! First activation, pure.
