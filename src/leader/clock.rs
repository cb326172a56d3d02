//! The clock that leases are measured with.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since the machine started, suspend included: `std::time::Instant` stands still while a virtual machine is suspended, and a lease
/// that it measures would seem valid on waking up.
pub fn boottime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward() {
        let before = boottime();
        assert!(before > Duration::ZERO);
        assert!(boottime() >= before);
    }
}
