//! The suite of every coordination, with the lock in a real Consul and in an engine's config.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use swarmkeeper::leader::{ByConsul, BySwarm, Coordination, Keys, Options, Profile};
use tokio::sync::Mutex;

use crate::coordination::{CLUSTER, Ground};
use crate::engine::Engine;
use crate::support::ConsulServer;

mod in_consul {
    crate::suite!(super::InConsul);
}

mod in_the_swarm {
    crate::suite!(super::InTheSwarm);
}

struct InConsul(Mutex<ConsulServer>);

impl Ground for InConsul {
    const PROFILE: Profile = Profile::FAST;
    const REPLACED_MAX: Duration = Duration::from_millis(3500);
    const HANDED_OVER_MAX: Duration = Duration::from_millis(500);

    fn new() -> BoxFuture<'static, Self> {
        async { Self(Mutex::new(ConsulServer::start().await)) }.boxed()
    }

    fn lock(&self, options: Options) -> BoxFuture<'_, Arc<dyn Coordination>> {
        async { Arc::new(ByConsul::new(self.0.lock().await.client(), options)) as _ }.boxed()
    }

    fn delete(&self) -> BoxFuture<'_, ()> {
        async {
            let consul = self.0.lock().await.client();
            consul.kv_delete(&Keys::new(CLUSTER).lock()).await.unwrap();
        }
        .boxed()
    }

    fn outage(&mut self, long: Duration) -> BoxFuture<'_, ()> {
        async move {
            let server = self.0.get_mut();
            server.kill();
            tokio::time::sleep(long).await;
            server.start_again().await;
        }
        .boxed()
    }
}

struct InTheSwarm(Engine);

impl Ground for InTheSwarm {
    /// As the swarm's own, three times as quick.
    const PROFILE: Profile = Profile {
        heartbeat: Duration::from_millis(900),
        lock_delay: Duration::from_secs(4),
        margin: Duration::from_secs(1),
        ..Profile::SWARM
    };
    const REPLACED_MAX: Duration = Duration::from_millis(4500);
    const HANDED_OVER_MAX: Duration = Duration::from_millis(1500);

    fn new() -> BoxFuture<'static, Self> {
        async { Self(Engine::start().await) }.boxed()
    }

    fn lock(&self, options: Options) -> BoxFuture<'_, Arc<dyn Coordination>> {
        async { Arc::new(BySwarm::new(self.0.client().await, options)) as _ }.boxed()
    }

    fn delete(&self) -> BoxFuture<'_, ()> {
        async {
            let swarm = self.0.client().await;
            let config = swarm.config("swarmkeeper-leader").await.unwrap();
            swarm.config_remove(&config.id).await.unwrap();
        }
        .boxed()
    }

    fn outage(&mut self, long: Duration) -> BoxFuture<'_, ()> {
        async move {
            self.0.set_answers(false);
            tokio::time::sleep(long).await;
            self.0.set_answers(true);
        }
        .boxed()
    }
}
