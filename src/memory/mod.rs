//! Memory that forgets.
