//! Every integration of this program.

use weir_pipeline::Kind;

/// All kinds, in the order of the documentation: collect, receive, export, each by name.
pub fn kinds() -> Vec<Kind> {
    let lists = [
        weir_system::ALL,
        weir_observability::ALL,
        #[cfg(feature = "kafka")]
        weir_streaming::ALL,
        &[weir_pipeline::itself::KIND],
    ];
    let mut all: Vec<Kind> = lists.into_iter().flatten().copied().collect();
    all.sort_by_key(|kind| (kind.role, kind.name()));
    all
}

/// Integrations that the design names and this build does not have: a file that uses one is told so,
/// instead of being told that it misspelled something.
pub const PLANNED: &[&str] = &[
    "alibaba",
    "aws",
    "aws_cost",
    "azure",
    "azure_arc",
    "cisco",
    "cloudwatch",
    "coroot",
    "datadog",
    "dynatrace",
    "ebpf",
    "gcp",
    "hyperdx",
    "influxdb_query",
    "instana",
    "jaeger",
    #[cfg(not(feature = "kafka"))]
    "kafka",
    #[cfg(not(feature = "kafka"))]
    "kafka_consumer",
    "loki",
    "manageengine",
    "mqtt",
    "mysql",
    "nats",
    "netdata",
    "newrelic",
    "nutanix",
    "openobserve",
    "postgresql",
    "proxmox",
    "rabbitmq",
    "redis",
    "siem",
    "signoz",
    "snmp",
    "splunk",
    "statsd",
    "vmware",
    "zipkin",
];
