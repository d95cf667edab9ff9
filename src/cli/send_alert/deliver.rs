//! Sending, within five seconds and without a word about where to.

use std::time::Duration;

use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use reqwest::Url;
use serde_json::Value;

use super::message::Message;
use super::target::{Mail, Target};
use crate::cli::Error;
use crate::cli::cluster::chain;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends messages.
pub(super) struct Sender(reqwest::Client);

impl Sender {
    pub(super) fn new() -> Result<Self, Error> {
        // A webhook that redirects is not the one that was named.
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("kubectl-rosey/", env!("CARGO_PKG_VERSION")))
            .build();
        client.map(Self).map_err(|error| Error::Api {
            what: "HTTP client".into(),
            reason: chain(&error),
        })
    }

    /// Sends one message to one channel.
    ///
    /// # Errors
    /// What went wrong, without URL or password.
    pub(super) async fn send(&self, target: &Target, message: &Message) -> Result<(), String> {
        match target {
            Target::Discord(url) => self.post(url, &message.discord()).await,
            Target::Slack {
                url,
                channel,
                username,
                icon_emoji,
            } => {
                let mut body = message.slack();
                for (field, value) in [("channel", channel), ("username", username), ("icon_emoji", icon_emoji)] {
                    if let Some(value) = value {
                        body[field] = value.as_str().into();
                    }
                }
                self.post(url, &body).await
            }
            Target::Webhook { url, receiver } => self.post(url, &message.webhook(receiver)).await,
            Target::Email(mail) => tokio::time::timeout(TIMEOUT, post_mail(mail, message))
                .await
                .unwrap_or_else(|_| Err(late())),
        }
    }

    async fn post(&self, url: &Url, body: &Value) -> Result<(), String> {
        let answer = self.0.post(url.clone()).json(body).send().await.map_err(|error| {
            if error.is_timeout() {
                late()
            } else {
                chain(&error.without_url())
            }
        })?;
        let status = answer.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("refused with HTTP status {status}"))
        }
    }
}

fn late() -> String {
    format!("no answer within {} s", TIMEOUT.as_secs())
}

async fn post_mail(mail: &Mail, message: &Message) -> Result<(), String> {
    let mailbox = |address: &str| {
        address
            .parse::<Mailbox>()
            .map_err(|_| format!("{address:?} is no e-mail address"))
    };
    let (subject, text) = message.email();
    let mut letter = lettre::Message::builder()
        .from(mailbox(&mail.from)?)
        .subject(subject)
        .header(ContentType::TEXT_PLAIN);
    for to in &mail.to {
        letter = letter.to(mailbox(to)?);
    }
    let letter = letter.body(text).map_err(|error| error.to_string())?;

    let tls = || TlsParameters::new(mail.host.clone()).map_err(|error| chain(&error));
    let tls = match (mail.port, mail.require_tls) {
        (465, _) => Tls::Wrapper(tls()?),
        (_, true) => Tls::Required(tls()?),
        // A password never goes out in the clear because somebody on the way hid STARTTLS.
        (_, false) if mail.login.is_some() => Tls::Required(tls()?),
        (_, false) => Tls::Opportunistic(tls()?),
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.host)
        .port(mail.port)
        .timeout(Some(TIMEOUT))
        .tls(tls);
    if let Some((user, password)) = &mail.login {
        transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
    }
    transport
        .build()
        .send(letter)
        .await
        .map(drop)
        .map_err(|error| chain(&error))
}
