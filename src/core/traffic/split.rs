//! What share of the traffic the new side gets, and which requests go there whatever the share.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::core::policy::Percent;

/// How traffic is shared out between the side that serves and the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Split {
    /// The new side's share of the requests that no header route takes.
    pub weight: Percent,
    /// Requests that go to the new side whatever the weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderRoute>,
    /// The share of requests that the new side gets a copy of; its answers are thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Percent>,
    /// How a client that once was on the new side stays there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
}

impl Split {
    /// A share and nothing else.
    pub fn of(weight: Percent) -> Self {
        Self { weight, ..Self::default() }
    }

    /// Returns the header routes with the one that session affinity is made of: who brings the cookie back.
    pub fn header_routes(&self) -> Vec<HeaderRoute> {
        let kept = self.affinity.iter().map(|affinity| {
            let value = Matcher::Exact(affinity.value.clone());
            HeaderRoute { matches: vec![Match { subject: Subject::Cookie(affinity.cookie.clone()), value }] }
        });
        self.headers.iter().cloned().chain(kept).collect()
    }
}

/// Requests that go to the new side: those on which all of `matches` hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderRoute {
    /// At least one.
    pub matches: Vec<Match>,
}

/// One condition on a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// What is looked at.
    pub subject: Subject,
    /// What it must be.
    pub value: Matcher,
}

/// What of a request is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// The header of that name.
    Header(String),
    /// The cookie of that name.
    Cookie(String),
}

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Matcher {
    /// The same.
    Exact(String),
    /// It starts with it.
    Prefix(String),
    /// A regular expression, in the router's own dialect, takes all of it.
    Regex(String),
}

impl fmt::Display for HeaderRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let matches: Vec<String> = self.matches.iter().map(ToString::to_string).collect();
        f.write_str(&matches.join(" and "))
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Header(name) => write!(f, "header {name} ")?,
            Subject::Cookie(name) => write!(f, "cookie {name} ")?,
        }
        match &self.value {
            Matcher::Exact(text) => write!(f, "`{text}`"),
            Matcher::Prefix(text) => write!(f, "beginning with `{text}`"),
            Matcher::Regex(text) => write!(f, "like `{text}`"),
        }
    }
}

impl Matcher {
    /// Returns a regular expression for the text, without anchors.
    fn pattern(&self) -> String {
        match self {
            Self::Exact(text) => escaped(text),
            Self::Prefix(text) => format!("{}.*", escaped(text)),
            Self::Regex(text) => format!("({text})"),
        }
    }

    /// Returns a regular expression that takes all of a `Cookie` header in which the cookie `name` is such a text.
    pub fn in_cookies(&self, name: &str) -> String {
        let value = match self {
            // A cookie ends where the next one begins.
            Self::Prefix(text) => format!("{}[^;]*", escaped(text)),
            other => other.pattern(),
        };
        format!("^(.*;\\s*)?{}={value}(;.*)?$", escaped(name))
    }

    /// Returns a regular expression that takes all of such a text.
    pub fn anchored(&self) -> String {
        format!("^{}$", self.pattern())
    }
}

/// Escapes what means something in every dialect of regular expressions.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if "\\.+*?()|[]{}^$".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// How a client that once was on the new side stays there: a cookie in the new side's answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// The cookie's name.
    pub cookie: String,
    /// The cookie's value: another for each rollout, or who was on an earlier version would be on this one at once.
    pub value: String,
    /// How long a browser keeps it, in whole seconds; `None` is until it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
}

impl Affinity {
    /// Returns the value of the `Set-Cookie` header.
    pub fn set_cookie(&self) -> String {
        let mut text = format!("{}={}; Path=/", self.cookie, self.value);
        if let Some(age) = self.max_age {
            text += &format!("; Max-Age={}", age.as_secs());
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_and_never_by_half_a_name() {
        let exact = Regex::new(&Matcher::Exact("a.b".to_owned()).in_cookies("beta")).unwrap();
        for header in ["beta=a.b", "x=1; beta=a.b", "x=1;beta=a.b; y=2"] {
            assert!(exact.is_match(header), "{header}");
        }
        for header in ["beta=axb", "alphabeta=a.b", "beta=a.bc", "x=beta=a.b"] {
            assert!(!exact.is_match(header), "{header}");
        }
        let prefix = Regex::new(&Matcher::Prefix("v2".to_owned()).in_cookies("beta")).unwrap();
        assert!(prefix.is_match("beta=v2-east; y=1") && !prefix.is_match("beta=v1; y=v2"));
    }

    #[test]
    fn affinity_is_a_header_route_of_its_own() {
        let affinity = Affinity { cookie: "side".to_owned(), value: "ab12".to_owned(), max_age: None };
        let split = Split { affinity: Some(affinity), ..Split::default() };
        let routes = split.header_routes();
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].matches[0].subject, Subject::Cookie("side".to_owned()));
    }

    #[test]
    fn a_header_route_is_told_in_words() {
        let one = |subject, value| Match { subject, value };
        let matches = vec![
            one(Subject::Header("x-staff".to_owned()), Matcher::Exact("yes".to_owned())),
            one(Subject::Header("x-user".to_owned()), Matcher::Prefix("a".to_owned())),
            one(Subject::Cookie("beta".to_owned()), Matcher::Regex("[12]".to_owned())),
        ];
        let told = "header x-staff `yes` and header x-user beginning with `a` and cookie beta like `[12]`";
        assert_eq!(HeaderRoute { matches }.to_string(), told);
    }
}
