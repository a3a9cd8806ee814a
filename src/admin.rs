//! The administration of routes: creates, changes and closes routes while the gateway runs.
//!
//! All callers, such as the HTTP API, use [`RouteAdmin`]. It checks a [`RouteSpec`] (the route that a caller wants)
//! against the [`RouteRules`] of the configuration, and puts it into a queue as an order. One worker,
//! `admin/service.rs`, carries out the orders one after the other. So two orders for the same name or port cannot both
//! succeed.
//!
//! The worker does not run on the API's thread but on the runtime that relays client connections, because a route's
//! port must listen on the runtime that carries its connections. [`Listeners`] owns the ports of routes and the shared
//! port.
//!
//! Nothing in this room depends on HTTP: `api/routes.rs` translates each [`RouteError`] into a status.
//!
//! Keys of clients are administered by `admin/keys.rs`.
//!
//! Next: `admin/spec.rs` (the fields of a route), `admin/service.rs` (the worker), `admin/listeners.rs` (the ports).

mod bind_port;
mod duration;
mod error;
pub mod keys;
mod listeners;
mod restore;
mod rule_spec;
mod service;
mod source_spec;
mod spec;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

pub use bind_port::{PortError, bind};
pub use duration::{DurationOrNever, HumanDuration};
pub use error::{BadField, RouteError};
pub use listeners::Listeners;
pub use restore::restored;
pub use rule_spec::RuleSpec;
pub use spec::{RouteMode, RouteRules, RouteSpec};

use crate::exit::Source;
use crate::lifecycle::Tasks;
use crate::route::selector::{RouteName, Selector};
use crate::route::{Policy, Why};
use crate::state::State;
use crate::store;

const TOR_IS_OFF: &str =
    "Tor is off (tor.enabled = false), and this asks for Tor exits; add `-source-public`, or `-source-any`";

/// Describes in words why a username has no exit of the given sources. `tor` is false if Tor is switched off in the configuration: that
/// can be the reason.
pub fn no_exit_reason(why: &Why, sources: &[Source], tor: bool) -> String {
    match why {
        Why::NoneMatch | Why::NoneKnown if !tor && *sources == [Source::Tor] => TOR_IS_OFF.to_owned(),
        why => why.to_string(),
    }
}

/// The largest number of orders that wait in the queue. A further caller waits until there is space. Not tuned.
const QUEUE: usize = 64;

/// The longest time that a caller waits for space in the queue. It is long enough, because the creation of a thousand
/// routes takes only a few seconds.
const QUEUE_DEADLINE: Duration = Duration::from_secs(30);

/// An order to create, change or close routes, with the channel on which the worker sends its answer.
enum RouteOrder {
    /// Create either all of these routes or none of them.
    Create(Vec<ValidSpec>, oneshot::Sender<Result<Created, RouteError>>),
    /// Change one route. `patch` is a JSON merge patch of the body that created the route: the value `null` removes a
    /// field.
    Change { name: String, patch: Map<String, Value>, answer: oneshot::Sender<Result<RouteName, RouteError>> },
    /// Close one route. If `force` is true, the route's connections are cut as well.
    Close { name: String, force: bool, answer: oneshot::Sender<Result<(), RouteError>> },
}

/// A spec that passed validation, with the selector and the policy that were computed from it.
#[derive(Clone, Debug)]
struct ValidSpec {
    spec: RouteSpec,
    selector: Selector,
    policy: Policy,
}

/// The result of [`RouteAdmin::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub names: Vec<RouteName>,
    /// True if the routes were created now. False if they existed already and were created from equal specs.
    pub new: bool,
}

/// Creates, changes and closes routes. A clone is cheap.
#[derive(Clone)]
pub struct RouteAdmin {
    state: State,
    rules: Arc<ArcSwap<RouteRules>>,
    orders: mpsc::Sender<RouteOrder>,
    closed_ports: watch::Receiver<BTreeSet<String>>,
}

impl RouteAdmin {
    /// Starts the worker that carries out orders. `stored` are the routes of the API that the store contained at the
    /// start. [`restored`] has already added these routes to the route table.
    pub fn start(
        tasks: &Tasks,
        state: State,
        listeners: Arc<Mutex<Listeners>>,
        rules: RouteRules,
        stored: Vec<store::Route>,
    ) -> Self {
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        let (orders, queue) = mpsc::channel(QUEUE);
        let (report, closed_ports) = watch::channel(BTreeSet::new());
        let bodies = stored.into_iter().map(|route| (route.name, route.asked)).collect();
        let service = service::RouteService::new(state.clone(), listeners, bodies, rules.clone(), report);
        tasks.spawn("orders", service.run(queue, tasks.clone()));
        Self { state, rules, orders, closed_ports }
    }

    /// Creates one route, or `spec.count` routes. Either all of them are created or none. If routes with these names
    /// exist already and were created from an equal spec, nothing changes, and that is no error.
    pub async fn create(&self, spec: RouteSpec) -> Result<Created, RouteError> {
        let valid = {
            let (snapshot, rules) = (self.state.snapshot(), self.rules.load());
            let validate = |spec: RouteSpec| {
                let (selector, policy) = spec.validate(&snapshot.routes, &rules)?;
                Ok::<_, BadField>(ValidSpec { spec, selector, policy })
            };
            spec.expand()?.into_iter().map(validate).collect::<Result<Vec<_>, _>>()?
        };
        self.order(|answer| RouteOrder::Create(valid, answer)).await
    }

    /// Changes a route that the API created, by a JSON merge patch of the body that created it. Open connections do not
    /// change.
    pub async fn change(&self, name: String, patch: Map<String, Value>) -> Result<RouteName, RouteError> {
        self.order(|answer| RouteOrder::Change { name, patch, answer }).await
    }

    /// Closes a route that the API created. Its port is free when this function returns. If `force` is true, the
    /// route's connections are cut, otherwise they may finish.
    pub async fn close(&self, name: String, force: bool) -> Result<(), RouteError> {
        self.order(|answer| RouteOrder::Close { name, force, answer }).await
    }

    /// Returns the rules of the configuration that all specs of routes are validated against.
    pub fn rules(&self) -> Guard<Arc<RouteRules>> {
        self.rules.load()
    }

    /// Replaces the rules after a reload. Routes that exist already do not change.
    pub fn set_rules(&self, rules: RouteRules) {
        self.rules.store(Arc::new(rules));
    }

    /// Returns the names of routes whose port does not listen because another program uses it.
    pub fn closed_ports(&self) -> BTreeSet<String> {
        self.closed_ports.borrow().clone()
    }

    async fn order<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, RouteError>>) -> RouteOrder,
    ) -> Result<T, RouteError> {
        let (answer, outcome) = oneshot::channel();
        // Every order in the queue is carried out. So the deadline limits only the wait for space in the queue.
        let place = tokio::time::timeout(QUEUE_DEADLINE, self.orders.reserve()).await.map_err(|_| RouteError::Busy)?;
        place.map_err(|_| RouteError::Internal)?.send(make(answer));
        outcome.await.map_err(|_| RouteError::Internal)?
    }
}
