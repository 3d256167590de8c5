//! A fleet of terminals in software: all registered, activated and put to work at the same time,
//! over lines that lose replies; and whether each came through it once, with keys of its own.
//!
//! A lost reply is one that the service gave and the terminal, or the backend, never saw: whoever
//! waits for it sends its very bytes again.

mod judge;
mod report;
mod till;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use self::report::Tally;
use self::till::{Failure, Life};
use self::wire::Wire;
use super::dev::Pki;
use crate::agreement::Suite;
use crate::crypto::rng::Rng;
use crate::grpc::client::{Client, ClientError};
use crate::grpc::proto;
use crate::grpc::proto::create_terminal_result::Result as Registered;
use crate::key::Key;
use crate::key::usage::KeyEncryption;
use crate::terminal::Device;

pub use self::report::{CallReport, Report};

/// Terminals in one call of registration.
const TERMINALS_PER_CALL: u32 = 100;

/// What a fleet shall do.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// How many terminals.
    pub terminals: u32,
    /// How many of them are busy at the same time.
    pub concurrency: u32,
    /// How many of a hundred replies are lost.
    pub lose_percent: u8,
    /// Transactions that each makes once it is active.
    pub transactions: u32,
    /// Names the terminals, and decides which replies are lost: the same seed, the same losses.
    pub seed: u32,
}

impl Order {
    /// The id of a terminal, counted from 1.
    #[must_use]
    pub fn id(&self, number: u32) -> String {
        format!("fleet-{:08x}-{number:05}", self.seed)
    }

    /// The serial of its device.
    #[must_use]
    pub fn serial(&self, number: u32) -> String {
        format!("FLEET-{:08X}-{number:05}", self.seed)
    }

    /// Its suite: terminals of every kind in turn.
    #[must_use]
    pub fn suite(number: u32) -> Suite {
        let number = usize::try_from(number).expect("32 bits fit");
        Suite::ALL[number % Suite::ALL.len()]
    }
}

/// How far a fleet is: so many of its terminals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Are through with all they have to do, or failed.
    Done(u32),
    /// Are registered, or refused.
    Registered(u32),
}

/// The devices by their numbers, or why there is none.
type Devices = BTreeMap<u32, Result<Device, Failure>>;

/// A fleet, and what it stands on.
pub struct Fleet {
    /// A development service.
    pub client: Client,
    /// The authorities around it.
    pub pki: Pki,
    /// The development key encryption key, below which facilities bring master keys.
    pub kek: Key<KeyEncryption>,
    /// Randomness for the terminals.
    pub rng: Arc<dyn Rng>,
    /// The time, in seconds since 1970.
    pub now: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// A stopwatch: microseconds since anything.
    pub stopwatch: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Hears how far it is.
    pub tell: Arc<dyn Fn(Progress) + Send + Sync>,
    /// What it shall do.
    pub order: Order,
}

impl Fleet {
    /// Does all of it, and reports. A terminal that fails is counted; only a service that does not
    /// say at the end what became of the fleet is an error.
    pub async fn run(self) -> Result<Report, ClientError> {
        let fleet = Arc::new(self);
        let began = (fleet.stopwatch)();
        let mut tally = Tally::default();
        let devices = fleet.clone().register(&mut tally).await;
        let lives = fleet.clone().live(devices, &mut tally).await;
        let took_us = (fleet.stopwatch)().saturating_sub(began);
        let judgement = judge::judge(&fleet, &lives).await?;
        Ok(tally.report(fleet.order, took_us, judgement))
    }

    /// Makes the devices and registers them. One that is registered already is taken as it is.
    async fn register(self: Arc<Self>, tally: &mut Tally) -> Devices {
        // Terminals are counted from 1: no terminal has the backend's luck.
        let mut wire = Wire::new(&self, 0);
        let mut devices = Devices::new();
        let numbers: Vec<u32> = (1..=self.order.terminals).collect();
        let mut registered = 0;
        for numbers in numbers.chunks(usize::try_from(TERMINALS_PER_CALL).unwrap_or(1)) {
            let mut making = JoinSet::new();
            for number in numbers.iter().copied() {
                let fleet = Arc::clone(&self);
                making.spawn(async move { (number, till::device(&fleet, number).await) });
            }
            let mut entries = Vec::new();
            while let Some(made) = making.join_next().await {
                let Ok((number, made)) = made else { continue };
                let device = made.map(|(device, registration)| {
                    entries.push(registration);
                    device
                });
                devices.insert(number, device);
            }
            let request = proto::BatchCreateTerminalsRequest { entries };
            let batch = async |client: Client, request| {
                client.terminals().batch_create_terminals(request).await
            };
            match wire.call("BatchCreateTerminals", request, batch).await {
                Ok(answer) => {
                    for result in answer.results {
                        if let Some(Registered::Refusal(refusal)) = result.result
                            && refusal.reason != "TERMINAL_ALREADY_EXISTS"
                        {
                            tally.failure("BatchCreateTerminals", &refusal.reason);
                        }
                    }
                }
                Err(error) => tally.failure("BatchCreateTerminals", &report::reason(&error)),
            }
            registered += u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            (self.tell)(Progress::Registered(registered));
        }
        tally.add(wire);
        devices
    }

    /// Takes every terminal through its life, so many at the same time.
    async fn live(self: Arc<Self>, devices: Devices, tally: &mut Tally) -> Vec<Life> {
        let next = Arc::new(Mutex::new(devices.into_iter()));
        let done = Arc::new(AtomicU32::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..self.order.concurrency {
            let (fleet, next, done) = (Arc::clone(&self), Arc::clone(&next), Arc::clone(&done));
            workers.spawn(async move {
                let mut lived = Vec::new();
                loop {
                    let device = next.lock().await.next();
                    let Some((number, device)) = device else { return lived };
                    lived.push(till::live(&fleet, number, device).await);
                    let done = done.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                    (fleet.tell)(Progress::Done(done));
                }
            });
        }
        let mut lives = Vec::new();
        // Of a worker that ended abnormally the terminals are missed when the fleet is judged.
        while let Some(lived) = workers.join_next().await {
            for (life, wire) in lived.into_iter().flatten() {
                tally.add(wire);
                if let Some((call, reason)) = &life.failure {
                    tally.failure(call, reason);
                }
                lives.push(life);
            }
        }
        lives
    }
}
