//! Lines as the rest of Sallyport writes them: JSON on stderr, readable when stderr is a terminal.

use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace = 10,
    Debug = 20,
    Info = 30,
    Warn = 40,
    Error = 50,
}

pub enum Value {
    Text(String),
    Number(u64),
}

pub struct Log {
    level: Level,
    readable: bool,
}

impl Log {
    pub fn new(level: Level) -> Self {
        Log {
            level,
            readable: std::io::stderr().is_terminal(),
        }
    }

    pub fn write(&self, level: Level, message: &str, fields: &[(&str, Value)]) {
        if level < self.level {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = iso_time(now.as_secs(), now.subsec_millis());
        let line = if self.readable {
            readable(level, &time, message, fields)
        } else {
            json(level, &time, message, fields)
        };
        // Where nobody reads any more there is nobody to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

impl Level {
    pub fn named(name: &str) -> Option<Level> {
        [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error]
            .into_iter()
            .find(|level| level.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

fn json(level: Level, time: &str, message: &str, fields: &[(&str, Value)]) -> String {
    let mut line = format!(
        "{{\"level\":{},\"time\":\"{time}\",\"name\":\"sallyport\",\"part\":\"supervisor\"",
        level as u8
    );
    for (name, value) in fields {
        match value {
            Value::Number(number) => line.push_str(&format!(",\"{name}\":{number}")),
            Value::Text(text) => line.push_str(&format!(",\"{name}\":\"{}\"", escaped(text))),
        }
    }
    line.push_str(&format!(",\"msg\":\"{}\"}}\n", escaped(message)));
    line
}

fn readable(level: Level, time: &str, message: &str, fields: &[(&str, Value)]) -> String {
    let clock = &time[11..23];
    let mut line = format!(
        "{clock} {:<5} sallyport: {message}  part=supervisor",
        level.name().to_uppercase()
    );
    for (name, value) in fields {
        match value {
            Value::Number(number) => line.push_str(&format!(" {name}={number}")),
            Value::Text(text) => line.push_str(&format!(" {name}={}", escaped(text))),
        }
    }
    line.push('\n');
    line
}

/// For JSON, RFC 8259 §7.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if (control as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out
}

/// UTC with milliseconds. The calendar of 400-year eras, counted from 1 March 0000.
fn iso_time(seconds: u64, milliseconds: u32) -> String {
    const DAYS_TO_1970: u64 = 719_468;
    const ERA_DAYS: u64 = 146_097;
    let days = seconds / 86_400 + DAYS_TO_1970;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_times_of_leap_years_and_turns_of_years() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(iso_time(seconds, 7), text);
        }
    }

    #[test]
    fn lines_have_the_fields_of_the_other_parts_and_stay_one_line() {
        let fields = [
            ("pid", Value::Number(7)),
            ("why", Value::Text("a \"b\"\n\\c".into())),
        ];
        assert_eq!(
            json(Level::Warn, "T", "died", &fields),
            "{\"level\":40,\"time\":\"T\",\"name\":\"sallyport\",\"part\":\"supervisor\",\"pid\":7,\"why\":\"a \\\"b\\\"\\u000a\\\\c\",\"msg\":\"died\"}\n"
        );
        assert_eq!(
            readable(Level::Warn, "1970-01-01T00:00:00.007Z", "died", &fields),
            "00:00:00.007 WARN  sallyport: died  part=supervisor pid=7 why=a \\\"b\\\"\\u000a\\\\c\n"
        );
    }
}
