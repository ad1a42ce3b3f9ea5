//! What a policy says.

use std::collections::BTreeMap;

use super::scope::Scopes;

/// What a policy says: requirements of every image in a scope.
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    /// Of images that nothing else is said of.
    pub default: Vec<Requirement>,
    /// By transport, then by scope; the empty scope stands for the whole transport.
    pub transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// What an image must be. It must be all that is required of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Anything at all.
    InsecureAcceptAnything,
    /// Nothing is good enough.
    Reject,
    /// Signed, in the way that has this name.
    Signature(&'static str),
}

impl Rules {
    /// What counts for an image, and which scope that was said of.
    pub fn of(&self, scopes: &Scopes) -> (String, &[Requirement]) {
        let Some(rules) = self.transports.get(scopes.transport) else {
            return ("default".into(), &self.default);
        };
        let mut named = scopes.from_narrow_to_wide.iter();
        let named = named.find_map(|scope| Some((format!("{scope:?}"), rules.get(scope)?)));
        let whole = || Some((format!("all of {}", scopes.transport), rules.get("")?));
        match named.or_else(whole) {
            Some((scope, requirements)) => (scope, requirements),
            None => ("default".into(), &self.default),
        }
    }
}
