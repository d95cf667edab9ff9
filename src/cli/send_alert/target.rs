//! Where a message can go: the channels that the environment or a monitor names.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use reqwest::Url;

use super::Kind;
use crate::api::RoseyMonitor;
use crate::api::notifications::Channel;
use crate::api::references::SecretKeyRef;
use crate::cli::Error;
use crate::cli::cluster::api_error;

/// A channel with its name, or with the reason why it can't be used.
pub(super) struct Named {
    pub name: String,
    pub target: Result<Target, String>,
}

/// A channel with all that is needed to reach it. It has no `Debug`: its content is secret.
pub(super) enum Target {
    Discord(Url),
    Slack {
        url: Url,
        channel: Option<String>,
        username: Option<String>,
        icon_emoji: Option<String>,
    },
    Webhook {
        url: Url,
        receiver: String,
    },
    Email(Mail),
}

/// An SMTP server and the addresses of a message.
pub(super) struct Mail {
    pub host: String,
    pub port: u16,
    pub from: String,
    pub to: Vec<String>,
    pub login: Option<(String, String)>,
    pub require_tls: bool,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discord => "discord",
            Self::Slack => "slack",
            Self::Webhook => "webhook",
            Self::Email => "email",
        })
    }
}

/// The channels of the environment; `only` one kind, or all.
pub(super) fn of_environment(only: Option<Kind>, variable: impl Fn(&str) -> Option<String>) -> Vec<Named> {
    let value = |name: &str| variable(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
    let kinds = [
        (Kind::Discord, "DISCORD_WEBHOOK_URL"),
        (Kind::Slack, "SLACK_WEBHOOK_URL"),
        (Kind::Webhook, "ALERT_WEBHOOK_URL"),
        (Kind::Email, "ALERT_EMAIL"),
    ];
    let wanted = kinds
        .into_iter()
        .filter(|(kind, _)| only.is_none_or(|only| only == *kind));
    wanted
        .map(|(kind, name)| {
            let target = value(name)
                .ok_or_else(|| format!("{name} is not set"))
                .and_then(|found| match kind {
                    Kind::Discord => Ok(Target::Discord(url(&found, name)?)),
                    Kind::Slack => Ok(Target::Slack {
                        url: url(&found, name)?,
                        channel: None,
                        username: None,
                        icon_emoji: None,
                    }),
                    Kind::Webhook => Ok(Target::Webhook {
                        url: url(&found, name)?,
                        receiver: "send-alert".into(),
                    }),
                    Kind::Email => mail(&found, value).map(Target::Email),
                });
            Named {
                name: kind.to_string(),
                target,
            }
        })
        .collect()
}

fn mail(to: &str, value: impl Fn(&str) -> Option<String>) -> Result<Mail, String> {
    let to: Vec<String> = to
        .split(',')
        .map(|address| address.trim().to_owned())
        .filter(|a| !a.is_empty())
        .collect();
    let login = match (value("SMTP_USERNAME"), value("SMTP_PASSWORD")) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        _ => return Err("SMTP_USERNAME and SMTP_PASSWORD go together".into()),
    };
    let from = value("SMTP_FROM")
        .or_else(|| to.first().cloned())
        .ok_or("ALERT_EMAIL names no address")?;
    let port = value("SMTP_PORT")
        .map_or(Ok(587), |port| port.parse())
        .map_err(|_| "SMTP_PORT is not a port")?;
    let require_tls = match value("SMTP_REQUIRE_TLS").as_deref() {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err("SMTP_REQUIRE_TLS is neither true nor false".into()),
    };
    Ok(Mail {
        host: value("SMTP_HOST").ok_or("SMTP_HOST is not set")?,
        port,
        from,
        to,
        login,
        require_tls,
    })
}

/// A URL that a message can be posted to. What it is not, is not repeated: it may be a secret all the same.
fn url(text: &str, source: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|_| format!("{source} holds no URL"))?;
    if ["http", "https"].contains(&url.scheme()) {
        Ok(url)
    } else {
        Err(format!("{source} holds no http or https URL"))
    }
}

/// The channels of a monitor; Secrets are read with the caller's own rights.
pub(super) async fn of_monitor(
    client: Client,
    namespace: &str,
    name: &str,
    only: Option<Kind>,
) -> Result<Vec<Named>, Error> {
    let monitors: Api<RoseyMonitor> = Api::namespaced(client.clone(), namespace);
    let monitor = monitors.get(name).await.map_err(|error| {
        api_error(
            &format!("roseymonitor {namespace}/{name}"),
            "get roseymonitors in this namespace",
            &error,
        )
    })?;
    let secrets = Secrets(Api::namespaced(client, namespace));
    let mut channels = Vec::new();
    for channel in monitor
        .spec
        .notifications
        .into_iter()
        .flat_map(|notifications| notifications.channels)
    {
        let Some(kind) = kind(&channel) else { continue };
        if only.is_none_or(|only| only == kind) {
            let name = format!("{} ({kind})", channel.name);
            channels.push(Named {
                name,
                target: secrets.target(channel).await,
            });
        }
    }
    Ok(channels)
}

