//! A store in one folder: `SQLite`, one writer thread, durable before it answers.
//!
//! ```text
//! folder/              mode 0700
//!   firstkey.lock      locked while a process has the store open
//!   firstkey.sqlite3   WAL, synchronous=FULL: a commit returns after fsync
//! ```
//!
//! After an I/O error in a commit the store serves nothing more until it is opened again: what the
//! kernel did with pages whose fsync failed can not be known, so a second try would prove nothing.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};
use tokio::sync::oneshot;

use super::{
    Batch, BoxFuture, Change, Expected, IndexFilter, LIST_LIMIT_MAX, Outcome, Query, Row, Store,
    StoreError, Surveyed, Tail, Write,
};
use crate::vault::record::Kind;

/// The schema that this release writes, and reads alone: 1 had other events and no Merkle log, 2 no
/// tally of its rows, 3 one master key for good.
const SCHEMA: i64 = 4;

/// Connections kept for reading; more readers at once open one for themselves.
const READERS_KEPT_MAX: usize = 4;

/// Commits waiting for the writer. The vault has one in flight, so this is never reached by it.
const QUEUE_MAX: usize = 64;

/// How long `SQLite` waits for a lock. The folder is ours alone, so a lock is an operator's tool.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// An embedded store in a folder of its own.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Option<mpsc::SyncSender<Order>>,
    thread: Option<thread::JoinHandle<()>>,
    readers: Arc<Readers>,
    folder: PathBuf,
    /// Held for its lock, which ends with it: after the writer has closed the file.
    _lock: File,
}

struct Order {
    batches: Vec<Batch>,
    tail: Tail,
    answer: oneshot::Sender<Result<Vec<Outcome>, StoreError>>,
}

impl SqliteStore {
    /// Opens the store in `folder`, which is made when absent and closed to other users.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let lock = lock_folder(folder)?;
        let path = folder.join("firstkey.sqlite3");
        // `SQLite` gives its other files the mode of this one.
        open_private(&path).map_err(unavailable("file"))?;
        let mut connection = connect(&path).map_err(unavailable("open"))?;
        prepare(&mut connection)?;
        let (writer, orders) = mpsc::sync_channel(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_loop(connection, &orders))
            .map_err(unavailable("thread"))?;
        let readers = Arc::new(Readers { path, kept: Mutex::new(Vec::new()) });
        let folder = folder.to_owned();
        Ok(Self { writer: Some(writer), thread: Some(thread), readers, folder, _lock: lock })
    }

    fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let readers = Arc::clone(&self.readers);
        let answer = tokio::task::spawn_blocking(move || {
            let connection = readers.take().map_err(unavailable("open for reading"))?;
            let answer = question(&connection).map_err(unavailable("read"));
            readers.give_back(connection);
            answer
        });
        Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Unavailable)) })
    }
}

impl Store for SqliteStore {
    fn get(&self, kind: Kind, id: &str) -> BoxFuture<'_, Result<Option<Row>, StoreError>> {
        let id = id.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT id, version, idx, sealed FROM record WHERE kind = ?1 AND id = ?2",
                )?
                .query_row(params![kind.as_str(), id], row_of)
                .optional()
        })
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.read(move |connection| {
            let limit = i64::try_from(query.limit.min(LIST_LIMIT_MAX)).unwrap_or(0);
            // The empty string is smaller than every id.
            let after = query.after.as_deref().unwrap_or("");
            let kind = query.kind.as_str();
            match &query.index {
                IndexFilter::Any => connection
                    .prepare_cached(
                        "SELECT id, version, idx, sealed FROM record
                         WHERE kind = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
                    )?
                    .query_map(params![kind, after, limit], row_of)?
                    .collect(),
                IndexFilter::Equals(wanted) => connection
                    .prepare_cached(
                        "SELECT id, version, idx, sealed FROM record
                         WHERE kind = ?1 AND id > ?2 AND idx = ?4 ORDER BY id LIMIT ?3",
                    )?
                    .query_map(params![kind, after, limit, wanted], row_of)?
                    .collect(),
                IndexFilter::UpTo(bound) => connection
                    .prepare_cached(
                        "SELECT id, version, idx, sealed FROM record
                         WHERE kind = ?1 AND id > ?2 AND idx <= ?4 ORDER BY id LIMIT ?3",
                    )?
                    .query_map(params![kind, after, limit, bound], row_of)?
                    .collect(),
            }
        })
    }

    fn survey(
        &self,
        except: &'static [Kind],
        after: Option<(String, String)>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Surveyed>, StoreError>> {
        self.read(move |connection| {
            let limit = i64::try_from(limit.min(LIST_LIMIT_MAX)).unwrap_or(0);
            let (kind, id) = after.unwrap_or_default();
            // Kinds are lower-case words, so they stand between quotes as they are.
            let except: Vec<String> =
                except.iter().map(|kind| format!("'{}'", kind.as_str())).collect();
            let question = format!(
                "SELECT kind, id, version, substr(sealed, 1, {}) FROM record
                 WHERE (kind, id) > (?1, ?2) AND kind NOT IN ({}) ORDER BY kind, id LIMIT ?3",
                Surveyed::BEGINNING_LEN_BYTES,
                except.join(", "),
            );
            connection
                .prepare_cached(&question)?
                .query_map(params![kind, id, limit], |row| {
                    Ok(Surveyed {
                        kind: row.get(0)?,
                        id: row.get(1)?,
                        version: from_sql(row.get(2)?, 2)?,
                        beginning: row.get(3)?,
                    })
                })?
                .collect()
        })
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        let folder = self.folder.clone();
        Box::pin(async move {
            let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder)).await;
            let disk = asked.map_err(|_| StoreError::Unavailable)?.map_err(unavailable("disk"))?;
            Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
        })
    }

    fn commit(
        &self,
        batches: Vec<Batch>,
        tail: Tail,
    ) -> BoxFuture<'_, Result<Vec<Outcome>, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let sent = self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.try_send(Order { batches, tail, answer }).is_ok());
        Box::pin(async move {
            if !sent {
                return Err(StoreError::Unavailable);
            }
            answered.await.unwrap_or(Err(StoreError::Unavailable))
        })
    }
}

