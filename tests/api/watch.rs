//! The stream of transitions: complete, in order, resumable.
