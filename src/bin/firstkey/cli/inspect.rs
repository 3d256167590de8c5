//! The command line of `firstkey inspect`.

use clap::{Args, ValueEnum};

/// `firstkey inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  firstkey inspect FFFF9876543210E00001
  firstkey inspect --as block < block.txt
  firstkey --output json inspect B0104B0TX12S0100KS18...
  firstkey inspect < /run/user/1000/slip.txt

A component or share is a secret: it is read from standard input alone, and nothing of it is shown
but its heading, its check value, and which rows agree with their check groups. Exit code 6 where
something is wrong with it.")]
pub(crate) struct Inspect {
    /// A key block or key serial number. Without it standard input is read.
    pub(crate) value: Option<String>,
    /// What it is; found out where it is not said.
    #[arg(long = "as", value_enum, value_name = "KIND")]
    pub(crate) kind: Option<Kind>,
}

/// What can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A key block.
    Block,
    /// A key serial number.
    Ksn,
    /// A component or share.
    Slip,
}
