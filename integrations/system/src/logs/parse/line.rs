//! What a line says: the form in which every format hands over what it read.

use std::borrow::Cow;

/// A value that a line holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    /// Nothing.
    Null,
    /// Text.
    Text(Cow<'a, str>),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Bytes that are no text.
    Bytes(Cow<'a, [u8]>),
    /// Several values.
    List(Vec<Field<'a>>),
    /// Named values.
    Map(Vec<(Cow<'a, str>, Field<'a>)>),
}

impl<'a> Field<'a> {
    /// Text that borrows from the line.
    pub fn text(text: &'a str) -> Self {
        Field::Text(Cow::Borrowed(text))
    }

    /// A whole number if the text is one, otherwise the text.
    pub fn int_or_text(text: &'a str) -> Self {
        text.parse().map_or_else(|_| Field::text(text), Field::Int)
    }

    /// The text of a scalar.
    pub fn scalar(&self) -> Option<Cow<'_, str>> {
        match self {
            Field::Text(text) => Some(Cow::Borrowed(text)),
            Field::Int(number) => Some(number.to_string().into()),
            Field::Float(number) => Some(number.to_string().into()),
            Field::Bool(value) => Some(value.to_string().into()),
            Field::Null | Field::Bytes(_) | Field::List(_) | Field::Map(_) => None,
        }
    }
}

/// What a line says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line<'a> {
    /// When it happened, unix nanoseconds; 0 = the line does not say.
    pub time_unix_nano: u64,
    /// OpenTelemetry severity, 1 to 24; 0 = the line does not say.
    pub severity_number: i32,
    /// The severity in the line's own word.
    pub severity_text: Cow<'a, str>,
    /// The message; `None` = the whole line.
    pub body: Option<Cow<'a, str>>,
    /// Everything else that it says.
    pub attributes: Vec<(Cow<'a, str>, Field<'a>)>,
    /// W3C trace id.
    pub trace_id: Option<[u8; 16]>,
    /// W3C span id.
    pub span_id: Option<[u8; 8]>,
    /// Why the line is not in the format that was configured; its text is the body then.
    pub error: Option<&'static str>,
}

impl<'a> Line<'a> {
    /// A line that is not in the configured format.
    pub fn unreadable(why: &'static str) -> Self {
        Line { error: Some(why), ..Line::default() }
    }

    /// Adds an attribute.
    pub fn put(&mut self, key: &'a str, value: Field<'a>) {
        self.attributes.push((Cow::Borrowed(key), value));
    }

    /// Adds a text attribute unless the line says `-` or nothing for it.
    pub fn put_known(&mut self, key: &'a str, value: &'a str) {
        if !value.is_empty() && value != "-" {
            self.put(key, Field::text(value));
        }
    }

    /// The value of an attribute.
    pub fn get(&self, key: &str) -> Option<&Field<'a>> {
        self.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Takes an attribute out.
    pub fn take(&mut self, key: &str) -> Option<Field<'a>> {
        let at = self.attributes.iter().position(|(name, _)| name == key)?;
        Some(self.attributes.remove(at).1)
    }
}
