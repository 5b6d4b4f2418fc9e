//! Rights that the API server says somebody lacks, and how to give them.

use std::fmt;

/// A right that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing<'a> {
    user: &'a str,
    verb: &'a str,
    resource: &'a str,
    group: &'a str,
}

impl<'a> Missing<'a> {
    /// Finds one in the API server's words: `User "…" cannot create resource "secrets" in API group "" …`, as
    /// `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters` writes them. Quotas and policies say something else.
    pub fn read(words: &'a str) -> Option<Self> {
        let (user, rest) = words.split_once("User \"")?.1.split_once("\" cannot ")?;
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once("\" in API group \"")?;
        let (group, _) = rest.split_once('"')?;
        let is_name = |text: &&str| text.chars().all(|c| c.is_ascii_alphanumeric() || ":._@/-".contains(c));
        [user, verb, resource, group].iter().all(is_name).then_some(Self { user, verb, resource, group })
    }

    /// Returns who lacks what, and nothing else that was said.
    pub fn words(&self) -> String {
        let Self { user, verb, resource, group } = self;
        format!("User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\"")
    }

    /// Returns the words with what would give the right, where they tell of one that is missing.
    pub fn explained(words: String) -> String {
        match Missing::read(&words) {
            Some(missing) => format!("{words}; {missing}"),
            None => words,
        }
    }
}

impl fmt::Display for Missing<'_> {
    /// Writes what gives the right in the whole cluster: with it everything that an object of this kind needs, or the next
    /// verb would be missing then.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plural, _) = self.resource.split_once('/').unwrap_or((self.resource, ""));
        let resource = if self.group.is_empty() { plural.to_owned() } else { format!("{plural}.{}", self.group) };
        let subject = match self.user.strip_prefix("system:serviceaccount:") {
            Some(account) => format!("--serviceaccount {account}"),
            None => format!("--user {}", self.user),
        };
        write!(
            f,
            "an administrator may give it that: kubectl create clusterrole locktender-{plural} \
             --verb get,list,watch,create,patch,delete --resource {resource} && \
             kubectl create clusterrolebinding locktender-{plural} --clusterrole locktender-{plural} {subject}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_missing_right_is_about_is_read_and_how_to_give_it_is_said() {
        let words = "forbidden: secrets is forbidden: User \"system:serviceaccount:locktender:locktender\" cannot list \
                     resource \"secrets\" in API group \"\" at the cluster scope";
        let said = Missing::explained(words.to_owned());
        assert_eq!(
            said.strip_prefix(words),
            Some(
                "; an administrator may give it that: kubectl create clusterrole locktender-secrets --verb \
                 get,list,watch,create,patch,delete --resource secrets && kubectl create clusterrolebinding \
                 locktender-secrets --clusterrole locktender-secrets --serviceaccount locktender:locktender"
            )
        );
        let words = "widgets.example.com \"a\" is forbidden: User \"ada\" cannot patch resource \"widgets/status\" in API \
                     group \"example.com\" in the namespace \"shop\"";
        let said = Missing::explained(words.to_owned());
        assert!(said.contains("--resource widgets.example.com &&") && said.ends_with("--user ada"), "{said}");
    }

    #[test]
    fn a_quota_is_no_missing_right() {
        let words = "forbidden: pods \"a\" is forbidden: exceeded quota: full, requested: pods=1";
        assert_eq!(Missing::read(words), None);
        assert_eq!(Missing::explained(words.to_owned()), words);
    }
}
