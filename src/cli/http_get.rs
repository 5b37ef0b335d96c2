//! One HTTP GET, for asking the running process. HTTP/1.0, so that the answer ends with
//! the connection and needs no decoding.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The whole exchange takes no longer than this.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// No status report is larger: ten thousand partitions take some 8 MiB.
const ANSWER_BYTES_MAX: u64 = 256 * 1_024 * 1_024;

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
    #[error("something other than this Twinlog answers at {address}: {what}")]
    Foreign { address: SocketAddr, what: String },
}

/// The body of `http://address/path`.
pub(super) async fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>, GetError> {
    tokio::time::timeout(ANSWER_WITHIN, exchange(address, path))
        .await
        .unwrap_or(Err(GetError::TooSlow { address }))
}

async fn exchange(address: SocketAddr, path: &str) -> Result<Vec<u8>, GetError> {
    let mut stream = TcpStream::connect(address)
        .await
        .map_err(|source| GetError::Unreachable { address, source })?;
    let broken = |source| GetError::Broken { address, source };
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await
        .map_err(broken)?;
    body(&answer)
        .map(<[u8]>::to_vec)
        .map_err(|what| GetError::Foreign { address, what })
}

/// Takes the answer apart; the error says what is wrong with it.
fn body(answer: &[u8]) -> Result<&[u8], String> {
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
    let status = words.next().unwrap_or_default();
    if status != "200" {
        return Err(format!("it answers with status {status}"));
    }
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
        _ => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        assert_eq!(
            body(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
            Ok(&b"hi"[..])
        );
        for (answer, problem) in [
            (&b""[..], "HTTP"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "HTTP"),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", "404"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", "2 of 9"),
        ] {
            let what = body(answer).expect_err("not an answer of ours");
            assert!(what.contains(problem), "{what}");
        }
    }
}