fn kind(channel: &Channel) -> Option<Kind> {
    let set = [
        (channel.discord.is_some(), Kind::Discord),
        (channel.slack.is_some(), Kind::Slack),
        (channel.webhook.is_some(), Kind::Webhook),
        (channel.email.is_some(), Kind::Email),
    ];
    set.into_iter().find_map(|(is_set, kind)| is_set.then_some(kind))
}

struct Secrets(Api<Secret>);

impl Secrets {
    async fn target(&self, channel: Channel) -> Result<Target, String> {
        if let Some(discord) = channel.discord {
            Ok(Target::Discord(self.url(&discord.webhook_secret_ref).await?))
        } else if let Some(slack) = channel.slack {
            Ok(Target::Slack {
                url: self.url(&slack.webhook_secret_ref).await?,
                channel: slack.channel,
                username: slack.username,
                icon_emoji: slack.icon_emoji,
            })
        } else if let Some(webhook) = channel.webhook {
            Ok(Target::Webhook {
                url: self.url(&webhook.url_secret_ref).await?,
                receiver: channel.name,
            })
        } else if let Some(email) = channel.email {
            let (host, port) = email.smarthost.rsplit_once(':').ok_or("smarthost has no port")?;
            let port = port.parse().map_err(|_| "the port of smarthost is none")?;
            let login = match (email.username, &email.password_secret_ref) {
                (Some(user), Some(password)) => Some((user, self.value(password).await?)),
                _ => None,
            };
            let (from, to, require_tls) = (email.from, email.to, email.require_tls);
            Ok(Target::Email(Mail {
                host: host.into(),
                port,
                from,
                to,
                login,
                require_tls,
            }))
        } else {
            Err("is of a kind that this version does not know".into())
        }
    }

    async fn url(&self, at: &SecretKeyRef) -> Result<Url, String> {
        url(&self.value(at).await?, &format!("key {} of secret {}", at.key, at.name))
    }

    async fn value(&self, at: &SecretKeyRef) -> Result<String, String> {
        let what = format!("secret {}", at.name);
        let secret = self
            .0
            .get(&at.name)
            .await
            .map_err(|error| api_error(&what, "get this secret", &error).to_string())?;
        let bytes = secret
            .data
            .and_then(|mut data| data.remove(&at.key))
            .ok_or(format!("{what} has no key {}", at.key))?;
        String::from_utf8(bytes.0)
            .map(|text| text.trim().to_owned())
            .map_err(|_| format!("key {} of {what} is not text", at.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(only: Option<Kind>, variables: &[(&str, &str)]) -> Vec<String> {
        let channels = of_environment(only, |name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        });
        channels
            .into_iter()
            .map(|c| format!("{}: {}", c.name, c.target.err().unwrap_or_else(|| "ok".into())))
            .collect()
    }

    #[test]
    fn what_is_not_set_is_named_and_what_is_wrong_is_not_repeated() {
        assert_eq!(
            reasons(
                None,
                &[
                    ("DISCORD_WEBHOOK_URL", "https://discord.invalid/x"),
                    ("SLACK_WEBHOOK_URL", "s3cret"),
                    ("ALERT_WEBHOOK_URL", "ftp://s3cret/")
                ]
            ),
            [
                "discord: ok",
                "slack: SLACK_WEBHOOK_URL holds no URL",
                "webhook: ALERT_WEBHOOK_URL holds no http or https URL",
                "email: ALERT_EMAIL is not set",
            ]
        );
    }

    #[test]
    fn e_mail_needs_a_server_and_a_whole_login() {
        let email = |variables: &[(&str, &str)]| {
            let mut all = vec![("ALERT_EMAIL", "a@example.org, b@example.org")];
            all.extend(variables);
            reasons(Some(Kind::Email), &all).concat()
        };
        assert_eq!(email(&[]), "email: SMTP_HOST is not set");
        assert_eq!(
            email(&[("SMTP_HOST", "h"), ("SMTP_USERNAME", "u")]),
            "email: SMTP_USERNAME and SMTP_PASSWORD go together"
        );
        assert_eq!(
            email(&[("SMTP_HOST", "h"), ("SMTP_PORT", "70000")]),
            "email: SMTP_PORT is not a port"
        );
        assert_eq!(email(&[("SMTP_HOST", "h")]), "email: ok");
    }
}
