//! CSV (RFC 4180) with or without a header line: every column of numbers becomes a metric.

use ::csv::{ReaderBuilder, StringRecord, Trim};

use super::cell::{self, Cell};
use super::sample::{BadOutput, Sample, shown};

/// How CSV is read.
#[derive(Clone, Debug)]
pub(super) struct CsvOptions {
    /// One byte between cells.
    pub delimiter: u8,
    /// Whether the first line names the columns (or, with `columns`, is left out).
    pub has_header: bool,
    /// Names of the columns; empty = from the header.
    pub columns: Vec<String>,
    /// Columns that become labels of their row.
    pub label_columns: Vec<String>,
    /// Columns that must hold numbers; text in others is left out.
    pub number_columns: Vec<String>,
}

/// Reads all rows; those that do not fit are left out, and the first of them is the error.
pub(super) fn parse(text: &str, options: &CsvOptions, samples: &mut Vec<Sample>) -> Result<(), BadOutput> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .delimiter(options.delimiter)
        .from_reader(text.as_bytes());
    let mut columns = options.columns.clone();
    let mut skip_header = options.has_header;
    let mut first_problem = None;
    let mut has_values = false;
    let (mut row, mut rows) = (StringRecord::new(), 0_u64);
    loop {
        match reader.read_record(&mut row) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                let line = error.position().map_or(1, ::csv::Position::line);
                first_problem.get_or_insert(BadOutput::new(line, "expected CSV text"));
                break;
            }
        }
        if std::mem::take(&mut skip_header) {
            if columns.is_empty() {
                columns = row.iter().map(column_name).collect();
            }
            continue;
        }
        rows += 1;
        let line = row.position().map_or(1, ::csv::Position::line);
        match row_samples(&row, &columns, options, samples) {
            Ok(found) => has_values |= found,
            Err(problem) => {
                first_problem.get_or_insert(BadOutput::new(line, problem));
            }
        }
    }
    if rows > 0 && !has_values && first_problem.is_none() {
        first_problem =
            Some(BadOutput::new(1, format!("expected CSV with a column of numbers, found `{}`", shown(text))));
    }
    first_problem.map_or(Ok(()), Err)
}

/// The name without the unit in brackets that some programs add: `power.draw [W]`.
fn column_name(header: &str) -> String {
    let name = header.split_once('[').map_or(header, |(name, _)| name);
    name.trim().trim_start_matches('\u{feff}').replace(' ', "_")
}

/// Adds the numbers of a row; whether it has any, or cells that stand for no value.
fn row_samples(
    row: &StringRecord,
    columns: &[String],
    options: &CsvOptions,
    samples: &mut Vec<Sample>,
) -> Result<bool, String> {
    if row.len() != columns.len() {
        let found: Vec<&str> = row.iter().collect();
        return Err(format!(
            "expected {} columns, found {} in `{}`",
            columns.len(),
            row.len(),
            shown(&found.join(","))
        ));
    }
    let labels: Vec<(String, String)> = columns
        .iter()
        .zip(row)
        .filter(|(column, cell)| options.label_columns.contains(column) && !cell.is_empty())
        .map(|(column, cell)| (column.clone(), cell.to_owned()))
        .collect();
    let before = samples.len();
    let mut has_values = false;
    for (column, text) in columns.iter().zip(row) {
        if options.label_columns.contains(column) {
            continue;
        }
        match cell::read(text) {
            Cell::Number(value) => {
                has_values = true;
                samples.push(Sample::gauge(column.clone(), labels.clone(), value));
            }
            Cell::Absent => has_values = true,
            Cell::Text if options.number_columns.contains(column) => {
                samples.truncate(before);
                return Err(format!("expected a number in column `{column}`, found `{}`", shown(text)));
            }
            Cell::Text => {}
        }
    }
    Ok(has_values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(columns: &[&str], label_columns: &[&str]) -> CsvOptions {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        CsvOptions {
            delimiter: b',',
            has_header: columns.is_empty(),
            columns: owned(columns),
            label_columns: owned(label_columns),
            number_columns: Vec::new(),
        }
    }

    fn read(text: &str, options: &CsvOptions) -> (Vec<String>, Result<(), BadOutput>) {
        let mut samples = Vec::new();
        let result = parse(text, options, &mut samples);
        let lines = samples.iter().map(|s| {
            format!(
                "{} {:?} {}",
                s.path,
                s.labels.iter().map(|l| l.1.as_str()).collect::<Vec<_>>(),
                s.value.as_f64().unwrap()
            )
        });
        (lines.collect(), result)
    }

    #[test]
    fn a_header_names_the_columns_and_its_units_are_left_out() {
        let text = "name, utilization.gpu [%], memory.used [MiB], state\r\n\"A, 1\", 35 %, 1024 MiB, P0\r\nB, [N/A], 7 MiB, P8\r\n";
        let (samples, result) = read(text, &options(&[], &["name"]));
        assert_eq!(result, Ok(()));
        assert_eq!(samples, ["utilization.gpu [\"A, 1\"] 35", "memory.used [\"A, 1\"] 1024", "memory.used [\"B\"] 7"]);
    }

    #[test]
    fn rows_that_do_not_fit_are_named_and_the_others_kept() {
        let (samples, result) = read("a,1\nbroken\nb,2\n", &options(&["who", "count"], &["who"]));
        assert_eq!(samples, ["count [\"a\"] 1", "count [\"b\"] 2"]);
        let error = result.unwrap_err();
        assert_eq!((error.line, error.problem.as_str()), (2, "expected 2 columns, found 1 in `broken`"));
    }

    #[test]
    fn text_in_a_column_that_must_hold_numbers_is_a_mistake() {
        let options = CsvOptions { number_columns: vec!["count".into()], ..options(&["who", "count"], &["who"]) };
        let (samples, result) = read("a,many\nb,2\nc,[N/A]\n", &options);
        assert_eq!(samples, ["count [\"b\"] 2"]);
        assert_eq!(result.unwrap_err().problem, "expected a number in column `count`, found `many`");
    }

    #[test]
    fn output_without_any_number_is_a_mistake_but_no_rows_are_none() {
        assert!(read("a,b\nx,y\n", &options(&[], &[])).1.is_err());
        assert_eq!(read("a,b\n", &options(&[], &[])).1, Ok(()));
        assert_eq!(read("a,[N/A]\n", &options(&["who", "count"], &["who"])).1, Ok(()));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(?s).{0,120}", columns in 0_usize..4) {
            let names = ["a", "b", "c", "d"];
            let _ = read(&text, &options(&names[..columns], &["a"]));
        }
    }
}
