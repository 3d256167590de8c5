//! Each reason of the protocol is raised over the API by something that really happens.
