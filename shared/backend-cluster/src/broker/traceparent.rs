//! The trace context of a message, in its property `correlation-id`.
//!
//! The W3C's draft for AMQP has a header `traceparent`. With a table of headers RabbitMQ 3.10 spent 15 to 18 µs of CPU
//! more on a message, with this property up to 8 (`bench observation --ratio 1` prints the CPU of each process);
//! nobody but workers reads these messages.

use lapin::BasicProperties;
use trireme_model::Trace;

/// `properties` with the trace context.
pub(super) fn write(properties: BasicProperties, trace: &Trace) -> BasicProperties {
    properties.with_correlation_id(trace.to_string().into())
}

/// The trace context of a message. One that says something else, or is forged, is none: no state comes from it.
pub(super) fn read(properties: &BasicProperties) -> Option<Trace> {
    Trace::of_header(properties.correlation_id().as_ref()?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_anything_else_is_nothing() {
        let trace = Trace { id: 5, parent: 7, sampled: true };
        let written = write(BasicProperties::default().with_delivery_mode(2), &trace);
        assert_eq!((read(&written), written.delivery_mode()), (Some(trace), &Some(2)));
        assert_eq!(read(&BasicProperties::default()), None);
        for text in ["", "garbage", "00-00000000000000000000000000000005-0000000000000007"] {
            assert_eq!(read(&BasicProperties::default().with_correlation_id(text.into())), None);
        }
    }
}
