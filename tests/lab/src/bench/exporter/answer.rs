//! One answer in HTTP/1.1 as it came over the wire: where it ends, and what it says.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

/// Bytes that a page may have once it is unpacked.
const PAGE: u64 = 16 << 20;

/// How the end of a body is found.
#[derive(Debug, PartialEq)]
enum Framing {
    Length(usize),
    Chunked,
}

#[derive(Debug)]
struct Head {
    status: u16,
    framing: Framing,
    gzip: bool,
    close: bool,
    /// Where the body begins.
    end: usize,
}

/// The head of an answer; none while it is not complete.
fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        ensure!(bytes.len() < 64 << 10, "a head without an end");
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).context("the head of an answer")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let mut head = Head {
        status: status.context("the status of an answer")?,
        framing: Framing::Length(0),
        gzip: false,
        close: false,
        end: end + 4,
    };
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("content-length") {
            head.framing = Framing::Length(value.parse().context("content-length")?);
        } else if is("transfer-encoding") {
            ensure!(value == "chunked", "transfer-encoding {value}");
            head.framing = Framing::Chunked;
        } else if is("content-encoding") {
            ensure!(value == "gzip", "content-encoding {value}");
            head.gzip = true;
        } else if is("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(head))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Calls `each` with every chunk; answers whether the last one is there.
fn chunks<'b>(mut body: &'b [u8], mut each: impl FnMut(&'b [u8])) -> Result<bool> {
    loop {
        let Some(line) = find(&body[..body.len().min(64)], b"\r\n") else {
            ensure!(body.len() < 64, "a chunk without its length");
            return Ok(false);
        };
        let digits = std::str::from_utf8(&body[..line])?
            .split(';')
            .next()
            .unwrap_or_default();
        let length = usize::from_str_radix(digits.trim(), 16).context("the length of a chunk")?;
        let Some(rest) = body.get(line + 2 + length + 2..) else {
            return Ok(false);
        };
        if length == 0 {
            return Ok(true);
        }
        each(&body[line + 2..line + 2 + length]);
        body = rest;
    }
}

/// Whether these bytes are a whole answer; and if so, whether the connection ends with it.
pub fn whole(bytes: &[u8]) -> Result<Option<bool>> {
    let Some(head) = head(bytes)? else { return Ok(None) };
    let whole = match head.framing {
        Framing::Length(length) => bytes.len() >= head.end + length,
        Framing::Chunked => chunks(&bytes[head.end..], |_| {})?,
    };
    Ok(whole.then_some(head.close))
}

/// The page in a whole answer.
///
/// # Errors
/// When the status is not 200, or it can't be unpacked.
pub fn page(bytes: &[u8]) -> Result<String> {
    let head = head(bytes)?.context("an answer without a head")?;
    let mut body = Vec::new();
    match head.framing {
        Framing::Length(length) => body.extend_from_slice(&bytes[head.end..][..length]),
        Framing::Chunked => ensure!(
            chunks(&bytes[head.end..], |chunk| body.extend_from_slice(chunk))?,
            "no last chunk"
        ),
    }
    let mut page = String::new();
    if head.gzip {
        flate2::read::GzDecoder::new(body.as_slice())
            .take(PAGE)
            .read_to_string(&mut page)
            .context("gzip")?;
    } else {
        page = String::from_utf8(body).context("a page that is no text")?;
    }
    if head.status != 200 {
        bail!("answered {}: {}", head.status, page.lines().next().unwrap_or_default());
    }
    Ok(page)
}

/// The value of the first series of this family on a page.
pub fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| {
        let rest = line.strip_prefix(series)?;
        rest.starts_with([' ', '{']).then_some(rest)
    })?;
    let values = line.rsplit_once('}').map_or(line, |(_, values)| values);
    values.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    fn answer(head: &str, body: &[u8]) -> Vec<u8> {
        [head.replace('\n', "\r\n").as_bytes(), b"\r\n\r\n", body].concat()
    }

    #[test]
    fn an_answer_is_whole_with_its_last_byte_and_not_before() {
        let packed = gzip("up 1\n");
        let chunked = [format!("{:x}\r\n", packed.len()).as_bytes(), &packed, b"\r\n0\r\n\r\n"].concat();
        for bytes in [
            answer("HTTP/1.1 200 OK\ncontent-length: 5", b"up 1\n"),
            answer(
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Encoding: gzip",
                &chunked,
            ),
            answer(
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
                b"2\r\nup\r\n3;x\r\n 1\n\r\n0\r\n\r\n",
            ),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(whole(&bytes[..end]).unwrap(), None);
            }
            assert_eq!(whole(&bytes).unwrap(), Some(false));
            assert_eq!(page(&bytes).unwrap(), "up 1\n");
        }
        let closing = answer("HTTP/1.1 503 No\nContent-Length: 4\nConnection: close", b"why\n");
        assert_eq!(whole(&closing).unwrap(), Some(true));
        assert_eq!(page(&closing).unwrap_err().to_string(), "answered 503: why");
    }

    #[test]
    fn a_value_is_that_of_the_series_with_this_name() {
        let page = "# TYPE a gauge\na_b 3\na{x=\"} 7\",y=\"\"} 1.0 # {} 2\n";
        assert_eq!(value(page, "a_b"), Some(3.0));
        assert_eq!(value(page, "b"), None);
        assert_eq!(value("a{x=\"1\"} 2\n", "a"), Some(2.0));
    }
}
