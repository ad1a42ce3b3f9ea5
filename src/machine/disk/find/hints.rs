//! Root device hints: Ironic's way to say which disk (ironic-python-agent, `device_hints.py`; oslo.utils,
//! `specs_matcher.py`).
//!
//! The grammar and its meaning are kept, oddities included: `=` means "at least", a value that a disk does
//! not have is the text `none`, and text is compared in lower case with everything but letters, digits and
//! `_.-~/` escaped. Where the original fails while matching, a hint is refused when it is read.
//! `tests/hints/` holds what the original says.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

const GIB: f64 = (1_u64 << 30) as f64;

/// What is known of a disk, under the names that hints use.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Candidate {
    /// The node, e.g. `/dev/sda`.
    pub name: String,
    /// The size in bytes.
    pub size_bytes: u64,
    /// Whether it is a spinning disk.
    pub rotational: bool,
    /// The model.
    pub model: Option<String>,
    /// The vendor.
    pub vendor: Option<String>,
    /// The serial numbers: there can be several forms.
    pub serial: Vec<String>,
    /// The world-wide names: there can be several forms.
    pub wwn: Vec<String>,
    /// The world-wide name with the vendor's extension.
    pub wwn_with_extension: Option<String>,
    /// The vendor's extension alone.
    pub wwn_vendor_extension: Option<String>,
    /// The SCSI address: host, channel, target and LUN.
    pub hctl: Option<String>,
    /// The names by the way that it is connected, e.g. `/dev/disk/by-path/pci-…`: there can be several forms.
    pub by_path: Vec<String>,
    /// The transport, e.g. `nvme` or `sata`.
    pub tran: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Size,
    Model,
    Wwn,
    Serial,
    Vendor,
    WwnWithExtension,
    WwnVendorExtension,
    Name,
    Rotational,
    Hctl,
    ByPath,
    Tran,
}

const KEYS: [(&str, Key); 12] = [
    ("size", Key::Size),
    ("model", Key::Model),
    ("wwn", Key::Wwn),
    ("serial", Key::Serial),
    ("vendor", Key::Vendor),
    ("wwn_with_extension", Key::WwnWithExtension),
    ("wwn_vendor_extension", Key::WwnVendorExtension),
    ("name", Key::Name),
    ("rotational", Key::Rotational),
    ("hctl", Key::Hctl),
    ("by_path", Key::ByPath),
    ("tran", Key::Tran),
];

/// Operators in the order in which the grammar tries them: `==` before `=`.
const OPERATORS: [(&str, Operator); 17] = [
    ("<or>", Operator::Or),
    ("<all-in>", Operator::AllIn),
    ("<range-in>", Operator::RangeIn),
    ("==", Operator::Number(Comparison::Equal)),
    ("=", Operator::Number(Comparison::AtLeast)),
    ("!=", Operator::Number(Comparison::NotEqual)),
    ("<in>", Operator::In),
    (">=", Operator::Number(Comparison::AtLeast)),
    ("<=", Operator::Number(Comparison::AtMost)),
    (">", Operator::Number(Comparison::More)),
    ("<", Operator::Number(Comparison::Less)),
    ("s==", Operator::Text(Comparison::Equal)),
    ("s!=", Operator::Text(Comparison::NotEqual)),
    ("s<=", Operator::Text(Comparison::AtMost)),
    ("s<", Operator::Text(Comparison::Less)),
    ("s>=", Operator::Text(Comparison::AtLeast)),
    ("s>", Operator::Text(Comparison::More)),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Number(Comparison),
    Text(Comparison),
    In,
    Or,
    AllIn,
    RangeIn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
    More,
    Less,
}

