//! The tables of the file, and what one transaction does to them.

use std::collections::BTreeMap;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use weir_model::Signal;

use crate::dead_letters::letter::{Filter, Head, Id, Kept, Page, Selection, Summary};
use crate::dead_letters::prepare::{Key, Prepared, key};
use crate::dead_letters::trouble::{Result, Trouble};
use crate::ledger::DEAD_LETTERS;

type Text = &'static str;
type Raw = &'static [u8];

/// Everything about a letter but its records, as JSON.
const HEADS: TableDefinition<u64, Raw> = TableDefinition::new("heads");
/// An OTLP export request per letter.
const PAYLOADS: TableDefinition<u64, Raw> = TableDefinition::new("payloads");
/// The letter of a [`Key`] and a source.
const KEYS: TableDefinition<Raw, u64> = TableDefinition::new("keys");
/// Letters and bytes by exporter, source and signal.
const TOTALS: TableDefinition<(Text, Text, Text), (u64, u64)> = TableDefinition::new("totals");
/// What is remembered of letters that were replayed and removed.
const REPLAYED: TableDefinition<Raw, Raw> = TableDefinition::new("replayed");
/// The largest id ever given, below [`LAST_ID`].
const MARKS: TableDefinition<Text, u64> = TableDefinition::new("marks");
const LAST_ID: &str = "last_id";

/// So many replayed letters are remembered at most, about 100 bytes each.
const REPLAYED_LETTERS: u64 = 10_000;

/// Exporter, source and signal.
pub(super) type Place = (String, String, String);

/// Letters and bytes, by place.
pub(super) type Totals = BTreeMap<Place, (u64, u64)>;

/// What is known of a replayed letter, should its records come back.
#[derive(Debug, Serialize, Deserialize)]
struct Replayed {
    source: String,
    first_ms: i64,
    last_ms: i64,
    times: u64,
}

/// What became of a letter in a replay.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its records arrived.
    Delivered,
    /// They were refused again, for this reason.
    Refused(String),
}

/// A head that this version cannot read.
fn unreadable(id: Id, error: impl std::fmt::Display) -> Trouble {
    Trouble::Damage(format!("the dead letter {id} cannot be read: {error}"))
}

fn read_head(id: Id, raw: &[u8]) -> Result<(Head, Signal)> {
    let head: Head = serde_json::from_slice(raw).map_err(|error| unreadable(id, error))?;
    let signal = head.signal().ok_or_else(|| unreadable(id, "unknown signal"))?;
    Ok((head, signal))
}

fn write_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Trouble::Disk(error.into()))
}

/// The key of a letter, which [`KEYS`] holds.
fn with_source(key: &Key, source: &str) -> Vec<u8> {
    [key.as_slice(), source.as_bytes()].concat()
}

fn place_of(head: &Head) -> Place {
    (head.exporter.clone(), head.source.clone(), head.signal.clone())
}

/// Makes the tables of a new file.
pub(super) fn make(transaction: &WriteTransaction) -> Result<Totals> {
    Ok(Writing::begin(transaction)?.totals)
}

/// The tables of a transaction that writes.
pub(super) struct Writing<'t> {
    heads: Table<'t, u64, Raw>,
    payloads: Table<'t, u64, Raw>,
    keys: Table<'t, Raw, u64>,
    totals_table: Table<'t, (Text, Text, Text), (u64, u64)>,
    replayed: Table<'t, Raw, Raw>,
    marks: Table<'t, Text, u64>,
    totals: Totals,
}

impl<'t> Writing<'t> {
    pub fn begin(transaction: &'t WriteTransaction) -> Result<Self> {
        let totals_table = transaction.open_table(TOTALS)?;
        let totals = read_totals(&totals_table)?;
        Ok(Self {
            heads: transaction.open_table(HEADS)?,
            payloads: transaction.open_table(PAYLOADS)?,
            keys: transaction.open_table(KEYS)?,
            replayed: transaction.open_table(REPLAYED)?,
            marks: transaction.open_table(MARKS)?,
            totals_table,
            totals,
        })
    }

    /// Writes the totals and gives them.
    pub fn finish(mut self) -> Result<Totals> {
        self.totals.retain(|_, (letters, _)| *letters > 0);
        for (place, now) in &self.totals {
            self.totals_table.insert((place.0.as_str(), place.1.as_str(), place.2.as_str()), *now)?;
        }
        let totals = &self.totals;
        self.totals_table.retain(|(exporter, source, signal), _| {
            totals.contains_key(&(exporter.to_owned(), source.to_owned(), signal.to_owned()))
        })?;
        Ok(self.totals)
    }

