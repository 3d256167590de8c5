//! The life of one terminal of a fleet: its code, its activation, its transactions.

use zeroize::Zeroizing;

use super::report::reason;
use super::wire::{Wire, is_worth_repeating};
use super::{Fleet, Order};
use crate::activation::ActivationCode;
use crate::grpc::client::{Client, ClientError, Driver, Told, request_id};
use crate::grpc::proto;
use crate::server::simulation::{self, Factory, MasterKeyFailed};
use crate::terminal::{Device, Terminal};

/// What each transaction costs, in minor units: several hundred stay within the day's limit.
const AMOUNT_MINOR: u64 = 1_000;

/// How often an activation is taken up again at most: beyond this it is no luck.
const TRIES: u32 = 100;

/// What became of a terminal.
pub(super) struct Life {
    /// Which one, from 1.
    pub(super) number: u32,
    /// The id of the initial key that its device loaded last; empty where none arrived.
    pub(super) initial_key_id: Vec<u8>,
    /// How often its device loaded an initial key: once, however many replies are lost.
    pub(super) keys_loaded: u32,
    /// The call at which it failed, and why.
    pub(super) failure: Option<(&'static str, String)>,
}

/// Why a terminal did not come through.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the code is none")]
    Code,
    #[error(transparent)]
    Device(#[from] MasterKeyFailed),
    #[error("a message was repeated with other bytes")]
    RepeatedOtherwise,
}

/// Makes the device of a terminal, and says how it is to be registered.
pub(super) async fn device(
    fleet: &Fleet,
    number: u32,
) -> Result<(Device, proto::CreateTerminalRequest), Failure> {
    let (client, pki, kek) = (&fleet.client, &fleet.pki, &fleet.kek);
    let factory = Factory { client, pki, kek, rng: &*fleet.rng, now: (fleet.now)() };
    let (id, serial) = (fleet.order.id(number), fleet.order.serial(number));
    let (device, mut registration) = factory.make(&id, &serial, Order::suite(number)).await?;
    // No two terminals of a fleet have one terminal id.
    registration.merchant.get_or_insert_default().terminal_id = format!("{number:08}");
    Ok((device, registration))
}

/// Takes a registered terminal through its life.
pub(super) async fn live(
    fleet: &Fleet,
    number: u32,
    device: Result<Device, Failure>,
) -> (Life, Wire) {
    let mut wire = Wire::new(fleet, number);
    let mut life = Life { number, initial_key_id: Vec::new(), keys_loaded: 0, failure: None };
    if let Err(failure) = go(fleet, device, &mut wire, &mut life).await {
        let why = match &failure {
            Failure::Client(error) | Failure::Device(MasterKeyFailed::Client(error)) => {
                reason(error)
            }
            Failure::Code
            | Failure::Device(MasterKeyFailed::Device(_))
            | Failure::RepeatedOtherwise => failure.to_string(),
        };
        life.failure = Some((wire.last, why));
    }
    (life, wire)
}

async fn go(
    fleet: &Fleet,
    device: Result<Device, Failure>,
    wire: &mut Wire,
    life: &mut Life,
) -> Result<(), Failure> {
    let mut terminal = Terminal::new(device?, Order::suite(life.number));
    let name = format!("terminals/{}", fleet.order.id(life.number));
    let request =
        proto::IssueActivationCodeRequest { request_id: request_id(), name: name.clone() };
    let issue =
        async |client: Client, request| client.terminals().issue_activation_code(request).await;
    let issued = wire.call("IssueActivationCode", request, issue).await?;
    let code = Zeroizing::new(issued.activation_code);

    activate(fleet, wire, life, &mut terminal, &code).await?;

    let request = proto::EnableTerminalRequest { request_id: request_id(), name };
    let enable = async |client: Client, request| client.terminals().enable_terminal(request).await;
    wire.call("EnableTerminal", request, enable).await?;
    for _ in 0..fleet.order.transactions {
        transact(fleet, wire, &mut terminal).await?;
    }
    if wire.is_altered { Err(Failure::RepeatedOtherwise) } else { Ok(()) }
}

/// Steps 3 to 7. Whenever a reply is lost the terminal goes on from where it stands.
async fn activate(
    fleet: &Fleet,
    wire: &mut Wire,
    life: &mut Life,
    terminal: &mut Terminal,
    code: &str,
) -> Result<(), Failure> {
    let now = || (fleet.now)();
    let mut last = Ok(());
    for _ in 0..TRIES {
        let code = ActivationCode::parse(code).map_err(|_| Failure::Code)?;
        let mut driver = Driver {
            line: wire,
            terminal,
            rng: &*fleet.rng,
            now: &now,
            save: &mut |_| Ok(()),
            tell: &mut |told| {
                if let Told::Keys(keys) = told {
                    life.keys_loaded += 1;
                    life.initial_key_id =
                        keys.into_iter().next().map(|key| key.initial_key_id).unwrap_or_default();
                }
            },
        };
        last = driver.activate(Some(code), false).await;
        match &last {
            Err(ClientError::Refused(refusal)) if is_worth_repeating(refusal.code) => {}
            Ok(()) | Err(_) => break,
        }
    }
    Ok(last?)
}

/// A purchase, and the backend that has its MAC verified and its PIN block translated.
async fn transact(fleet: &Fleet, wire: &mut Wire, terminal: &mut Terminal) -> Result<(), Failure> {
    let payment = simulation::purchase(terminal, AMOUNT_MINOR, &*fleet.rng, (fleet.now)());
    let payment = payment.map_err(ClientError::from)?;
    let request = simulation::verify_request(&payment);
    let verify = async |client: Client, request| client.macs().verify_mac(request).await;
    wire.call("VerifyMac", request, verify).await?;
    let request = simulation::translate_request(&payment, payment.pin_block.bytes().to_vec());
    let translate = async |client: Client, request| client.pins().translate_pin(request).await;
    wire.call("TranslatePin", request, translate).await?;
    Ok(())
}
