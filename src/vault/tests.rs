//! The vault as a whole: units of work, races, restarts.
