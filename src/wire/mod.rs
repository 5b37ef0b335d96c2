//! Our own Kafka client: connections, versions, routing to leaders, typed calls. It knows no flows.
//!
//! - [`Cluster`] knows brokers and leaders and keeps one [`Connection`] per broker and [`Role`].
//! - [`Connection`] pipelines requests; the order in which they were started is the order on the
//!   wire, and the first failure closes it for everyone.
//! - `calls` are typed questions that find the right broker, and answer per partition.
//!
//! Nothing that a broker sends can make it panic or take more memory than the answer's own size makes plausible: lengths
//! are bounded by what is left of the frame, and no answer is larger than 256 MiB, or 1 MiB before we know who it is.

mod authenticate;
mod backoff;
mod calls;
mod cluster;
mod codec;
mod config;
mod connection;
mod error;
mod handshake;
mod io_tasks;
mod metadata;
mod moves;
mod reauthenticate;
mod refusals;
mod same_answer;
mod sasl;
mod security;
#[cfg(test)]
pub(crate) mod tests;
mod throttle;
mod tls;
mod transport;
mod versions;

pub use calls::*;
pub use cluster::{Cluster, Role};
pub use config::ClusterConfig;
pub use connection::{Connection, Pending, RawAnswer};
pub use error::{ErrorContext, TlsProblem, WireError};
pub use kafka_protocol::ResponseError;
pub use metadata::{BrokerAddress, Metadata, PartitionMetadata, TopicMetadata};
pub use security::{Lack, Sasl, ScramHash, Security, TlsSettings, Token, TokenFuture, TokenSource};
pub use tls::TlsFacts;
pub use transport::{Dial, Dialing, ReadHalf, Tcp, WriteHalf};
