//! The records in DynamoDB: one table.
//!
//! | what | `pk` | `sk` | else |
//! |---|---|---|---|
//! | record | `thing#<name>` | `rotation#<seq, 10 digits>` | `record` (JSON), `version`, `state`, `thing`, `seq`, `certificates`; while it is not over `open` (`"1"`) and `due` (ms); once it is, `ttl` (s) |
//! | budget | `budget` | `<day>` | `taken`, `ttl` |
//! | note | `notes` | `<thing>#<seq>#<code>` | `note` (JSON), `ttl` |
//!
//! The index `due` has the records that are not over, by `open` and `due`.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    error::SdkError,
    operation::{put_item::PutItemError, update_item::UpdateItemError},
    types::AttributeValue,
};
use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, ThingName},
};
use serde::{Deserialize, Serialize};

use super::{Aws, errors, iot::unreadable};
use crate::{
    decide::report::Note,
    ports::{Call, CallError, Failure, Page, PutError, Records},
    record::{Key, Record},
};

/// The index of the records that are not over.
const INDEX: &str = "due";

/// How long a day's budget and a note are kept.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// How often a budget is drawn from at the same time as others do.
const DRAWS: usize = 10;

/// An item, or the key of one.
type Item = HashMap<String, AttributeValue>;

impl Aws {
    /// A page of the index.
    async fn open(
        &self,
        until: Option<Timestamp>,
        token: Option<&str>,
    ) -> Result<(Vec<Item>, Option<String>), CallError> {
        let call = Call::Query;
        let mut query = self.dynamo.query().table_name(&self.config.table).index_name(INDEX);
        query = match until {
            None => query.key_condition_expression("#open = :open"),
            Some(until) => query
                .key_condition_expression("#open = :open AND due <= :until")
                .expression_attribute_values(":until", number(until.0)),
        };
        query = query
            .expression_attribute_names("#open", "open")
            .expression_attribute_values(":open", text("1"))
            .set_exclusive_start_key(token.map(|token| start(call, token)).transpose()?);
        let answer = query.send().await.map_err(errors::of(call))?;
        let next = answer.last_evaluated_key.map(|key| token_of(&key)).transpose()?;
        Ok((answer.items.unwrap_or_default(), next))
    }

    async fn taken(&self, day: u64) -> Result<u32, CallError> {
        let request = self.dynamo.get_item().table_name(&self.config.table).consistent_read(true);
        let request = request.key("pk", text("budget")).key("sk", text(day));
        let item = request.send().await.map_err(errors::of(Call::GetItem))?.item;
        Ok(item.and_then(|item| item.get("taken")?.as_n().ok()?.parse().ok()).unwrap_or(0))
    }

    /// Takes from the budget, if nobody else has since; whether it was so.
    async fn take(&self, day: u64, taken: u32, granted: u32) -> Result<bool, CallError> {
        let ttl = Timestamp::from_unix_seconds(day * 86_400) + KEPT;
        let request = self
            .dynamo
            .update_item()
            .table_name(&self.config.table)
            .key("pk", text("budget"))
            .key("sk", text(day))
            .update_expression("SET taken = :after, #ttl = :ttl")
            .condition_expression(
                "taken = :before OR (attribute_not_exists(pk) AND :before = :zero)",
            )
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":before", number(taken))
            .expression_attribute_values(":after", number(taken.saturating_add(granted)))
            .expression_attribute_values(":zero", number(0))
            .expression_attribute_values(":ttl", number(ttl.unix_seconds()));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if has_lost_draw(&error) => Ok(false),
            Err(error) => Err(errors::of(Call::UpdateItem)(error)),
        }
    }
}

impl Records for Aws {
    async fn latest(&self, thing: &ThingName) -> Result<Option<Record>, CallError> {
        let call = Call::Query;
        let query = self
            .dynamo
            .query()
            .table_name(&self.config.table)
            .key_condition_expression("pk = :pk AND begins_with(sk, :rotation)")
            .expression_attribute_values(":pk", text(format!("thing#{thing}")))
            .expression_attribute_values(":rotation", text("rotation#"))
            .scan_index_forward(false)
            .consistent_read(true)
            .limit(1);
        let answer = query.send().await.map_err(errors::of(call))?;
        let newest = answer.items.unwrap_or_default().into_iter().next();
        newest.map(|item| json(call, &item, "record")).transpose()
    }

