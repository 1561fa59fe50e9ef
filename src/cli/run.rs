//! `tidegate run`: serves.

pub(super) mod database;

use super::Failure;
use crate::admin::Access;
use crate::auth;
use crate::config::{self, Config, Environment, Row, Source};
use crate::limit::limiter::Limiter;
use crate::limit::shared::{Settings as StoreSettings, Shared};
use crate::limit::store::redis::link::{self, Deployment};
use crate::server::{Bound, Settings};
use crate::snapshot::{
    Beginning, Compiled, Origins, Running, Seen, compile, rows_from, rows_of, seen,
};
use crate::telemetry::Metrics;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) fn run(file: Option<PathBuf>) -> Result<(), Failure> {
    log_to_stderr();
    let file = super::configuration_file(file);
    let folder = std::env::current_dir()?;
    let environment = Environment::from_process(&folder);
    // before it is read: a change that comes meanwhile is one
    let seen = seen(&file, &folder.join(".env"));
    let source = Source::read(&file, &environment).map_err(Failure::Configuration)?;
    let prepared = prepare(source, Some((file, folder)), Some(seen))?;
    let listeners = prepared.bound.addresses();
    let listeners: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    let snapshot = prepared.running.snapshot();
    tracing::info!(
        listeners = listeners.join(","),
        admin = prepared
            .bound
            .admin_address()
            .map(|address| address.to_string()),
        routes = snapshot.routes.len(),
        policies = snapshot.policies.len(),
        "serving"
    );
    drop(snapshot);
    prepared.bound.serve(prepared.running);
    tracing::info!("stopped");
    Ok(())
}

/// A gateway that is ready to serve.
pub(super) struct Prepared {
    pub(super) bound: Bound,
    pub(super) running: Arc<Running>,
    /// kept for as long as the gateway serves
    _database: Option<database::Connected>,
}

/// Compiles everything and binds every address; nothing is served yet. `origin`: the file and the directory whose
/// `.env` counts, where a reload finds them.
pub(super) fn prepare(
    source: Source,
    origin: Option<(PathBuf, PathBuf)>,
    seen: Option<Seen>,
) -> Result<Prepared, Failure> {
    let other = |error: &dyn std::error::Error| Failure::Other(error.to_string());
    let metrics = Metrics::new().map_err(|error| other(&error))?;
    // what the process itself needs is in the file; rows of the database come on top of it
    let alone = source.loaded().map_err(Failure::Configuration)?;
    // first of all: signals and addresses; what comes before the rest is ready waits in the listeners
    let bound = Bound::new(settings(&alone.config)).map_err(|error| other(&error))?;
    let connected = database::connect(&alone, &metrics)?;
    let directory = connected
        .as_ref()
        .map(|connected| connected.database.directory().clone());
    let identities = auth::Sources::new(metrics.auth.clone(), directory);
    let (rows, compiled) = first_snapshot(&source, connected.as_ref(), &metrics, &identities)?;
    super::warn(&compiled.loaded);
    for problem in &compiled.refused {
        tracing::warn!("left out: {problem}");
    }
    metrics
        .snapshot
        .refused_rows
        .set(compiled.refused.len() as i64);
    let config = &alone.config;
    let limiter = limiter(config, &metrics)?;
    let beginning = Beginning {
        origin,
        source,
        rows,
        seen,
        last_good: connected
            .as_ref()
            .and_then(|connected| connected.last_good.clone()),
    };
    if let (Some(last_good), true) = (&beginning.last_good, beginning.rows.is_some()) {
        let revision = connected
            .as_ref()
            .and_then(|connected| connected.rows.as_ref());
        last_good.save(&rows_from(
            &compiled.rows,
            revision.map_or(0, |rows| rows.revision),
        ));
    }
    let origins = Origins::new(beginning, config.clone(), compiled.rows, compiled.refused);
    let database = connected
        .as_ref()
        .map(|connected| connected.database.clone());
    let running = Running::new(compiled.snapshot, limiter, identities, metrics).with_origins(
        origins,
        database,
        config.server.watch,
    );
    Ok(Prepared {
        bound,
        running: Arc::new(running),
        _database: connected,
    })
}

/// The rows of the database, as far as they are known, and the snapshot of file and rows.
fn first_snapshot(
    source: &Source,
    connected: Option<&database::Connected>,
    metrics: &Metrics,
    identities: &Arc<auth::Sources>,
) -> Result<(Option<Vec<Row>>, Compiled), Failure> {
    let rows = connected.and_then(|connected| connected.rows.as_ref());
    let rows = rows.map(rows_of);
    let known = connected.and_then(|connected| connected.known.as_ref());
    let known = known.map(rows_of).unwrap_or_default();
    let whole = |rows: Option<&[Row]>| compile(source, rows, &known, None, metrics, identities);
    let compiled = match whole(rows.as_deref()) {
        Err(problems) if rows.is_some() => {
            // the file stands alone, and nothing that is in the database keeps it from serving
            for problem in problems {
                tracing::error!("the database's policies are left out: {problem}");
            }
            whole(None)
        }
        compiled => compiled,
    };
    let compiled = compiled.map_err(Failure::Configuration)?;
    Ok((rows, compiled))
}

/// Where buckets live, as the configuration says.
pub(super) fn limiter(config: &Config, metrics: &Metrics) -> Result<Limiter, Failure> {
    let store = &config.store;
    let Some(redis) = &store.redis else {
        return Ok(Limiter::embedded(store.memory_max_keys));
    };
    let settings = StoreSettings {
        link: link(redis),
        prefix: redis.prefix.clone(),
        timeout: redis.timeout,
        max_waiting: redis.max_waiting,
        max_local_keys: store.max_local_keys,
        expected_gateways: store.expected_gateways,
    };
    let shared = Shared::new(settings, metrics.store.clone())
        .map_err(|error| Failure::Other(error.to_string()))?;
    Ok(Limiter::shared(shared))
}

/// Where Redis is.
pub(super) fn link(redis: &config::Redis) -> link::Settings {
    link::Settings {
        deployment: match &redis.mode {
            config::RedisMode::Single => Deployment::Single,
            config::RedisMode::Sentinel { master } => Deployment::Sentinel {
                master: master.clone(),
            },
            config::RedisMode::Cluster => Deployment::Cluster,
        },
        urls: redis
            .urls
            .iter()
            .map(|url| url.expose().to_owned())
            .collect(),
        timeout: redis.timeout,
        ca_file: redis.ca_file.clone(),
    }
}

fn settings(config: &Config) -> Settings {
    let admin = config.admin.as_ref().map(|admin| {
        let token = admin.token.as_ref().map(|token| token.expose());
        (admin.address, Access::new(token, &admin.hosts))
    });
    Settings {
        listeners: config
            .listeners
            .iter()
            .map(|listener| (listener.address, listener.http2))
            .collect(),
        admin,
        threads: config.server.threads,
        grace_period: config.server.grace_period,
    }
}

/// Log lines go to standard error; `RUST_LOG` chooses which. Pingora's own lines about single
/// requests are left out: ours say the same once, with the request's id.
pub(super) fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(
            "info,pingora_core=warn,pingora_core::connectors=off,pingora_proxy=off,redis=off,\
             tokio_postgres=warn,deadpool=off,refinery_core=warn",
        )
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}
