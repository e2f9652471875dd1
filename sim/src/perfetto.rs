//! A run as a picture: trace-event JSON, which Perfetto and Chrome show.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use undercroft_fuzz_targets::trace::{Event, Trace};

/// Microseconds, as the format has them.
fn micros(at: u64) -> f64 {
    at as f64 / 1000.0
}

/// The file's content: a slice for each operation from its begin to its end, and a mark for everything else.
pub fn json(trace: &Trace) -> String {
    let mut begun: BTreeMap<u64, Event> = BTreeMap::new();
    let mut events: Vec<Value> = Vec::new();
    for event in &trace.events {
        let Event { at, what, which, more } = *event;
        match (what, begun.remove(&which)) {
            ("ended", Some(first)) => {
                let id = format!("{which}");
                let of = json!({"operation": which, "at": first.more[0], "size": first.more[1], "error": more[0]});
                events.push(json!({"ph": "b", "cat": "io", "id": id, "pid": 1, "tid": 1, "ts": micros(first.at), "name": first.what, "args": of}));
                events.push(
                    json!({"ph": "e", "cat": "io", "id": id, "pid": 1, "tid": 1, "ts": micros(at), "name": first.what}),
                );
            }
            ("faults" | "paused" | "pulled out" | "power cut", _) => {
                let of = json!({"which": which, "more": more});
                events
                    .push(json!({"ph": "i", "s": "g", "pid": 1, "tid": 1, "ts": micros(at), "name": what, "args": of}));
            }
            _ => _ = begun.insert(which, *event),
        }
    }
    // What never ended is drawn to the end.
    for first in begun.values() {
        events.push(json!({"ph": "B", "pid": 1, "tid": 2, "ts": micros(first.at), "name": first.what, "args": {"operation": first.which}}));
    }
    json!({"displayTimeUnit": "ns", "traceEvents": events}).to_string()
}

/// The last events, as lines.
pub fn lines(trace: &Trace, most: usize) -> Vec<String> {
    let from = trace.events.len().saturating_sub(most);
    let line = |event: &Event| {
        format!("{:>16} ns  {:<12} {:>5}  {} {:#x}", event.at, event.what, event.which, event.more[0], event.more[1])
    };
    trace.events[from..].iter().map(line).collect()
}
