//! A broker made of a script: each accepted connection is handed to a function of the test.

use std::future::Future;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, decode_request_header_from_buffer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Listens until dropped.
pub(crate) struct Fake {
    pub(crate) address: String,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub(crate) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start_with(None, script).await
    }

    /// With TLS; connections whose handshake fails never reach the script.
    pub(crate) async fn start_with<F, Fut>(tls: Option<TlsAcceptor>, script: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let port = address.port().into();
        let script = Arc::new(script);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut peers = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, script) = (tls.clone(), script.clone());
                peers.spawn(async move {
                    let stream: Box<dyn Stream> = match tls {
                        None => Box::new(stream),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    script(Peer { stream, port }).await;
                });
            }
        });
        Self {
            address: address.to_string(),
            _tasks: tasks,
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The broker's end of one connection.
pub(crate) struct Peer {
    stream: Box<dyn Stream>,
    port: i32,
}

/// A request as the broker sees it.
pub(crate) struct Asked {
    pub(crate) header: RequestHeader,
    pub(crate) body: Bytes,
}

impl Peer {
    /// Of a connection that a test made itself.
    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let stream = Box::new(stream);
        Self { stream, port: 0 }
    }

    /// The port that the client connected to.
    pub(crate) fn port(&self) -> i32 {
        self.port
    }

    /// The next request; `None` when the client hung up.
    pub(crate) async fn next(&mut self) -> Option<Asked> {
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
    pub(crate) async fn expect(&mut self) -> Asked {
        self.next().await.expect("a request")
    }

    /// An answer with whatever header version and body.
    pub(crate) async fn answer<T: Encodable>(
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
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Answers ApiVersions with `versions`: (api key, lowest, highest).
    pub(crate) async fn greet(&mut self, versions: &[(i16, i16, i16)]) {
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
    pub(crate) async fn until_closed(&mut self) {
        let mut buffer = BytesMut::with_capacity(4096);
        while matches!(self.stream.read_buf(&mut buffer).await, Ok(count) if count > 0) {
            buffer.advance(buffer.len());
        }
    }
}

pub(crate) fn api_versions(versions: &[(i16, i16, i16)]) -> ApiVersionsResponse {
    let keys = versions.iter().map(|&(key, min, max)| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(min)
            .with_max_version(max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}

/// Decodes the body of a request.
pub(crate) fn body<T: Decodable>(asked: &Asked) -> T {
    T::decode(&mut asked.body.clone(), asked.header.request_api_version).expect("a good body")
}
