//! What is counted, for Prometheus: a registry of its own for each service.
//!
//! The value of a label is always a word of this program, never one of a caller, a terminal or a
//! key: the type of [`Label`] lets nothing else in, so there are as many series as there are words.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use super::proto::{MacAlgorithm, PinBlockFormat};
use super::standing::{Finding, Standing};
use crate::activation::State;
use crate::command::census::Census;
use crate::vault::{Gate, KeyState, KeyUsage, Phase, Reason};

/// Microseconds since some moment: bin hands it in, for only there is a clock.
pub type Stopwatch = fn() -> u64;

/// A label: its name and its value.
type Label = (&'static str, &'static str);

/// The upper bounds of the classes of durations, in seconds.
const DURATIONS: [f64; 13] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<[Label; 3], Counter>,
    durations: Family<[Label; 2], Histogram, fn() -> Histogram>,
    activations: Family<[Label; 2], Counter>,
    translations: Family<[Label; 3], Counter>,
    verifications: Family<[Label; 2], Counter>,
    store_errors: Counter,
    keys: Family<[Label; 2], Gauge>,
    terminals: Family<[Label; 1], Gauge>,
    pub(super) stopwatch: Stopwatch,
}

impl Metrics {
    /// Of a service behind a gate.
    #[must_use]
    pub fn new(gate: Arc<Gate>, standing: Arc<Standing>, stopwatch: Stopwatch) -> Self {
        let mut registry = Registry::with_prefix("firstkey");
        let requests = Family::default();
        registry.register("grpc_requests", "Calls that were answered", requests.clone());
        let classes: fn() -> Histogram = || Histogram::new(DURATIONS);
        let durations = Family::new_with_constructor(classes);
        let told = "Seconds from a call to its answer";
        registry.register("grpc_request_duration_seconds", told, durations.clone());
        let activations = Family::default();
        let told = "Steps of terminals in their activation";
        registry.register("terminal_activations", told, activations.clone());
        let translations = Family::default();
        registry.register("pin_translations", "PIN blocks to translate", translations.clone());
        let verifications = Family::default();
        registry.register("mac_verifications", "MACs to verify", verifications.clone());
        let store_errors = Counter::default();
        let told = "Calls that failed for want of the store or the audit log";
        registry.register("store_errors", told, store_errors.clone());
        let keys = Family::default();
        registry.register("keys", "Keys, as they were counted last", keys.clone());
        let terminals = Family::default();
        registry.register("terminals", "Terminals, as they were counted last", terminals.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The release", build);
        registry.register_collector(Box::new(Now { gate, standing }));
        Self {
            registry,
            requests,
            durations,
            activations,
            translations,
            verifications,
            store_errors,
            keys,
            terminals,
            stopwatch,
        }
    }

    /// The text form (`OpenMetrics` 1.0) of everything, as it is now.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into memory does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Takes over a count of keys and terminals; of what there is none any more, 0 is told.
    pub fn counted(&self, census: &Census) {
        let told = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for usage in KeyUsage::ALL {
            for state in KeyState::ALL {
                let (usage, state) = (usage.as_str(), state.as_str());
                let count = census.keys.get(&(usage, state)).copied().unwrap_or(0);
                let gauge = self.keys.get_or_create(&[("usage", usage), ("state", state)]);
                gauge.set(told(count));
            }
        }
        for state in State::ALL {
            let count = census.terminals.get(state.as_str()).copied().unwrap_or(0);
            self.terminals.get_or_create(&[("state", state.as_str())]).set(told(count));
        }
    }

    /// Counts a call that was answered after so many microseconds; none, or how it failed.
    pub(super) fn answered(
        &self,
        call: (&'static str, &'static str),
        failed: Option<&Status>,
        took_us: u64,
    ) {
        let code = failed.map_or(Code::Ok, Status::code);
        // What leads nowhere is counted together: who makes up names makes up no series.
        let (service, method) = if code == Code::Unimplemented { ("other", "other") } else { call };
        let call = [("service", service), ("method", method)];
        let [service, method] = call;
        let counted = self.requests.get_or_create(&[service, method, ("code", code_name(code))]);
        counted.inc();
        drop(counted);
        let reason = failed.map_or("", reason_of);
        if [Reason::AuditUnavailable, Reason::StoreUnavailable]
            .map(Reason::as_str)
            .contains(&reason)
        {
            self.store_errors.inc();
        }
        let seconds = f64::from(u32::try_from(took_us).unwrap_or(u32::MAX)) / 1e6;
        self.durations.get_or_create(&call).observe(seconds);
    }

    /// Counts a step of a terminal.
    pub(super) fn stepped<T>(&self, stage: &'static str, answer: &Result<Response<T>, Status>) {
        let labels = [("stage", stage), ("result", result_of(answer))];
        self.activations.get_or_create(&labels).inc();
    }

    /// Counts a translation.
    pub(super) fn translated<T>(
        &self,
        (from, to): (i32, i32),
        answer: &Result<Response<T>, Status>,
    ) {
        let result = result_of(answer);
        let labels = [("from", format_name(from)), ("to", format_name(to)), ("result", result)];
        self.translations.get_or_create(&labels).inc();
    }

    /// Counts a verification.
    pub(super) fn verified<T>(&self, algorithm: i32, answer: &Result<Response<T>, Status>) {
        let algorithm = mac_algorithm_name(algorithm);
        let labels = [("algorithm", algorithm), ("result", result_of(answer))];
        self.verifications.get_or_create(&labels).inc();
    }
}

/// `OK`, or the reason of a refusal.
fn result_of<T>(answer: &Result<Response<T>, Status>) -> &'static str {
    answer.as_ref().err().map_or("OK", reason_of)
}

