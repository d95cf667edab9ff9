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
    /// Claims one that nobody else has, in which all of `ports` are free.
    ///
    /// # Errors
    /// When there is none; or when somebody listens at one of the ports on every address there is, which no network escapes.
    pub(crate) fn claim(ports: &[u16]) -> Result<Self> {
        let seed = std::process::id() ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.subsec_micros());
        for attempt in 0..240_u32 {
            // 127.0.x.y and the first few are left to whatever else runs on the machine.
            let second = u8::try_from(10 + (seed.wrapping_add(attempt)) % 240).context("a network number below 250")?;
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, second, 255, 254), CLAIM_PORT)) {
                let network = Self {
                    second,
                    next_pod: AtomicU32::new(256),
                    _claim: claim,
                };
                free(network.host(), ports)?;
                return Ok(network);
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

/// Whether nobody listens at these ports of an address that is nobody else's.
fn free(host: Ipv4Addr, ports: &[u16]) -> Result<()> {
    for port in ports {
        TcpListener::bind((host, *port)).with_context(|| {
            format!(
                "port {port} is taken on every address of this machine, and a lab needs it on addresses of its own; find \
                 who listens on 0.0.0.0 or [::] with: ss -ltnp 'sport = :{port}', and end that program or let it listen \
                 on 127.0.0.1 alone"
            )
        })?;
    }
    Ok(())
}

/// A TCP port of 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// When no port can be bound.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).context("bind a port of 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_has_on_every_address_is_named_with_what_to_do() -> Result<()> {
        let mine = Network::claim(&[])?;
        let everywhere = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = everywhere.local_addr()?.port();
        let refused = free(mine.host(), &[port]).map_err(|error| error.to_string());
        let said = refused.expect_err("the port is taken");
        assert!(
            said.starts_with(&format!("port {port} is taken on every address")),
            "{said}"
        );
        assert!(said.contains(&format!("ss -ltnp 'sport = :{port}'")), "{said}");
        assert!(Network::claim(&[port]).is_err());
        drop(everywhere);
        free(mine.host(), &[port])
    }
}