    async fn put(&self, record: &Record) -> Result<(), PutError> {
        let call = Call::PutItem;
        let request = self.dynamo.put_item().table_name(&self.config.table);
        let request = request.set_item(Some(item(record)?));
        let request = match record.version {
            0 | 1 => request.condition_expression("attribute_not_exists(pk)"),
            version => request
                .condition_expression("#version = :before")
                .expression_attribute_names("#version", "version")
                .expression_attribute_values(":before", number(version - 1)),
        };
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if has_raced(&error) => Err(PutError::Raced),
            Err(error) => Err(errors::of(call)(error).into()),
        }
    }

    async fn due(&self, now: Timestamp, token: Option<&str>) -> Result<Page<Key>, CallError> {
        let (items, next) = self.open(Some(now), token).await?;
        let key = |item: &Item| {
            let thing = item.get("thing")?.as_s().ok()?.parse().ok()?;
            Some(Key { thing, seq: item.get("seq")?.as_n().ok()?.parse().ok()? })
        };
        let keys: Option<Vec<_>> = items.iter().map(key).collect();
        Ok(Page { items: keys.ok_or_else(|| unreadable(Call::Query))?, next })
    }

    async fn under_way(&self, token: Option<&str>) -> Result<Page<CertificateId>, CallError> {
        let (items, next) = self.open(None, token).await?;
        let lists = items.iter().filter_map(|item| item.get("certificates")?.as_ss().ok());
        let ids: Result<Vec<_>, _> = lists.flatten().map(|id| id.parse()).collect();
        Ok(Page { items: ids.map_err(|_| unreadable(Call::Query))?, next })
    }

    async fn draw(&self, day: u64, wanted: u32, budget: u32) -> Result<u32, CallError> {
        for _ in 0..DRAWS {
            let taken = self.taken(day).await?;
            let granted = wanted.min(budget.saturating_sub(taken));
            if granted == 0 || self.take(day, taken, granted).await? {
                return Ok(granted);
            }
        }
        let why = Failure::Unavailable("too many draw from the day's budget at once".to_owned());
        Err(CallError { call: Call::UpdateItem, why })
    }

    async fn keep(&self, note: &Note) -> Result<(), CallError> {
        let call = Call::PutItem;
        let request = self.dynamo.put_item().table_name(&self.config.table);
        let request = request
            .item("pk", text("notes"))
            .item("sk", text(note_key(note)))
            .item("note", text(written(call, note)?))
            .item("ttl", number((note.at + KEPT).unix_seconds()));
        request.send().await.map(drop).map_err(errors::of(call))
    }

    async fn notes(&self, token: Option<&str>) -> Result<Page<Note>, CallError> {
        let call = Call::Query;
        let query = self
            .dynamo
            .query()
            .table_name(&self.config.table)
            .key_condition_expression("pk = :notes")
            .expression_attribute_values(":notes", text("notes"))
            .set_exclusive_start_key(token.map(|token| start(call, token)).transpose()?);
        let answer = query.send().await.map_err(errors::of(call))?;
        let next = answer.last_evaluated_key.map(|key| token_of(&key)).transpose()?;
        let items = answer.items.unwrap_or_default();
        let notes: Result<Vec<_>, _> = items.iter().map(|item| json(call, item, "note")).collect();
        Ok(Page { items: notes?, next })
    }

    async fn forget(&self, note: &Note) -> Result<(), CallError> {
        let call = Call::DeleteItem;
        let request = self.dynamo.delete_item().table_name(&self.config.table);
        let request = request.key("pk", text("notes")).key("sk", text(note_key(note)));
        request.send().await.map(drop).map_err(errors::of(call))
    }
}

/// A record as an item.
fn item(record: &Record) -> Result<Item, CallError> {
    let Key { thing, seq } = &record.key;
    let certificates = record.certificates().iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut item = Item::from([
        ("pk".to_owned(), text(format!("thing#{thing}"))),
        ("sk".to_owned(), text(format!("rotation#{seq:010}"))),
        ("record".to_owned(), text(written(Call::PutItem, record)?)),
        ("version".to_owned(), number(record.version)),
        ("state".to_owned(), text(record.state.name())),
        ("thing".to_owned(), text(thing)),
        ("seq".to_owned(), number(*seq)),
        ("certificates".to_owned(), AttributeValue::Ss(certificates)),
    ]);
    if let Some(due) = record.state.due() {
        item.insert("open".to_owned(), text("1"));
        item.insert("due".to_owned(), number(due.0));
    }
    if let Some(at) = record.forget_at() {
        item.insert("ttl".to_owned(), number(at.unix_seconds()));
    }
    Ok(item)
}

fn note_key(note: &Note) -> String {
    let Key { thing, seq } = &note.key;
    format!("{thing}#{seq}#{}", note.code)
}

fn text(value: impl ToString) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn written(call: Call, value: &impl Serialize) -> Result<String, CallError> {
    let invalid = |error: serde_json::Error| Failure::Invalid(error.to_string());
    serde_json::to_string(value).map_err(|error| CallError { call, why: invalid(error) })
}

/// What an item holds as JSON. One that can't be read was written by nobody we know of, or by a newer
/// version: nothing is done on a guess.
fn json<T: for<'de> Deserialize<'de>>(call: Call, item: &Item, name: &str) -> Result<T, CallError> {
    let text = item.get(name).and_then(|value| value.as_s().ok());
    text.and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| unreadable(call))
}

/// Where a list goes on, as a token: the strings and numbers of the last key.
fn token_of(key: &Item) -> Result<String, CallError> {
    let plain = |value: &AttributeValue| match value {
        AttributeValue::S(text) => Some(("S", text.clone())),
        AttributeValue::N(text) => Some(("N", text.clone())),
        _ => None,
    };
    let fields: Option<HashMap<_, _>> =
        key.iter().map(|(name, value)| Some((name, plain(value)?))).collect();
    written(Call::Query, &fields)
}

fn start(call: Call, token: &str) -> Result<Item, CallError> {
    let fields: HashMap<String, (String, String)> = serde_json::from_str(token)
        .map_err(|error| CallError { call, why: Failure::Invalid(error.to_string()) })?;
    let value = |(kind, value): (String, String)| match kind.as_str() {
        "N" => AttributeValue::N(value),
        _ => AttributeValue::S(value),
    };
    Ok(fields.into_iter().map(|(name, field)| (name, value(field))).collect())
}

fn has_raced<R>(error: &SdkError<PutItemError, R>) -> bool {
    error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception)
}

fn has_lost_draw<R>(error: &SdkError<UpdateItemError, R>) -> bool {
    error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception)
}
