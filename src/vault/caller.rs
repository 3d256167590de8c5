//! Who calls, and what: the callers, their roles, and every call that is audited.

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    name: String,
    roles: Vec<Role>,
    for_dev_only: bool,
}

/// What a caller is trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A payment backend: PINs and MACs.
    Backend,
    /// Keys, trust and policy.
    Officer,
    /// The acquirer's activation backend: registers terminals and issues codes.
    TerminalManager,
    /// A terminal, known by its own proof alone.
    Terminal,
}

impl Role {
    /// The stable word for the audit event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Officer => "officer",
            Self::TerminalManager => "terminal-manager",
            Self::Terminal => "terminal",
        }
    }
}

impl Caller {
    /// A caller whose name and roles were proven at the edge.
    #[must_use]
    pub fn new(name: impl Into<String>, roles: Vec<Role>) -> Self {
        Self { name: name.into(), roles, for_dev_only: false }
    }

    /// A caller that may do everything: the one of a development service, which serves loopback
    /// alone and asks nobody for a certificate.
    #[must_use]
    pub fn for_dev_only(name: impl Into<String>) -> Self {
        let roles = vec![Role::Backend, Role::Officer, Role::TerminalManager, Role::Terminal];
        Self { name: name.into(), roles, for_dev_only: true }
    }

    /// The name, as the audit event has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The roles.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// Whether this is the caller of a development service.
    #[must_use]
    pub const fn is_for_dev_only(&self) -> bool {
        self.for_dev_only
    }
}

/// Declares the actions, so that their names stand beside them once.
macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident,)*) => {
        /// Every call that is audited, by the name of its rpc. A name may never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$doc])* $action,)*
        }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$action,)*];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$action => stringify!($action),)*
                }
            }
        }
    };
}

actions! {
    /// A denied device is allowed again.
    AllowDevice,
    /// A terminal begins its activation.
    BeginActivation,
    /// An activation under way is cancelled.
    CancelActivation,
    /// A terminal confirms its keys.
    ConfirmKeys,
    /// A request for the certificate of the identity key is made.
    CreateCertificateRequest,
    /// A device authority becomes trusted.
    CreateDeviceAuthority,
    /// The service's identity key is made.
    CreateIdentityKey,
    /// A key is generated.
    CreateKey,
    /// A profile is made.
    CreateProfile,
    /// A terminal is registered.
    CreateTerminal,
    /// A terminal gets its keys.
    DeliverKeys,
    /// A device is denied.
    DenyDevice,
    /// A terminal is enabled.
    EnableTerminal,
    /// The initial key of a terminal leaves for a facility.
    ExportInitialKey,
    /// A key leaves in a key block.
    ExportKey,
    /// A MAC is generated.
    GenerateMac,
    /// A device authority is read.
    GetDeviceAuthority,
    /// The identity is read.
    GetIdentity,
    /// A key's description is read.
    GetKey,
    /// A terminal gets its parameters.
    GetParameters,
    /// A profile is read.
    GetProfile,
    /// A terminal's state and timeline are read.
    GetTerminal,
    /// A terminal is held back for a stated risk.
    HoldTerminal,
    /// A certificate of the identity key is imported.
    ImportCertificate,
    /// A key comes in a key block.
    ImportKey,
    /// The header of a key block is explained.
    InspectKeyBlock,
    /// An activation code is issued.
    IssueActivationCode,
    /// The denied devices are listed.
    ListDeniedDevices,
    /// The device authorities are listed.
    ListDeviceAuthorities,
    /// Keys are listed.
    ListKeys,
    /// Profiles are listed.
    ListProfiles,
    /// Terminals are listed.
    ListTerminals,
    /// A key serial number is looked up.
    LookupKsn,
    /// A terminal is marked compromised.
    MarkTerminalCompromised,
    /// An activation code is issued anew.
    ReissueActivationCode,
    /// A terminal that was held is released.
    ReleaseTerminal,
    /// A terminal reports a step or a fault.
    ReportStep,
    /// A suspended terminal resumes.
    ResumeTerminal,
    /// A terminal's key set ends.
    RetireTerminal,
    /// A terminal runs a test transaction.
    RunTestTransaction,
    /// A key moves to another state.
    SetKeyState,
    /// A merchant is pending, approved or rejected.
    SetMerchantStanding,
    /// The digest of a settlement account is set.
    SetSettlementDigest,
    /// A terminal's keys are to be renewed.
    StartRekey,
    /// A terminal is suspended.
    SuspendTerminal,
    /// A PIN block is translated.
    TranslatePin,
    /// A terminal gets new keys under its update key.
    UpdateKeys,
    /// A profile is changed.
    UpdateProfile,
    /// A MAC is verified.
    VerifyMac,
    /// A MAC is verified and a PIN block translated.
    VerifyMacAndTranslatePin,
    /// Transitions of terminals are watched.
    WatchTerminals,
}
