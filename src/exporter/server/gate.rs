//! What stands between a request and its page: how often one may ask, and who.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::Caller;
use crate::exporter::web_config::{Asked, Login, Rules, Web};

/// The way in.
pub(super) struct Gate {
    pub web: Arc<Web>,
    pub app: TowerToHyperService<Router>,
}

/// What is known of a client from its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub peer: SocketAddr,
    /// What its handshake asked of the client; nothing in the clear.
    pub asked: Option<Asked>,
    /// Whether the client showed a certificate that was verified.
    pub verified: bool,
}

fn refuse(status: StatusCode, more: Option<(HeaderName, &'static str)>) -> Response {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut response = (status, text).into_response();
    if let Some((name, value)) = more {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Gate {
    /// Answers a request, or says why not.
    pub async fn answer(&self, mut request: Request<Incoming>, link: Link) -> Response {
        self.web.refresh().await;
        let Some(rules) = self.web.current() else {
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, None);
        };
        let mut response = match self
            .admit(&rules, request.headers().get(header::AUTHORIZATION), link)
            .await
        {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                let answered = self.app.call(request).await;
                answered.unwrap_or_else(|never| match never {})
            }
            Err(refusal) => refusal,
        };
        for (name, value) in rules.headers() {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }

    /// Who asks, if whoever it is may.
    async fn admit(&self, rules: &Rules, login: Option<&HeaderValue>, link: Link) -> Result<Caller, Response> {
        if !self.web.may_ask(rules) {
            return Err(refuse(StatusCode::TOO_MANY_REQUESTS, None));
        }
        // Opened before the file asked for TLS, or for another certificate of the client.
        if rules.asked != link.asked {
            return Err(refuse(StatusCode::BAD_REQUEST, Some((header::CONNECTION, "close"))));
        }
        if rules.have_users() {
            match self.web.login(rules, login, link.peer.ip().to_canonical()).await {
                Login::Good => {}
                Login::Bad => {
                    let challenge = (header::WWW_AUTHENTICATE, "Basic");
                    return Err(refuse(StatusCode::UNAUTHORIZED, Some(challenge)));
                }
                Login::Busy => {
                    let later = (header::RETRY_AFTER, "5");
                    return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, Some(later)));
                }
            }
        }
        Ok(Caller {
            peer: link.peer,
            authenticated: rules.have_users() || link.verified,
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// A gate by these rules, with nothing behind it.
    async fn gate(file: &str) -> Gate {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, file).unwrap();
        let web = Arc::new(Web::new(Some(path.path().to_owned()), "/".into()));
        while web.rules().is_none() {
            web.refresh().await;
        }
        let app = TowerToHyperService::new(Router::new());
        Gate { web, app }
    }

    /// Who is let in from elsewhere, as known or as unknown, or the answer that says why not.
    async fn admit(gate: &Gate, verified: bool, login: Option<&str>) -> Result<bool, Response> {
        let link = Link {
            peer: SocketAddr::from(([10, 0, 0, 1], 1234)),
            asked: gate.web.rules().and_then(|rules| rules.asked),
            verified,
        };
        let login = login.map(|login| format!("Basic {}", STANDARD.encode(login)).parse().unwrap());
        let rules = gate.web.rules().unwrap();
        let admitted = gate.admit(&rules, login.as_ref(), link).await;
        admitted.map(|caller| caller.authenticated)
    }

    async fn admitted(file: &str, verified: bool, login: Option<&str>) -> Result<bool, u16> {
        let admitted = admit(&gate(file).await, verified, login).await;
        admitted.map_err(|refusal| refusal.status().as_u16())
    }

    #[tokio::test]
    async fn who_guesses_many_passwords_at_once_is_told_to_come_later() {
        let users = format!("basic_auth_users: {{alice: {}}}", bcrypt::hash("alice123", 4).unwrap());
        let gate = gate(&users).await;
        let guesses = ["alice:1", "alice:2", "alice:3"].map(|guess| admit(&gate, false, Some(guess)));
        let told = futures::future::join_all(guesses).await;
        let told: Vec<_> = told.into_iter().map(Result::unwrap_err).collect();
        let statuses: Vec<_> = told.iter().map(|answer| answer.status().as_u16()).collect();
        assert_eq!(statuses, [401, 401, 503]);
        assert_eq!(told[2].headers()[header::RETRY_AFTER], "5");
    }

    #[tokio::test]
    async fn who_showed_a_certificate_or_a_password_is_known() {
        let users = format!("basic_auth_users: {{alice: {}}}", bcrypt::hash("alice123", 4).unwrap());
        assert_eq!(admitted("", false, None).await, Ok(false));
        assert_eq!(admitted("", false, Some("alice:alice123")).await, Ok(false));
        assert_eq!(admitted("", true, None).await, Ok(true));
        assert_eq!(admitted(&users, false, Some("alice:alice123")).await, Ok(true));
        assert_eq!(admitted(&users, false, Some("alice:bob123")).await, Err(401));
        assert_eq!(admitted(&users, true, None).await, Err(401));
    }

    #[tokio::test]
    async fn who_comes_too_often_costs_no_bcrypt() {
        let text = "rate_limit: {interval: 1h, burst: 0}\nbasic_auth_users: {alice: $2y$18$XETTpPMJdrD/WVJzCcwds.LWyWtSmA4kQG5OOTErHWxYjCdsZRP5S}";
        assert_eq!(admitted(text, false, Some("alice:x")).await, Err(429));
    }
}
