//! What the backend does with a terminal: profiles, holds, re-keys, ends.
