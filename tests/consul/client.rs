//! The client: what it promises of Consul's API holds of a real one.

use std::time::Duration;

use swarmkeeper::io::consul::check::Heartbeat;
use swarmkeeper::io::consul::kv::Freshness;
use swarmkeeper::io::consul::session::NewSession;
use swarmkeeper::io::consul::txn::{Op, Outcome};

use crate::support::ConsulServer;

#[tokio::test]
async fn a_key_is_created_changed_watched_listed_and_deleted() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let key = "a b/ü%2F/c";
    assert_eq!(consul.kv_get(key, Freshness::Consistent).await.unwrap(), None);
    assert!(consul.kv_cas(key, b"1".to_vec(), 0).await.unwrap());
    assert!(!consul.kv_cas(key, b"2".to_vec(), 0).await.unwrap(), "it exists");
    let seen = consul.kv_watch(key, 0, Duration::from_secs(1)).await.unwrap();
    let pair = seen.now.clone().unwrap();
    assert_eq!((pair.key.as_str(), pair.value.as_slice(), pair.session), (key, b"1".as_slice(), None));
    let (change, ()) = tokio::join!(consul.kv_watch(key, seen.index, Duration::from_secs(10)), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        consul.kv_put(key, b"3".to_vec()).await.unwrap();
    });
    assert_eq!(change.unwrap().now.unwrap().value, b"3");
    assert_eq!(consul.kv_list("a b/").await.unwrap().len(), 1);
    consul.kv_delete(key).await.unwrap();
    assert_eq!(consul.kv_list("a b/").await.unwrap(), []);
}

#[tokio::test]
async fn a_lock_is_taken_once_and_fences_what_its_former_holder_writes() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let heartbeat = Heartbeat {
        id: "alive:1".to_owned(),
        service: "alive".to_owned(),
        name: "alive".to_owned(),
        notes: String::new(),
        ttl: Duration::from_secs(10),
        forgotten_after: Duration::from_mins(1),
    };
    consul.heartbeat_register(&heartbeat).await.unwrap();
    consul.heartbeat_pass("alive:1", "well", Duration::from_secs(1)).await.unwrap();
    let new = NewSession {
        name: "test".to_owned(),
        checks: vec!["serfHealth".to_owned(), "alive:1".to_owned()],
        ttl: Duration::from_secs(15),
        lock_delay: Duration::from_secs(1),
    };
    let (first, second) = (consul.session_create(&new).await.unwrap(), consul.session_create(&new).await.unwrap());
    let key = "lock".to_owned();
    let lock = |session: &str| Op::Lock { key: key.clone(), value: b"x".to_vec(), session: session.to_owned() };
    let guard = Op::CheckNotExists { key: key.clone() };
    let Outcome::Done { index } = consul.kv_txn(&[guard, lock(&first)]).await.unwrap() else { panic!() };
    let pair = consul.kv_get(&key, Freshness::Consistent).await.unwrap().unwrap();
    assert_eq!((pair.modify_index, pair.session.as_deref()), (index, Some(first.as_str())));
    assert!(matches!(consul.kv_txn(&[lock(&second)]).await.unwrap(), Outcome::Conflict { operation: 0, .. }));

    assert!(consul.session_renew(&first).await.unwrap());
    consul.session_destroy(&first).await.unwrap();
    assert!(!consul.session_renew(&first).await.unwrap());
    assert_eq!(consul.session_info(&first).await.unwrap(), None);
    let delayed = consul.kv_txn(&[lock(&second)]).await.unwrap();
    assert!(matches!(&delayed, Outcome::Conflict { reason, .. } if reason.contains("lock delay")), "{delayed:?}");
    let fenced = [
        Op::CheckSession { key: key.clone(), session: first.clone() },
        Op::Set { key: "value".to_owned(), value: b"stale".to_vec() },
    ];
    assert!(matches!(consul.kv_txn(&fenced).await.unwrap(), Outcome::Conflict { operation: 0, .. }));
    assert_eq!(consul.kv_get("value", Freshness::Consistent).await.unwrap(), None);
}

#[tokio::test]
async fn the_agent_says_who_it_is_and_who_is_well() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let me = consul.agent_self().await.unwrap();
    assert_eq!((me.node.as_str(), me.datacenter.as_str()), ("consul-test", "dc1"));
    assert!(consul.raft_leader().await.unwrap().is_some());
    let passing = consul.health_nodes("consul", true).await.unwrap();
    assert_eq!(passing.into_iter().collect::<Vec<_>>(), ["consul-test"]);
}
