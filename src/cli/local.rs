//! What verbs need that work without an agent: files as a stack, a client for the swarm, registry logins, a look at the Config Repo.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::output::{Context, Failure, remark};
use crate::app;
use crate::compose::{self, Input, Mode, SourceFile};
use crate::config;
use crate::image::ImageRef;
use crate::io::files::{Files, Folder};
use crate::io::git::GitRepo;
use crate::io::registry::Credentials;
use crate::io::swarm::{Options, Swarm};
use crate::model::{DesiredStack, Revision, Sensitive, StackName, StackSettings};
use crate::repo::{self, ConfigRepo};
use crate::yaml;

/// Largest compose file read from standard input, in bytes.
const STDIN_BYTES_MAX: u64 = crate::io::files::FILE_BYTES_MAX;

/// The swarm, for a command that a person runs: without a gate.
pub async fn swarm(context: &Context) -> Result<Swarm, Failure> {
    let options = Options { host: context.config.docker_host.clone(), gate: None };
    Swarm::connect(&options).await.map_err(|error| engine(&error))
}

/// The engine said no.
pub fn engine(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        error.to_string(),
        "ask a manager: -H unix:///var/run/docker.sock there, or -H tcp://host:port; `swarmkeeper doctor` looks closer",
    )
}

/// Logins for registries, as `X-Registry-Auth` wants them; mistakes in their files are remarks.
pub fn logins(context: &Context) -> impl Fn(&str) -> Option<Sensitive<String>> + Send + Sync + use<> {
    let (credentials, findings) = Credentials::load(&app::credentials(&context.config));
    for finding in &findings {
        remark(&finding.to_string());
    }
    move |image| ImageRef::parse(image).ok().and_then(|image| credentials.for_image(image.domain()))
}

/// Compose files as a stack, read as `docker stack deploy` reads them: with this process' environment, relative to the first file.
pub fn stack_of_files(files: &[PathBuf], stack: &StackName, lenient: bool) -> Result<DesiredStack, Failure> {
    let sources = files.iter().map(|file| source(file)).collect::<Result<Vec<_>, _>>()?;
    let folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new(""));
    let folder = std::path::absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display()), ""))?;
    // Names of files that a compose file mentions come with the folder of its own name in front.
    let reader = Folder::unconfined(PathBuf::from("."));
    let loaded = compose::load(&Input {
        files: &sources,
        stack,
        environment: &config::environment(),
        read_file: &|path| reader.read(path).map_err(|error| error.to_string()),
        folder: Some(&folder.to_string_lossy()),
        mode: if lenient { Mode::Lenient } else { Mode::Strict },
    })
    .map_err(|findings| {
        Failure::findings(&findings, if lenient { "" } else { "--lenient accepts what newer compose files hold" })
    })?;
    let (objects, warnings) = (loaded.objects, loaded.warnings);
    for warning in &warnings {
        remark(&warning.to_string());
    }
    Ok(DesiredStack { name: stack.clone(), revision: None, settings: StackSettings::default(), objects, warnings })
}

fn source(file: &Path) -> Result<SourceFile, Failure> {
    let name = file.display().to_string();
    let unreadable =
        |error: std::io::Error| Failure::new(format!("{name}: {error}"), "name a compose file that can be read");
    let text = if name == "-" {
        let mut text = String::new();
        std::io::stdin().lock().take(STDIN_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
        text
    } else {
        let bytes = std::fs::read(file).map_err(unreadable)?;
        yaml::text(&name, bytes).map_err(|findings| Failure::findings(&findings, ""))?
    };
    Ok(SourceFile { name, text })
}

/// The Config Repo as git has it now.
pub struct Head {
    /// The clone, with what was before.
    pub clone: GitRepo,
    /// Its commit.
    pub revision: Revision,
    /// That commit, rendered.
    pub rendered: ConfigRepo,
    /// Holds the clone where there is no better place for it.
    _temporary: Option<tempfile::TempDir>,
}

/// Fetches the Config Repo and renders its head.
pub async fn config_repo(context: &Context) -> Result<Head, Failure> {
    let git = context.config.require_git().map_err(|findings| Failure::configuration(&findings))?;
    let mut options = app::git_options(&context.config, git);
    // The agent's clone is the agent's: it may be fetching into it.
    let cache = context.config.state_dir.join("plan");
    let temporary = if std::fs::create_dir_all(&cache).is_ok() {
        options.path = cache;
        None
    } else {
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::new(format!("no place for a clone: {error}"), "set `state_dir`"))?;
        folder.path().clone_into(&mut options.path);
        Some(folder)
    };
    let failed =
        |error: crate::io::git::Error| Failure::new(format!("git: {error}"), "`swarmkeeper doctor` looks closer");
    let clone = GitRepo::open(options).map_err(failed)?;
    let head = clone.fetch().await.map_err(failed)?.head;
    let tree = clone.tree(&head).map_err(failed)?;
    let rendered = render(&tree, Some(&head), &app::render_options(&context.config))?;
    drop(tree);
    Ok(Head { clone, revision: head, rendered, _temporary: temporary })
}

/// A Config Repo in a folder, rendered.
pub fn folder(dir: &Path, config: &config::Config) -> Result<ConfigRepo, Failure> {
    render(&Folder::new(dir.to_owned()), None, &app::render_options(config))
}

fn render(files: &dyn Files, revision: Option<&Revision>, options: &repo::Options) -> Result<ConfigRepo, Failure> {
    repo::render(files, revision, options).map_err(|findings| Failure::findings(&findings, "mend the Config Repo"))
}

/// Stacks that can be planned, and those that cannot with the reason.
pub fn sorted(rendered: ConfigRepo) -> (Vec<DesiredStack>, BTreeMap<StackName, String>) {
    let (mut desired, mut broken) = (Vec::new(), BTreeMap::new());
    for (name, stack) in rendered.stacks {
        match stack {
            Ok(stack) => desired.push(stack),
            Err(findings) => {
                broken.insert(name, findings.to_string());
            }
        }
    }
    (desired, broken)
}