    /// Stores a letter, or counts it where its records are there already.
    pub fn keep(&mut self, letter: &Prepared, now_ms: i64) -> Result<()> {
        if let Some(id) = self.known(letter)? {
            let (mut head, _) = self.head(id)?;
            head.records = letter.head.records;
            head.reason.clone_from(&letter.head.reason);
            head.status = letter.head.status;
            head.grpc_status.clone_from(&letter.head.grpc_status);
            head.answer.clone_from(&letter.head.answer);
            return self.again(id, head, now_ms);
        }
        let mut head = letter.head.clone();
        (head.first_ms, head.last_ms, head.times) = (now_ms, now_ms, 1);
        if head.source == DEAD_LETTERS
            && let Some(before) = self.replayed.remove(letter.key.as_slice())?
            && let Ok(before) = serde_json::from_slice::<Replayed>(before.value())
        {
            head.source = before.source;
            head.first_ms = before.first_ms;
            head.times = before.times.saturating_add(1);
        }
        let id = self.new_id(now_ms)?;
        self.keys.insert(with_source(&letter.key, &head.source).as_slice(), id.number())?;
        self.payloads.insert(id.number(), letter.payload.as_ref())?;
        self.put_head(id, &head)
    }

    /// The letter that has the records already. What is replayed comes from a source of its own, so
    /// there any source counts.
    fn known(&self, letter: &Prepared) -> Result<Option<Id>> {
        if letter.head.source == DEAD_LETTERS {
            let from = letter.key.as_slice();
            let first = self.keys.range::<&[u8]>(from..)?.next().transpose()?;
            return Ok(first
                .filter(|(found, _)| found.value().starts_with(from))
                .map(|(_, id)| id.value())
                .map(Id::from_number));
        }
        let found = self.keys.get(with_source(&letter.key, &letter.head.source).as_slice())?;
        Ok(found.map(|id| Id::from_number(id.value())))
    }

    fn new_id(&mut self, now_ms: i64) -> Result<Id> {
        let last = self.marks.get(LAST_ID)?.map_or(Id::FIRST, |last| Id::from_number(last.value()));
        let id = last.next().max(Id::at(now_ms));
        self.marks.insert(LAST_ID, id.number())?;
        Ok(id)
    }

    fn head(&self, id: Id) -> Result<(Head, usize)> {
        let raw = self.heads.get(id.number())?.ok_or_else(|| unreadable(id, "it is listed but not there"))?;
        Ok((read_head(id, raw.value())?.0, raw.value().len()))
    }

    fn put_head(&mut self, id: Id, head: &Head) -> Result<()> {
        let raw = write_json(head)?;
        let (letters, bytes) = self.totals.entry(place_of(head)).or_default();
        *letters += 1;
        *bytes = bytes.saturating_add(head.payload_bytes).saturating_add(raw.len() as u64);
        self.heads.insert(id.number(), raw.as_slice())?;
        Ok(())
    }

    fn uncount(&mut self, head: &Head, head_bytes: usize) {
        if let Some((letters, bytes)) = self.totals.get_mut(&place_of(head)) {
            *letters = letters.saturating_sub(1);
            *bytes = bytes.saturating_sub(head.payload_bytes.saturating_add(head_bytes as u64));
        }
    }

    /// Counts one more refusal of a letter that is there.
    fn again(&mut self, id: Id, mut head: Head, now_ms: i64) -> Result<()> {
        let (old, old_bytes) = self.head(id)?;
        self.uncount(&old, old_bytes);
        head.times = head.times.saturating_add(1);
        head.last_ms = now_ms;
        self.put_head(id, &head)
    }

    /// Removes a letter; `None` if it is not there.
    pub fn remove(&mut self, id: Id) -> Result<Option<(Head, Key)>> {
        let Some((head, head_bytes)) = self
            .heads
            .remove(id.number())?
            .map(|raw| {
                let bytes = raw.value().len();
                read_head(id, raw.value()).map(|(head, _)| (head, bytes))
            })
            .transpose()?
        else {
            return Ok(None);
        };
        self.uncount(&head, head_bytes);
        let payload = self.payloads.remove(id.number())?.ok_or_else(|| unreadable(id, "its records are missing"))?;
        let key = key(&head.exporter, &head.signal, payload.value());
        drop(payload);
        self.keys.remove(with_source(&key, &head.source).as_slice())?;
        Ok(Some((head, key)))
    }

