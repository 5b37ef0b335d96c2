//! The keys of the state topic. Topics are named as on the source.

/// A [`FlowRecord`](super::FlowRecord).
pub fn flow(flow: &str) -> String {
    format!("flow/{flow}")
}

/// A [`Claim`](super::Claim).
pub fn claim(flow: &str) -> String {
    format!("claim/{flow}")
}

/// A [`TopicRecord`](super::TopicRecord).
pub fn topic(flow: &str, topic: &str) -> String {
    format!("topic/{flow}/{topic}")
}

/// A [`MapRecord`](super::MapRecord).
pub fn map(flow: &str, topic: &str, partition: i32) -> String {
    format!("map/{flow}/{topic}/{partition}")
}

/// A [`SeenRecord`](super::SeenRecord).
pub fn seen(flow: &str, topic: &str) -> String {
    format!("seen/{flow}/{topic}")
}

/// A [`GapRecord`](super::GapRecord) that begins at a source offset.
pub fn gap(flow: &str, topic: &str, partition: i32, from: i64) -> String {
    format!("gap/{flow}/{topic}/{partition}/{from}")
}

/// A [`GroupPositions`](super::GroupPositions).
pub fn group(flow: &str, group: &str) -> String {
    format!("{}{group}", groups(flow))
}

/// What the keys of a flow's groups begin with.
pub fn groups(flow: &str) -> String {
    format!("group/{flow}/")
}

/// A [`ShareOffsets`](super::ShareOffsets).
pub fn share(flow: &str, group: &str) -> String {
    format!("{}{group}", shares(flow))
}

/// What the keys of a flow's share groups begin with.
pub fn shares(flow: &str) -> String {
    format!("share/{flow}/")
}
