//! One line of an exposition, cut into its parts without copying.

use super::Format;

/// A range of the exposition, or, from its end on, of the texts that had escapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub const EMPTY: Span = Span { start: 0, end: 0 };

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The text; `base` is the exposition and `unescaped` what was added behind it.
    pub fn of<'a>(self, base: &'a str, unescaped: &'a str) -> &'a str {
        let (start, end) = (self.start as usize, self.end as usize);
        match start.checked_sub(base.len()) {
            Some(start) => unescaped.get(start..end - base.len()).unwrap_or_default(),
            None => base.get(start..end).unwrap_or_default(),
        }
    }
}

/// A label as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LabelSpan {
    pub name: Span,
    pub value: Span,
}

/// What a line says.
pub(super) enum Line {
    /// Nothing, or a remark for people.
    Nothing,
    /// `# HELP name text`
    Help(Span, Span),
    /// `# TYPE name type`
    Type(Span, Span),
    /// `# UNIT name unit`
    Unit(Span, Span),
    /// `# EOF`
    End,
    /// A sample; its labels are in [`Lexer::labels`], those of its exemplar in [`Lexer::sampled_labels`].
    Sample(SampleLine),
}

pub(super) struct SampleLine {
    pub name: Span,
    pub value: f64,
    /// 0 = none.
    pub time_unix_nano: u64,
    pub exemplar: Option<ExemplarLine>,
}

pub(super) struct ExemplarLine {
    pub value: f64,
    /// 0 = none.
    pub time_unix_nano: u64,
}

/// Reads lines. Its buffers serve all of them.
pub(super) struct Lexer<'t> {
    base: &'t str,
    format: Format,
    at: usize,
    end: usize,
    /// Texts that had escapes, without them.
    pub unescaped: String,
    /// Labels of the sample that was read last, empty values left out.
    pub labels: Vec<LabelSpan>,
    /// Labels of its exemplar.
    pub sampled_labels: Vec<LabelSpan>,
}

/// A column is of more use to people than a byte offset, but lines are short: show what is there.
fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

impl<'t> Lexer<'t> {
    pub fn new(base: &'t str, format: Format) -> Self {
        Self { base, format, at: 0, end: 0, unescaped: String::new(), labels: Vec::new(), sampled_labels: Vec::new() }
    }

    pub fn text(&self, span: Span) -> &str {
        span.of(self.base, &self.unescaped)
    }

    /// Reads the line between two positions of the exposition.
    pub fn line(&mut self, start: usize, end: usize) -> Result<Line, String> {
        (self.at, self.end) = (start, end);
        if self.format == Format::Text && self.rest().ends_with('\r') {
            self.end -= 1;
        }
        self.skip_blanks();
        match self.peek() {
            None => Ok(Line::Nothing),
            Some(b'#') => self.comment(),
            Some(_) => self.sample().map(Line::Sample),
        }
    }

    fn rest(&self) -> &'t str {
        self.base.get(self.at..self.end).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        if self.at < self.end { self.base.as_bytes().get(self.at).copied() } else { None }
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> Span {
        let start = self.at;
        while self.peek().is_some_and(&fits) {
            self.at += 1;
        }
        span(start, self.at)
    }

