//! Which connections there are, and which of them goes when there are too many: whoever opens many, and asks for nothing, goes first.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::exporter::locked;

/// Connections at a time.
pub(super) const CONNECTIONS: usize = 64;

/// The connections that are open.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    entries: Vec<Entry>,
    last: u64,
}

struct Entry {
    id: u64,
    task: AbortHandle,
    state: State,
}

#[derive(Clone, Copy)]
struct State {
    peer: IpAddr,
    /// Requests that are being answered.
    requests: u32,
    /// Whether there was any request yet.
    asked: bool,
    /// Since when it is busy, or idle.
    since: Instant,
}

/// A place among the connections, free again when this is gone.
pub(super) struct Place {
    id: u64,
    connections: Arc<Connections>,
}

impl Connections {
    /// Takes a connection in, whose task `start` starts; another one is closed if there are too many.
    pub fn admit(self: &Arc<Self>, peer: IpAddr, start: impl FnOnce(Place) -> AbortHandle) {
        let mut open = locked(&self.open);
        if open.entries.len() >= CONNECTIONS {
            let states: Vec<_> = open.entries.iter().map(|entry| entry.state).collect();
            if let Some(at) = dispensable(&states) {
                open.entries.swap_remove(at).task.abort();
            }
        }
        open.last += 1;
        let id = open.last;
        let connections = self.clone();
        let task = start(Place { id, connections });
        let state = State {
            peer,
            requests: 0,
            asked: false,
            since: Instant::now(),
        };
        open.entries.push(Entry { id, task, state });
    }

    /// How many are busy.
    #[cfg(test)]
    pub fn busy(&self) -> usize {
        let open = locked(&self.open);
        open.entries.iter().filter(|entry| entry.state.requests > 0).count()
    }
}

/// The place of the connection that is missed least: of the peer with the most of them, idle before busy, the longest so first.
fn dispensable(states: &[State]) -> Option<usize> {
    let of_peer = |peer| states.iter().filter(|state| state.peer == peer).count();
    (0..states.len()).max_by_key(|&at| {
        let State {
            peer, requests, since, ..
        } = states[at];
        (of_peer(peer), requests == 0, std::cmp::Reverse(since))
    })
}

impl Place {
    /// Notes that a request is being answered, for as long as the value lives.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.state(|state| {
            state.requests += 1;
            state.asked = true;
            state.since = Instant::now();
        });
        Busy(self.clone())
    }

    /// Whether there was a request.
    pub fn was_asked(&self) -> bool {
        self.state(|state| state.asked).unwrap_or(false)
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut open = locked(&self.connections.open);
        let entry = open.entries.iter_mut().find(|entry| entry.id == self.id)?;
        Some(change(&mut entry.state))
    }
}

/// A request that is being answered.
pub(super) struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state(|state| {
            state.requests -= 1;
            state.since = Instant::now();
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.connections.open)
            .entries
            .retain(|entry| entry.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_has_most_connections_loses_the_one_that_is_missed_least() {
        let start = Instant::now();
        let state = |peer: u8, busy, second| State {
            peer: [10, 0, 0, peer].into(),
            requests: u32::from(busy),
            asked: true,
            since: start + Duration::from_secs(second),
        };
        assert_eq!(dispensable(&[]), None);
        // An old idle connection of a scraper stays, beside a crowd.
        let crowd = [
            state(1, false, 0),
            state(2, true, 1),
            state(2, false, 3),
            state(2, false, 2),
        ];
        assert_eq!(dispensable(&crowd), Some(3));
        assert_eq!(dispensable(&crowd[..3]), Some(2));
        let busy = [state(1, true, 0), state(2, true, 2), state(2, true, 1)];
        assert_eq!(dispensable(&busy), Some(2));
        assert_eq!(dispensable(&[state(1, true, 0), state(2, false, 5)]), Some(1));
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_its_connection_ends() {
        let connections = Arc::new(Connections::default());
        let peer = IpAddr::from([127, 0, 0, 1]);
        let idle = |place: Place| {
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(place);
            })
            .abort_handle()
        };
        for _ in 0..3 * CONNECTIONS {
            connections.admit(peer, idle);
        }
        assert_eq!(locked(&connections.open).entries.len(), CONNECTIONS);
        connections.admit(peer, |place| tokio::spawn(async move { drop(place) }).abort_handle());
        while locked(&connections.open).entries.len() == CONNECTIONS {
            tokio::task::yield_now().await;
        }
    }
}
