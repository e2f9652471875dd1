//! JSON without allocation: an object is written as it is printed. Any context.

use core::fmt::{self, Display, Write};

/// A value.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Text.
    Text(&'a dyn Display),
    /// A number.
    Number(u64),
    /// Tenths, shown with one decimal.
    Tenths(u64),
    /// A truth.
    Bool(bool),
    /// Text of words separated by single spaces, as an array.
    Words(&'a dyn Display),
    /// Objects.
    Objects(&'a [&'a dyn Display]),
}

/// An object: an event's name and its fields.
pub struct Object<'a> {
    /// The event's name; `None` for an object inside another.
    pub event: Option<&'static str>,
    /// Names and values.
    pub fields: &'a [(&'static str, Value<'a>)],
}

impl Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('{')?;
        let mut first = true;
        if let Some(event) = self.event {
            write!(f, "\"event\":\"{event}\"")?;
            first = false;
        }
        for (name, value) in self.fields {
            if !core::mem::take(&mut first) {
                f.write_char(',')?;
            }
            write!(f, "\"{name}\":{value}")?;
        }
        f.write_char('}')
    }
}

impl Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => {
                f.write_char('"')?;
                write!(Escaped { out: f, words: false }, "{text}")?;
                f.write_char('"')
            }
            Self::Number(number) => number.fmt(f),
            Self::Tenths(tenths) => write!(f, "{}.{}", tenths / 10, tenths % 10),
            Self::Bool(truth) => truth.fmt(f),
            Self::Words(words) => {
                // An empty text is an empty array: the quotes come with the first character.
                f.write_char('[')?;
                let mut quoted = Quoted { out: f, open: false };
                write!(quoted, "{words}")?;
                if quoted.open {
                    f.write_char('"')?;
                }
                f.write_char(']')
            }
            Self::Objects(objects) => {
                f.write_char('[')?;
                for (at, object) in objects.iter().enumerate() {
                    if at > 0 {
                        f.write_char(',')?;
                    }
                    object.fmt(f)?;
                }
                f.write_char(']')
            }
        }
    }
}

/// Escapes everything that is not printable ASCII.
struct Escaped<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    words: bool,
}

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                ' ' if self.words => self.out.write_str("\",\"")?,
                '"' | '\\' => write!(self.out, "\\{c}")?,
                ' '..='~' => self.out.write_char(c)?,
                _ => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        write!(self.out, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

struct Quoted<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    open: bool,
}

impl Write for Quoted<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.is_empty() && !core::mem::replace(&mut self.open, true) {
            self.out.write_char('"')?;
        }
        Escaped { out: self.out, words: true }.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn every_kind_of_value() {
        let inner = Object { event: None, fields: &[("index", Value::Number(1))] };
        let object = Object {
            event: Some("x"),
            fields: &[
                ("t", Value::Text(&"a\"b\\c\n\u{e9}\u{1f600}")),
                ("d", Value::Tenths(123)),
                ("b", Value::Bool(false)),
                ("w", Value::Words(&"one two")),
                ("e", Value::Words(&"")),
                ("o", Value::Objects(&[&inner, &inner])),
            ],
        };
        let want = r#"{"event":"x","t":"a\"b\\c\u000a\u00e9\ud83d\ude00","d":12.3,"b":false,"w":["one","two"],"e":[],"o":[{"index":1},{"index":1}]}"#;
        assert_eq!(object.to_string(), want);
    }
}