impl Drop for SqliteStore {
    /// Lets the writer finish and close the file before the folder's lock is given up.
    fn drop(&mut self) {
        drop(self.writer.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has closed its connection as well.
            let _ = thread.join();
        }
        self.readers.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Reading connections, kept between reads.
#[derive(Debug)]
struct Readers {
    path: PathBuf,
    kept: Mutex<Vec<Connection>>,
}

impl Readers {
    fn take(&self) -> rusqlite::Result<Connection> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept {
            Some(connection) => Ok(connection),
            None => connect(&self.path),
        }
    }

    fn give_back(&self, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < READERS_KEPT_MAX {
            kept.push(connection);
        }
    }
}

fn lock_folder(folder: &Path) -> Result<File, StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)))
        .map_err(unavailable("folder"))?;
    let lock = open_private(&folder.join("firstkey.lock")).map_err(unavailable("lock file"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse),
        Err(TryLockError::Error(error)) => Err(unavailable("lock")(error)),
    }
}

/// Opens a file, or makes one that only its owner may read.
fn open_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Deleted rows are overwritten, so a destroyed key block does not linger in free pages.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;",
    )?;
    Ok(connection)
}

/// Makes the schema in a new file, and refuses one that another release has written.
fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    let found = make_schema(connection).map_err(unavailable("schema"))?;
    if found > SCHEMA {
        return Err(StoreError::SchemaTooNew { found, known: SCHEMA });
    }
    if found < SCHEMA {
        return Err(StoreError::SchemaTooOld { found, known: SCHEMA });
    }
    Ok(())
}

fn make_schema(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL) STRICT;
         CREATE TABLE IF NOT EXISTS record (
             kind TEXT NOT NULL,
             id TEXT NOT NULL,
             version INTEGER NOT NULL,
             idx TEXT,
             sealed BLOB NOT NULL,
             PRIMARY KEY (kind, id)
         ) STRICT;
         CREATE INDEX IF NOT EXISTS record_by_index ON record (kind, idx, id)
             WHERE idx IS NOT NULL;",
    )?;
    let found: Option<i64> =
        transaction.query_row("SELECT max(version) FROM schema", [], |row| row.get(0))?;
    if found.is_none() {
        transaction.execute("INSERT INTO schema (version) VALUES (?1)", params![SCHEMA])?;
    }
    transaction.commit()?;
    Ok(found.unwrap_or(SCHEMA))
}

fn write_loop(mut connection: Connection, orders: &mpsc::Receiver<Order>) {
    let mut latched = false;
    while let Ok(Order { batches, tail, answer }) = orders.recv() {
        let result = if latched {
            Err(StoreError::Unavailable)
        } else {
            write(&mut connection, &batches, tail).map_err(|error| {
                latched = !may_be_tried_again(&error);
                unavailable("commit")(error)
            })
        };
        // A caller that went away does not undo what is durable.
        let _ = answer.send(result);
    }
}