    /// Bytes of all letters.
    pub fn bytes(&self) -> u64 {
        self.totals.values().map(|(_, bytes)| bytes).sum()
    }

    /// Removes the oldest letters until the others fit, but never the newest one. Gives how many.
    pub fn evict(&mut self, limit_bytes: u64) -> Result<u64> {
        let mut evicted = 0;
        while self.bytes() > limit_bytes && self.heads.len()? > 1 {
            let Some(oldest) = self.heads.first()?.map(|(id, _)| Id::from_number(id.value())) else { break };
            self.remove(oldest)?;
            evicted += 1;
        }
        Ok(evicted)
    }

    /// Removes letters that were not refused since a moment, looking at so many. Gives how many.
    pub fn expire(&mut self, before_ms: i64, look_at: usize) -> Result<u64> {
        let mut expired = Vec::new();
        for entry in self.heads.range(..Id::at(before_ms).number())?.take(look_at) {
            let (id, raw) = entry?;
            let id = Id::from_number(id.value());
            if read_head(id, raw.value())?.0.last_ms < before_ms {
                expired.push(id);
            }
        }
        for id in &expired {
            self.remove(*id)?;
        }
        Ok(expired.len() as u64)
    }

    /// Forgets replayed letters that did not come back since a moment.
    pub fn forget_replayed(&mut self, before_ms: i64) -> Result<()> {
        let recent = |raw: &[u8]| serde_json::from_slice(raw).is_ok_and(|it: Replayed| it.last_ms >= before_ms);
        Ok(self.replayed.retain(|_, raw| recent(raw))?)
    }

    /// Notes what a replay made of a letter that had been refused `times` times when it was handed
    /// out; gives whether it is gone. A letter that was refused meanwhile is left as it is: that is
    /// the newer news.
    pub fn settle(&mut self, id: Id, times: u64, outcome: &Outcome, now_ms: i64) -> Result<bool> {
        if self.heads.get(id.number())?.is_none() {
            return Ok(true);
        }
        let (mut head, _) = self.head(id)?;
        if head.times != times {
            return Ok(false);
        }
        match outcome {
            Outcome::Refused(reason) => {
                head.reason.clone_from(reason);
                self.again(id, head, now_ms)?;
                Ok(false)
            }
            Outcome::Delivered => {
                let Some((head, key)) = self.remove(id)? else { return Ok(true) };
                while self.replayed.len()? >= REPLAYED_LETTERS {
                    self.replayed.pop_first()?;
                }
                let note =
                    Replayed { source: head.source, first_ms: head.first_ms, last_ms: now_ms, times: head.times };
                self.replayed.insert(key.as_slice(), write_json(&note)?.as_slice())?;
                Ok(true)
            }
        }
    }

    /// Removes the letters of a selection behind `after`, at most so many. Gives the last one looked
    /// at, `None` at the end, and how many were removed.
    pub fn remove_selected(&mut self, selection: &Selection, after: Id, look_at: usize) -> Result<(Option<Id>, u64)> {
        let (ids, next) = selected(&self.heads, selection, after, Id::LAST, look_at)?;
        let mut removed = 0;
        for id in ids {
            removed += u64::from(self.remove(id)?.is_some());
        }
        Ok((next, removed))
    }
}

fn read_totals(table: &impl ReadableTable<(Text, Text, Text), (u64, u64)>) -> Result<Totals> {
    let mut totals = Totals::new();
    for entry in table.iter()? {
        let (place, counts) = entry?;
        let (exporter, source, signal) = place.value();
        totals.insert((exporter.to_owned(), source.to_owned(), signal.to_owned()), counts.value());
    }
    Ok(totals)
}

