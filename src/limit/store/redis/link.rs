//! The connection to Redis: made on the runtime of the calls, given up when it breaks, made again
//! until it holds.

use super::wire::{BadReply, Call};
use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, TlsMode,
    Value,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long an attempt to connect may take, beyond a few round trips.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Round trips of a handshake, each of which may take as long as a request waits.
const HANDSHAKE: u32 = 6;

/// How long a reply of a cluster's node may come after the deadline and be seen, so that its units
/// are handed back. A single server has no such bound: its connection is given up as a whole.
const LATE: Duration = Duration::from_millis(500);

/// Between attempts to connect: recovery has to be noticed within a second.
const RETRY: Duration = Duration::from_millis(150);

/// How Redis is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// one server
    Single,
    /// one of several servers, which the sentinels know by the master's name
    Sentinel {
        /// the master's name
        master: String,
    },
    /// keys spread over several servers
    Cluster,
}

/// Where Redis is.
#[derive(Clone)]
pub struct Settings {
    /// how it is run
    pub deployment: Deployment,
    /// URLs; of several, those of a cluster's nodes or of the sentinels
    pub urls: Vec<String>,
    /// how long a request waits for a reply
    pub timeout: Duration,
    /// certificates that sign Redis' own, PEM; absent: those of the system
    pub ca_file: Option<PathBuf>,
}

