//! A client of HTTP/1.1, small enough to have no dependency. [`super::https`] puts TLS under it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The status line and the headers as they came.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// Gets `path` from `address`: status code and body.
///
/// # Errors
/// When nobody answers there, or not in HTTP.
pub fn get(address: &str, path: &str) -> io::Result<(u16, String)> {
    let answer = call(address, &format!("GET {path}"), &[])?;
    Ok((answer.status, answer.body))
}

/// A call without a body, such as `POST /path`, with more headers.
///
/// # Errors
/// When nobody answers there, or not in HTTP.
pub fn call(address: &str, call: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
    exchange(&mut connect(address)?, call, headers)
}

/// A connection on which no wait is endless.
///
/// # Errors
/// When nobody accepts it.
pub fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// [`call`] on a connection that is there, which is used up.
///
/// # Errors
/// When it breaks, or the answer isn't HTTP.
pub fn exchange(
    stream: &mut (impl Read + Write),
    call: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    let mut request = format!("{call} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not an HTTP answer: {}", answer.escape_ascii()),
        )
    })
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..split]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[split + 4..];
    let chunked = head
        .to_ascii_lowercase()
        .lines()
        .any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
    let body = if chunked {
        unchunk(body)?
    } else {
        body.to_vec()
    };
    Some(Answer {
        status,
        head: head.to_owned(),
        body: String::from_utf8(body).ok()?,
    })
}

/// Joins the chunks of a chunked body.
fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&body[..line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        body = body.get(line + 2..)?;
        whole.extend_from_slice(body.get(..size)?);
        body = body.get(size + 2..)?;
    }
}
