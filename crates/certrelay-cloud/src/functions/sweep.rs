//! `sweep`: every hour; queues the records whose time has come, and sends the support team its
//! digest.

use certrelay::schedule::Timestamp;

use super::Fault;
use crate::{
    decide::report::{self, Note},
    ports::{CallError, Cloud, Page, Queue},
};

/// The most records that one sweep queues: more than the functions do in an hour, unless their pace was
/// raised many times over.
pub const MOST_DUE: usize = 50_000;

/// The most notes of a digest: each is forgotten by a call of its own before the sweep's time ends.
const MOST_TOLD: usize = 1000;

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// How many records were queued.
    pub due: usize,
    /// How many notes were told of.
    pub notes: usize,
}

/// Queues what is due, and sends the digest. What is more than [`MOST_DUE`], and what is left when
/// `is_late` says that time is running out, is due an hour later still. So is what its queue has not
/// handed out by then; that it comes twice does no harm.
pub async fn sweep<C: Cloud>(
    cloud: &C,
    is_late: impl Fn() -> bool,
    now: Timestamp,
) -> Result<Swept, Fault> {
    let notes = tell(cloud).await?;
    let (mut due, mut token) = (0, None);
    while due < MOST_DUE {
        let Page { mut items, next } = cloud.due(now, token.as_deref()).await?;
        items.truncate(MOST_DUE - due);
        let messages: Vec<_> =
            items.iter().filter_map(|key| serde_json::to_string(key).ok()).collect();
        cloud.enqueue(Queue::Due, &messages).await?;
        due += messages.len();
        token = next;
        if token.is_none() || is_late() {
            break;
        }
    }
    Ok(Swept { due, notes })
}

/// One digest an hour at most, and none without a note. What it told is forgotten after it was sent,
/// so a note may be told twice and is never lost.
async fn tell<C: Cloud>(cloud: &C) -> Result<usize, Fault> {
    let notes = notes(cloud).await?;
    let Some((subject, text)) = report::digest(&notes) else { return Ok(0) };
    cloud.notify(&subject, &text).await?;
    for note in &notes {
        cloud.forget(note).await?;
    }
    Ok(notes.len())
}

/// What a digest tells of; the rest waits for the next.
async fn notes<C: Cloud>(cloud: &C) -> Result<Vec<Note>, CallError> {
    let (mut notes, mut token) = (Vec::new(), None);
    while notes.len() < MOST_TOLD {
        let Page { items, next } = cloud.notes(token.as_deref()).await?;
        notes.extend(items);
        token = next;
        if token.is_none() {
            break;
        }
    }
    notes.truncate(MOST_TOLD);
    Ok(notes)
}
