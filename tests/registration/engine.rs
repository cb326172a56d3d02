//! An engine whose containers the test makes up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use swarmkeeper::io::docker::{Action, Container, Error, Event, Health, Listed, Published, State};
use swarmkeeper::registration::Engine;
use tokio::sync::broadcast;

/// A container `name` of the image `nginx` that publishes its port 80 as `host_port`.
pub fn container(name: &str, host_port: u16) -> Made {
    let port = "80/tcp".parse().unwrap();
    Made(Container {
        id: format!("c-{name}"),
        name: name.to_owned(),
        image: "nginx:1".to_owned(),
        labels: BTreeMap::new(),
        env: BTreeMap::new(),
        state: State::Running,
        health: None,
        host_network: false,
        network_of: None,
        stop_signal: 15,
        exit_code: None,
        exposed: vec![port],
        published: vec![Published { port, address: None, v6: false, host_port }],
        networks: BTreeMap::new(),
    })
}

/// A container being made up.
pub struct Made(Container);

impl Made {
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// As a task of a swarm service.
    pub fn of_service(self, service: &str) -> Self {
        self.label("com.docker.swarm.service.name", service)
    }

    /// Publishes nothing by itself.
    pub fn unpublished(mut self) -> Self {
        self.0.published.clear();
        self
    }

    pub fn paused(mut self) -> Self {
        self.0.state = State::Paused;
        self
    }

    pub fn health(mut self, health: Health) -> Self {
        self.0.health = Some(health);
        self
    }
}

/// The engine; clones are the same engine.
#[derive(Clone)]
pub struct FakeEngine {
    containers: Arc<Mutex<(BTreeMap<String, Container>, bool)>>,
    events: Arc<Mutex<broadcast::Sender<Event>>>,
    ended: Arc<Mutex<BTreeMap<String, Container>>>,
}

impl Default for FakeEngine {
    fn default() -> Self {
        let events = Arc::new(Mutex::new(broadcast::channel(64).0));
        Self { containers: Arc::default(), events, ended: Arc::default() }
    }
}

impl FakeEngine {
    /// Makes it run, without an event, and says its ID. One of the same name is changed if that can be done to a container, and
    /// replaced otherwise.
    pub fn put(&self, Made(mut container): Made) -> String {
        let containers = &mut self.state().0;
        let before = containers.values().find(|before| before.name == container.name).cloned();
        if let Some(before) = before.filter(|before| before.labels != container.labels) {
            containers.remove(&before.id);
            container.id = format!("{}x", before.id);
        }
        containers.insert(container.id.clone(), container.clone());
        container.id
    }

    /// Takes it away without an event, and says its ID.
    pub fn remove(&self, name: &str) -> String {
        let containers = &mut self.state().0;
        let id = containers.values().find(|container| container.name == name).unwrap().id.clone();
        containers.remove(&id);
        id
    }

    /// Starts it and says so.
    pub fn start(&self, container: Made) {
        let container = self.put(container);
        self.say(Event { container, action: Action::Start });
    }

    /// Ends it and says so.
    pub fn die(&self, name: &str) {
        let container = self.remove(name);
        self.say(Event { container, action: Action::Die });
    }

    /// Asks it to stop and says so; its process goes on.
    pub fn ask_to_stop(&self, name: &str) {
        let container = self.state().0.values().find(|container| container.name == name).unwrap().id.clone();
        self.say(Event { container, action: Action::Kill(Some(15)) });
    }

    /// Ends it with this code; the engine remembers it.
    pub fn fail(&self, name: &str, code: i64) {
        let id = self.remove(name);
        let ended = container(name, 1);
        let ended = Container { id: id.clone(), state: State::Stopped, exit_code: Some(code), ..ended.0 };
        self.ended.lock().unwrap().insert(id.clone(), ended);
        self.say(Event { container: id, action: Action::Die });
    }

    /// Forgets what has ended.
    pub fn prune(&self) {
        self.ended.lock().unwrap().clear();
    }

    /// Ends all streams of events and answers no more, as an engine that is killed.
    pub fn kill(&self) {
        self.silence(true);
        *self.events.lock().unwrap() = broadcast::channel(64).0;
    }

    /// Answers no more, or again.
    pub fn silence(&self, silent: bool) {
        self.state().1 = silent;
    }

    /// Waits until somebody reads the events.
    pub async fn listened(&self) {
        while self.events.lock().unwrap().receiver_count() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn say(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.lock().unwrap().send(event);
    }

    fn state(&self) -> MutexGuard<'_, (BTreeMap<String, Container>, bool)> {
        self.containers.lock().unwrap()
    }

    fn answer<T>(&self, answer: impl FnOnce(&BTreeMap<String, Container>) -> T) -> Result<T, Error> {
        let (containers, silent) = &*self.state();
        if *silent {
            return Err(Error::NoAnswer { operation: "docker".to_owned(), reason: "silenced by the test".to_owned() });
        }
        Ok(answer(containers))
    }
}

impl Engine for FakeEngine {
    async fn running(&self) -> Result<Vec<Listed>, Error> {
        self.answer(|containers| {
            let listed = containers.values().map(|container| Listed {
                id: container.id.clone(),
                name: container.name.clone(),
                state: container.state,
                health: container.health,
                published: container.published.clone(),
                networks: container.networks.clone(),
            });
            listed.collect()
        })
    }

    async fn inspect(&self, id: &str) -> Result<Option<Container>, Error> {
        let ended = self.ended.lock().unwrap().get(id).cloned();
        self.answer(|containers| containers.get(id).cloned().or(ended))
    }

    fn events(&self) -> BoxStream<'static, Result<Event, Error>> {
        let receiver = self.events.lock().unwrap().subscribe();
        stream::unfold(receiver, |mut receiver| async {
            let event = receiver.recv().await.ok()?;
            Some((Ok(event), receiver))
        })
        .boxed()
    }
}
