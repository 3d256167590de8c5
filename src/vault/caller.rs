//! Who calls, and what: the callers, their roles, and every call that is audited.

use serde::{Deserialize, Serialize};

/// Who calls, as it was proven at the edge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    name: String,
    person: String,
    role: Option<Role>,
    certificate: String,
}

/// What a caller is trusted with. A person has one role, so none has two that exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads the audit log, its proofs, the policy and the status.
    Auditor,
    /// A payment or activation backend.
    Backend,
    /// Key components and shares, in ceremonies.
    Custodian,
    /// Keys, trust, profiles, approvals and policy.
    Officer,
    /// Runs the service: reads how it stands, suspends, and never the other way.
    Operator,
    /// The service itself: what it does by its own clock.
    Service,
    /// Nobody that the policy knows.
    Stranger,
    /// A terminal, known by its own proof alone.
    Terminal,
    /// Passes on what terminals say.
    TerminalRelay,
}

impl Role {
    /// Every role that a policy can give.
    pub const GIVEN: [Self; 6] = [
        Self::Auditor,
        Self::Backend,
        Self::Custodian,
        Self::Officer,
        Self::Operator,
        Self::TerminalRelay,
    ];

    /// The stable word for the audit event and the policy file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Backend => "backend",
            Self::Custodian => "custodian",
            Self::Officer => "officer",
            Self::Operator => "operator",
            Self::Service => "service",
            Self::Stranger => "stranger",
            Self::Terminal => "terminal",
            Self::TerminalRelay => "terminal-relay",
        }
    }
}

impl Caller {
    /// A caller that a policy knows: its URI name, the person who holds the certificate (for a
    /// machine its name again), its role, and the SHA-256 of the certificate in hexadecimals.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        person: impl Into<String>,
        role: Role,
        certificate: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            person: person.into(),
            role: Some(role),
            certificate: certificate.into(),
        }
    }

    /// A terminal that connects by itself: its proof stands in its messages.
    #[must_use]
    pub fn terminal() -> Self {
        Self::new("terminal", "", Role::Terminal, "")
    }

    /// Somebody whom the policy does not know: the name and the certificate are for the log.
    #[must_use]
    pub fn stranger(name: impl Into<String>, certificate: impl Into<String>) -> Self {
        Self::new(name, "", Role::Stranger, certificate)
    }

    /// The service itself.
    #[must_use]
    pub fn service() -> Self {
        Self::new("service", "", Role::Service, "")
    }

    /// A caller that may do everything: the one of a development service, which serves loopback
    /// alone and asks nobody for a certificate.
    #[must_use]
    pub fn for_dev_only(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { person: name.clone(), name, role: None, certificate: String::new() }
    }

    /// The name, as the audit event has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The person behind the caller; a machine's own name.
    #[must_use]
    pub fn person(&self) -> &str {
        &self.person
    }

    /// The role; none for the caller of a development service.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        self.role
    }

    /// SHA-256 of the certificate in hexadecimals; empty where there is none.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Whether this is the caller of a development service.
    #[must_use]
    pub const fn is_for_dev_only(&self) -> bool {
        self.role.is_none()
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

            /// The action of an rpc.
            #[must_use]
            pub fn of_rpc(name: &str) -> Option<Self> {
                // Each entry of the batch is registered as if it came alone.
                let name = if name == "BatchCreateTerminals" { "CreateTerminal" } else { name };
                Self::ALL.iter().copied().find(|action| action.as_str() == name)
            }
        }
    };
}

impl Action {
    /// Whether it is a call of the data plane, of which successes may be told in summary.
    #[must_use]
    pub const fn is_data_plane(self) -> bool {
        matches!(
            self,
            Self::GenerateMac
                | Self::TranslatePin
                | Self::VerifyMac
                | Self::VerifyMacAndTranslatePin
        )
    }
}

