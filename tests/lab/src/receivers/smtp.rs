//! The SMTP receiver: mailin speaks the protocol, this file carries the bytes.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use mailin::response::{AUTH_OK, OK};
use mailin::{Action, AuthMechanism, Handler, Response, SessionBuilder};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::Inbox;
use super::message::Mail;

/// Longer lines end the session.
const LONGEST_LINE: u64 = 1024 * 1024;

/// Whether a session must log in before it may send. Any name and password will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    None,
    Required,
}

/// Listens on a free port of 127.0.0.1: Go's SMTP client sends a password without TLS to that host only.
pub(crate) async fn serve(inbox: Inbox<Mail>, login: Login) -> Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listen for mail")?;
    let address = listener.local_addr()?;
    let accepting = tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let inbox = inbox.clone();
            tokio::spawn(async move {
                if let Err(error) = converse(stream, peer.ip(), inbox, login).await {
                    tracing::warn!(%error, "an SMTP session broke off");
                }
            });
        }
    });
    Ok((address, accepting))
}

async fn converse(mut stream: TcpStream, peer: IpAddr, inbox: Inbox<Mail>, login: Login) -> io::Result<()> {
    let mut builder = SessionBuilder::new("lab");
    if login == Login::Required {
        builder
            .enable_auth(AuthMechanism::Plain)
            .enable_auth(AuthMechanism::Login)
            .insecure_enable_plaintext_auth();
    }
    let mut session = builder.build(
        peer,
        Recorder {
            inbox,
            mail: Mail::default(),
        },
    );
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read);
    write.write_all(&session.greeting().buffer()?).await?;
    loop {
        let mut line = Vec::new();
        if (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let response = session.process(&line);
        match response.action {
            Action::NoReply => {}
            Action::Reply => write.write_all(&response.buffer()?).await?,
            // TLS is never offered, so an upgrade is never agreed on.
            Action::Close | Action::UpgradeTls => return write.write_all(&response.buffer()?).await,
        }
    }
}

struct Recorder {
    inbox: Inbox<Mail>,
    mail: Mail,
}

impl Handler for Recorder {
    fn mail(&mut self, _ip: IpAddr, _domain: &str, from: &str) -> Response {
        self.mail = Mail {
            from: from.to_owned(),
            user: self.mail.user.take(),
            ..Mail::default()
        };
        OK
    }

    fn rcpt(&mut self, to: &str) -> Response {
        self.mail.to.push(to.to_owned());
        OK
    }

    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        self.mail.raw.extend_from_slice(line);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let mut mail = self.mail.clone();
        mail.parse();
        self.inbox.put(mail);
        OK
    }

    fn auth_plain(&mut self, _authorization: &str, user: &str, _password: &str) -> Response {
        self.mail.user = Some(user.to_owned());
        AUTH_OK
    }

    fn auth_login(&mut self, user: &str, _password: &str) -> Response {
        self.mail.user = Some(user.to_owned());
        AUTH_OK
    }
}
