//! The bytes of a flow's own connections, by side. What librdkafka sends (probes, `verify`) isn't among them.

use crate::telemetry::traffic::{TrafficReporter, TrafficStatus};
use crate::wire::Cluster;

/// Both sides of a flow.
#[derive(Debug)]
pub(super) struct Sides(pub(super) Cluster, pub(super) Cluster);

impl TrafficReporter for Sides {
    fn traffic(&self) -> Vec<TrafficStatus> {
        let mut all = Vec::new();
        for side in [&self.0, &self.1] {
            for carried in side.traffic().carried() {
                for (direction, bytes) in [("sent", carried.sent), ("received", carried.received)] {
                    all.push(TrafficStatus {
                        cluster: side.name().to_owned(),
                        direction: direction.to_owned(),
                        purpose: carried.purpose.to_owned(),
                        bytes,
                    });
                }
            }
        }
        all
    }
}
