//! What our token may do.

use std::fmt;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{Consul, Error};

/// A right, in the words of Consul's policies: `key`, `swarmkeeper/v1/swarm/`, `write`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Right {
    /// `agent`, `key`, `node`, `service` or `session`.
    pub resource: &'static str,
    /// Which of them.
    pub segment: String,
    /// `read` or `write`.
    pub access: &'static str,
}

/// Consul's answer when it runs without ACLs.
const ACL_OFF: u16 = 401;

impl Consul {
    /// The ID of our token, which is no secret and names it in Consul's own lists; none if Consul runs without ACLs. A token that
    /// Consul does not know is an error.
    pub async fn token_self(&self) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(rename = "AccessorID")]
            accessor_id: String,
        }
        match self.get_json::<Token>(&["acl", "token", "self"], &[]).await {
            Ok(token) => Ok(Some(token.accessor_id)),
            Err(Error::Refused { status: ACL_OFF, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Those of `rights` that our token does not have; none at all if Consul runs without ACLs.
    ///
    /// The endpoint is the one that Consul's own UI asks; nothing is written. Seen on 1.8.7.
    pub async fn rights_missing(&self, rights: &[Right]) -> Result<Vec<Right>, Error> {
        let request = self.request(Method::POST, ["internal", "acl", "authorize"]).json(&rights)?;
        let answers: Vec<Allowed> = match request.send().await {
            Ok(answer) => answer.json()?,
            Err(Error::Refused { status: ACL_OFF, .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // What is not answered is not allowed.
        let allowed = |index: usize| answers.get(index).is_some_and(|answer| answer.allow);
        let missing = rights.iter().enumerate().filter(|(index, _)| !allowed(*index));
        Ok(missing.map(|(_, right)| right.clone()).collect())
    }
}

impl fmt::Display for Right {
    /// As a line of a policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, segment, access } = self;
        write!(f, "{resource} {segment:?} {{ policy = {access:?} }}")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Allowed {
    allow: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wiremock::matchers::{body_json, method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::io::consul::Options;

    async fn check(answer: ResponseTemplate, expect: Result<&[&str], u16>) {
        let server = MockServer::start().await;
        let wanted = json!([
            {"Resource": "key", "Segment": "a/", "Access": "write"},
            {"Resource": "node", "Segment": "n1", "Access": "read"},
        ]);
        let route = Mock::given(method("POST")).and(path("/v1/internal/acl/authorize")).and(body_json(wanted));
        route.respond_with(answer).mount(&server).await;
        let consul = Consul::new(Options { address: server.uri(), ..Options::default() }).unwrap();
        let rights = [
            Right { resource: "key", segment: "a/".into(), access: "write" },
            Right { resource: "node", segment: "n1".into(), access: "read" },
        ];
        let missing = consul.rights_missing(&rights).await;
        let found = missing.map(|rights| rights.iter().map(|right| right.resource).collect::<Vec<_>>());
        assert_eq!(found.map_err(|error| error.status().unwrap()), expect.map(<[_]>::to_vec));
    }

    #[tokio::test]
    async fn rights_that_are_not_granted_are_named() {
        let answer = |allow: &[bool]| {
            let answers: Vec<_> = allow.iter().map(|allow| json!({"Allow": allow})).collect();
            ResponseTemplate::new(200).set_body_json(answers)
        };
        check(answer(&[true, true]), Ok(&[])).await;
        check(answer(&[true, false]), Ok(&["node"])).await;
        check(answer(&[true]), Ok(&["node"])).await;
        check(ResponseTemplate::new(401).set_body_string("ACL support disabled"), Ok(&[])).await;
        check(ResponseTemplate::new(403).set_body_string("ACL not found"), Err(403)).await;
    }
}
