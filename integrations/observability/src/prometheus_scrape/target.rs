//! What is scraped: addresses and labels, from the configuration or from files.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_model::build::Label;
use weir_pipeline::Fault;

use crate::credentials::take_from_url;

/// The scheme of addresses that do not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Without TLS.
    #[default]
    Http,
    /// With TLS.
    Https,
}

/// A target in the configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StaticTarget {
    /// `host:port` or an address.
    Address(String),
    /// With labels.
    Labelled(LabelledTarget),
}

/// A target with labels.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelledTarget {
    /// `host:port` or an address such as `http://host:9090/metrics`.
    pub url: String,
    /// Labels of all its series; `job` and `instance` replace the default ones.
    #[serde(default, deserialize_with = "weir_config::text_values")]
    #[schemars(with = "BTreeMap<String, weir_config::Text>")]
    pub labels: BTreeMap<String, String>,
}

/// A group of targets in a file (Prometheus `file_sd_config`).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetGroup {
    /// `host:port` or addresses.
    pub targets: Vec<String>,
    /// Labels of all their series.
    #[serde(default, deserialize_with = "weir_config::text_values")]
    #[schemars(with = "BTreeMap<String, weir_config::Text>")]
    pub labels: BTreeMap<String, String>,
}

/// What applies to targets that do not say otherwise.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub job: String,
    pub scheme: Scheme,
    pub path: String,
}

/// A target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub url: Url,
    /// The address without credentials and query, for people.
    pub place: String,
    /// Credentials that the address held.
    pub headers: HeaderMap,
    job: String,
    instance: String,
    host: String,
    port: String,
    labels: Vec<(String, String)>,
}

impl Target {
    /// A target from its text and labels.
    ///
    /// # Errors
    /// What is wrong with the text, without its credentials.
    pub fn new(text: &str, labels: &BTreeMap<String, String>, defaults: &Defaults) -> Result<Target, String> {
        let shown = text.rsplit('@').next().unwrap_or_default();
        let mut url = address(text, labels, defaults).ok_or_else(|| {
            format!("`{shown}` is no target; write `host:port` or an address such as `http://host:9090/metrics`")
        })?;
        let mut headers = HeaderMap::new();
        take_from_url(&mut url, &mut headers).map_err(|fault| fault.message)?;
        for (name, value) in labels {
            if let Some(parameter) = name.strip_prefix("__param_") {
                url.query_pairs_mut().append_pair(parameter, value);
            }
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().map(|port| port.to_string()).unwrap_or_default();
        let own = |name: &str| labels.get(name).filter(|value| !value.is_empty()).cloned();
        Ok(Target {
            place: format!("{}://{host}:{port}{}", url.scheme(), url.path()),
            job: own("job").unwrap_or_else(|| defaults.job.clone()),
            instance: own("instance").unwrap_or_else(|| format!("{host}:{port}")),
            // `server.address` is the address itself, without the brackets of URLs.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            labels: labels
                .iter()
                .filter(|(name, value)| {
                    !name.starts_with("__") && !matches!(name.as_str(), "job" | "instance") && !value.is_empty()
                })
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            url,
            headers,
        })
    }

    /// Attributes of its resource.
    pub fn resource(&self) -> [Label<'_>; 5] {
        [
            ("service.name", &self.job),
            ("service.instance.id", &self.instance),
            ("server.address", &self.host),
            ("server.port", &self.port),
            ("url.scheme", self.url.scheme()),
        ]
    }

    /// Labels of its series.
    pub fn labels(&self) -> Vec<Label<'_>> {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Whether series of both could not be told apart.
    pub fn is_same_series(&self, other: &Target) -> bool {
        self.job == other.job && self.instance == other.instance && self.labels == other.labels
    }
}

fn address(text: &str, labels: &BTreeMap<String, String>, defaults: &Defaults) -> Option<Url> {
    let own = |name: &str| labels.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let scheme = own("__scheme__").unwrap_or(match defaults.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    });
    let mut url: Url = if text.contains("://") { text.parse() } else { format!("{scheme}://{text}").parse() }.ok()?;
    let is_usable = matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty());
    if !is_usable || text.contains(char::is_whitespace) {
        return None;
    }
    if matches!(url.path(), "" | "/") {
        let path = own("__metrics_path__").unwrap_or(&defaults.path);
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(path);
        if query.is_some() {
            url.set_query(query);
        }
    }
    Some(url)
}

/// The targets in the configuration.
///
/// # Errors
/// If a text is no target, or series of two targets could not be told apart.
pub(super) fn of_configuration(targets: &[StaticTarget], defaults: &Defaults) -> Result<Vec<Arc<Target>>, Fault> {
    let (none, mut all): (_, Vec<Arc<Target>>) = (BTreeMap::new(), Vec::new());
    for target in targets {
        let (text, labels) = match target {
            StaticTarget::Address(text) => (text, &none),
            StaticTarget::Labelled(target) => (&target.url, &target.labels),
        };
        let target =
            Target::new(text, labels, defaults).map_err(|why| Fault::configuration(format!("targets: {why}")))?;
        if let Some(other) = all.iter().find(|other| other.is_same_series(&target)) {
            let message = format!(
                "targets: {} and {} have the same job, instance and labels; give one of them a label",
                other.place, target.place
            );
            return Err(Fault::configuration(message));
        }
        all.push(Arc::new(target));
    }
    Ok(all)
}
