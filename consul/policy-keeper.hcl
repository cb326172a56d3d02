# ACL policy of an agent on a manager, which may lead; `swarmkeeper consul policies` prints it with your names. Each line was needed and no
# more is. One token for each node: replace <node> by the Consul node's name and <cluster> by swarmkeeper's `cluster`.
service_prefix "" { policy = "write" }                       # registering containers and the agent itself
agent "<node>" { policy = "read" }                           # this agent's address and whether it runs scripts
node_prefix "" { policy = "read" }                           # on which nodes agents are well, and what Consul's checks say of tasks
session "<node>" { policy = "write" }                        # the session that holds the lock
key_prefix "swarmkeeper/v1/<cluster>/" { policy = "write" }  # the lock, and what the leader publishes
