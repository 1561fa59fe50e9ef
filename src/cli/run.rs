//! `tidegate run`: serves.

use super::{Failure, load, warn};
use crate::admin::Access;
use crate::auth::Sources;
use crate::auth::failures::FailureGuard;
use crate::config::{self, Config, Loaded};
use crate::limit::limiter::Limiter;
use crate::limit::shared::{Settings as StoreSettings, Shared};
use crate::limit::store::redis::link::{self, Deployment};
use crate::server::{Bound, Settings};
use crate::snapshot::{Running, assemble};
use crate::telemetry::Metrics;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

pub(super) fn run(file: Option<PathBuf>) -> Result<(), Failure> {
    with_large_pages();
    log_to_stderr();
    let loaded = load(file)?;
    warn(&loaded);
    let (bound, running) = prepare(&loaded)?;
    let config = &loaded.config;
    let listeners: Vec<String> = bound.addresses().iter().map(ToString::to_string).collect();
    tracing::info!(
        listeners = listeners.join(","),
        admin = bound.admin_address().map(|address| address.to_string()),
        routes = config.routes.len(),
        policies = config.policies.len(),
        "serving"
    );
    bound.serve(running);
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

/// Compiles everything and binds every address; nothing is served yet.
pub(super) fn prepare(loaded: &Loaded) -> Result<(Bound, Arc<Running>), Failure> {
    let other = |error: &dyn std::error::Error| Failure::Other(error.to_string());
    let config = &loaded.config;
    let metrics = Metrics::new().map_err(|error| other(&error))?;
    let sources = Sources::new(metrics.auth.clone(), None);
    let snapshot = assemble(loaded, &metrics, &sources).map_err(Failure::Configuration)?;
    let guard = &config.auth.failures;
    let period_us = u64::try_from(guard.period.as_micros()).unwrap_or(u64::MAX);
    let failures = FailureGuard::new(guard.count, period_us).map_err(|bad| {
        Failure::Configuration(vec![loaded.problem(
            &["auth".into(), "failures".into()],
            bad.to_string(),
            None,
        )])
    })?;
    let limiter = limiter(config, &metrics)?;
    let bound = Bound::new(settings(config)).map_err(|error| other(&error))?;
    Ok((
        bound,
        Arc::new(Running::new(snapshot, limiter, failures, sources, metrics)),
    ))
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
