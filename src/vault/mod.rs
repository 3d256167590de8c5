//! The only door to stored keys.
