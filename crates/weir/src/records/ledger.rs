//! `weir ledger`.

use std::process::ExitCode;

use clap::Args;
use weir_pipeline::control::{LedgerRow, LedgerView, ledger_rows};
use weir_pipeline::storage;

use crate::records::table::table;
use crate::records::{Folder, Place};
use crate::say;

/// Options of `weir ledger`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Prints where every record is. A row that does not add up makes it fail.
pub async fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let view = read(&arguments.place.find().await?).await?;
    let text = if arguments.json {
        format!("{}\n", serde_json::to_string_pretty(&view).map_err(|error| error.to_string())?)
    } else {
        people(&view)
    };
    let said = say::out(&text);
    Ok(if view.rows.iter().any(|row| row.difference != 0) { ExitCode::FAILURE } else { said })
}

async fn read(folder: &Folder) -> Result<LedgerView, String> {
    match &folder.process {
        Some(process) => process.get("/api/v1/ledger").await,
        None => storage::ledger(&folder.path).map(|rows| ledger_rows(&rows)),
    }
}

fn people(view: &LedgerView) -> String {
    if view.rows.is_empty() {
        return "no record has come yet\n".to_owned();
    }
    let dropped = |row: &LedgerRow| {
        let reasons = row.dropped.iter().filter(|(_, records)| **records > 0);
        let reasons: Vec<String> = reasons.map(|(reason, records)| format!("{records} {reason}")).collect();
        if reasons.is_empty() { "0".to_owned() } else { reasons.join(", ") }
    };
    let cells = |row: &LedgerRow| {
        vec![
            row.source.clone(),
            row.exporter.clone(),
            row.signal.clone(),
            row.accepted.to_string(),
            row.delivered.to_string(),
            row.queued.to_string(),
            row.in_flight.to_string(),
            row.dead_lettered.to_string(),
            row.difference.to_string(),
            dropped(row),
        ]
    };
    let head = [
        "source",
        "exporter",
        "signal",
        "accepted",
        "delivered",
        "queued",
        "in flight",
        "dead letters",
        "difference",
        "dropped",
    ];
    let mut text = table(&head, &view.rows.iter().map(cells).collect::<Vec<_>>());
    match view.rows.iter().filter(|row| row.difference != 0).count() {
        0 => text.push_str(
            "every record is accounted for: accepted = delivered + queued + in flight + dead letters + dropped\n",
        ),
        wrong => text.push_str(&format!("{wrong} rows do not add up; that is an error of Weir, please report it\n")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_does_not_add_up_is_called_an_error() {
        let row = LedgerRow {
            source: "logs".into(),
            exporter: "otlp".into(),
            signal: "logs".into(),
            accepted: 10,
            delivered: 7,
            queued: 1,
            in_flight: 0,
            dead_lettered: 1,
            dropped: [("refused".to_owned(), 1)].into(),
            difference: 0,
        };
        let right = people(&LedgerView { rows: vec![row.clone()] });
        assert!(right.contains("every record is accounted for") && right.contains("1 refused"), "{right}");
        let wrong = people(&LedgerView { rows: vec![LedgerRow { difference: 3, ..row }] });
        assert!(wrong.contains("1 rows do not add up"), "{wrong}");
    }
}