    fn token(&mut self) -> &'t str {
        self.skip_blanks();
        let token = self.take_while(|byte| !matches!(byte, b' ' | b'\t'));
        token.of(self.base, "")
    }

    fn expected(&self, what: &str) -> String {
        match self.rest() {
            "" => format!("expected {what}, the line ends"),
            rest => format!("expected {what}, found `{}`", excerpt(rest)),
        }
    }

    fn comment(&mut self) -> Result<Line, String> {
        self.at += 1;
        if !matches!(self.peek(), Some(b' ' | b'\t')) {
            return Ok(Line::Nothing);
        }
        let keyword = self.token();
        if keyword == "EOF" && self.format == Format::OpenMetrics {
            return if self.rest().is_empty() { Ok(Line::End) } else { Err(self.expected("nothing after `# EOF`")) };
        }
        if !matches!(keyword, "HELP" | "TYPE" | "UNIT") || (keyword == "UNIT" && self.format == Format::Text) {
            return Ok(Line::Nothing);
        }
        self.skip_blanks();
        let name = self.name(true)?;
        self.skip_blanks();
        Ok(match keyword {
            "HELP" => Line::Help(name, self.help()),
            "TYPE" => Line::Type(name, self.take_while(|byte| !matches!(byte, b' ' | b'\t'))),
            _ => Line::Unit(name, self.take_while(|byte| !matches!(byte, b' ' | b'\t'))),
        })
    }

    /// The rest of a HELP line; both formats escape `\\` and line feed, OpenMetrics quotes too.
    fn help(&mut self) -> Span {
        let raw = self.rest();
        let start = self.at;
        self.at = self.end;
        if raw.contains('\\') { self.unescape(raw, self.format == Format::OpenMetrics) } else { span(start, self.end) }
    }

    /// A metric name (may hold colons) or label name, bare or in quotes.
    fn name(&mut self, is_metric: bool) -> Result<Span, String> {
        if self.peek() == Some(b'"') {
            let name = self.quoted()?;
            return if name.is_empty() { Err("a name is empty".to_owned()) } else { Ok(name) };
        }
        let starts = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || (is_metric && byte == b':');
        if !self.peek().is_some_and(starts) {
            return Err(self.expected(if is_metric { "a metric name" } else { "a label name" }));
        }
        Ok(self.take_while(|byte| starts(byte) || byte.is_ascii_digit()))
    }

    /// A text in quotes, without them and its escapes.
    fn quoted(&mut self) -> Result<Span, String> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a text in quotes"));
        }
        self.at += 1;
        let (start, mut has_escapes) = (self.at, false);
        loop {
            match self.peek() {
                None => return Err("a quote is not closed before the end of the line".to_owned()),
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    self.at += 2;
                }
                Some(_) => self.at += 1,
            }
        }
        let inside = span(start, self.at);
        self.at += 1;
        Ok(if has_escapes { self.unescape(inside.of(self.base, ""), true) } else { inside })
    }

    /// `\\`, `\n` and, where `with_quotes`, `\"`. Other escapes stay as they are, as in Prometheus.
    fn unescape(&mut self, raw: &str, with_quotes: bool) -> Span {
        let start = self.base.len() + self.unescaped.len();
        let mut characters = raw.chars();
        while let Some(character) = characters.next() {
            if character != '\\' {
                self.unescaped.push(character);
                continue;
            }
            match characters.next() {
                Some('n') => self.unescaped.push('\n'),
                Some('\\') => self.unescaped.push('\\'),
                Some('"') if with_quotes => self.unescaped.push('"'),
                other => {
                    self.unescaped.push('\\');
                    self.unescaped.extend(other);
                }
            }
        }
        span(start, self.base.len() + self.unescaped.len())
    }

    fn sample(&mut self) -> Result<SampleLine, String> {
        self.labels.clear();
        self.sampled_labels.clear();
        let mut name = Span::EMPTY;
        if self.peek() != Some(b'{') {
            name = self.name(true)?;
            if !matches!(self.peek(), None | Some(b' ' | b'\t' | b'{')) {
                return Err(self.expected("a blank after the metric name"));
            }
            self.skip_blanks();
        }
        if self.peek() == Some(b'{') {
            let mut labels = std::mem::take(&mut self.labels);
            let read = self.labels_into(&mut labels, Some(&mut name));
            self.labels = labels;
            read?;
        }
        if name.is_empty() {
            return Err("the metric has no name".to_owned());
        }
        let value = self.value()?;
        let time_unix_nano = self.time()?;
        let exemplar = self.exemplar()?;
        self.skip_blanks();
        if self.peek().is_some() {
            return Err(self.expected("the end of the line"));
        }
        Ok(SampleLine { name, value, time_unix_nano, exemplar })
    }

    /// `{a="1","b"="2",}`. A name in quotes without a value is the metric's name, where it has none yet.
    fn labels_into(&mut self, labels: &mut Vec<LabelSpan>, metric: Option<&mut Span>) -> Result<(), String> {
        let mut metric = metric.filter(|name| name.is_empty());
        self.at += 1;
        loop {
            self.skip_blanks();
            if self.peek() == Some(b'}') {
                break;
            }
            let is_quoted = self.peek() == Some(b'"');
            let name = self.name(false)?;
            self.skip_blanks();
            if self.peek() == Some(b'=') {
                self.at += 1;
                self.skip_blanks();
                let value = self.quoted()?;
                if !value.is_empty() {
                    labels.push(LabelSpan { name, value });
                }
            } else {
                match metric.take() {
                    Some(metric) if is_quoted => *metric = name,
                    _ => return Err(self.expected("`=` after a label name")),
                }
            }
            self.skip_blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {}
                _ => return Err(self.expected("`,` or `}` after a label")),
            }
        }
        self.at += 1;
        let (base, unescaped) = (self.base, &self.unescaped);
        labels.sort_unstable_by(|a, b| a.name.of(base, unescaped).cmp(b.name.of(base, unescaped)));
        let twice = labels.windows(2).find_map(|pair| match pair {
            [a, b] if self.text(a.name) == self.text(b.name) => Some(self.text(a.name)),
            _ => None,
        });
        twice.map_or(Ok(()), |name| Err(format!("the label `{}` appears twice", excerpt(name))))
    }

    fn value(&mut self) -> Result<f64, String> {
        self.skip_blanks();
        let before = self.expected("a value");
        let token = self.token();
        if token.is_empty() { Err(before) } else { number(token) }
    }

    /// The timestamp behind a value, in nanoseconds; 0 where there is none.
    fn time(&mut self) -> Result<u64, String> {
        self.skip_blanks();
        if matches!(self.peek(), None | Some(b'#')) {
            return Ok(0);
        }
        let token = self.token();
        let nanoseconds = match self.format {
            Format::Text => token.parse::<u64>().ok().and_then(|milliseconds| milliseconds.checked_mul(1_000_000)),
            Format::OpenMetrics => token.parse::<f64>().ok().and_then(nanoseconds_of),
        };
        let unit = if self.format == Format::Text { "milliseconds" } else { "seconds" };
        nanoseconds.ok_or_else(|| format!("`{}` is no timestamp in {unit} since 1970", excerpt(token)))
    }

    fn exemplar(&mut self) -> Result<Option<ExemplarLine>, String> {
        self.skip_blanks();
        if self.format == Format::Text || self.peek() != Some(b'#') {
            return Ok(None);
        }
        self.at += 1;
        self.skip_blanks();
        if self.peek() != Some(b'{') {
            return Err(self.expected("the labels of an exemplar"));
        }
        let mut labels = std::mem::take(&mut self.sampled_labels);
        let read = self.labels_into(&mut labels, None);
        self.sampled_labels = labels;
        read?;
        Ok(Some(ExemplarLine { value: self.value()?, time_unix_nano: self.time()? }))
    }
}

/// Positions fit: expositions of 4 GiB and more are refused before they are read.
fn span(start: usize, end: usize) -> Span {
    let position = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span { start: position(start), end: position(end) }
}

/// A value as in Go's `strconv.ParseFloat`, without its hexadecimal forms.
pub(super) fn number(text: &str) -> Result<f64, String> {
    text.parse::<f64>().map_err(|_| format!("`{}` is no number", excerpt(text)))
}

/// Seconds to nanoseconds, to the microsecond: a double holds no more of today's times.
pub(super) fn nanoseconds_of(seconds: f64) -> Option<u64> {
    const LATEST_SECONDS: f64 = 18_000_000_000.0;
    if !(0.0..LATEST_SECONDS).contains(&seconds) {
        return None;
    }
    // In range and rounded, so the cast loses nothing.
    Some((seconds * 1e6).round() as u64 * 1000)
}
