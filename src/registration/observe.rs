//! What runs on the node: the list of containers, and an inspection of each that may have changed.
//!
//! Every pass lists anew. Inspections are kept while the list tells the same of a container and no event named it; that is an
//! optimisation and no source of truth: an entry is kept only where list and inspection agree, and a container that does not run
//! has none. The container of an event is inspected again. One that died is taken at the event's word for [`DEATH_TRUST`] unless it
//! starts again: an inspection would have to wait for the container's lock, which the engine holds while it cleans up (150 to 250 ms
//! on 20.10), and its list still shows the dead one as running.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::io::docker::{Action, Container, Docker, Error, Event, Listed, State};

/// Most containers inspected at a time.
const INSPECTIONS_MAX: usize = 8;

/// How long a container that could not be inspected is left alone, unless an event names it: one that is stuck must not delay the
/// others' registration at every pass.
const INSPECTION_RETRY: Duration = Duration::from_secs(5);

/// How long a container that died is not looked at; by then the engine has cleaned up, and its list tells the truth.
pub const DEATH_TRUST: Duration = Duration::from_secs(2);

/// How long a container that was asked to stop may take: no grace period is longer. One that runs on after that did not mean to stop.
pub const STOP_TRUST: Duration = Duration::from_mins(10);

/// What a container is sent that need not be waited for: its end follows at once.
const SIGKILL: u16 = 9;

/// The engine, as far as registration needs it; tests bring their own.
pub trait Engine: Send + Sync {
    /// All containers that run; complete, or an error.
    fn running(&self) -> impl Future<Output = Result<Vec<Listed>, Error>> + Send;

    /// One container; none if it is gone.
    fn inspect(&self, id: &str) -> impl Future<Output = Result<Option<Container>, Error>> + Send;

    /// What happens to containers, beginning shortly before now, until the engine ends it.
    fn events(&self) -> BoxStream<'static, Result<Event, Error>>;
}

impl Engine for Docker {
    fn running(&self) -> impl Future<Output = Result<Vec<Listed>, Error>> + Send {
        Docker::running(self)
    }

    fn inspect(&self, id: &str) -> impl Future<Output = Result<Option<Container>, Error>> + Send {
        Docker::inspect(self, id)
    }

    fn events(&self) -> BoxStream<'static, Result<Event, Error>> {
        Docker::events(self, SystemTime::now() - EVENTS_OVERLAP)
    }
}

/// How much of the past a new stream repeats: it is opened before a list and read after it, and a repeated event costs little.
const EVENTS_OVERLAP: Duration = Duration::from_secs(2);

/// What runs on the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Inspected, by ID.
    pub containers: Vec<Arc<Container>>,
    /// Those that run and could not be inspected, and why.
    pub unknown: BTreeMap<String, Error>,
}

/// Inspections that are still good.
#[derive(Debug, Default)]
pub struct Observer {
    known: BTreeMap<String, (Listed, Arc<Container>)>,
    /// Failed inspections and when.
    failed: BTreeMap<String, (Instant, Error)>,
    /// Containers that something happened to.
    dirty: BTreeSet<String>,
    /// Containers that died, and when we heard of it.
    died: BTreeMap<String, Instant>,
    /// Containers that were asked to stop, and when.
    stopping: BTreeMap<String, Instant>,
}

impl Observer {
    /// Something happened to a container: what is known of it is not to be trusted.
    pub fn mark(&mut self, event: Event, now: Instant) {
        match event.action {
            Action::Kill(signal) => {
                if self.asks_to_stop(&event.container, signal) {
                    self.stopping.insert(event.container, now);
                }
                // What a signal does shows in the event that follows. An inspection in between would wait until the engine has
                // cleaned up after the container's end, and hold up the news of it.
                return;
            }
            Action::Die => drop(self.died.insert(event.container.clone(), now)),
            Action::Start => {
                self.died.remove(&event.container);
                self.stopping.remove(&event.container);
            }
            _ => {}
        }
        self.dirty.insert(event.container);
    }

    /// A container that was asked to stop while nobody looked.
    pub fn was_asked_to_stop(&mut self, container: &str, now: Instant) {
        self.stopping.entry(container.to_owned()).or_insert(now);
    }

    /// IDs of containers that were asked to stop and run still.
    pub fn stopping(&self) -> BTreeSet<String> {
        self.stopping.keys().cloned().collect()
    }

    /// True for the signal that asks this container to stop, and for one that leaves it open.
    fn asks_to_stop(&self, container: &str, signal: Option<u16>) -> bool {
        const SIGTERM: u16 = 15;
        let asked = self.known.get(container).map_or(SIGTERM, |(_, container)| container.stop_signal);
        signal.is_none_or(|signal| signal == asked && signal != SIGKILL)
    }

