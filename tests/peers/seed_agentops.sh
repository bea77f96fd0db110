# The two requests of AgentOps' integration guide as printed there; the test puts the server's
# address in the place of http://your-agentops-url.

# Configure Prometheus to send alerts to AgentOps
curl -X POST http://your-agentops-url/api/alerts \
  -H "Content-Type: application/json" \
  -d '{
    "source": "prometheus",
    "severity": "critical",
    "title": "High CPU Usage",
    "server": "web-prod-01",
    "metric": "cpu_usage",
    "value": 95.2,
    "threshold": 85.0
  }'

# Send custom telemetry data
curl -X POST http://your-agentops-url/api/metrics \
  -H "Content-Type: application/json" \
  -d '{
    "serverId": "server-uuid",
    "cpuUsage": 45.2,
    "memoryUsage": 68.5,
    "memoryTotal": 16384,
    "diskUsage": 45.0,
    "diskTotal": 500,
    "networkLatency": 2.3,
    "networkThroughput": 125.5,
    "processCount": 127
  }'
