//! The service as a process: its health, its end, its settings, its logs, its descriptors.
