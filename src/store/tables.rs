//! The tables in the database, and how a change to the store becomes changes to them.
//!
//! Owns their layout: `records` (thing name → JSON), `csrs` and `certificates` (thing name → DER),
//! `meta` (the schema, the newest time seen); every value in a [`frame`]. Never commits.

use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};

use super::frame::{entry_bytes, frame, unframe};
use crate::{
    relay::{Body, Record, Snapshot, Write},
    schedule::Timestamp,
    wire::ThingName,
};

/// The newest layout of the tables that is understood.
pub(super) const SCHEMA: u32 = 1;
const SCHEMA_KEY: &str = "schema";
const SEEN_KEY: &str = "seen";

type Definition = TableDefinition<'static, &'static str, &'static [u8]>;
type Entries<'t> = Table<'t, &'static str, &'static [u8]>;

const RECORDS: Definition = TableDefinition::new("records");
const CSRS: Definition = TableDefinition::new("csrs");
const CERTIFICATES: Definition = TableDefinition::new("certificates");
const META: Definition = TableDefinition::new("meta");

/// The tables in a transaction. Every change says by how many bytes it grows what they hold.
pub(super) struct Tables<'t> {
    records: Entries<'t>,
    csrs: Entries<'t>,
    certificates: Entries<'t>,
    meta: Entries<'t>,
}

impl<'t> Tables<'t> {
    /// Opens them, making those that are missing.
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            csrs: transaction.open_table(CSRS)?,
            certificates: transaction.open_table(CERTIFICATES)?,
            meta: transaction.open_table(META)?,
        })
    }

    /// Makes one change.
    pub fn apply(&mut self, write: &Write) -> Result<i64, redb::Error> {
        match write {
            Write::Record(thing, record) => {
                put(&mut self.records, thing.as_str(), &to_json(record))
            }
            Write::Body(thing, body, der) => put(self.body(*body), thing.as_str(), der),
            Write::DropBody(thing, body) => self.drop_body(thing.as_str(), *body),
            Write::Forget(thing) => self.forget(thing.as_str()),
            Write::Seen(time) => put(&mut self.meta, SEEN_KEY, &time.0.to_le_bytes()),
        }
    }

    /// Removes a body.
    pub fn drop_body(&mut self, key: &str, body: Body) -> Result<i64, redb::Error> {
        remove(self.body(body), key)
    }

    /// Puts the schema.
    pub fn put_schema(&mut self) -> Result<i64, redb::Error> {
        put(&mut self.meta, SCHEMA_KEY, &SCHEMA.to_le_bytes())
    }

    fn body(&mut self, body: Body) -> &mut Entries<'t> {
        match body {
            Body::Csr => &mut self.csrs,
            Body::Certificate => &mut self.certificates,
        }
    }

    /// Removes a record and its bodies.
    pub fn forget(&mut self, key: &str) -> Result<i64, redb::Error> {
        Ok(remove(&mut self.records, key)?
            + remove(&mut self.csrs, key)?
            + remove(&mut self.certificates, key)?)
    }
}

fn table_of(body: Body) -> Definition {
    match body {
        Body::Csr => CSRS,
        Body::Certificate => CERTIFICATES,
    }
}

/// The schema; `None` if it can't be read.
pub(super) fn read_schema(transaction: &ReadTransaction) -> Result<Option<u32>, redb::Error> {
    read_meta(transaction, SCHEMA_KEY).map(|schema| schema.map(u32::from_le_bytes))
}

/// One body: `None` if there is none, `Some(None)` if it can't be read.
pub(super) fn read_body(
    transaction: &ReadTransaction,
    key: &str,
    body: Body,
) -> Result<Option<Option<Vec<u8>>>, redb::Error> {
    let framed = transaction.open_table(table_of(body))?.get(key)?;
    Ok(framed.map(|framed| unframe(key, framed.value()).map(<[u8]>::to_vec)))
}

fn read_meta<const N: usize>(
    transaction: &ReadTransaction,
    key: &str,
) -> Result<Option<[u8; N]>, redb::Error> {
    let framed = transaction.open_table(META)?.get(key)?;
    Ok(framed.and_then(|framed| unframe(key, framed.value())?.try_into().ok()))
}

/// The bytes of all keys and framed values.
pub(super) fn count(transaction: &ReadTransaction) -> Result<u64, redb::Error> {
    let mut held = 0;
    for definition in [RECORDS, CSRS, CERTIFICATES, META] {
        held += transaction.open_table(definition)?.stats()?.stored_bytes();
    }
    Ok(held)
}

/// The snapshot, and the keys of the records that can't be read.
pub(super) fn read_all(
    transaction: &ReadTransaction,
) -> Result<(Snapshot, Vec<String>), redb::Error> {
    let seen = read_meta(transaction, SEEN_KEY)?.map(|seen| Timestamp(u64::from_le_bytes(seen)));
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    for entry in transaction.open_table(RECORDS)?.iter()? {
        let (key, framed) = entry?;
        match read_record(key.value(), framed.value()) {
            Some(record) => records.push(record),
            None => unreadable.push(key.value().to_owned()),
        }
    }
    let damaged = unreadable.iter().filter_map(|key| key.parse().ok()).collect();
    Ok((Snapshot { records, damaged, seen }, unreadable))
}

fn read_record(key: &str, framed: &[u8]) -> Option<(ThingName, Record)> {
    Some((key.parse().ok()?, serde_json::from_slice(unframe(key, framed)?).ok()?))
}

/// A record as it is stored.
pub(super) fn to_json(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record is plain data with text keys")
}

fn put(table: &mut Entries<'_>, key: &str, value: &[u8]) -> Result<i64, redb::Error> {
    let before = table.insert(key, frame(key, value).as_slice())?;
    let before = before.map_or(0, |old| (key.len() + old.value().len()) as u64);
    Ok(entry_bytes(key, value).wrapping_sub(before).cast_signed())
}

fn remove(table: &mut Entries<'_>, key: &str) -> Result<i64, redb::Error> {
    let before = table.remove(key)?.map_or(0, |old| (key.len() + old.value().len()) as u64);
    Ok(0u64.wrapping_sub(before).cast_signed())
}
