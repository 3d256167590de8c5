//! What can go wrong with a terminal, its line or whoever holds it, and what must come of it: one
//! table of fault and step.
//!
//! Each cell is played against a real service with terminals of its own. After the fault the
//! honest terminal goes on to its first purchase: no fault of others may burn what is its own.

mod line;
mod memory;
mod play;
mod scene;

pub use self::play::{Played, play};
pub use self::scene::{PlayError, Scene};

/// Names the values of an enumeration side by side with their words on the command line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// Its word on the command line.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }
        }
    };
}

words! {
    /// What goes wrong.
    Fault {
        /// The line repeats a message: it arrives twice.
        Replay = "replay",
        /// The line loses the reply; the terminal sends its message again.
        DropReply = "drop-reply",
        /// The line flips a bit in the proof of a message.
        Alter = "alter",
        /// The line flips a bit in the proof of a reply.
        AlterReply = "alter-reply",
        /// The terminal makes the step out of its turn.
        Reorder = "reorder",
        /// The terminal sends what it made for a session or a counter before.
        OldTranscript = "old-transcript",
        /// The device loses its memory before the step, and begins again.
        LoseState = "lose-state",
        /// The device's memory is put back to before the step after the step was made.
        OldMemory = "old-memory",
        /// Whoever holds another device of the same vendor shows this terminal's code.
        StolenCode = "stolen-code",
        /// The device is denied before the step.
        DeniedDevice = "denied-device",
        /// The step is proven by another device: its certificate and key, or its transaction keys.
        OtherCertificate = "other-certificate",
        /// The service sends an older parameter file than the terminal applied.
        RolledBackParameters = "rolled-back-parameters",
    }
}

words! {
    /// A step of a terminal's life in which something can go wrong.
    At {
        /// Begin.
        Begin = "begin",
        /// Deliver.
        Deliver = "deliver",
        /// Confirm.
        Confirm = "confirm",
        /// Parameters.
        Parameters = "parameters",
        /// The report that they were applied.
        Report = "report",
        /// A test transaction.
        Test = "test",
        /// A purchase: its MAC verified, its PIN block translated.
        Purchase = "purchase",
        /// New keys under the update key of AES keys that serve.
        Update = "update",
    }
}

/// What comes of a fault.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The terminal refuses the answer: what it found wrong, a value of
    /// `firstkey.payload.v1.Fault` less its prefix.
    Distrusted(String),
    /// The service refuses: a value of `firstkey.v1.ErrorReason` less its prefix.
    Refused(String),
    /// It is answered as before, byte for byte, and what has no answer is taken again; of a
    /// purchase, verified and translated again.
    SameAnswer,
    /// It is served.
    Served,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Distrusted(fault) => write!(formatter, "terminal: {fault}"),
            Self::Refused(reason) => write!(formatter, "{reason}"),
            Self::SameAnswer => write!(formatter, "same answer"),
            Self::Served => write!(formatter, "served"),
        }
    }
}

/// What must come of a fault at a step; none where the two do not meet.
#[must_use]
pub fn expected(fault: Fault, at: At) -> Option<Outcome> {
    let (_, cells) = TABLE.iter().find(|(row, _)| *row == fault)?;
    let (_, cell) = At::ALL.iter().zip(cells).find(|(column, _)| **column == at)?;
    match cell {
        Cell::Distrusted(fault) => Some(Outcome::Distrusted((*fault).to_owned())),
        Cell::None => None,
        Cell::Refused(reason) => Some(Outcome::Refused((*reason).to_owned())),
        Cell::SameAnswer => Some(Outcome::SameAnswer),
        Cell::Served => Some(Outcome::Served),
    }
}

