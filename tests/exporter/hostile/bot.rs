//! How a bot answers, byte by byte.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// What a bot does with a connection.
pub enum Bot {
    /// Says this, and closes.
    Says(Vec<u8>),
    /// Says the next of these with each connection.
    SaysInTurn(Vec<Vec<u8>>),
    /// Says the first and then the second again and again, for as long as somebody takes it.
    GoesOn(Vec<u8>, Vec<u8>),
    /// Says this, a byte a second.
    Drips(Vec<u8>),
    /// Is not there.
    Closed,
}

/// An answer that is well formed in HTTP.
pub fn ok(body: impl Into<Vec<u8>>) -> Bot {
    Bot::Says(answer("200 OK", "", body))
}

pub fn answer(status: &str, headers: &str, body: impl Into<Vec<u8>>) -> Vec<u8> {
    let body = body.into();
    let length = body.len();
    let mut answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes();
    answer.extend(body);
    answer
}

impl Bot {
    /// Whether only a deadline ends its answer.
    pub fn is_endless(&self) -> bool {
        matches!(self, Self::Drips(_)) || matches!(self, Self::GoesOn(_, again) if again.is_empty())
    }

    /// How many scrapes it takes to hear all of it.
    pub fn turns(&self) -> usize {
        if let Self::SaysInTurn(turns) = self {
            turns.len()
        } else {
            1
        }
    }

    /// Begins to listen; the port.
    pub fn start(self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if !matches!(self, Self::Closed) {
            std::thread::spawn(move || {
                for (turn, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                    let _ = self.converse(stream, turn);
                }
            });
        }
        port
    }

    fn converse(&self, mut stream: TcpStream, turn: usize) -> std::io::Result<()> {
        let _ = stream.read(&mut [0; 4096])?;
        match self {
            Self::Says(answer) => stream.write_all(answer)?,
            Self::SaysInTurn(turns) => stream.write_all(&turns[turn % turns.len()])?,
            Self::GoesOn(first, again) => {
                stream.write_all(first)?;
                while !again.is_empty() {
                    stream.write_all(again)?;
                }
                // Until whoever asked has gone.
                let _ = stream.read(&mut [0; 16])?;
            }
            Self::Drips(answer) => {
                for byte in answer {
                    stream.write_all(&[*byte])?;
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            Self::Closed => {}
        }
        Ok(())
    }
}