    /// Lists, and inspects what is new, changed or marked.
    pub async fn observe(&mut self, engine: &impl Engine, now: Instant) -> Result<Node, Error> {
        let listed = engine.running().await?;
        self.died.retain(|_, at| now.duration_since(*at) < DEATH_TRUST);
        let dirty = std::mem::take(&mut self.dirty);
        let known = std::mem::take(&mut self.known);
        let failed = std::mem::take(&mut self.failed);
        let ids: BTreeSet<&str> = listed.iter().map(|listed| listed.id.as_str()).collect();
        self.stopping.retain(|id, at| ids.contains(id.as_str()) && now.duration_since(*at) < STOP_TRUST);
        let mut node = Node::default();
        let mut open = Vec::new();
        for listed in listed.into_iter().filter(|listed| !self.died.contains_key(&listed.id)) {
            let trusted = !dirty.contains(&listed.id);
            if let Some((before, container)) = known.get(&listed.id)
                && trusted
                && *before == listed
            {
                node.containers.push(Arc::clone(container));
                self.known.insert(listed.id.clone(), (listed, Arc::clone(container)));
            } else if let Some((at, error)) = failed.get(&listed.id)
                && trusted
                && now.duration_since(*at) < INSPECTION_RETRY
            {
                node.unknown.insert(listed.id.clone(), error.clone());
                self.failed.insert(listed.id, (*at, error.clone()));
            } else {
                open.push(listed);
            }
        }
        self.inspect(engine, open, now, &mut node).await;
        node.containers.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(node)
    }

    async fn inspect(&mut self, engine: &impl Engine, open: Vec<Listed>, now: Instant, node: &mut Node) {
        let mut inspected = stream::iter(open)
            .map(|listed| async {
                let container = engine.inspect(&listed.id).await;
                (listed, container)
            })
            .buffer_unordered(INSPECTIONS_MAX);
        while let Some((listed, container)) = inspected.next().await {
            match container {
                Ok(None) => {}
                Ok(Some(container)) if container.state == State::Stopped => {}
                Ok(Some(container)) => {
                    let container = Arc::new(container);
                    if agrees(&listed, &container) {
                        self.known.insert(listed.id.clone(), (listed, Arc::clone(&container)));
                    }
                    node.containers.push(container);
                }
                Err(error) => {
                    node.unknown.insert(listed.id.clone(), error.clone());
                    self.failed.insert(listed.id, (now, error));
                }
            }
        }
    }
}

