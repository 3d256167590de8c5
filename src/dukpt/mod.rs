//! DUKPT.
