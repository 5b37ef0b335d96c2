//! A broker made of a script: each accepted connection is handed to a function of the test.

use std::future::Future;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, decode_request_header_from_buffer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Listens until dropped.
pub(super) struct Fake {
    pub(super) address: String,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub(super) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut peers = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                peers.spawn(script(Peer { stream }));
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }
}

/// The broker's end of one connection.
pub(super) struct Peer {
    stream: TcpStream,
}

/// A request as the broker sees it.
pub(super) struct Asked {
    pub(super) header: RequestHeader,
    pub(super) body: Bytes,
}

impl Peer {
    /// The port that the client connected to.
    pub(super) fn port(&self) -> i32 {
        self.stream.local_addr().expect("connected").port().into()
    }

    /// The next request; `None` when the client hung up.
    pub(super) async fn next(&mut self) -> Option<Asked> {
        let length = self.stream.read_i32().await.ok()?;
        let mut frame = vec![0; usize::try_from(length).ok()?];
        self.stream.read_exact(&mut frame).await.ok()?;
        let mut frame = Bytes::from(frame);
        let header = decode_request_header_from_buffer(&mut frame).expect("a good header");
        Some(Asked {
            header,
            body: frame,
        })
    }

    /// The next request, which must come.
    pub(super) async fn expect(&mut self) -> Asked {
        self.next().await.expect("a request")
    }

    /// An answer with whatever header version and body.
    pub(super) async fn answer<T: Encodable>(
        &mut self,
        correlation_id: i32,
        header_version: i16,
        body: &T,
        version: i16,
    ) {
        let mut frame = BytesMut::new();
        ResponseHeader::default()
            .with_correlation_id(correlation_id)
            .encode(&mut frame, header_version)
            .expect("encodes");
        body.encode(&mut frame, version).expect("encodes");
        let mut bytes = BytesMut::new();
        bytes.put_u32(u32::try_from(frame.len()).expect("small"));
        bytes.put(frame);
        self.raw(&bytes).await;
    }

    /// Any bytes. A client that hung up already is fine.
    pub(super) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Answers ApiVersions with `versions`: (api key, lowest, highest).
    pub(super) async fn greet(&mut self, versions: &[(i16, i16, i16)]) {
        let asked = self.expect().await;
        assert_eq!(asked.header.request_api_key, 18, "ApiVersions comes first");
        let version = asked.header.request_api_version;
        self.answer(
            asked.header.correlation_id,
            0,
            &api_versions(versions),
            version,
        )
        .await;
    }

    /// Waits until the client hangs up, ignoring what it sends.
    pub(super) async fn until_closed(&mut self) {
        let mut buffer = BytesMut::with_capacity(4096);
        while matches!(self.stream.read_buf(&mut buffer).await, Ok(count) if count > 0) {
            buffer.advance(buffer.len());
        }
    }
}

pub(super) fn api_versions(versions: &[(i16, i16, i16)]) -> ApiVersionsResponse {
    let keys = versions.iter().map(|&(key, min, max)| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(min)
            .with_max_version(max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}

/// Decodes the body of a request.
pub(super) fn body<T: Decodable>(asked: &Asked) -> T {
    T::decode(&mut asked.body.clone(), asked.header.request_api_version).expect("a good body")
}