/// True if the list and the inspection saw the same moment.
fn agrees(listed: &Listed, container: &Container) -> bool {
    (listed.state, listed.health, &listed.name) == (container.state, container.health, &container.name)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::io::docker::Health;
    use crate::registration::fixture::{self, Fixture};

    /// An engine whose list may lag behind its inspections, and that counts the latter.
    #[derive(Default)]
    struct Fake {
        listed: Vec<Listed>,
        containers: BTreeMap<String, Container>,
        broken: bool,
        now: Option<Instant>,
        inspections: Mutex<Vec<String>>,
    }

    impl Fake {
        fn run(&mut self, container: Fixture) {
            let container = container.done();
            self.listed.retain(|listed| listed.id != container.id);
            self.listed.push(fixture::listed(&container));
            self.containers.insert(container.id.clone(), container);
        }

        /// Observes and says what was inspected.
        fn inspected(&self, observer: &mut Observer) -> (Node, Vec<String>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let node = runtime.block_on(observer.observe(self, self.now.unwrap_or_else(Instant::now))).unwrap();
            (node, std::mem::take(&mut self.inspections.lock().unwrap()))
        }
    }

    impl Engine for Fake {
        async fn running(&self) -> Result<Vec<Listed>, Error> {
            Ok(self.listed.clone())
        }

        async fn inspect(&self, id: &str) -> Result<Option<Container>, Error> {
            self.inspections.lock().unwrap().push(id.to_owned());
            if self.broken {
                return Err(Error::NoAnswer { operation: format!("docker inspect {id}"), reason: "test".to_owned() });
            }
            Ok(self.containers.get(id).cloned())
        }

        fn events(&self) -> BoxStream<'static, Result<Event, Error>> {
            stream::empty().boxed()
        }
    }

    fn event(action: Action) -> Event {
        Event { container: "c-web".to_owned(), action }
    }

    #[test]
    fn what_the_list_shows_unchanged_is_not_inspected_again() {
        let (mut fake, mut observer) = (Fake::default(), Observer::default());
        fake.run(fixture::container("web"));
        assert_eq!(fake.inspected(&mut observer).1, ["c-web"]);
        let (node, inspected) = fake.inspected(&mut observer);
        assert_eq!((node.containers.len(), inspected.len()), (1, 0));
        fake.run(fixture::container("web").health(Some(Health::Healthy)));
        assert_eq!(fake.inspected(&mut observer).1, ["c-web"]);
    }

    #[test]
    fn a_container_named_by_an_event_is_inspected_and_may_be_dead_although_listed() {
        let (mut fake, mut observer) = (Fake::default(), Observer::default());
        let now = Instant::now();
        fake.run(fixture::container("web"));
        fake.inspected(&mut observer);
        fake.containers.insert("c-web".to_owned(), fixture::container("web").state(State::Stopped).done());
        observer.mark(event(Action::Health), now);
        assert_eq!(fake.inspected(&mut observer), (Node::default(), vec!["c-web".to_owned()]));
        // Started again with the same line in the list, its event lost.
        fake.run(fixture::container("web"));
        assert_eq!(fake.inspected(&mut observer).0.containers.len(), 1);
    }

    #[test]
    fn a_container_that_died_is_gone_at_once_until_it_starts_or_the_list_had_time() {
        let (mut fake, mut observer) = (Fake::default(), Observer::default());
        let now = Instant::now();
        fake.now = Some(now);
        fake.run(fixture::container("web"));
        fake.inspected(&mut observer);
        observer.mark(event(Action::Die), now);
        observer.mark(event(Action::Network), now);
        assert_eq!(fake.inspected(&mut observer), (Node::default(), vec![]));
        observer.mark(event(Action::Start), now);
        assert_eq!(fake.inspected(&mut observer).0.containers.len(), 1);
        observer.mark(event(Action::Die), now);
        fake.inspected(&mut observer);
        fake.now = Some(now + DEATH_TRUST);
        assert_eq!(fake.inspected(&mut observer).0.containers.len(), 1);
    }

    #[test]
    fn a_container_stops_from_its_own_signal_on_until_it_starts_is_gone_or_goes_on_too_long() {
        let (mut fake, mut observer) = (Fake::default(), Observer::default());
        let now = Instant::now();
        fake.now = Some(now);
        fake.run(fixture::container("web").stop_signal(3));
        fake.inspected(&mut observer);
        observer.mark(event(Action::Kill(Some(15))), now);
        observer.mark(event(Action::Kill(Some(9))), now);
        assert!(observer.stopping().is_empty());
        observer.mark(event(Action::Kill(Some(3))), now);
        assert_eq!(fake.inspected(&mut observer).1, Vec::<String>::new(), "a signal needs no inspection");
        assert_eq!(observer.stopping().into_iter().collect::<Vec<_>>(), ["c-web"]);
        observer.mark(event(Action::Start), now);
        assert!(observer.stopping().is_empty());
        observer.mark(event(Action::Kill(Some(3))), now);
        fake.now = Some(now + STOP_TRUST);
        fake.inspected(&mut observer);
        assert!(observer.stopping().is_empty());
    }

    #[test]
    fn what_list_and_inspection_disagree_about_is_not_kept() {
        let (mut fake, mut observer) = (Fake::default(), Observer::default());
        fake.run(fixture::container("web").health(Some(Health::Starting)));
        fake.containers.insert("c-web".to_owned(), fixture::container("web").health(Some(Health::Healthy)).done());
        fake.inspected(&mut observer);
        assert_eq!(fake.inspected(&mut observer).1, ["c-web"]);
    }

    #[test]
    fn a_container_that_cannot_be_inspected_is_unknown_and_tried_again_in_time_or_at_an_event() {
        let (mut fake, mut observer) = (Fake::default(), Observer::default());
        let now = Instant::now();
        let unknown = |fake: &Fake, observer: &mut Observer| {
            let (node, inspected) = fake.inspected(observer);
            assert_eq!((node.containers.len(), node.unknown.into_keys().collect()), (0, vec!["c-web".to_owned()]));
            inspected.len()
        };
        fake.run(fixture::container("web"));
        (fake.broken, fake.now) = (true, Some(now));
        assert_eq!(unknown(&fake, &mut observer), 1);
        assert_eq!(unknown(&fake, &mut observer), 0);
        observer.mark(event(Action::Health), now);
        assert_eq!(unknown(&fake, &mut observer), 1);
        (fake.broken, fake.now) = (false, Some(now + INSPECTION_RETRY));
        assert_eq!(fake.inspected(&mut observer).0.containers.len(), 1);
    }
}
