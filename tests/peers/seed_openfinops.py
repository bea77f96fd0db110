"""What OpenFinOps' AWS agent and its generic agent say to their server, without a cloud.

seed_openfinops.py URL

Both register, then send one round. Each prints one line of JSON with what its methods returned:
success is the status 200 and nothing else, as in the agents.
"""

import json
import sys
import time

import requests

url = sys.argv[1].rstrip("/")


class Agent:
    def __init__(self, agent_id):
        self.agent_id = agent_id
        self.start_time = time.time()

    def register_agent(self):
        response = requests.post(f"{url}/api/v1/agents/register", json=self.registration(), timeout=30)
        success = response.status_code == 200
        return success

    def send_telemetry_data(self, data):
        response = requests.post(f"{url}/api/v1/telemetry/ingest", json=data, timeout=60)
        success = response.status_code == 200
        return success


class AWSTelemetryAgent(Agent):
    hostname, region = "finops-collector-1", "us-west-2"

    def registration(self):
        return {
            "agent_id": self.agent_id,
            "hostname": self.hostname,
            "cloud_provider": "aws",
            "region": self.region,
            "agent_type": "aws_telemetry",
            "agent_version": "1.0.0",
            "config": {
                "services": ["ec2", "eks", "lambda", "rds", "s3"],
                "collection_interval": 300,
                "cost_tracking": True,
            },
        }

    def collect_telemetry_data(self):
        ec2 = {
            "service": "ec2",
            "instances": [
                {
                    "instance_id": "i-0a1b2c3d",
                    "instance_type": "m5.large",
                    "state": "running",
                    "availability_zone": "us-west-2a",
                    "cpu_usage": 37.25,
                    "hourly_cost": 0.096,
                    "tags": {"team": "core"},
                    "launch_time": "2026-01-01T00:00:00+00:00",
                    "private_ip": "10.0.1.5",
                    "public_ip": None,
                },
                {
                    "instance_id": "i-4e5f6071",
                    "instance_type": "c5.xlarge",
                    "state": "running",
                    "availability_zone": "us-west-2b",
                    "cpu_usage": 0.0,
                    "hourly_cost": 0.17,
                    "tags": {},
                    "launch_time": "2026-01-01T00:00:00+00:00",
                    "private_ip": "10.0.1.6",
                    "public_ip": None,
                },
            ],
            "total_instances": 2,
            "total_hourly_cost": 0.266,
            "collection_time": "2026-01-01T00:00:00",
        }
        rds = {
            "service": "rds",
            "databases": [
                {
                    "db_identifier": "orders",
                    "db_instance_class": "db.m5.large",
                    "engine": "postgres",
                    "cpu_usage": 12.5,
                    "connections": 7,
                    "hourly_cost": 0.192,
                    "multi_az": False,
                }
            ],
            "total_databases": 1,
            "total_hourly_cost": 0.192,
        }
        return {
            "agent_id": self.agent_id,
            "timestamp": time.time(),
            "hostname": self.hostname,
            "cloud_provider": "aws",
            "region": self.region,
            "uptime_seconds": time.time() - self.start_time,
            "services": {
                "ec2": ec2,
                "rds": rds,
                # A service that the agent may not read: that is not zero clusters.
                "eks": {"service": "eks", "error": "AccessDeniedException: eks:ListClusters"},
            },
            "summary": {
                "total_hourly_cost": 0.458,
                "daily_cost_estimate": 10.99,
                "total_ec2_instances": 2,
                "total_eks_clusters": 0,
            },
        }


class GenericTelemetryAgent(Agent):
    def registration(self):
        return {
            "agent_id": self.agent_id,
            "agent_type": "generic_telemetry",
            "hostname": "onprem-1",
            "environment": "on-premise",
            "capabilities": ["system_monitoring"],
            "collectors": ["gpu_cluster", "docker_metrics"],
            "version": "1.0.0",
            "registration_time": time.time(),
        }

    def collect_telemetry_data(self):
        collectors = {
            "gpu_cluster": {
                # What the reference's own collector function returns.
                "data": {
                    "source": "on-prem-gpu-cluster",
                    "timestamp": time.time(),
                    "gpu_metrics": [
                        {"gpu_utilization": 91.0, "memory_used_mb": 40960.0},
                        {"gpu_utilization": 3.5, "memory_used_mb": float("nan")},
                    ],
                },
                "healthy": True,
                "collection_time": time.time(),
            },
            "docker_metrics": {"error": "Docker not available", "healthy": False, "collection_time": time.time()},
        }
        metrics = {
            "timestamp": time.time(),
            "agent_id": self.agent_id,
            "hostname": "onprem-1",
            "environment": "on-premise",
            "collectors": collectors,
            "summary": {"collectors_count": 2, "healthy_collectors": 1, "health_status": "warning"},
        }
        return {
            "agent_id": self.agent_id,
            "timestamp": time.time(),
            "metrics": metrics,
            "events": [{"type": "collection_error", "timestamp": time.time(), "error": "Docker not available"}],
            "agent_health": {
                "status": "healthy",
                "uptime": time.time() - self.start_time,
                "last_collection": time.time(),
                "metrics_count": 1,
                "collectors_count": 2,
            },
        }

    def send_telemetry_data(self, data):
        # `requests` refuses NaN in `json=`; agents that serialise by themselves send it bare.
        body, headers = json.dumps(data), {"Content-Type": "application/json"}
        response = requests.post(f"{url}/api/v1/telemetry/ingest", data=body, headers=headers, timeout=60)
        success = response.status_code == 200
        return success


print(json.dumps({"healthy": requests.get(f"{url}/health", timeout=10).status_code == 200}))
for agent in AWSTelemetryAgent("aws-agent-1"), GenericTelemetryAgent("generic-telemetry-1"):
    registered = agent.register_agent()
    sent = agent.send_telemetry_data(agent.collect_telemetry_data())
    print(json.dumps({"agent_id": agent.agent_id, "registered": registered, "sent": sent}))
