//! Mail that is sent to the bot: mailin speaks the protocol, this file carries the bytes.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use mailin::response::{NO_STORAGE, OK};
use mailin::{Action, Handler, Response, SessionBuilder};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::inbox::{Inbox, LARGEST};

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps each mail under the address of each of its recipients, as it was sent. Nobody has to log in, and TLS is never offered.
pub(super) async fn serve(listener: TcpListener, inbox: Inbox) -> ! {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Such as too many open files: the bot goes on, as it does on its other ports.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let inbox = inbox.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, peer.ip(), inbox).await {
                eprintln!("mail from {peer}: {error}");
            }
        });
    }
}

async fn converse(mut stream: TcpStream, peer: IpAddr, inbox: Inbox) -> io::Result<()> {
    let letter = Letter {
        inbox,
        to: Vec::new(),
        text: Vec::new(),
    };
    let mut session = SessionBuilder::new("fake-bot").build(peer, letter);
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read);
    write.write_all(&session.greeting().buffer()?).await?;
    loop {
        let mut line = Vec::new();
        let bytes = (&mut lines).take(LARGEST as u64).read_until(b'\n', &mut line).await?;
        if bytes == 0 {
            return Ok(());
        }
        let response = session.process(&line);
        if response.action != Action::NoReply {
            write.write_all(&response.buffer()?).await?;
        }
        // TLS is never offered, so an upgrade is never agreed on.
        if matches!(response.action, Action::Close | Action::UpgradeTls) {
            return Ok(());
        }
    }
}

/// What has arrived of a mail.
struct Letter {
    inbox: Inbox,
    to: Vec<String>,
    text: Vec<u8>,
}

impl Handler for Letter {
    fn mail(&mut self, _ip: IpAddr, _domain: &str, _from: &str) -> Response {
        self.to.clear();
        self.text.clear();
        OK
    }

    fn rcpt(&mut self, to: &str) -> Response {
        self.to.push(to.to_owned());
        OK
    }

    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        // An error here would be an answer to each line; the one answer comes at the end.
        if self.text.len() <= LARGEST {
            self.text.extend_from_slice(line);
        }
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        if self.text.len() > LARGEST {
            // After an error, mailin would take what follows for more of this mail.
            let mut refused = NO_STORAGE;
            refused.action = Action::Close;
            return refused;
        }
        let text = String::from_utf8_lossy(&self.text);
        for to in self.to.drain(..) {
            self.inbox.keep(to, Value::String(text.clone().into_owned()));
        }
        OK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the bot answers to a whole session.
    async fn answers(inbox: &Inbox, session: &str) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let serving = tokio::spawn(serve(listener, inbox.clone()));
        client
            .write_all(session.replace('\n', "\r\n").as_bytes())
            .await
            .unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        serving.abort();
        answers
    }

    fn mail(text: &str) -> String {
        let to = "RCPT TO:<on-call@example.org>\nRCPT TO:<boss@example.org>\n";
        format!("EHLO localhost\nMAIL FROM:<alerts@example.org>\n{to}DATA\n{text}\n.\nQUIT\n")
    }

    #[tokio::test]
    async fn each_recipient_has_the_mail_as_it_was_sent() {
        let inbox = Inbox::default();
        let text = "Subject: BotDown\n\nThe bot is down.\n..hidden";
        let said = answers(&inbox, &mail(text)).await;
        assert!(said.contains("\r\n354 ") && said.ends_with("221 Goodbye\r\n"), "{said}");
        for to in ["on-call@example.org", "boss@example.org"] {
            let kept = "Subject: BotDown\r\n\r\nThe bot is down.\r\n.hidden\r\n";
            assert_eq!(inbox.of(to), [kept], "{to}");
        }
        assert!(inbox.of("nobody@example.org").is_empty());
    }

    #[tokio::test]
    async fn a_session_may_bring_several_mails() {
        let inbox = Inbox::default();
        let two = mail("one").replace("QUIT\n", &mail("two"));
        answers(&inbox, &two).await;
        assert_eq!(inbox.of("boss@example.org"), ["one\r\n", "two\r\n"]);
    }

    #[tokio::test]
    async fn a_mail_that_is_too_large_is_refused_and_ends_the_session() {
        let inbox = Inbox::default();
        let large = mail(&"a line\n".repeat(LARGEST / 7 + 1));
        let said = answers(&inbox, large.trim_end_matches("QUIT\n")).await;
        assert!(said.ends_with("552 Exceeded storage allocation\r\n"), "{said}");
        assert!(inbox.of("boss@example.org").is_empty());
    }
}