actions! {
    /// The distribution of a master key is ended.
    AbandonMasterKey,
    /// A ceremony ends before anything happened.
    AbortCeremony,
    /// A ceremony in which nothing was done for too long ends.
    AbortIdleCeremony,
    /// A denied device is allowed again.
    AllowDevice,
    /// An officer approves what another asked for.
    Approve,
    /// A terminal begins its activation.
    BeginActivation,
    /// An activation under way is cancelled.
    CancelActivation,
    /// The policy is asked what it would say.
    CheckPolicy,
    /// Somebody at a ceremony has compared the check value.
    ConfirmCeremony,
    /// A terminal confirms its keys.
    ConfirmKeys,
    /// A custodian confirms a share of a master key.
    ConfirmShare,
    /// A ceremony is created from its plan.
    CreateCeremony,
    /// A request for the certificate of the identity key is made.
    CreateCertificateRequest,
    /// A device authority becomes trusted.
    CreateDeviceAuthority,
    /// The service's identity key is made.
    CreateIdentityKey,
    /// A key is generated.
    CreateKey,
    /// A master key is made, for an empty store or in place of the one in force.
    CreateMasterKey,
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
    /// A custodian commits to a component.
    EnterComponent,
    /// The audit log leaves whole.
    ExportEvents,
    /// The initial key of a terminal leaves for a facility.
    ExportInitialKey,
    /// A key leaves in a key block.
    ExportKey,
    /// A MAC is generated.
    GenerateMac,
    /// An approval is read.
    GetApproval,
    /// A ceremony is read.
    GetCeremony,
    /// The audit log is signed.
    GetCheckpoint,
    /// The certificate of a key's destruction is read.
    GetDestructionCertificate,
    /// A device authority is read.
    GetDeviceAuthority,
    /// The identity is read.
    GetIdentity,
    /// A key's description is read.
    GetKey,
    /// A terminal gets its parameters.
    GetParameters,
    /// The policy is read.
    GetPolicy,
    /// A profile is read.
    GetProfile,
    /// The seal is looked at.
    GetSealStatus,
    /// The status is read.
    GetStatus,
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
    /// Somebody comes to a ceremony.
    JoinCeremony,
    /// Approvals are listed.
    ListApprovals,
    /// Ceremonies are listed.
    ListCeremonies,
    /// The denied devices are listed.
    ListDeniedDevices,
    /// The device authorities are listed.
    ListDeviceAuthorities,
    /// Audit events are listed.
    ListEvents,
    /// Keys are listed.
    ListKeys,
    /// The versions of a key are listed.
    ListKeyVersions,
    /// Profiles are listed.
    ListProfiles,
    /// Terminals are listed.
    ListTerminals,
    /// A key serial number is looked up.
    LookupKsn,
    /// A terminal is marked compromised.
    MarkTerminalCompromised,
    /// The service opens the vault under the master key that was brought.
    OpenVault,
    /// The audit log proves that it only grew.
    ProveConsistency,
    /// The audit log proves that it holds an event.
    ProveInclusion,
    /// The service deletes what has expired.
    PurgeExpired,
    /// A custodian reads a slip back.
    ReadBackComponent,
    /// An activation code is issued anew.
    ReissueActivationCode,
    /// An approval is rejected.
    Reject,
    /// A terminal that was held is released.
    ReleaseTerminal,
    /// The service reads again whom it believes and whom it shuts out.
    ReloadSettings,
    /// A terminal reports a step or a fault.
    ReportStep,
    /// Commitments are taken back, and components entered anew.
    RestartEntry,
    /// A suspended terminal resumes.
    ResumeTerminal,
    /// The service retires a master key under which nothing is any more.
    RetireMasterKey,
    /// A terminal's key set ends.
    RetireTerminal,
    /// A custodian hands over a component.
    RevealComponent,
    /// The next version of a key is generated.
    RotateKey,
    /// The service computes its known answers.
    RunSelfTests,
    /// A terminal runs a test transaction.
    RunTestTransaction,
    /// The vault is sealed.
    Seal,
    /// A key moves to another state.
    SetKeyState,
    /// A merchant is pending, approved or rejected.
    SetMerchantStanding,
    /// A policy is put in force.
    SetPolicy,
    /// A version of a key becomes the one that its name means.
    SetPrimaryVersion,
    /// The digest of a settlement account is set.
    SetSettlementDigest,
    /// Somebody signs the transcript of a ceremony.
    SignCeremony,
    /// The service starts.
    StartService,
    /// A terminal's keys are to be renewed.
    StartRekey,
    /// The service stops.
    StopService,
    /// A terminal is suspended.
    SuspendTerminal,
    /// A custodian takes a share of a master key.
    TakeShare,
    /// A custodian gets a component.
    TakeComponent,
    /// A PIN block is translated.
    TranslatePin,
    /// A share is given to open the vault, or the token is tried.
    Unseal,
    /// The labels of a key are replaced.
    UpdateKey,
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