impl Comparison {
    fn holds<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::AtLeast => left >= right,
            Self::AtMost => left <= right,
            Self::More => left > right,
            Self::Less => left < right,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Demand {
    Size(Comparison, f64),
    Rotational(bool),
    /// A comparison of text that reads as a number.
    Number(Comparison, f64),
    Text(Comparison, String),
    Contains(String),
    AnyOf(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
struct Hint {
    key: Key,
    demand: Demand,
    written: String,
}

/// Hints; a disk must satisfy all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hints(Vec<Hint>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("root device hint {hint}: {problem}")]
pub struct HintError {
    hint: String,
    problem: String,
}

impl From<Vec<Hints>> for Hints {
    fn from(all: Vec<Hints>) -> Self {
        Self(all.into_iter().flat_map(|hints| hints.0).collect())
    }
}

impl Hints {
    /// Reads the JSON object that Ironic keeps as `root_device`.
    pub fn from_json(object: &Value) -> Result<Self, HintError> {
        let error = |problem: &str| HintError {
            hint: object.to_string(),
            problem: problem.into(),
        };
        let object = object.as_object().ok_or_else(|| error("not a JSON object"))?;
        let hint = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Hint::parse(name, text),
            Value::Number(number) if matches!(name.as_str(), "size" | "rotational") => {
                Hint::parse(name, &number.to_string())
            }
            Value::Bool(flag) if name == "rotational" => Hint::parse(name, &flag.to_string()),
            _ => Err(HintError {
                hint: format!("{name}={value}"),
                problem: Key::named(name)
                    .err()
                    .unwrap_or_else(|| "not a string value".into()),
            }),
        };
        object.iter().map(hint).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says why a disk doesn't match, as `key is VALUE, wanted EXPRESSION`; `None` when it does.
    pub fn mismatch(&self, disk: &Candidate) -> Option<String> {
        let hint = self.0.iter().find(|hint| !hint.holds(disk))?;
        Some(format!(
            "{} is {}, wanted \"{}\"",
            hint.key,
            hint.key.shown(disk),
            hint.written.escape_debug()
        ))
    }
}

impl FromStr for Hints {
    type Err = HintError;

    /// Reads `key=expression`, or a JSON object.
    fn from_str(text: &str) -> Result<Self, HintError> {
        let error = |problem: &str| HintError {
            hint: text.into(),
            problem: problem.into(),
        };
        if text.trim_start().starts_with('{') {
            let object = serde_json::from_str(text).map_err(|problem| error(&problem.to_string()))?;
            return Self::from_json(&object);
        }
        let (name, expression) = text
            .split_once('=')
            .ok_or_else(|| error("write it as key=value, or with an operator as \"size=>= 100\""))?;
        let name = name.trim();
        if let Some(key) = name.strip_suffix(['<', '>', '!']) {
            let sign = &name[key.len()..];
            let problem = format!(
                "write the operator after a \"=\": \"{key}={sign}= {}\"",
                expression.trim()
            );
            return Err(error(&problem));
        }
        Ok(Self(vec![Hint::parse(name, expression)?]))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KEYS
            .iter()
            .find(|(_, key)| key == self)
            .map_or("", |(name, _)| name);
        out.write_str(name)
    }
}

impl Key {
    fn named(name: &str) -> Result<Self, String> {
        let key = KEYS.iter().find(|(known, _)| *known == name).map(|(_, key)| *key);
        key.ok_or_else(|| {
            format!(
                "unknown; known keys are {}",
                KEYS.map(|(known, _)| known).join(", ")
            )
        })
    }

    /// The disk's values of a key that is text.
    fn values(self, disk: &Candidate) -> Values<'_> {
        let one = |value: &'_ Option<String>| Values::One(value.as_deref().unwrap_or("none").to_string());
        match self {
            Self::Serial => Values::Several(&disk.serial),
            Self::Wwn => Values::Several(&disk.wwn),
            Self::Name => Values::One(disk.name.clone()),
            Self::Model => one(&disk.model),
            Self::Vendor => one(&disk.vendor),
            Self::WwnWithExtension => one(&disk.wwn_with_extension),
            Self::WwnVendorExtension => one(&disk.wwn_vendor_extension),
            Self::Hctl => one(&disk.hctl),
            Self::ByPath if disk.by_path.is_empty() => one(&None),
            Self::ByPath => Values::Several(&disk.by_path),
            Self::Tran => one(&disk.tran),
            Self::Size | Self::Rotational => Values::Several(&[]),
        }
    }

    fn shown(self, disk: &Candidate) -> String {
        match (self, self.values(disk)) {
            (Self::Size, _) => format!("{} GiB", disk.size_bytes as f64 / GIB),
            (Self::Rotational, _) => disk.rotational.to_string(),
            (_, Values::One(value)) => format!("\"{}\"", value.escape_debug()),
            (_, Values::Several([])) => "unknown".into(),
            (_, Values::Several(values)) => format!("\"{}\"", values.join("\" or \"").escape_debug()),
        }
    }
}

enum Values<'disk> {
    One(String),
    Several(&'disk [String]),
}

impl Hint {
    fn parse(name: &str, expression: &str) -> Result<Self, HintError> {
        let written = expression.trim().to_string();
        let error = |problem: String| HintError {
            hint: format!("{name}={written}"),
            problem,
        };
        let key = Key::named(name).map_err(error)?;
        let demand = match key {
            Key::Size => size_demand(&written),
            Key::Rotational => flag(&written).map(Demand::Rotational),
            _ => text_demand(&written),
        };
        Ok(Self {
            key,
            demand: demand.map_err(error)?,
            written,
        })
    }

    fn holds(&self, disk: &Candidate) -> bool {
        match &self.demand {
            Demand::Size(comparison, gib) => comparison.holds(&(disk.size_bytes as f64 / GIB), gib),
            Demand::Rotational(wanted) => disk.rotational == *wanted,
            demand => match self.key.values(disk) {
                Values::One(value) => demand.holds_for(&value),
                Values::Several(values) => values.iter().any(|value| demand.holds_for(value)),
            },
        }
    }
}

impl Demand {
    /// Whether a disk's text, made comparable, matches. Empty text never does.
    fn holds_for(&self, value: &str) -> bool {
        let Ok(value) = Expression::parse(value).and_then(|expression| expression.comparable()) else {
            return false;
        };
        match self {
            Self::Text(comparison, wanted) => comparison.holds(&value, wanted),
            Self::Number(comparison, wanted) => value
                .parse()
                .is_ok_and(|value: f64| comparison.holds(&value, wanted)),
            Self::Contains(wanted) => value.contains(wanted),
            Self::AnyOf(wanted) => wanted.contains(&value),
            Self::Size(..) | Self::Rotational(_) => false,
        }
    }
}

/// An operator and its values, in lower case.
struct Expression {
    operator: Option<(&'static str, Operator)>,
    values: Vec<String>,
}

impl Expression {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().to_lowercase();
        if text.is_empty() {
            return Err("it is empty".into());
        }
        let Some((sign, operator)) = OPERATORS.into_iter().find(|(sign, _)| text.starts_with(sign)) else {
            return Ok(Self {
                operator: None,
                values: vec![text],
            });
        };
        let values: Vec<String> = text
            .split(sign)
            .filter(|part| !part.is_empty())
            .map(|part| part.trim().into())
            .collect();
        let is_value =
            |value: &String| !value.is_empty() && !OPERATORS.iter().any(|(sign, _)| value.starts_with(sign));
        if !values.first().is_some_and(is_value) {
            return Err(format!("a value must follow {sign}"));
        }
        Ok(Self {
            operator: Some((sign, operator)),
            values,
        })
    }

    /// The text that is compared: operator and escaped values, as the original joins them.
    fn comparable(&self) -> Result<String, String> {
        let sign = self.operator.map_or("", |(sign, _)| sign);
        let values: Vec<String> = self
            .values
            .iter()
            .map(|value| format!(" {} ", quote(value)))
            .collect();
        Ok(format!("{sign}{}", values.join(sign)).trim().to_string())
    }
}

/// Python's `urllib.parse.quote`.
fn quote(text: &str) -> String {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte);
    text.bytes()
        .map(|byte| {
            if is_safe(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// Sizes are whole numbers of GiB.
fn size_demand(text: &str) -> Result<Demand, String> {
    let expression = Expression::parse(text)?;
    let comparison = match expression.operator {
        None => Comparison::Equal,
        Some((_, Operator::Number(comparison))) => comparison,
        Some((sign, _)) => {
            return Err(format!(
                "{sign} does not compare sizes; use ==, !=, <, <=, > or >="
            ));
        }
    };
    let gib = |value: &String| value.parse::<u32>().ok().filter(|gib| *gib > 0).map(f64::from);
    let sizes: Option<Vec<f64>> = expression.values.iter().map(gib).collect();
    let sizes = sizes.ok_or("the size must be a positive integer, in GiB")?;
    Ok(Demand::Size(comparison, sizes[0]))
}

fn text_demand(text: &str) -> Result<Demand, String> {
    let expression = Expression::parse(text)?;
    let mut values = expression.values.iter().map(|value| quote(value));
    let first = values.next().ok_or("it is empty")?;
    Ok(match expression.operator {
        None => Demand::Text(Comparison::Equal, first),
        Some((_, Operator::Text(comparison))) => Demand::Text(comparison, first),
        Some((sign, Operator::Number(comparison))) => {
            let number = first.parse().map_err(|_| {
                let of_text = if sign == "=" {
                    "s==".into()
                } else {
                    format!("s{sign}")
                };
                format!("{sign} compares numbers; use {of_text} for text")
            })?;
            Demand::Number(comparison, number)
        }
        Some((_, Operator::In)) => Demand::Contains(first),
        Some((_, Operator::Or)) => {
            let others = values.take_while(|value| !value.is_empty());
            Demand::AnyOf(std::iter::once(first).chain(others).collect())
        }
        Some((sign, Operator::AllIn | Operator::RangeIn)) => {
            return Err(format!("{sign} does not compare text; use <in>, <or> or s=="));
        }
    })
}

/// oslo.utils' `bool_from_string`.
fn flag(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Ok(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Ok(false),
        _ => Err("not a Boolean value (true or false)".into()),
    }
}
