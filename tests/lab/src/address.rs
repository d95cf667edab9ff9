//! Addresses: each lab owns one 127.x.0.0/16, so that labs beside each other, and pods that use the same port, never meet.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// Bound on the last address of a lab's network for as long as the lab lives: whoever can't bind it looks further.
const CLAIM_PORT: u16 = 27_000;

/// The network 127.x.0.0/16 of one lab. Linux answers on all of 127/8 without being asked to.
pub(crate) struct Network {
    second: u8,
    next_pod: AtomicU32,
    _claim: TcpListener,
}

impl Network {
    pub(crate) fn claim() -> Result<Self> {
        let seed = std::process::id() ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.subsec_micros());
        for attempt in 0..240_u32 {
            // 127.0.x.y and the first few are left to whatever else runs on the machine.
            let second = u8::try_from(10 + (seed.wrapping_add(attempt)) % 240).context("a network number below 250")?;
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, second, 255, 254), CLAIM_PORT)) {
                return Ok(Self {
                    second,
                    next_pod: AtomicU32::new(256),
                    _claim: claim,
                });
            }
        }
        bail!("no free 127.x.0.0/16: all 240 are claimed by labs that run, or this is not Linux")
    }

    /// Where the lab's own components listen, each on a port of its own.
    pub(crate) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second, 0, 1)
    }

    /// An address for one more pod, never given out before.
    pub(crate) fn pod(&self) -> Result<Ipv4Addr> {
        let [first, second, third, fourth] = self.next_pod.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        if (first, second) != (0, 0) || third == 255 {
            bail!("the lab's network has room for 65,000 pods, and all of it is used up");
        }
        Ok(Ipv4Addr::new(127, self.second, third, fourth))
    }
}

/// A TCP port of 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// When no port can be bound.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).context("bind a port of 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
