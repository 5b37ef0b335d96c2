//! One HTTP call, for asking the running process. HTTP/1.0, so that the answer ends with
//! the connection and needs no decoding.

use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::pinned::OtherCertificate;
use super::running::Running;
use crate::config::Secret;
use crate::shell;

/// The whole exchange takes no longer than this.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// No status report is larger: ten thousand partitions take some 8 MiB.
const ANSWER_BYTES_MAX: u64 = 256 * 1_024 * 1_024;
/// So much of a refusal's text is passed on.
const REASON_LETTERS_MAX: usize = 300;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    #[error("nothing answers at {address} ({source}): is `twinlog run` running with this config?")]
    Unreachable {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("{address} accepts connections but doesn't answer within {} s", ANSWER_WITHIN.as_secs())]
    TooSlow { address: SocketAddr },
    #[error("the connection to {address} broke: {source}")]
    Broken {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(
        "no TLS with {address} ({source}): is `twinlog run` running with this config, http.tls \
         in it?"
    )]
    NoTls {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(
        "who answers at {address} has another certificate than http.tls.certificate: if the file \
         was just replaced, try again in a few seconds; if it stays so, the log of `twinlog run` \
         says why it keeps the old one"
    )]
    OtherCertificate { address: SocketAddr },
    #[error("the process at {address} refuses ({status}): {reason}")]
    Refused {
        address: SocketAddr,
        status: u16,
        reason: String,
    },
    #[error("something other than this Twinlog answers at {address}: {what}")]
    Foreign { address: SocketAddr, what: String },
}

/// The body at `path`.
pub(super) async fn get(running: &Running, path: &str) -> Result<Vec<u8>, GetError> {
    call(running, "GET", path, running.read_token.as_ref()).await
}

/// The answer to a POST without a body at `path`, which changes something.
pub(super) async fn post(running: &Running, path: &str) -> Result<Vec<u8>, GetError> {
    call(running, "POST", path, running.token.as_ref()).await
}

async fn call(
    running: &Running,
    method: &str,
    path: &str,
    token: Option<&Secret>,
) -> Result<Vec<u8>, GetError> {
    let address = running.address;
    let mut request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\nContent-Length: 0\r\n"
    );
    if let Some(token) = token {
        request.push_str(&format!("Authorization: Bearer {}\r\n", token.expose()));
    }
    request.push_str("\r\n");
    let exchange = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| GetError::Unreachable { address, source })?;
        let Some(tls) = &running.tls else {
            return exchange(stream, address, &request).await;
        };
        let name = ServerName::from(address.ip());
        let stream = tls.connect(name, stream).await.map_err(|source| {
            if is_other_certificate(&source) {
                GetError::OtherCertificate { address }
            } else {
                GetError::NoTls { address, source }
            }
        })?;
        exchange(stream, address, &request).await
    };
    tokio::time::timeout(ANSWER_WITHIN, exchange)
        .await
        .unwrap_or(Err(GetError::TooSlow { address }))
}

fn is_other_certificate(error: &std::io::Error) -> bool {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        tls,
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)))
            if other.0.is::<OtherCertificate>()
    )
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
    request: &str,
) -> Result<Vec<u8>, GetError> {
    let broken = |source| GetError::Broken { address, source };
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await
        .map_err(broken)?;
    let (status, body) = take_apart(&answer).map_err(|what| GetError::Foreign { address, what })?;
    match status {
        200..=299 => Ok(body.to_vec()),
        // Ours say in plain words what is missing.
        401 | 403 | 404 => Err(GetError::Refused {
            address,
            status,
            reason: reason(body),
        }),
        _ => Err(GetError::Foreign {
            address,
            what: format!("it answers with status {status}"),
        }),
    }
}

/// A refusal's text, made fit for one line of a terminal.
fn reason(body: &[u8]) -> String {
    shell::one_line(&String::from_utf8_lossy(body), REASON_LETTERS_MAX)
}

/// The status and the body; the error says what is wrong with the answer.
fn take_apart(answer: &[u8]) -> Result<(u16, &[u8]), String> {
    let head_end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("it doesn't speak HTTP")?;
    let head = String::from_utf8_lossy(&answer[..head_end]);
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split_whitespace();
    if !words.next().is_some_and(|word| word.starts_with("HTTP/1.")) {
        return Err("it doesn't speak HTTP".to_owned());
    }
    let status = words.next().and_then(|word| word.parse().ok());
    let status = status.ok_or("it doesn't speak HTTP")?;
    let body = &answer[head_end + 4..];
    let expected = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    match expected {
        Some(expected) if expected != body.len() => Err(format!(
            "its answer breaks off after {} of {expected} bytes",
            body.len()
        )),
        _ => Ok((status, body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Dice, Input, Target};

    #[test]
    fn an_answer_is_taken_apart() {
        assert_eq!(
            take_apart(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
            Ok((200, &b"hi"[..]))
        );
        assert_eq!(
            take_apart(b"HTTP/1.1 404 Not Found\r\n\r\n"),
            Ok((404, &b""[..]))
        );
        for (answer, problem) in [
            (&b""[..], "HTTP"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "HTTP"),
            (b"HTTP/1.1 ok\r\n\r\n", "HTTP"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", "2 of 9"),
        ] {
            let what = take_apart(answer).expect_err("not an answer of ours");
            assert!(what.contains(problem), "{what}");
        }
    }

    #[test]
    fn fuzz_http_answers() {
        const ANSWERS: Target = Target {
            name: "http-answers",
            rounds: 4_000,
            bytes_base: 64 << 10,
            bytes_per_byte: 8,
        };
        let make = |dice: &mut Dice| {
            let good = *dice.one(&[
                &b"HTTP/1.0 200 OK\r\nContent-Length: 18\r\n\r\n{\"version\": 1, \"f\"}"[..],
                b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\n\r\nno token",
            ]);
            Input::new("", dice.damage(good))
        };
        ANSWERS.hunt(make, |input| {
            if let Ok((_, body)) = take_apart(&input.bytes) {
                let said = reason(body);
                assert!(!said.chars().any(shell::is_unseen), "{said:?}");
            }
        });
    }

    #[test]
    fn a_refusal_is_one_short_line() {
        assert_eq!(reason(b"no\x1b[2J\nmore\n"), "no [2J more");
        assert_eq!(reason("a\u{202e}b".as_bytes()), "a b");
        assert_eq!(reason(&[b'x'; 1_000]).len(), REASON_LETTERS_MAX);
    }
}
