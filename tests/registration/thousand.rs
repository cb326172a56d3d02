//! What a re-sync of a thousand services costs when nothing has changed.

use std::time::{Duration, Instant};

use swarmkeeper::io::docker::Health;
use swarmkeeper::registration::STEPS_MAX;

use crate::Node;
use crate::engine::container;

const SERVICES: usize = 1000;

/// The most that such a pass may take: the figure to reach is a tenth of a second on a quiet machine.
const PASS_MAX: Duration = Duration::from_millis(500);

#[tokio::test]
async fn an_unchanged_resync_of_a_thousand_services_is_two_requests_and_no_write() {
    let mut node = Node::start().await;
    for n in 0..SERVICES {
        let port = 10_000 + u16::try_from(n).unwrap();
        let name = format!("web{n}");
        let made =
            container(&name, port).label("SERVICE_NAME", &format!("web{}", n % 100)).label("SERVICE_TAGS", "a,b");
        node.engine.put(made.health(Health::Healthy));
    }
    let now = Instant::now();
    for _ in 0..=SERVICES.div_ceil(STEPS_MAX) {
        node.pass_at(now).await;
    }
    let requests = node.requests();
    let mut times = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        let outcome = node.pass_at(now).await;
        times.push(begin.elapsed());
        assert_eq!((outcome.written, outcome.repeated, outcome.registered), (0, 0, SERVICES), "{outcome:?}");
    }
    assert_eq!(node.requests() - requests, 5 * 2, "services and checks, once a pass");
    times.sort();
    println!("unchanged re-sync of {SERVICES} services: median {:?}, longest {:?}", times[2], times[4]);
    assert!(times[2] < PASS_MAX, "{times:?}");
}
