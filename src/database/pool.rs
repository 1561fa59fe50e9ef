//! Connections to Postgres: a bounded pool, and single ones for who listens or migrates.

use super::address::Address;
use super::failure::{DatabaseError, within};
use super::settings::Settings;
use super::tls;
use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime};
use std::time::Duration;
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
        let manager = Manager::from_config(
            config.clone(),
            tls.clone(),
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
        })
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