/// A full disk, a foreign lock or a tail that conflicts leave the file as it was; any other failure
/// latches.
fn may_be_tried_again(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(error, rusqlite::Error::StatementChangedRows(_))
        || matches!(
            code,
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
}

fn write(
    connection: &mut Connection,
    batches: &[Batch],
    tail: Tail,
) -> rusqlite::Result<Vec<Outcome>> {
    let mut transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut outcomes = Vec::with_capacity(batches.len());
    for batch in batches {
        let savepoint = transaction.savepoint()?;
        let outcome = apply_batch(&savepoint, batch)?;
        if outcome.is_applied() {
            savepoint.commit()?;
        } else {
            savepoint.finish()?;
        }
        outcomes.push(outcome);
    }
    let applied: Vec<bool> = outcomes.iter().map(|outcome| outcome.is_applied()).collect();
    close_with(&transaction, &tail(&applied))?;
    transaction.commit()?;
    Ok(outcomes)
}

fn close_with(transaction: &Transaction<'_>, writes: &[Write]) -> rusqlite::Result<()> {
    if apply_batch(transaction, writes)?.is_applied() {
        return Ok(());
    }
    // The transaction rolls back when it is dropped. Somebody else wrote to our chain of events.
    Err(rusqlite::Error::StatementChangedRows(0))
}

fn apply_batch(connection: &Connection, batch: &[Write]) -> rusqlite::Result<Outcome> {
    for (place, write) in batch.iter().enumerate() {
        if !apply(connection, write)? {
            return Ok(Outcome::Conflict { write: place });
        }
    }
    Ok(Outcome::Applied)
}

/// Applies one write; false when its condition does not hold.
fn apply(connection: &Connection, write: &Write) -> rusqlite::Result<bool> {
    let (kind, id) = (write.kind.as_str(), write.id.as_str());
    let changed = match (&write.change, write.expected) {
        (Change::Check | Change::Delete, Expected::Absent) => {
            return Ok(version_of(connection, kind, id)?.is_none());
        }
        (Change::Reseal { .. }, Expected::Absent) => return Ok(false),
        (Change::Check, Expected::Version(version)) => {
            return Ok(version_of(connection, kind, id)? == Some(version));
        }
        (Change::Delete, Expected::Version(version)) => connection
            .prepare_cached("DELETE FROM record WHERE kind = ?1 AND id = ?2 AND version = ?3")?
            .execute(params![kind, id, to_sql(version)?])?,
        (Change::Put { index, sealed }, Expected::Absent) => connection
            .prepare_cached(
                "INSERT INTO record (kind, id, version, idx, sealed) VALUES (?1, ?2, 1, ?3, ?4)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![kind, id, index, sealed])?,
        (Change::Put { index, sealed }, Expected::Version(version)) => connection
            .prepare_cached(
                "UPDATE record SET version = ?4, idx = ?5, sealed = ?6
                 WHERE kind = ?1 AND id = ?2 AND version = ?3",
            )?
            .execute(params![
                kind,
                id,
                to_sql(version)?,
                to_sql(write.expected.next_version())?,
                index,
                sealed
            ])?,
        (Change::Reseal { from, to }, Expected::Version(version)) => connection
            .prepare_cached(
                "UPDATE record SET sealed = ?5
                 WHERE kind = ?1 AND id = ?2 AND version = ?3 AND sealed = ?4",
            )?
            .execute(params![kind, id, to_sql(version)?, from, to])?,
    };
    Ok(changed == 1)
}

fn version_of(connection: &Connection, kind: &str, id: &str) -> rusqlite::Result<Option<u64>> {
    connection
        .prepare_cached("SELECT version FROM record WHERE kind = ?1 AND id = ?2")?
        .query_row(params![kind, id], |row| from_sql(row.get(0)?, 0))
        .optional()
}

fn row_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        id: row.get(0)?,
        version: from_sql(row.get(1)?, 1)?,
        index: row.get(2)?,
        sealed: row.get(3)?,
    })
}

fn to_sql(version: u64) -> rusqlite::Result<i64> {
    i64::try_from(version).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn from_sql(version: i64, column: usize) -> rusqlite::Result<u64> {
    u64::try_from(version).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, version))
}

/// Puts the cause into the log, where an operator looks for it, and nowhere else.
fn unavailable<E: std::error::Error>(step: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| {
        tracing::error!(step, %error, "the store failed");
        StoreError::Unavailable
    }
}
