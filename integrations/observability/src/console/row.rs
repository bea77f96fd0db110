//! One row of a block: a label, how full it is, and details of which the lesser ones give way where
//! the terminal is narrow.

use unicode_width::UnicodeWidthStr;

use super::style::{Line, Paint, Style};

/// Above this fraction a part of a machine is about to run out: red.
const ALARMING: f64 = 0.9;

/// Narrower terminals have no room for bars.
const WITH_BARS: usize = 80;

/// Narrower terminals have less room for labels.
const WITH_LONG_LABELS: usize = 100;

/// Columns before a row.
const INDENT: usize = 4;

/// A name and a value; either may be empty.
pub(super) struct Detail {
    name: String,
    value: String,
    paint: Paint,
    /// What gives way first has the least of it.
    importance: f64,
    /// What the value becomes before the detail is left out, and how important the difference is.
    shorter: Option<(f64, String, String)>,
}

impl Detail {
    /// A detail that only gives way when it must.
    pub(super) fn new(name: &str, value: String) -> Self {
        Self { name: name.to_owned(), value, paint: Paint::Plain, importance: f64::MAX, shorter: None }
    }

    /// What gives way first has the least importance.
    pub(super) fn importance(self, importance: f64) -> Self {
        Self { importance, ..self }
    }

    /// What it becomes before it is left out altogether.
    pub(super) fn or(self, importance: f64, name: &str, value: String) -> Self {
        Self { shorter: Some((importance, name.to_owned(), value)), ..self }
    }

    pub(super) fn paint(self, paint: Paint) -> Self {
        Self { paint, ..self }
    }

    /// How much is lost when it gives way one step.
    fn loss(&self) -> f64 {
        self.shorter.as_ref().map_or(self.importance, |(importance, ..)| *importance)
    }

    fn columns(&self) -> usize {
        let gap = usize::from(!self.name.is_empty() && !self.value.is_empty());
        self.name.width() + gap + self.value.width()
    }
}

/// Where details begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Behind bar and percentage, also where this row has none.
    Bar,
    /// Right behind the label.
    Label,
}

/// One row of a block.
pub(super) struct Row {
    label: String,
    /// How full, 0 to 1: a bar and a percentage.
    gauge: Option<f64>,
    /// How full at the polls up to this one: instead of the bar, where characters for it exist.
    history: Vec<f64>,
    /// Instead of a percentage that is not known yet.
    note: &'static str,
    details: Vec<Detail>,
    start: Start,
}

impl Row {
    pub(super) fn new(label: String, gauge: Option<f64>) -> Self {
        Self { label, gauge, history: Vec::new(), note: "", details: Vec::new(), start: Start::Bar }
    }

    /// A row without bar and percentage, whose details take their place.
    pub(super) fn of_details(label: &str) -> Self {
        Self { start: Start::Label, ..Self::new(label.to_owned(), None) }
    }

    /// A row that says what is wrong.
    pub(super) fn alarm(label: String, what: &str) -> Self {
        let mut row = Self::new(label, None);
        row.add(Detail::new("", what.to_owned()).paint(Paint::Red));
        row
    }

    /// The values of the last polls, the newest last.
    pub(super) fn with_history(self, history: Vec<f64>) -> Self {
        Self { history, ..self }
    }

    /// Says that the percentage is not known yet.
    pub(super) fn measuring(self) -> Self {
        Self { note: "measuring", ..self }
    }

    pub(super) fn add(&mut self, detail: Detail) {
        self.details.push(detail);
    }

    pub(super) fn detail(&mut self, name: &str, value: String) {
        self.add(Detail::new(name, value));
    }

    pub(super) fn detail_if(&mut self, value: Option<f64>, name: &str, text: impl Fn(f64) -> String) {
        if let Some(value) = value {
            self.detail(name, text(value));
        }
    }

    /// The row with the name of its first detail as its label; nothing where there is none.
    pub(super) fn named_by_its_first(mut self) -> Option<Self> {
        self.label = std::mem::take(&mut self.details.first_mut()?.name);
        Some(self)
    }

    /// Whether there is anything but the label.
    pub(super) fn says_something(&self) -> bool {
        self.gauge.is_some() || !self.note.is_empty() || !self.details.is_empty()
    }

    /// Takes away what is least important until the details fit.
    fn shorten(&mut self, room: usize) {
        let columns = |details: &[Detail]| {
            details.iter().map(Detail::columns).sum::<usize>() + GAP.len() * details.len().saturating_sub(1)
        };
        while columns(&self.details) > room {
            let least = self.details.iter().enumerate().rev().min_by(|(_, a), (_, b)| a.loss().total_cmp(&b.loss()));
            let Some((at, _)) = least else { return };
            let Some(detail) = self.details.get_mut(at) else { return };
            if let Some((_, name, value)) = detail.shorter.take() {
                (detail.name, detail.value) = (name, value);
            } else if self.details.len() > 1 {
                self.details.remove(at);
            } else {
                // The line is cut where not even one fits.
                return;
            }
        }
    }

    /// Writes the row with a label of so many columns.
    pub(super) fn write(mut self, label_columns: usize, style: &Style, out: &mut String) {
        const PERCENT: usize = 8;
        let mut line = Line::new(style, INDENT);
        line.push(&style.fit(&style.clean(&self.label), label_columns), Paint::Dim);
        let mut column = INDENT + label_columns + 2;
        line.pad_to(column);
        let bar_columns = if style.width < WITH_BARS { 0 } else { 11 };
        if let Some(full) = self.gauge {
            let paint = if full > ALARMING { Paint::Red } else { Paint::Plain };
            if bar_columns > 0 {
                let sparks = style.sparks(&self.history);
                match sparks {
                    Some((before, sparks)) => line.push(&before, Paint::Dim).push(&sparks, paint),
                    None => {
                        let (filled, rest) = style.bar(full);
                        line.push(&filled, paint).push(&rest, Paint::Dim)
                    }
                };
            }
            line.right(&format!("{:.1} %", full * 100.0), column + bar_columns + PERCENT - 1, paint);
        } else if !self.note.is_empty() {
            line.push(self.note, Paint::Dim).push(style.ellipsis(), Paint::Dim);
        }
        if self.start == Start::Bar {
            column += bar_columns + PERCENT + 2;
        }
        // What stands there instead of a percentage may be as wide as the room without a bar.
        let least = if self.note.is_empty() { 0 } else { line.columns() + 2 };
        line.pad_to(column.max(least));
        if style.cut {
            self.shorten(style.width.saturating_sub(line.columns()));
        }
        for (at, Detail { name, value, paint, .. }) in self.details.iter().enumerate() {
            line.push(if at > 0 { GAP } else { "" }, Paint::Plain).push(name, Paint::Dim);
            if !name.is_empty() && !value.is_empty() {
                line.push(" ", Paint::Plain);
            }
            line.push(&style.sign(value), *paint);
        }
        line.write(out);
    }
}

/// What stands between two details.
const GAP: &str = "   ";

/// The columns that the labels of a block take.
pub(super) fn label_columns(rows: &[Row], style: &Style) -> usize {
    let widest = rows.iter().map(|row| row.label.width()).max().unwrap_or_default();
    let most = match style.width {
        ..WITH_BARS => 12,
        WITH_BARS..WITH_LONG_LABELS => 14,
        _ => 16,
    };
    widest.clamp(9, most)
}
