//! Names and passwords: checked with bcrypt, which is slow on purpose, one at a time and apart from everything else.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use tokio::sync::{Semaphore, watch};

use super::file::Users;
use crate::exporter::locked;

/// Verdicts that are remembered, for and against each. Only who knows a password can add to those for.
const REMEMBERED: usize = 64;
/// Checks of different credentials that one peer may have waiting or running, so that it can't keep the others from theirs.
const WAITING_OF_PEER: usize = 2;
/// Checks that may wait or run altogether.
const WAITING: usize = 32;
/// Bytes of a password that bcrypt looks at.
const LONGEST: usize = 72;
/// What follows the cost in a hash that nobody's password has: it is compared where a user is not known, so that the time of
/// the answer does not tell who is. Salt and digest are those of no password in particular, and a match would not count.
const NOBODY: &str = "$XETTpPMJdrD/WVJzCcwds.LWyWtSmA4kQG5OOTErHWxYjCdsZRP5S";

type Tag = [u8; 32];
type Compare = dyn Fn(&[u8], &str) -> bool + Send + Sync;

/// What somebody's credentials are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::exporter) enum Login {
    Good,
    Bad,
    /// Too many wait already.
    Busy,
}

/// Those who have come.
pub(super) struct Logins {
    /// Random and of this process alone: what it signs says nothing of a password to whoever reads the memory.
    key: hmac::Key,
    compare: Box<Compare>,
    verdicts: Mutex<Verdicts>,
    waiting: Mutex<Vec<Check>>,
    turn: Semaphore,
}

#[derive(Default)]
struct Verdicts {
    good: VecDeque<Tag>,
    bad: VecDeque<Tag>,
}

impl Verdicts {
    fn find(&self, tag: &Tag) -> Option<Login> {
        if self.good.contains(tag) {
            return Some(Login::Good);
        }
        self.bad.contains(tag).then_some(Login::Bad)
    }

    fn add(&mut self, tag: Tag, login: Login) {
        let verdicts = match login {
            Login::Good => &mut self.good,
            _ => &mut self.bad,
        };
        if verdicts.len() >= REMEMBERED {
            verdicts.pop_front();
        }
        verdicts.push_back(tag);
    }
}

/// A check that waits or runs.
struct Check {
    tag: Tag,
    peer: IpAddr,
    verdict: watch::Receiver<Option<Login>>,
}

/// A place in the queue, free again when this is gone.
struct Place {
    logins: Arc<Logins>,
    tag: Tag,
    verdict: watch::Sender<Option<Login>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.logins.waiting).retain(|check| check.tag != self.tag);
    }
}

impl Logins {
    /// # Errors
    ///
    /// When the system has no random numbers.
    pub fn new() -> Result<Self, ring::error::Unspecified> {
        Self::comparing(|password, hash| bcrypt::verify(password, hash).unwrap_or(false))
    }

    fn comparing(
        compare: impl Fn(&[u8], &str) -> bool + Send + Sync + 'static,
    ) -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())?,
            compare: Box::new(compare),
            verdicts: Mutex::default(),
            waiting: Mutex::default(),
            turn: Semaphore::new(1),
        })
    }

    /// Whether the value of a header `Authorization` from `peer` is that of one of `users`.
    pub async fn check(self: &Arc<Self>, users: &Users, header: Option<&HeaderValue>, peer: IpAddr) -> Login {
        let Some((user, password)) = header.and_then(credentials) else {
            return Login::Bad;
        };
        let known = users.get(&user);
        let hash = known.cloned().unwrap_or_else(|| nobody(users));
        let tag = self.tag([user.as_bytes(), hash.as_bytes(), &password]);
        if let Some(login) = self.found(&tag) {
            return login;
        }
        let Some((mut verdict, place)) = self.wait(tag, peer) else {
            return Login::Busy;
        };
        if let Some(place) = place {
            let (this, known) = (self.clone(), known.is_some());
            // On its own, since a scraper may leave before its turn comes: the next time the verdict is there.
            tokio::spawn(async move {
                let login = this.judge(tag, known, password, hash).await;
                place.verdict.send_replace(Some(login));
            });
        }
        let told = verdict.wait_for(Option::is_some).await;
        told.ok().and_then(|login| *login).unwrap_or(Login::Busy)
    }

    /// Compares when its turn comes.
    async fn judge(self: Arc<Self>, tag: Tag, known: bool, password: Vec<u8>, hash: String) -> Login {
        let Ok(_turn) = self.turn.acquire().await else {
            return Login::Busy;
        };
        if let Some(login) = self.found(&tag) {
            return login;
        }
        let comparing = self.clone();
        let compared = tokio::task::spawn_blocking(move || (comparing.compare)(&password, &hash));
        let login = match compared.await {
            Ok(true) if known => Login::Good,
            Ok(_) => Login::Bad,
            Err(_) => return Login::Busy,
        };
        locked(&self.verdicts).add(tag, login);
        login
    }

    fn found(&self, tag: &Tag) -> Option<Login> {
        locked(&self.verdicts).find(tag)
    }

    /// With the length before each part: no two triples look the same (GHSA-4v48-4q5m-8vx4 was about a cache where they could).
    fn tag(&self, parts: [&[u8]; 3]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// Where the verdict will be told, and a place in the queue, unless the same credentials have one: whoever sends them once
    /// more costs nothing more. Nothing where too many wait.
    fn wait(self: &Arc<Self>, tag: Tag, peer: IpAddr) -> Option<(watch::Receiver<Option<Login>>, Option<Place>)> {
        let mut waiting = locked(&self.waiting);
        if let Some(same) = waiting.iter().find(|check| check.tag == tag) {
            return Some((same.verdict.clone(), None));
        }
        let of_peer = waiting.iter().filter(|check| check.peer == peer).count();
        if of_peer >= WAITING_OF_PEER || waiting.len() >= WAITING {
            return None;
        }
        let (told, verdict) = watch::channel(None);
        waiting.push(Check {
            tag,
            peer,
            verdict: verdict.clone(),
        });
        let place = Place {
            logins: self.clone(),
            tag,
            verdict: told,
        };
        Some((verdict, Some(place)))
    }
}

/// A hash as costly as those of the users: that of the cheapest, so that nobody makes us work harder than by a known name.
fn nobody(users: &Users) -> String {
    // The part between the second and the third dollar of a hash that was found to be one.
    let cost = users.values().filter_map(|hash| hash.get(4..6)).min().unwrap_or("10");
    format!("$2y${cost}{NOBODY}")
}

/// Name and password of a header as RFC 7617 has it.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = header.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = STANDARD.decode(rest).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    let password = &decoded[colon + 1..];
    Some((user, password[..password.len().min(LONGEST)].to_vec()))
}

#[cfg(test)]
mod tests;
