//! The keys of the version 3 schema, as data: which map may hold which, and since which minor version.
//!
//! It is the whole of docker/cli's `config_schema_v3.0.json` to `v3.13.json` as far as keys go. `tests/oracle.rs` reads those
//! schemas out of Docker's CLI and compares, and counts for each key the cases that use it.

/// A map whose keys the schema fixes.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Where it stands: `*` is any name, `[]` any item of a list; empty for the whole file.
    pub path: &'static str,
    /// Keys apart by spaces, by the minor version that brought them.
    brought: &'static [(u8, &'static str)],
    /// Since when further keys may stand here, which `docker stack deploy` ignores.
    open_since: Option<u8>,
}

/// All of them.
pub const SECTIONS: &[Section] = &[
    Section::new("", &[(0, "networks services version volumes"), (1, "secrets"), (3, "configs")]),
    Section::new(
        "services.*",
        &[
            (
                0,
                "build cap_add cap_drop cgroup_parent command container_name depends_on deploy devices dns \
             dns_search domainname entrypoint env_file environment expose external_links extra_hosts \
             healthcheck hostname image ipc labels links logging mac_address network_mode networks pid \
             ports privileged read_only restart security_opt shm_size stdin_open stop_grace_period \
             stop_signal sysctls tmpfs tty ulimits user userns_mode volumes working_dir",
            ),
            (1, "secrets"),
            (3, "configs credential_spec"),
            (5, "isolation"),
            (7, "init"),
            (9, "cgroupns_mode"),
            (13, "oom_score_adj"),
        ],
    ),
    Section::new(
        "services.*.build",
        &[
            (0, "args context dockerfile"),
            (2, "cache_from"),
            (3, "labels"),
            (4, "network target"),
            (5, "shm_size"),
            (9, "extra_hosts"),
        ],
    )
    .open_since(11),
    Section::new("services.*.configs[]", &[(3, "gid mode source target uid")]).open_since(0),
    Section::new("services.*.credential_spec", &[(3, "file registry"), (8, "config")]),
    Section::new(
        "services.*.deploy",
        &[
            (0, "labels mode placement replicas resources restart_policy update_config"),
            (2, "endpoint_mode"),
            (7, "rollback_config"),
        ],
    ),
    Section::new(
        "services.*.deploy.placement",
        &[(0, "constraints"), (3, "preferences"), (8, "max_replicas_per_node")],
    ),
    Section::new("services.*.deploy.placement.preferences[]", &[(3, "spread")]),
    Section::new("services.*.deploy.resources", &[(0, "limits reservations")]),
    Section::new("services.*.deploy.resources.limits", &[(0, "cpus memory"), (9, "pids")]),
    Section::new("services.*.deploy.resources.reservations", &[(0, "cpus memory"), (5, "generic_resources")]),
    Section::new("services.*.deploy.resources.reservations.generic_resources[]", &[(5, "discrete_resource_spec")]),
    Section::new(
        "services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec",
        &[(5, "kind value")],
    ),
    Section::new("services.*.deploy.restart_policy", &[(0, "condition delay max_attempts window")]),
    Section::new(
        "services.*.deploy.rollback_config",
        &[(7, "delay failure_action max_failure_ratio monitor order parallelism")],
    ),
    Section::new(
        "services.*.deploy.update_config",
        &[(0, "delay failure_action max_failure_ratio monitor parallelism"), (4, "order")],
    ),
    Section::new(
        "services.*.healthcheck",
        &[(0, "disable interval retries test timeout"), (4, "start_period"), (12, "start_interval")],
    ),
    Section::new("services.*.logging", &[(0, "driver options")]),
    Section::new("services.*.networks.*", &[(0, "aliases ipv4_address ipv6_address"), (13, "driver_opts")]),
    Section::new("services.*.ports[]", &[(2, "mode protocol published target")]),
    Section::new("services.*.secrets[]", &[(1, "gid mode source target uid")]).open_since(0),
    Section::new("services.*.ulimits.*", &[(0, "hard soft")]),
    Section::new("services.*.volumes[]", &[(2, "bind consistency read_only source target type volume"), (6, "tmpfs")]),
    Section::new("services.*.volumes[].bind", &[(2, "propagation")]).open_since(0),
    Section::new("services.*.volumes[].tmpfs", &[(6, "size")]).open_since(0),
    Section::new("services.*.volumes[].volume", &[(2, "nocopy")]).open_since(0),
    Section::new(
        "networks.*",
        &[(0, "driver driver_opts external internal ipam labels"), (2, "attachable"), (5, "name")],
    ),
    Section::new("networks.*.external", &[(0, "name")]),
    Section::new("networks.*.ipam", &[(0, "config driver")]),
    Section::new("networks.*.ipam.config[]", &[(0, "subnet")]),
    Section::new("volumes.*", &[(0, "driver driver_opts external labels"), (4, "name"), (10, "x-cluster-spec")]),
    Section::new("volumes.*.external", &[(0, "name")]),
    Section::new(
        "volumes.*.x-cluster-spec",
        &[(10, "access_mode accessibility_requirements availability capacity_range group")],
    )
    .open_since(0),
    Section::new("volumes.*.x-cluster-spec.access_mode", &[(10, "block_volume mount_volume scope sharing")])
        .open_since(0),
    Section::new("volumes.*.x-cluster-spec.access_mode.mount_volume", &[(10, "fs_type mount_flags")]).open_since(0),
    Section::new("volumes.*.x-cluster-spec.accessibility_requirements", &[(10, "preferred requisite")]).open_since(0),
    Section::new("volumes.*.x-cluster-spec.accessibility_requirements.preferred[]", &[(10, "segments")]).open_since(0),
    Section::new("volumes.*.x-cluster-spec.accessibility_requirements.requisite[]", &[(10, "segments")]).open_since(0),
    Section::new("volumes.*.x-cluster-spec.capacity_range", &[(10, "limit_bytes required_bytes")]).open_since(0),
    Section::new("secrets.*", &[(1, "external file labels"), (5, "name"), (8, "driver driver_opts template_driver")]),
    Section::new("secrets.*.external", &[(1, "name")]).open_since(0),
    Section::new("configs.*", &[(3, "external file labels"), (5, "name"), (8, "template_driver")]),
    Section::new("configs.*.external", &[(3, "name")]).open_since(0),
];

