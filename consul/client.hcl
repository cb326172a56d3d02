# A Consul client on a worker's host: /etc/consul.d/client.hcl.
data_dir    = "/var/lib/consul"
bind_addr   = "{{ GetPrivateIP }}"
client_addr = "127.0.0.1"
retry_join  = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]

performance {
  raft_multiplier = 1
}

# A restarted node stays a member: what runs on it keeps its registrations.
leave_on_terminate = false
