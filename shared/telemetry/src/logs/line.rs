//! One log line, with the fields of the run and task that it is about.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use crate::About;

/// An object per line: `timestamp`, `level`, the line's own fields, those of [`About`] that are not among them,
/// `target`.
pub(super) struct Json;

/// For people, as `tracing-subscriber` writes it, with the fields of [`About`] at its end.
pub(super) struct Text(format::Format);

struct Fields(Map<String, Value>);

impl Text {
    pub(super) fn new(colours: bool) -> Self {
        Self(format::Format::default().with_ansi(colours))
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let metadata = event.metadata();
        let mut fields = Fields(Map::new());
        fields.0.insert("timestamp".into(), time.into());
        fields.0.insert("level".into(), metadata.level().as_str().into());
        event.record(&mut fields);
        let Fields(mut line) = fields;
        About::fields(|name, value| {
            line.entry(name).or_insert_with(|| match name {
                "attempt" => value.to_string().parse::<u32>().map_or(Value::Null, Value::from),
                _ => value.to_string().into(),
            });
        });
        line.insert("target".into(), metadata.target().into());
        writeln!(to, "{}", Value::Object(line))
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let own: Vec<&str> = event.metadata().fields().iter().map(|field| field.name()).collect();
        to.write_str(line.trim_end_matches('\n'))?;
        let mut written = Ok(());
        About::fields(|name, value| {
            if !own.contains(&name) {
                written = written.and_then(|()| write!(to, " {name}={value}"));
            }
        });
        written?;
        writeln!(to)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use futures::FutureExt;
    use trireme_model::{RunId, TaskId};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(json: bool, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let to = lines.clone();
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone());
        let about = About {
            run: RunId::new("r-1").ok(),
            task: TaskId::new("a/0").ok(),
            attempt: 2,
            span: Some((0xabc, 0xd)),
        };
        let work = about.scope(async { log() });
        if json {
            tracing::subscriber::with_default(builder.event_format(Json).finish(), || work.now_or_never());
        } else {
            let text = builder.event_format(Text::new(false)).finish();
            tracing::subscriber::with_default(text, || work.now_or_never());
        }
        String::from_utf8(std::mem::take(&mut *lines.0.lock().unwrap())).unwrap()
    }

    #[test]
    fn a_line_says_what_it_is_about() {
        let text = written(true, || tracing::warn!(code = 7, bad = true, task = "b", "the \"call\"\nfailed"));
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["run"], &line["attempt"]), (&"r-1".into(), &2.into()));
        assert_eq!(line["task"], "b", "what the line says itself goes first");
        assert_eq!(line["trace_id"], "00000000000000000000000000000abc");
        assert_eq!((&line["span_id"], &line["level"]), (&"000000000000000d".into(), &"WARN".into()));
        assert_eq!(
            (&line["message"], &line["code"], &line["bad"]),
            (&"the \"call\"\nfailed".into(), &7.into(), &true.into())
        );
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && line["target"].is_string(), "{line}");
        let text = written(false, || tracing::warn!(task = "b", "failed"));
        assert!(text.contains("failed") && text.contains(" run=r-1 attempt=2 trace_id="), "{text}");
        assert!(!text.contains("task=a/0"), "{text}");
    }

    #[test]
    fn a_line_about_nothing_in_particular_has_no_such_fields() {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || to.clone()).event_format(Json).finish();
        tracing::subscriber::with_default(subscriber, || tracing::info!("up"));
        let line: Value = serde_json::from_slice(&lines.0.lock().unwrap()).unwrap();
        assert_eq!((&line["message"], line.get("run"), line.get("trace_id")), (&"up".into(), None, None));
    }
}
