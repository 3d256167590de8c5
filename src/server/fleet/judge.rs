//! Whether each terminal of a fleet is active, once, and with keys of its own: the service's own
//! lists are held against what the devices hold.

use std::collections::{BTreeMap, BTreeSet};

use super::Fleet;
use super::till::Life;
use crate::grpc::client::ClientError;
use crate::grpc::proto;

/// How many faults are told at most.
const FAULTS_MAX: usize = 100;

/// What the service says of a fleet.
pub(super) struct Judgement {
    pub(super) active: u32,
    pub(super) initial_key_ids: u32,
    pub(super) faults: Vec<String>,
}

/// Reads all terminals of the service and judges those of the fleet.
pub(super) async fn judge(fleet: &Fleet, lives: &[Life]) -> Result<Judgement, ClientError> {
    let listed = fleet.client.list_terminals(proto::ListTerminalsRequest::default()).await?;
    let mut faults = doubles(&listed);
    let lives: BTreeMap<String, &Life> =
        lives.iter().map(|life| (fleet.order.id(life.number), life)).collect();
    let listed: BTreeMap<&str, &proto::Terminal> = listed
        .iter()
        .filter_map(|terminal| Some((terminal.name.strip_prefix("terminals/")?, terminal)))
        .collect();
    let (mut active, mut ids) = (0, BTreeSet::new());
    for id in (1..=fleet.order.terminals).map(|number| fleet.order.id(number)) {
        let Some(terminal) = listed.get(id.as_str()) else {
            faults.push(format!("{id} is not registered"));
            continue;
        };
        if terminal.state() != proto::TerminalState::Active {
            faults.push(format!("{id} is {}", terminal.state().as_str_name()));
            continue;
        }
        active += 1;
        ids.insert(terminal.initial_key_id.as_slice());
        match lives.get(&id) {
            Some(life) => faults.extend(differences(fleet, terminal, life)),
            None => faults.push(format!("{id}: nobody knows what became of its device")),
        }
    }
    faults.truncate(FAULTS_MAX);
    let initial_key_ids = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    Ok(Judgement { active, initial_key_ids, faults })
}

/// Where an active terminal and its device do not agree, or it was activated more than once.
fn differences(fleet: &Fleet, terminal: &proto::Terminal, life: &Life) -> Vec<String> {
    let name = &terminal.name;
    let mut faults = Vec::new();
    if terminal.activation != format!("{name}/activations/1") {
        faults.push(format!("{name} was activated more than once: {}", terminal.activation));
    }
    if life.keys_loaded != 1 {
        faults.push(format!("{name}: its device loaded {} initial keys", life.keys_loaded));
    }
    if terminal.initial_key_id != life.initial_key_id {
        faults.push(format!("{name}: its device holds another initial key"));
    }
    if fleet.order.transactions > 0 && terminal.first_transaction_time.is_none() {
        faults.push(format!("{name}: its first transaction was not recorded"));
    }
    faults
}

/// Initial key ids and serials in service that more than one terminal has, whosever they are.
fn doubles(listed: &[proto::Terminal]) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut ids, mut serials) = (BTreeMap::new(), BTreeMap::new());
    for terminal in listed {
        let name = &terminal.name;
        if !terminal.initial_key_id.is_empty()
            && let Some(other) = ids.insert(&terminal.initial_key_id, name)
        {
            let id = data_encoding::HEXUPPER.encode(&terminal.initial_key_id);
            faults.push(format!("{other} and {name} have one initial key id: {id}"));
        }
        if terminal.state() == proto::TerminalState::Active
            && let Some(other) = serials.insert(&terminal.serial, name)
        {
            faults.push(format!("{other} and {name} are active with one serial"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(name: &str, serial: &str, id: &[u8]) -> proto::Terminal {
        proto::Terminal {
            name: name.to_owned(),
            serial: serial.to_owned(),
            state: proto::TerminalState::Active.into(),
            initial_key_id: id.to_vec(),
            ..proto::Terminal::default()
        }
    }

    #[test]
    fn a_double_is_found() {
        let sound = [terminal("a", "S-1", &[1]), terminal("b", "S-2", &[2])];
        assert_eq!(doubles(&sound), [""; 0]);
        let [a, b] = sound;
        let one_id = [a.clone(), terminal("b", "S-2", &[1])];
        assert_eq!(doubles(&one_id), ["a and b have one initial key id: 01"]);
        let one_serial = [a, proto::Terminal { serial: "S-1".to_owned(), ..b }];
        assert_eq!(doubles(&one_serial), ["a and b are active with one serial"]);
    }
}