/// Settings no connection can be made from.
#[derive(Debug, thiserror::Error)]
pub enum BadSettings {
    /// an address that is none
    #[error("store.redis: {0}")]
    Address(#[from] RedisError),
    /// a file that cannot be read
    #[error("store.redis.ca_file: {0}")]
    CaFile(#[from] std::io::Error),
}

/// What Redis answers, undigested.
pub type Reply = Value;

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallFailed {
    /// there is no connection now
    #[error("not connected")]
    NotConnected,
    /// the connection broke, or Redis answered with an error
    #[error("{}", as_redis_says(.0))]
    Redis(#[from] RedisError),
    /// what answered is no Redis with our scripts
    #[error(transparent)]
    Reply(#[from] BadReply),
}

/// A connection that comes and goes.
pub struct Link {
    target: Target,
    patience: Duration,
    live: ArcSwapOption<Live>,
}

/// One connection, until it is given up: then every call that still waits on it ends as well, for
/// the other end of a black hole would let it wait for as long as TCP does.
struct Live {
    connection: Connection,
    over: watch::Sender<bool>,
}

enum Target {
    Single(Client),
    Sentinel {
        nodes: Vec<ConnectionInfo>,
        master: String,
        of_master: RedisConnectionInfo,
        certificates: Option<TlsCertificates>,
    },
    Cluster {
        client: Box<ClusterClient>,
        /// for publish/subscribe, which a cluster passes on between its nodes
        one: Client,
    },
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Reads the settings; connects to nothing yet.
    pub fn new(settings: &Settings) -> Result<Self, BadSettings> {
        if settings.urls.iter().any(|url| url.starts_with("rediss:")) {
            // fails only where a provider is installed already, which is as good
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let root_cert = settings.ca_file.as_ref().map(std::fs::read).transpose()?;
        let certificates = || {
            root_cert.clone().map(|pem| TlsCertificates {
                client_tls: None,
                root_cert: Some(pem),
            })
        };
        let infos = settings
            .urls
            .iter()
            .map(|url| url.as_str().into_connection_info())
            .collect::<Result<Vec<_>, _>>()?;
        let first = infos.first().cloned().ok_or_else(no_url)?;
        let patience = CONNECT_TIMEOUT + settings.timeout * HANDSHAKE;
        let target = match &settings.deployment {
            Deployment::Single => Target::Single(client(first, certificates())?),
            Deployment::Sentinel { master } => Target::Sentinel {
                of_master: first.redis_settings().clone(),
                nodes: infos
                    .into_iter()
                    .map(|info| info.set_redis_settings(RedisConnectionInfo::default()))
                    .collect(),
                master: master.clone(),
                certificates: certificates(),
            },
            Deployment::Cluster => {
                let mut builder = ClusterClient::builder(infos)
                    .connection_timeout(patience)
                    .response_timeout(settings.timeout + LATE);
                if let Some(certificates) = certificates() {
                    builder = builder.certs(certificates);
                }
                Target::Cluster {
                    client: Box::new(builder.retries(1).build()?),
                    one: client(first, certificates())?,
                }
            }
        };
        Ok(Link {
            target,
            patience,
            live: ArcSwapOption::empty(),
        })
    }

    /// Is there a connection?
    pub fn is_up(&self) -> bool {
        self.live.load().is_some()
    }

    /// Keys of one call must fall into one slot.
    pub fn is_cluster(&self) -> bool {
        matches!(self.target, Target::Cluster { .. })
    }

    /// Connects, and again whenever the connection breaks. Run it on the runtime on which requests'
    /// calls are made: the connection's driver stays there.
    pub async fn keep(&self) {
        let mut told = None;
        loop {
            match tokio::time::timeout(self.patience, self.connect()).await {
                Ok(Ok(connection)) => {
                    let live = Arc::new(Live {
                        connection,
                        over: watch::Sender::new(false),
                    });
                    self.live.store(Some(live.clone()));
                    tracing::debug!("connected to Redis");
                    told = None;
                    live.is_over().await;
                    tracing::debug!("lost the connection to Redis");
                }
                Ok(Err(error)) => tell(&mut told, describe(&error)),
                Err(_) => tell(&mut told, "no answer in time".to_owned()),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Gives up the connection there is; [`Link::keep`] makes another.
    pub fn give_up(&self) {
        if let Some(live) = self.live.load_full() {
            self.give_up_on(&live);
        }
    }

    /// Gives up this connection, but not one that has been made since.
    fn give_up_on(&self, live: &Arc<Live>) {
        self.live
            .compare_and_swap(&Some(live.clone()), None::<Arc<Live>>);
        live.over.send_replace(true);
    }

    /// Makes a call of a script; one that Redis has forgotten is sent along.
    pub async fn call(&self, call: &Call) -> Result<Reply, CallFailed> {
        match self.send(call.command()).await {
            Err(CallFailed::Redis(error))
                if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) =>
            {
                self.send(&call.with_text()).await
            }
            reply => reply,
        }
    }

    /// Sends a command. Where the error says that the connection is of no use any more, it is given
    /// up.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Reply, CallFailed> {
        let Some(live) = self.live.load_full() else {
            return Err(CallFailed::NotConnected);
        };
        let reply = live.send(command).await;
        if let Err(CallFailed::Redis(error)) = &reply
            && !may_stay(error)
        {
            self.give_up_on(&live);
        }
        reply
    }

    /// Listens to a channel on a connection of its own.
    pub async fn subscribe(&self, channel: &str) -> Result<PubSub, CallFailed> {
        let listening = async {
            let client = match &self.target {
                Target::Single(client) | Target::Cluster { one: client, .. } => client.clone(),
                Target::Sentinel { .. } => self.ask_sentinels().await?,
            };
            let mut subscription = client.get_async_pubsub().await?;
            subscription.subscribe(channel).await?;
            Ok::<_, RedisError>(subscription)
        };
        match tokio::time::timeout(self.patience, listening).await {
            Ok(subscription) => Ok(subscription?),
            Err(_) => Err(CallFailed::NotConnected),
        }
    }

    async fn connect(&self) -> Result<Connection, RedisError> {
        // waiting is bounded by whoever calls, so that a late reply is seen and its units are
        // handed back
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(None);
        let client = match &self.target {
            Target::Single(client) => client.clone(),
            Target::Sentinel { .. } => self.ask_sentinels().await?,
            Target::Cluster { client, .. } => {
                return Ok(Connection::Cluster(client.get_async_connection().await?));
            }
        };
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Connection::One(connection))
    }

    async fn ask_sentinels(&self) -> Result<Client, RedisError> {
        let Target::Sentinel {
            nodes,
            master,
            of_master,
            certificates,
        } = &self.target
        else {
            return Err(no_url());
        };
        let mut of_node =
            SentinelNodeConnectionInfo::default().set_redis_connection_info(of_master.clone());
        if let Some(ConnectionAddr::TcpTls { .. }) = nodes.first().map(ConnectionInfo::addr) {
            of_node = of_node.set_tls_mode(TlsMode::Secure);
        }
        let mut sentinel = Sentinel::build(nodes.clone())?;
        let found = sentinel.async_master_for(master, Some(&of_node)).await?;
        client(found.get_connection_info().clone(), certificates.clone())
    }
}

impl Live {
    /// Sends a command; it fails where the connection is given up meanwhile.
    async fn send(&self, command: &Cmd) -> Result<Reply, CallFailed> {
        let mut connection = self.connection.clone();
        tokio::select! {
            biased;
            reply = connection.send(command) => Ok(reply?),
            () = self.is_over() => Err(CallFailed::NotConnected),
        }
    }

    async fn is_over(&self) {
        // fails only where there is no sender any more, and then it is over as well
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

impl Connection {
    async fn send(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Connection::One(connection) => connection.req_packed_command(command).await,
            Connection::Cluster(connection) => connection.req_packed_command(command).await,
        }?
        .extract_error()
    }
}

fn client(
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
) -> Result<Client, RedisError> {
    match (info.addr(), certificates) {
        (ConnectionAddr::TcpTls { .. }, Some(certificates)) => {
            Client::build_with_tls(info, certificates)
        }
        _ => Client::open(info),
    }
}

fn no_url() -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "no URL is given"))
}

/// An error of this call alone leaves the connection as it is; one that says "not here" or "not
/// any more" (a replica, a server that is loading, a broken socket) does not.
fn may_stay(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => !matches!(
            kind,
            ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading
        ),
        ErrorKind::Extension => true,
        _ => false,
    }
}

/// `READONLY You can't write against a read only replica.`, not the client's words for it.
fn as_redis_says(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

/// The reason once, not at every attempt.
fn tell(told: &mut Option<String>, reason: String) {
    if told.as_ref() != Some(&reason) {
        tracing::warn!("cannot connect to Redis: {reason}");
        *told = Some(reason);
    }
}

/// An error without what a URL may hold.
fn describe(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            "it does not accept the user or password of store.redis.url".to_owned()
        }
        _ => error.to_string(),
    }
}
