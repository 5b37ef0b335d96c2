//! A small blocking client, which sends what it is told and shows what came back, to a fake or a real broker.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::cluster::Cluster;
use crate::connection::Connection;

/// One connection to a broker.
pub struct Client {
    stream: TcpStream,
    sent: i32,
}

impl Client {
    /// Connects to `host:port`. An answer that takes longer than a minute is an error.
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, sent: 0 };
        client.patience(Duration::from_secs(60))?;
        Ok(client)
    }

    /// How long an answer may take.
    pub fn patience(&mut self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))
    }

    /// Sends a request without waiting.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> io::Result<()> {
        self.sent += 1;
        self.stream.write_all(&frame(request, version, self.sent))
    }

    /// The next answer, which must be one to an `R` of this version.
    pub fn receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        decode::<R>(answer.into(), version)
    }

    /// Sends a request and waits for its answer.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        self.send(request, version)?;
        self.receive::<R>(version)
    }
}

/// A connection without sockets, for tests of rules: time is what the test says.
pub struct Direct {
    connection: Connection,
    /// The time of the next call.
    pub now_ms: i64,
    sent: i32,
}

impl Direct {
    /// Connects to a broker.
    pub fn connect(cluster: &Cluster, broker: i32) -> Self {
        Self {
            connection: Connection::new(cluster, broker),
            now_ms: 1_000_000,
            sent: 0,
        }
    }

    /// Connects as somebody.
    pub fn connect_as(cluster: &Cluster, broker: i32, principal: &str) -> Self {
        Self {
            connection: Connection::as_principal(cluster, broker, principal),
            ..Self::connect(cluster, broker)
        }
    }

    /// Sends a request; the answer, if there is one at once.
    pub fn try_call<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        self.sent += 1;
        self.connection.receive(&frame(request, version, self.sent));
        self.answer::<R>(version)
    }

    /// The answer to what was sent, if there is one now.
    pub fn answer<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let output = self.connection.advance(self.now_ms);
        if output.bytes.is_empty() {
            return None;
        }
        let mut bytes = output.bytes;
        let length = bytes.get_i32();
        assert_eq!(
            usize::try_from(length).ok(),
            Some(bytes.len()),
            "one answer"
        );
        Some(decode::<R>(bytes, version).expect("a good answer"))
    }

    /// Sends a request that is answered at once.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.try_call(request, version)
            .unwrap_or_else(|| panic!("API {} was not answered", R::KEY))
    }

    /// Whether the broker has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        self.connection.advance(self.now_ms).close
    }
}

fn frame<R: Request>(request: &R, version: i16, correlation_id: i32) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("scenario")))
        .encode(&mut frame, R::header_version(version))
        .expect("a header encodes");
    request
        .encode(&mut frame, version)
        .unwrap_or_else(|e| panic!("API {} version {version} doesn't encode: {e}", R::KEY));
    let length = i32::try_from(frame.len() - 4).expect("fits");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

fn decode<R: Request>(mut answer: Bytes, version: i16) -> io::Result<R::Response> {
    let header_version = R::Response::header_version(version);
    ResponseHeader::decode(&mut answer, header_version).map_err(io::Error::other)?;
    let body = R::Response::decode(&mut answer, version).map_err(io::Error::other)?;
    if answer.is_empty() {
        Ok(body)
    } else {
        Err(io::Error::other(format!("{} bytes too many", answer.len())))
    }
}
