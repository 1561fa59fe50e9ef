//! `tidegate check`: validates like `nginx -t`.

use super::{Failure, configuration_file, load, warn};
use crate::auth::Sources;
use crate::snapshot::assemble;
use crate::telemetry::Metrics;
use std::io::Write;
use std::path::PathBuf;

pub(super) fn check(file: Option<PathBuf>) -> Result<(), Failure> {
    let path = configuration_file(file);
    let loaded = load(Some(path.clone()))?;
    warn(&loaded);
    let metrics = Metrics::new().map_err(|error| Failure::Other(error.to_string()))?;
    assemble(
        &loaded,
        &metrics,
        &Sources::new(metrics.auth.clone(), None),
        None,
    )
    .map_err(Failure::Configuration)?;
    let config = &loaded.config;
    writeln!(
        std::io::stdout(),
        "{}: ok ({} routes, {} policies, {} clients, {} upstreams)",
        path.display(),
        config.routes.len(),
        config.policies.len(),
        config.clients.len(),
        config.upstreams.len()
    )?;
    Ok(())
}