impl Section {
    const fn new(path: &'static str, brought: &'static [(u8, &'static str)]) -> Self {
        Self { path, brought, open_since: None }
    }

    const fn open_since(self, minor: u8) -> Self {
        Self { open_since: Some(minor), ..self }
    }

    /// The section of the maps at `path`, if the schema fixes their keys.
    pub fn at(path: &str) -> Option<&'static Self> {
        SECTIONS.iter().find(|section| section.path == path)
    }

    /// Its keys, each with the minor version that brought it.
    pub fn keys(&self) -> impl Iterator<Item = (&'static str, u8)> + use<> {
        self.brought.iter().flat_map(|(minor, keys)| keys.split_whitespace().map(|key| (key, *minor)))
    }

    /// May keys stand here that the schema does not know?
    pub fn is_open(&self, minor: u8) -> bool {
        self.open_since.is_some_and(|since| since <= minor)
    }

    /// May `x-*` keys stand here, which are everybody's own?
    pub fn is_extensible(&self, minor: u8) -> bool {
        let since = match self.path {
            "" => 4,
            "services.*" | "networks.*" | "volumes.*" | "secrets.*" | "configs.*" => 7,
            _ => return self.is_open(minor),
        };
        since <= minor
    }

    /// Where the value of `key` stands.
    pub fn path_of(&self, key: &str) -> String {
        crate::yaml::join(self.path, key)
    }
}
