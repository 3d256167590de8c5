//! Which role may make which call at all: one constant table.
//!
//! A role opens calls, never resources: what a backend may do with a key says a grant. Nobody who
//! audits can change anything, and nobody who runs the service can loosen anything.

use super::super::caller::{Action, Caller, Role};

/// Tells whether callers of a role may make a call at all.
#[must_use]
pub fn may_call(role: Role, action: Action) -> bool {
    callers_of(action).contains(&role)
}

impl Caller {
    /// Whether it is one of those who run, govern or audit the service: the event of its call has a
    /// place even when the disk is nearly full. A development caller has every role, so its calls
    /// count as those of the people who make such calls.
    #[must_use]
    pub(in crate::vault) fn has_reserve(&self, action: Action) -> bool {
        match self.role() {
            Some(role) => is_staff(role),
            None => callers_of(action).iter().copied().any(is_staff),
        }
    }
}

const fn is_staff(role: Role) -> bool {
    match role {
        Role::Auditor | Role::Custodian | Role::Officer | Role::Operator | Role::Service => true,
        Role::Backend | Role::Stranger | Role::Terminal | Role::TerminalRelay => false,
    }
}

/// The roles that may make a call.
#[must_use]
#[allow(clippy::too_many_lines, reason = "one table, one line an action")]
pub const fn callers_of(action: Action) -> &'static [Role] {
    match action {
        Action::CancelActivation
        | Action::CreateTerminal
        | Action::EnableTerminal
        | Action::GenerateMac
        | Action::IssueActivationCode
        | Action::MarkTerminalCompromised
        | Action::ReissueActivationCode
        | Action::ReleaseTerminal
        | Action::ResumeTerminal
        | Action::RetireTerminal
        | Action::SetMerchantStanding
        | Action::SetSettlementDigest
        | Action::StartRekey
        | Action::TranslatePin
        | Action::VerifyMac
        | Action::VerifyMacAndTranslatePin => &[Role::Backend],
        Action::BeginActivation
        | Action::ConfirmKeys
        | Action::DeliverKeys
        | Action::GetParameters
        | Action::ReportStep
        | Action::RunTestTransaction
        | Action::UpdateKeys => &[Role::Terminal, Role::TerminalRelay],
        Action::GetTerminal
        | Action::HoldTerminal
        | Action::ListTerminals
        | Action::LookupKsn
        | Action::SuspendTerminal
        | Action::WatchTerminals => &[Role::Backend, Role::Operator],
        Action::GetProfile | Action::ListProfiles => {
            &[Role::Backend, Role::Officer, Role::Operator]
        }
        Action::AllowDevice
        | Action::Approve
        | Action::CreateCeremony
        | Action::CreateCertificateRequest
        | Action::CreateDeviceAuthority
        | Action::CreateIdentityKey
        | Action::CreateKey
        | Action::CreateMasterKey
        | Action::CreateProfile
        | Action::ExportInitialKey
        | Action::ExportKey
        | Action::ImportCertificate
        | Action::ImportKey
        | Action::InspectKeyBlock
        | Action::Reject
        | Action::RotateKey
        | Action::SetKeyState
        | Action::SetPolicy
        | Action::SetPrimaryVersion
        | Action::UpdateKey
        | Action::UpdateProfile => &[Role::Officer],
        Action::AbandonMasterKey => &[Role::Custodian, Role::Officer],
        Action::Unseal => &[Role::Custodian, Role::Operator],
        Action::DenyDevice
        | Action::GetDeviceAuthority
        | Action::GetIdentity
        | Action::GetKey
        | Action::ListDeniedDevices
        | Action::ListDeviceAuthorities
        | Action::ListKeys
        | Action::ListKeyVersions
        | Action::Seal => &[Role::Officer, Role::Operator],
        Action::GetApproval | Action::ListApprovals => {
            &[Role::Auditor, Role::Officer, Role::Operator]
        }
        Action::CheckPolicy | Action::GetDestructionCertificate | Action::GetPolicy => {
            &[Role::Auditor, Role::Officer]
        }
        Action::ConfirmShare
        | Action::EnterComponent
        | Action::ReadBackComponent
        | Action::RestartEntry
        | Action::RevealComponent
        | Action::TakeComponent
        | Action::TakeShare => &[Role::Custodian],
        Action::ConfirmCeremony | Action::JoinCeremony | Action::SignCeremony => {
            &[Role::Auditor, Role::Custodian]
        }
        Action::AbortCeremony | Action::GetCeremony | Action::ListCeremonies => {
            &[Role::Auditor, Role::Custodian, Role::Officer]
        }
        Action::ExportEvents
        | Action::GetCheckpoint
        | Action::ListEvents
        | Action::ProveConsistency
        | Action::ProveInclusion => &[Role::Auditor],
        Action::GetSealStatus | Action::GetStatus => {
            &[Role::Auditor, Role::Custodian, Role::Officer, Role::Operator]
        }
        Action::AbortIdleCeremony
        | Action::OpenVault
        | Action::PurgeExpired
        | Action::ReloadSettings
        | Action::RetireMasterKey
        | Action::RunSelfTests
        | Action::StartService
        | Action::StopService => &[Role::Service],
    }
}