/// A cell of the table, as constants can say it.
#[derive(Clone, Copy)]
enum Cell {
    Distrusted(&'static str),
    None,
    Refused(&'static str),
    SameAnswer,
    Served,
}

const NONE: Cell = Cell::None;
const SAME: Cell = Cell::SameAnswer;
const SERV: Cell = Cell::Served;
const PROOF: Cell = Cell::Refused("ACTIVATION_REFUSED");
const CODE: Cell = Cell::Refused("CODE_REFUSED");
const DENY: Cell = Cell::Refused("DEVICE_NOT_TRUSTED");
const DONE: Cell = Cell::Refused("TERMINAL_ALREADY_ACTIVATED");
const FIELD: Cell = Cell::Refused("FIELD_INVALID");
const INACT: Cell = Cell::Refused("TERMINAL_NOT_ACTIVE");
const MAC: Cell = Cell::Refused("MAC_MISMATCH");
const SPENT: Cell = Cell::Refused("KSN_REPLAYED");
const STATE: Cell = Cell::Refused("ACTIVATION_STATE");
const AUTH: Cell = Cell::Distrusted("AUTHENTICATION");
const BACK: Cell = Cell::Distrusted("PARAMETERS_ROLLED_BACK");

/// Every fault at every step.
///
/// - `alter-reply`: a report has no reply that could be altered, and a purchase none to the
///   terminal.
/// - `reorder`: Begin and Deliver after the keys are confirmed, Parameters before; Report (of a
///   file that nobody sent) and Test before Parameters; a purchase before the terminal is enabled.
///   A Confirm can not be made before its keys came.
/// - `lose-state`: until the keys are confirmed the device begins again by itself; after that an
///   activation that is cancelled, or a re-key, gives it new keys, never the same again.
/// - `old-memory`: what the device made it makes once more under the same counter, and never the
///   same; only its report has nothing new in it, and is answered as before.
/// - `stolen-code`: by another device at every moment of this one's life; nothing of this one's is
///   spent.
/// - `denied-device`: a device proves itself to get keys. What it has confirmed proves its
///   transactions; the backend suspends it.
/// - `update`: of AES keys alone. `reorder` asks for one that nobody started; `lose-state` begins a
///   session in its place; its answer is kept until the keys are confirmed, as that of Deliver.
#[rustfmt::skip]
const TABLE: [(Fault, [Cell; 8]); 12] = [
    //                            begin  deliver confirm param. report  test   purch. update
    (Fault::Replay,               [SAME,  SAME,  SAME,  SAME,  SAME,  SAME,  SAME,  SAME]),
    (Fault::DropReply,            [SAME,  SAME,  SAME,  SAME,  SAME,  SAME,  SAME,  SAME]),
    (Fault::Alter,                [PROOF, PROOF, PROOF, PROOF, PROOF, PROOF, MAC,   PROOF]),
    (Fault::AlterReply,           [AUTH,  AUTH,  AUTH,  AUTH,  NONE,  AUTH,  NONE,  AUTH]),
    (Fault::Reorder,              [DONE,  PROOF, NONE,  PROOF, FIELD, STATE, INACT, DONE]),
    (Fault::OldTranscript,        [PROOF, PROOF, PROOF, SPENT, SPENT, SPENT, MAC,   SERV]),
    (Fault::LoseState,            [SERV,  SERV,  SERV,  DONE,  DONE,  DONE,  DONE,  SERV]),
    (Fault::OldMemory,            [NONE,  NONE,  NONE,  SPENT, SAME,  SPENT, SPENT, SPENT]),
    (Fault::StolenCode,           [CODE,  CODE,  CODE,  CODE,  CODE,  CODE,  CODE,  CODE]),
    (Fault::DeniedDevice,         [DENY,  DENY,  DENY,  SERV,  SERV,  SERV,  SERV,  DENY]),
    (Fault::OtherCertificate,     [PROOF, PROOF, PROOF, PROOF, PROOF, PROOF, MAC,   PROOF]),
    (Fault::RolledBackParameters, [NONE,  NONE,  NONE,  BACK,  NONE,  NONE,  NONE,  NONE]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_fault_once_and_in_order() {
        let rows: Vec<Fault> = TABLE.iter().map(|(fault, _)| *fault).collect();
        assert_eq!(rows, Fault::ALL);
        for fault in Fault::ALL {
            assert!(At::ALL.iter().any(|at| expected(*fault, *at).is_some()), "{fault:?}");
        }
    }

    #[test]
    fn every_reason_of_the_table_is_one_of_the_service() {
        for (fault, at) in Fault::ALL.iter().flat_map(|one| At::ALL.iter().map(move |at| (one, at)))
        {
            if let Some(Outcome::Refused(reason)) = expected(*fault, *at) {
                let known = crate::vault::Reason::ALL.iter().any(|one| one.as_str() == reason);
                assert!(known, "{reason}");
            }
        }
    }
}
