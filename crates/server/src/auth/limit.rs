//! Failed attempts to show a credential, by address.
//!
//! A right credential always works, so nobody behind a shared address is locked out by a neighbour:
//! secrets are long enough that guessing needs no help against it. The limit is against the load
//! and the noise of programs that try again and again with a wrong one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures that one address may have at once.
const BURST: f64 = 10.0;

/// Failures that are forgiven in a second: 10 a minute.
const FORGIVEN_PER_SECOND: f64 = 10.0 / 60.0;

/// Most addresses that are told apart; the others share one bucket, so that many addresses cost no
/// more memory than this.
const MOST_ADDRESSES: usize = 10_000;

/// Least time between two searches for buckets that can be forgotten.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// The bucket of all addresses for which there is no room.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What is left for one address.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + seconds * FORGIVEN_PER_SECOND).min(BURST);
        self.at = now;
    }
}

#[derive(Debug, Default)]
struct Buckets {
    by_address: HashMap<IpAddr, Bucket>,
    tidied: Option<Instant>,
}

impl Buckets {
    /// Forgets the addresses of which all failures are forgiven.
    fn tidy(&mut self, now: Instant) {
        if self.tidied.is_some_and(|at| now.saturating_duration_since(at) < TIDY_INTERVAL) {
            return;
        }
        self.tidied = Some(now);
        self.by_address.retain(|_, bucket| {
            bucket.refill(now);
            bucket.left < BURST
        });
    }
}

/// Counts failed attempts by address.
#[derive(Debug, Default)]
pub struct Limiter(Mutex<Buckets>);

impl Limiter {
    /// Counts a failure. `None` while the address stays within the limit, else the time after which
    /// it is worth to try again.
    pub fn fail(&self, address: Option<IpAddr>) -> Option<Duration> {
        self.fail_at(address, Instant::now())
    }

    fn fail_at(&self, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        // A poisoned lock only means that a panic happened between two additions elsewhere.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = address.map_or(OTHERS, network);
        if buckets.by_address.len() >= MOST_ADDRESSES && !buckets.by_address.contains_key(&key) {
            buckets.tidy(now);
            if buckets.by_address.len() >= MOST_ADDRESSES {
                key = OTHERS;
            }
        }
        let bucket = buckets.by_address.entry(key).or_insert(Bucket { left: BURST, at: now });
        bucket.refill(now);
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64((1.0 - bucket.left) / FORGIVEN_PER_SECOND))
    }
}

/// What one user of the network has: an IPv4 address, or the /64 network that IPv6 gives to everybody.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect(text))
    }

    #[test]
    fn ten_failures_pass_and_the_eleventh_is_told_when_to_come_again() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(limiter.fail_at(address("192.0.2.1"), now), None);
        }
        let wait = limiter.fail_at(address("192.0.2.1"), now).expect("the limit");
        assert!((wait.as_secs_f64() - 6.0).abs() < 0.01, "{wait:?}");
        assert_eq!(limiter.fail_at(address("192.0.2.2"), now), None, "another address");
        assert_eq!(limiter.fail_at(address("192.0.2.1"), now + wait + Duration::from_millis(1)), None);
    }

    #[test]
    fn one_ipv6_network_is_one_address_and_a_mapped_ipv4_address_is_the_same() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        for host in 0..10 {
            assert_eq!(limiter.fail_at(address(&format!("2001:db8::{host}")), now), None);
            assert_eq!(limiter.fail_at(address("::ffff:192.0.2.1"), now), None);
        }
        assert!(limiter.fail_at(address("2001:db8::ffff"), now).is_some());
        assert!(limiter.fail_at(address("192.0.2.1"), now).is_some());
        assert_eq!(limiter.fail_at(address("2001:db8:0:1::1"), now), None, "another network");
    }

    #[test]
    fn many_addresses_share_one_bucket_beyond_the_bound_and_are_forgotten_in_time() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        let many = u32::try_from(MOST_ADDRESSES).expect("small");
        for number in 1..=many + 10 {
            limiter.fail_at(Some(Ipv4Addr::from_bits(number).into()), now);
        }
        let length = || limiter.0.lock().expect("lock").by_address.len();
        assert_eq!(length(), MOST_ADDRESSES + 1);
        assert!(limiter.fail_at(address("198.51.100.1"), now).is_some(), "the shared bucket is empty");
        let later = now + Duration::from_secs(61);
        assert_eq!(limiter.fail_at(address("198.51.100.1"), later), None);
        assert_eq!(length(), 1, "all others are forgiven");
    }
}