/// The reason of a refusal, in a word of this program.
fn reason_of(status: &Status) -> &'static str {
    let details = status.get_error_details();
    let told = details.error_info().map_or("", |info| info.reason.as_str());
    let reason = Reason::ALL.iter().find(|reason| reason.as_str() == told);
    reason.map_or("OTHER", |reason| reason.as_str())
}

/// A format as the protocol spells it, less what all have in common.
fn format_name(format: i32) -> &'static str {
    let name = PinBlockFormat::try_from(format).map_or("", |format| format.as_str_name());
    name.strip_prefix("PIN_BLOCK_FORMAT_").unwrap_or("OTHER")
}

/// An algorithm, likewise.
fn mac_algorithm_name(algorithm: i32) -> &'static str {
    let name = MacAlgorithm::try_from(algorithm).map_or("", |algorithm| algorithm.as_str_name());
    name.strip_prefix("MAC_ALGORITHM_").unwrap_or("OTHER")
}

/// What is looked up when somebody asks.
struct Now {
    gate: Arc<Gate>,
    standing: Arc<Standing>,
}

impl std::fmt::Debug for Now {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Now")
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, told: &str, value: u64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, told, None, gauge.metric_type())?)
        };
        let failed = u64::from(self.gate.failed().is_some());
        gauge("self_test_failed", "1 when a self-test failed and nothing is served", failed)?;
        let sealed = u64::from(matches!(self.gate.phase(), Phase::Sealed));
        gauge("sealed", "1 while nobody knows the master key and nothing is served", sealed)?;
        if let Some(expiry) = self.standing.certificate_expiry() {
            let told = "When the first certificate of a listener expires, in Unix time";
            gauge("tls_cert_expiry_timestamp_seconds", told, expiry)?;
        }
        if let Ok(vault) = self.gate.enter() {
            let entries = ConstCounter::new(vault.audit_sequence());
            if let Some((_, time)) = vault.newest_checkpoint() {
                let told = "When the newest checkpoint of the audit log was signed, in Unix time";
                gauge("audit_last_checkpoint_timestamp_seconds", told, time.seconds())?;
            }
            let told = "Audit events of this replica";
            let kind = entries.metric_type();
            entries.encode(encoder.encode_descriptor("audit_entries", told, None, kind)?)?;
        }
        let told = "1 for what is well, 0 for what is not";
        let kind = ConstGauge::new(0_u64).metric_type();
        let mut family = encoder.encode_descriptor("healthy", told, None, kind)?;
        for (check, finding) in self.standing.found(&self.gate) {
            let well = ConstGauge::new(u64::from(finding == Finding::Well));
            let label = [("check", check.as_str())];
            well.encode(family.encode_family(&label)?)?;
        }
        Ok(())
    }
}

/// A gRPC code as the specification spells it.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Aborted => "ABORTED",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::Cancelled => "CANCELLED",
        Code::DataLoss => "DATA_LOSS",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Internal => "INTERNAL",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::Ok => "OK",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unknown => "UNKNOWN",
    }
}
