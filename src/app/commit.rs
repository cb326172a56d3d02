//! One stack as an earlier commit has it, for rollbacks.

use crate::io::git::GitRepo;
use crate::model::{DesiredStack, Revision, StackName};
use crate::repo::{self, Options};

/// Renders a commit that the clone holds, and takes one stack of it. The error is for people.
pub fn stack_at(
    repo: &GitRepo,
    revision: &Revision,
    stack: &StackName,
    options: &Options,
) -> Result<DesiredStack, String> {
    let tree = repo
        .tree(revision)
        .map_err(|error| format!("commit {revision} cannot be read from the clone of this node: {error}"))?;
    let rendered = repo::render(&tree, Some(revision), options);
    let mut rendered = rendered.map_err(|findings| format!("commit {revision} cannot be rendered: {findings}"))?;
    match rendered.stacks.remove(stack) {
        Some(Ok(stack)) => Ok(stack),
        Some(Err(findings)) => Err(format!("stack {stack} cannot be rendered at commit {revision}: {findings}")),
        None => Err(format!("commit {revision} has no stack {stack} in {}", options.path)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::io::git;

    /// A repo with a commit for each image of the stack `shop`, and a clone of it.
    async fn repo(folder: &Path, images: &[&str]) -> (GitRepo, Vec<Revision>) {
        let origin = git2::Repository::init(folder.join("origin")).unwrap();
        origin.set_head("refs/heads/main").unwrap();
        let author = git2::Signature::now("a", "a@example.com").unwrap();
        std::fs::create_dir_all(folder.join("origin/stacks")).unwrap();
        let mut revisions: Vec<Revision> = Vec::new();
        for image in images {
            let file = format!("services: {{api: {{image: '{image}'}}}}\n");
            std::fs::write(folder.join("origin/stacks/shop.yml"), file).unwrap();
            let mut index = origin.index().unwrap();
            index.add_path(Path::new("stacks/shop.yml")).unwrap();
            let tree = origin.find_tree(index.write_tree().unwrap()).unwrap();
            let parent = origin.head().ok().map(|head| head.peel_to_commit().unwrap());
            let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
            let id = origin.commit(Some("HEAD"), &author, &author, "change", &tree, &parents).unwrap();
            revisions.push(Revision(id.to_string()));
        }
        let options = git::Options {
            url: format!("file://{}", folder.join("origin").display()),
            branch: "main".into(),
            path: folder.join("clones"),
            credentials: git::Credentials::default(),
            known_hosts: git::KnownHosts::default(),
            require_fast_forward: false,
        };
        let clone = GitRepo::open(options).unwrap();
        clone.fetch().await.unwrap();
        (clone, revisions)
    }

    #[tokio::test]
    async fn an_earlier_commit_is_rendered_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (clone, revisions) = repo(folder.path(), &["app:1", "app:2"]).await;
        let at = |revision: &Revision, stack: &str| {
            stack_at(&clone, revision, &StackName::new(stack).unwrap(), &Options::default())
        };
        for (revision, image) in revisions.iter().zip(["app:1", "app:2"]) {
            let stack = at(revision, "shop").unwrap();
            assert_eq!(stack.objects.services["api"].spec.task_template.container_spec.image, image);
            assert_eq!(stack.revision.as_ref(), Some(revision));
        }
        let refused = at(&revisions[0], "billing").unwrap_err();
        assert_eq!(refused, format!("commit {} has no stack billing in stacks", revisions[0]));
        let refused = at(&Revision("f".repeat(40)), "shop").unwrap_err();
        assert!(refused.contains("fffffff cannot be read from the clone of this node"), "{refused}");
    }
}
