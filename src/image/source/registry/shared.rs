//! What the transfers of a registry have in common: which endpoints they ask, and how often.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::endpoint::Endpoint;
use super::error::{RegistryError, Retry};
use super::options::Options;
use super::order::Order;
use super::retry::{Backoff, Policy};
use crate::console::progress::{Progress, Wait};
use crate::image::oci::reference::Selector;
use crate::image::source::RawDocument;

/// What the transfers of a registry have in common.
pub struct Shared {
    /// Mirrors first; the registry itself is the last.
    pub endpoints: Vec<Endpoint>,
    pub order: Order,
    pub policy: Policy,
    pub progress: Progress,
    /// What was told already, and of whom: many transfers see the same.
    told: Mutex<HashSet<(usize, String)>>,
}

impl Shared {
    /// Of `endpoints`, the last of which is the registry itself.
    pub fn new(endpoints: Vec<Endpoint>, options: &Options) -> Self {
        Self {
            order: Order::new(endpoints.len()),
            endpoints,
            policy: options.policy.clone(),
            progress: options.progress.clone(),
            told: Mutex::default(),
        }
    }

    /// The document that `selector` names, from the first endpoint that has it.
    pub async fn document(&self, selector: &Selector) -> Result<RawDocument, RegistryError> {
        let mut at = self.order.first();
        loop {
            let error = match self.document_from(at, selector).await {
                Ok(document) => return Ok(document),
                Err(error) => error,
            };
            let Some(next) = self.order.after(at) else {
                return Err(self.with_mirrors(error));
            };
            // Who doesn't have the image is not asked for its parts, either.
            self.order.give_up(at);
            self.turn(at, &error, next);
            at = next;
        }
    }

    async fn document_from(&self, at: usize, selector: &Selector) -> Result<RawDocument, RegistryError> {
        let mut backoff = self.backoff(at);
        loop {
            match self.endpoints[at].document(selector).await {
                Ok(document) => return Ok(document),
                Err(error) => self.wait(at, &mut backoff, error).await?,
            }
        }
    }

    /// Patience with one endpoint: little where there is another.
    pub fn backoff(&self, at: usize) -> Backoff {
        let mut policy = self.policy.clone();
        if self.order.after(at).is_some() {
            policy.retries = policy.retries.min(1);
        }
        Backoff::new(policy)
    }

    /// After `error` at an endpoint: waits until it is time to try again there, or gives the error back.
    pub async fn wait(
        &self,
        at: usize,
        backoff: &mut Backoff,
        mut error: RegistryError,
    ) -> Result<(), RegistryError> {
        error.tries = backoff.failures() + 1;
        let Retry::After(asked) = error.cause.retry() else {
            return Err(error);
        };
        if self.order.after(at).is_some() && !error.cause.is_hitch() {
            return Err(error);
        }
        // Who has answered before is only just starting again, perhaps.
        let never_listened = error.cause.is_refusal() && !self.endpoints[at].scheme.initialized();
        if never_listened && backoff.failures() >= self.policy.retries_if_refused() {
            return Err(error);
        }
        let Some(wait) = backoff.next_wait(asked) else {
            return Err(error);
        };
        self.tell_once(at, &error, &again(wait));
        let waiting = Wait::new(format!("waiting before asking {} again", self.endpoints[at].name));
        let _waiting = self.progress.waiting(waiting.at_most(wait));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Tells that another endpoint is asked.
    pub fn turn(&self, at: usize, error: &RegistryError, next: usize) {
        self.tell_once(at, error, &format!("asking {}", self.endpoints[next].name));
    }

    /// Tells what an endpoint failed at and what is done about it, the first time that it fails in this way.
    fn tell_once(&self, at: usize, error: &RegistryError, remedy: &str) {
        let what = (at, format!("{} {remedy}", error.cause.kind()));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(what) {
            self.progress.note(format!("{error}; {remedy}"));
        }
    }

    /// The last endpoint's error, with those that had failed before.
    pub fn with_mirrors(&self, mut error: RegistryError) -> RegistryError {
        let failed = self.order.given_up(&self.endpoints);
        error.mirrors = failed.map(|endpoint| endpoint.name.clone()).collect();
        error
    }
}

/// What is done after a failure; a longer wait is told.
pub fn again(wait: Duration) -> String {
    match wait.as_secs() {
        0..10 => "trying again".into(),
        seconds => format!("trying again in {seconds} s"),
    }
}
