//! `tidegate run`: serves.

pub(super) mod database;

use super::Failure;
use crate::admin::Access;
use crate::auth;
use crate::config::{self, Config, Environment, Source};
use crate::limit::limiter::Limiter;
use crate::limit::shared::{Settings as StoreSettings, Shared};
use crate::limit::store::redis::link::{self, Deployment};
use crate::server::{Bound, Settings};
use crate::snapshot::{Beginning, Origins, Running, compile, rows_of};
use crate::telemetry::Metrics;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

pub(super) fn run(file: Option<PathBuf>) -> Result<(), Failure> {
    with_large_pages();
    log_to_stderr();
    let file = super::configuration_file(file);
    let folder = std::env::current_dir()?;
    let environment = Environment::from_process(&folder);
    let source = Source::read(&file, &environment).map_err(Failure::Configuration)?;
    let prepared = prepare(source, Some((file, folder)))?;
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

/// Starts this process again, in place, with the allocator allowed to use large pages: a proxied
/// request touches hundreds of small objects all over the heap, and looking up where 4 KiB pages
/// are costs a tenth of it. mimalloc reads the option before `main` begins, so it can only come
/// from the environment; whoever sets it (to 0, say) decides. Returns where nothing had to be done
/// or the start failed; then pages stay small.
pub(super) fn with_large_pages() {
    const OPTION: &str = "MIMALLOC_ALLOW_LARGE_OS_PAGES";
    if std::env::var_os(OPTION).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "tidegate".into());
    let error = Command::new(program)
        .arg0(name)
        .args(arguments)
        .env(OPTION, "1")
        .exec();
    tracing::debug!("pages stay small: {error}");
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
) -> Result<Prepared, Failure> {
    let other = |error: &dyn std::error::Error| Failure::Other(error.to_string());
    let metrics = Metrics::new().map_err(|error| other(&error))?;
    // what the process itself needs is in the file; rows of the database come on top of it
    let alone = source.loaded().map_err(Failure::Configuration)?;
    let connected = database::connect(&alone, &metrics)?;
    let directory = connected
        .as_ref()
        .map(|connected| connected.database.directory().clone());
    let identities = auth::Sources::new(metrics.auth.clone(), directory);
    let rows = connected
        .as_ref()
        .and_then(|connected| connected.rows.as_ref())
        .map(rows_of);
    let compiled = compile(&source, rows.as_deref(), &[], None, &metrics, &identities)
        .map_err(Failure::Configuration)?;
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
    let bound = Bound::new(settings(config)).map_err(|error| other(&error))?;
    let beginning = Beginning {
        origin,
        source,
        rows,
        is_current: connected
            .as_ref()
            .is_some_and(|connected| connected.is_current),
        last_good: connected
            .as_ref()
            .and_then(|connected| connected.last_good.clone()),
    };
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
