"""The metrics client of the agent monitor's implementation guide, for one round.

seed_agent_monitor.py URL AGENT_ID

The first class is printed in the guide and stands here unchanged, but for the loop, which ends
after one round. Prints what was sent as the last line, JSON.
"""

import json
import sys

# As in the guide:
import psutil
import requests
import time
from datetime import datetime

class AgentMetricsClient:
    def __init__(self, agent_id, monitor_server_url):
        self.agent_id = agent_id
        self.server_url = monitor_server_url
        
    def collect_system_metrics(self):
        """Collect real system metrics"""
        return {
            "cpu_usage": psutil.cpu_percent(interval=1),
            "memory_usage": psutil.virtual_memory().percent,
            "disk_usage": psutil.disk_usage('/').percent,
            "network_io": self.get_network_io(),
            "response_time": self.measure_response_time(),
            "timestamp": datetime.utcnow().isoformat()
        }
    
    def send_metrics(self, metrics):
        """Send metrics to monitor server"""
        url = f"{self.server_url}/api/v1/agents/{self.agent_id}/metrics"
        response = requests.post(url, json=metrics)
        return response.status_code == 200
    
    def run_continuous_monitoring(self, interval_seconds=60):
        """Run continuous metrics collection"""
        for _ in range(1):  # the guide: while True
            try:
                metrics = self.collect_system_metrics()
                success = self.send_metrics(metrics)
                print(f"Metrics sent: {success} at {metrics['timestamp']}")
            except Exception as e:
                print(f"Error collecting metrics: {e}")
            time.sleep(interval_seconds)


class Client(AgentMetricsClient):
    """The guide calls two methods that it does not show; and the test wants to know what was sent."""

    def get_network_io(self):
        counters = psutil.net_io_counters()
        return {"bytes_sent": counters.bytes_sent, "bytes_recv": counters.bytes_recv}

    def measure_response_time(self):
        return requests.get(f"{self.server_url}/health").elapsed.total_seconds() * 1000

    def collect_system_metrics(self):
        before = cpu_times()
        self.sent = super().collect_system_metrics()
        busy, total = (now - then for now, then in zip(cpu_times(), before))
        self.cpu_of_proc_stat = 100 * busy / total
        return self.sent


def cpu_times():
    """Busy and all time of all CPUs so far, in ticks."""
    with open("/proc/stat") as stat:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


client = Client(agent_id=sys.argv[2], monitor_server_url=sys.argv[1])
client.run_continuous_monitoring(interval_seconds=0)
custom = {
    "cpu_usage": 12.5,
    "requests_per_minute": 120,
    "error_rate": 0.7,
    "timestamp": datetime.utcnow().isoformat(),
    "custom_metrics": {"queue": {"depth": 3, "name": "mail"}, "degraded": False},
}
print(f"Metrics sent: {client.send_metrics(custom)} at {custom['timestamp']}")
print(json.dumps({"sent": [client.sent, custom], "cpu_of_proc_stat": client.cpu_of_proc_stat}))