/// Ids of a selection behind `after` and up to `until`, oldest first, out of `look_at` letters; and
/// where to go on, `None` at the end.
fn selected(
    heads: &impl ReadableTable<u64, Raw>,
    selection: &Selection,
    after: Id,
    until: Id,
    look_at: usize,
) -> Result<(Vec<Id>, Option<Id>)> {
    let mut ids = Vec::new();
    if let Selection::Ids(wanted) = selection {
        let mut wanted: Vec<Id> = wanted.iter().copied().filter(|id| *id > after && *id <= until).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let next = wanted.get(..look_at).and_then(<[Id]>::last).copied();
        for id in wanted.into_iter().take(look_at) {
            if heads.get(id.number())?.is_some() {
                ids.push(id);
            }
        }
        return Ok((ids, next));
    }
    let (mut looked_at, mut last) = (0, after);
    for entry in heads.range(after.next().number()..=until.number())?.take(look_at) {
        let (id, raw) = entry?;
        last = Id::from_number(id.value());
        looked_at += 1;
        let takes = match selection {
            Selection::Of(scope) => {
                let (head, signal) = read_head(last, raw.value())?;
                scope.takes(&head.exporter, &head.source, signal)
            }
            Selection::All | Selection::Ids(_) => true,
        };
        if takes {
            ids.push(last);
        }
    }
    Ok((ids, (looked_at == look_at).then_some(last)))
}

/// The largest id that was ever given.
pub(super) fn last_id(transaction: &ReadTransaction) -> Result<Id> {
    let marks = transaction.open_table(MARKS)?;
    Ok(marks.get(LAST_ID)?.map_or(Id::FIRST, |last| Id::from_number(last.value())))
}

/// How many letters of a selection lie behind `after` and up to `until`.
pub(super) fn count(transaction: &ReadTransaction, selection: &Selection, after: Id, until: Id) -> Result<u64> {
    let heads = transaction.open_table(HEADS)?;
    Ok(selected(&heads, selection, after, until, usize::MAX)?.0.len() as u64)
}

/// Letters of a selection with their records, oldest first, out of `look_at` and until they take
/// `limit_bytes`; and where to go on, `None` at the end.
pub(super) fn take(
    transaction: &ReadTransaction,
    selection: &Selection,
    (after, until): (Id, Id),
    look_at: usize,
    limit_bytes: u64,
) -> Result<(Vec<Kept>, Option<Id>)> {
    let heads = transaction.open_table(HEADS)?;
    let (ids, next) = selected(&heads, selection, after, until, look_at)?;
    let (mut kept, mut bytes) = (Vec::with_capacity(ids.len()), 0_u64);
    for id in ids {
        if let Some(letter) = get(transaction, id)? {
            bytes = bytes.saturating_add(letter.summary.bytes);
            kept.push(letter);
            if bytes >= limit_bytes {
                return Ok((kept, Some(id)));
            }
        }
    }
    Ok((kept, next))
}

/// One letter with its records.
pub(super) fn get(transaction: &ReadTransaction, id: Id) -> Result<Option<Kept>> {
    let heads = transaction.open_table(HEADS)?;
    let Some(raw) = heads.get(id.number())? else { return Ok(None) };
    let (head, signal) = read_head(id, raw.value())?;
    let payloads = transaction.open_table(PAYLOADS)?;
    let bytes = payloads.get(id.number())?.ok_or_else(|| unreadable(id, "its records are missing"))?;
    let payload = head.payload(signal, Bytes::copy_from_slice(bytes.value()));
    Ok(Some(Kept { summary: head.summary(id, signal, raw.value().len()), payload }))
}

/// A page of the list.
pub(super) fn list(transaction: &ReadTransaction, filter: &Filter) -> Result<Page> {
    let mut page = Page::default();
    for ((exporter, source, signal), (letters, bytes)) in read_totals(&transaction.open_table(TOTALS)?)? {
        if Signal::ALL.iter().any(|known| known.name() == signal && filter.scope.takes(&exporter, &source, *known)) {
            page.total += letters;
            page.bytes = page.bytes.saturating_add(bytes);
        }
    }
    let heads = transaction.open_table(HEADS)?;
    let mut found = heads.range(..filter.before.unwrap_or(Id::LAST).number())?.rev();
    while (page.letters.len() as u64) < page.total && page.letters.len() < filter.limit {
        let Some(entry) = found.next() else { break };
        let (id, raw) = entry?;
        let id = Id::from_number(id.value());
        let (head, signal) = read_head(id, raw.value())?;
        if filter.scope.takes(&head.exporter, &head.source, signal) {
            let summary: Summary = head.summary(id, signal, raw.value().len());
            page.letters.push(summary);
        }
    }
    Ok(page)
}
