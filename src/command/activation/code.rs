//! Step 2: the activation code, told once and kept as a keyed hash.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::record::{Code, Terminal};
use super::step::{Happened, advance, check, profile_of, seen_terminal};
use crate::activation::code::CodeHolder;
use crate::activation::{ActivationCode, Call, State};
use crate::command::{Error, RequestId, give_up, recall, remember, repeated, retrying};
use crate::vault::{Action, Caller, HashPurpose, Reason, UnixMillis, Vault};

/// How many wrong codes are forgiven, less one: the fifth locks.
pub const TRIES: u32 = 5;

/// A code that was issued.
pub struct Issued {
    /// The terminal as it is now.
    pub terminal: Terminal,
    /// The code in groups of four.
    pub code: Zeroizing<String>,
    /// Until when it can be shown.
    pub expires: UnixMillis,
}

/// What is remembered of an answer: everything but the code.
#[derive(Serialize, Deserialize)]
struct Remembered {
    terminal: Terminal,
    number: u32,
    expires: UnixMillis,
}

/// Issues the first code of an activation.
pub async fn issue_activation_code(
    vault: &Vault,
    caller: &Caller,
    request: &RequestId,
    terminal: &str,
) -> Result<Issued, Error> {
    let action = Action::IssueActivationCode;
    let call = Call::IssueActivationCode;
    retrying(|| issue(vault, caller, request, terminal, action, call)).await
}

/// Issues another code in place of the last one; also unlocks.
pub async fn reissue_activation_code(
    vault: &Vault,
    caller: &Caller,
    request: &RequestId,
    terminal: &str,
) -> Result<Issued, Error> {
    let action = Action::ReissueActivationCode;
    let call = Call::ReissueActivationCode;
    retrying(|| issue(vault, caller, request, terminal, action, call)).await
}

async fn issue(
    vault: &Vault,
    caller: &Caller,
    request: &RequestId,
    id: &str,
    action: Action,
    call: Call,
) -> Result<Issued, Error> {
    let mut work = vault.begin(caller, action, format!("terminals/{id}")).await?;
    let mut terminal = match seen_terminal(vault, caller, id).await {
        Ok(terminal) => terminal,
        Err(error) => return Err(give_up(work, error).await),
    };
    if let Some(before) = recall::<Remembered>(vault, caller, action, Some(request)).await? {
        let code = draw(vault, request, id, before.number).expose_grouped();
        let issued = Issued { terminal: before.terminal, code, expires: before.expires };
        return repeated(work, issued).await;
    }
    let profile = profile_of(vault, &terminal.record).await?;
    if let Err(error) = check(&terminal.record, call, profile.code_required) {
        return Err(give_up(work, error).await);
    }
    if !profile.code_required {
        let metadata =
            vec![("remedy", "the profile asks for no code: begin the activation".to_owned())];
        let error = Error::Refused { reason: Reason::ActivationState, metadata };
        return Err(give_up(work, error).await);
    }
    let number = terminal.record.codes_issued.saturating_add(1);
    let code = draw(vault, request, id, number);
    let expires = work.now().plus_ms(profile.code_lifetime_ms);
    terminal.record.codes_issued = number;
    terminal.record.code =
        Some(Code { hash: hash(vault, &code, &terminal.record), expires, tries_left: TRIES });
    let note = format!("code {number}, {TRIES} tries");
    let happened = Happened::done(action.as_str(), note);
    advance(&mut work, &mut terminal.record, State::CodeIssued, happened);
    work.put(&terminal)?;
    let remembered = Remembered { terminal: terminal.record, number, expires };
    remember(vault, &mut work, Some(request), &remembered).await?;
    work.commit().await?;
    Ok(Issued { terminal: remembered.terminal, code: code.expose_grouped(), expires })
}

/// Draws the code of a request: 50 bits of a pseudorandom function under a key of the store.
///
/// To whoever lacks that key they are random. Drawn so and not by chance, the same request gets the
/// same code again although nothing that is kept could bring the code back: what the function is
/// applied to is the caller's request id, and that is kept as a hash alone.
fn draw(vault: &Vault, request: &RequestId, terminal: &str, number: u32) -> ActivationCode {
    let bits = Zeroizing::new(vault.keyed_hash(
        HashPurpose::ActivationCodeDraw,
        &[request.id().as_bytes(), terminal.as_bytes(), &number.to_be_bytes()],
    ));
    ActivationCode::from_random_bits(bits.first_chunk().expect("7 of 32 bytes"))
}

/// The keyed hash of a code, bound to its serial and merchant.
pub(super) fn hash(vault: &Vault, code: &ActivationCode, terminal: &Terminal) -> [u8; 32] {
    let key = Zeroizing::new(vault.keyed_hash(HashPurpose::ActivationCode, &[]));
    let holder = CodeHolder { serial: &terminal.serial, merchant: &terminal.merchant.merchant_id };
    *code.keyed_hash(&key, &holder).as_bytes()
}
