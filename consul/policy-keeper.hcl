# ACL policy of an agent on a manager, which may lead. Each line was needed and no more is. One token for each node:
# replace <node> by the Consul node's name and <cluster> by swarmkeeper's `cluster`.
service_prefix "" { policy = "write" }
node_prefix    "" { policy = "read" }
agent    "<node>" { policy = "read" }
session  "<node>" { policy = "write" }
key_prefix "swarmkeeper/v1/<cluster>/" { policy = "write" }
