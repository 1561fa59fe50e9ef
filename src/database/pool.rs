//! Connections to Postgres: a bounded pool, and single ones for who listens or migrates.

use super::address::Address;
use super::failure::{DatabaseError, within};
use super::settings::Settings;
use super::tls;
use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, RecyclingMethod, Runtime};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What drives a single connection.
pub(super) type Driver = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// How many times a request's timeout the reading of everything, or a write, may take.
const LONG_WORK: u32 = 10;

/// A bounded number of connections, made when they are wanted.
pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    config: Config,
    tls: MakeRustlsConnect,
    timeout: Duration,
    runtime: Arc<OnceLock<Handle>>,
}

/// Connects on the database's own runtime: a connection lives as long as the runtime it was made
/// on, and is driven by its threads, whoever uses it.
struct AtHome {
    tls: MakeRustlsConnect,
    /// where the database is not started, it is the current one
    runtime: Arc<OnceLock<Handle>>,
}

type Connected = Result<(Client, JoinHandle<()>), tokio_postgres::Error>;

impl Connect for AtHome {
    fn connect(&self, config: &Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        let runtime = self.runtime.get().cloned();
        let (tls, config) = (self.tls.clone(), config.clone());
        Box::pin(async move {
            if let Some(runtime) = runtime {
                let task = Aborted(runtime.spawn(connect(config.clone(), tls.clone())));
                // an error: that runtime is no more, which only the end of the process brings about
                if let Ok(connected) = task.await {
                    return connected;
                }
            }
            connect(config, tls).await
        })
    }
}

async fn connect(config: Config, tls: MakeRustlsConnect) -> Connected {
    let (client, driver) = config.connect(tls).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!("a connection to the database ended: {error}");
        }
    });
    Ok((client, driver))
}

/// A task that ends where nobody waits for it any more.
struct Aborted<T>(JoinHandle<T>);

impl<T> Future for Aborted<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Aborted<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection for one piece of work. It goes back to the pool only if that ended well: one that
/// was given up in the middle may still be busy, or frozen.
pub(super) struct Lease {
    object: Option<Object>,
    sound: bool,
}

impl Pool {
    /// Reads the settings; connects to nothing yet.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let Address { config, trust } = Address::read(settings)?;
        let tls = tls::connector(trust, settings.ca_file.as_deref())?;
        let runtime = Arc::new(OnceLock::new());
        let connect = AtHome {
            tls: tls.clone(),
            runtime: runtime.clone(),
        };
        let manager = Manager::from_connect(
            config.clone(),
            connect,
            ManagerConfig {
                // broken connections are noticed by their driver, frozen ones are never given back
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(settings.pool.max(1))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| format!("database: {error}"))?;
        Ok(Pool {
            pool,
            config,
            tls,
            timeout: settings.timeout,
            runtime,
        })
    }

    /// From now on connections are made on the current runtime, whoever wants them.
    pub(super) fn settle_here(&self) {
        // the first one stays
        let _ = self.runtime.set(Handle::current());
    }

    /// The runtime connections are made on, where there is one of their own.
    pub(super) fn runtime(&self) -> Option<&Handle> {
        self.runtime.get()
    }

    /// How long a look-up, or a wait for a connection, may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How long work may take that nobody's request waits for.
    pub(super) fn long_timeout(&self) -> Duration {
        self.timeout * LONG_WORK
    }

    /// Connections there are now.
    pub(super) fn size(&self) -> usize {
        self.pool.status().size
    }

    /// A connection of the pool, in time.
    pub(super) async fn lease(&self) -> Result<Lease, DatabaseError> {
        let object = within(self.timeout, async {
            self.pool.get().await.map_err(|error| match error {
                deadpool_postgres::PoolError::Backend(error) => unavailable(error.into()),
                other => DatabaseError::Unavailable(super::failure::with_causes(&other)),
            })
        })
        .await?;
        Ok(Lease {
            object: Some(object),
            sound: false,
        })
    }

    /// A connection outside the pool, in time.
    pub(super) async fn connect(&self) -> Result<(Client, Driver), DatabaseError> {
        within(self.timeout, async {
            let connected = self.config.connect(self.tls.clone()).await;
            connected.map_err(|error| unavailable(error.into()))
        })
        .await
    }
}

/// While connecting, nothing is the caller's mistake.
fn unavailable(error: DatabaseError) -> DatabaseError {
    match error {
        DatabaseError::Invalid(message) => DatabaseError::Unavailable(message),
        error => error,
    }
}

impl Lease {
    /// The connection.
    pub(super) fn client(&mut self) -> Result<&mut Client, DatabaseError> {
        let object = self.object.as_mut();
        object
            .map(|object| &mut ***object)
            .ok_or_else(|| DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// More work begins.
    pub(super) fn unsettle(&mut self) {
        self.sound = false;
    }

    /// The work is done: whether the connection may be used again.
    pub(super) fn settle<T>(&mut self, done: &Result<T, DatabaseError>) {
        self.sound = !matches!(done, Err(DatabaseError::Unavailable(_)));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (false, Some(object)) = (self.sound, self.object.take()) {
            // closes the connection
            drop(Object::take(object));
        }
    }
}
