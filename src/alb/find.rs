//! Finds the listener: from its own ARN, or as the load balancer's HTTPS listener, else HTTP.

use crate::alb::errors::world_error;
use crate::alb::{Alb, trouble};
use crate::model::balancer::Listener;
use crate::world::{ErrorKind, WorldError};
use aws_sdk_elasticloadbalancingv2::types;

impl Alb {
    /// The listener; asked once.
    pub(super) async fn listener(&self) -> Result<Listener, WorldError> {
        if let Some(listener) = self.cache().listener.clone() {
            return Ok(listener);
        }
        let found = self.find_listener().await?;
        let doing = "reading the listener";
        let missing = |what: &str| trouble(doing, ErrorKind::Failed, format!("the answer has no {what}"));
        let load_balancer_arn = found.load_balancer_arn().ok_or_else(|| missing("load balancer"))?.to_owned();
        let load_balancer = self.load_balancer(&load_balancer_arn).await?;
        let vpc_id = match self.config.vpc_id.clone().filter(|vpc| !vpc.is_empty()) {
            Some(vpc) => vpc,
            None => load_balancer.vpc_id().ok_or_else(|| missing("VPC"))?.to_owned(),
        };
        let listener = Listener {
            arn: found.listener_arn().ok_or_else(|| missing("ARN"))?.to_owned(),
            protocol: found.protocol().map(|p| p.as_str().to_owned()).unwrap_or_default(),
            port: found.port().and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
            load_balancer_arn,
            dns_name: load_balancer.dns_name().unwrap_or_default().to_owned(),
            vpc_id,
        };
        self.cache().listener = Some(listener.clone());
        Ok(listener)
    }

    async fn find_listener(&self) -> Result<types::Listener, WorldError> {
        if let Some(arn) = self.config.listener_arn.as_ref().filter(|arn| !arn.is_empty()) {
            let doing = format!("reading listener {arn}");
            self.bucket.take().await;
            let answer = self.client.describe_listeners().listener_arns(arn).send().await;
            let answer = answer.map_err(|error| world_error(&doing, &error))?;
            let found = answer.listeners().first().cloned();
            return found.ok_or_else(|| trouble(doing, ErrorKind::NotFound, "there is none with this ARN"));
        }
        let Some(arn) = self.config.alb_arn.as_ref().filter(|arn| !arn.is_empty()) else {
            return Err(trouble(
                "finding the listener",
                ErrorKind::Invalid,
                "neither alb_arn nor listener_arn is set",
            ));
        };
        let doing = format!("listing the listeners of {arn}");
        self.bucket.take().await;
        let pages = self.client.describe_listeners().load_balancer_arn(arn).page_size(400).into_paginator();
        let listeners: Result<Vec<types::Listener>, _> = pages.items().send().collect().await;
        let mut listeners = listeners.map_err(|error| world_error(&doing, &error))?;
        let rank = |listener: &types::Listener| match listener.protocol() {
            Some(types::ProtocolEnum::Https) => (0, listener.port() != Some(443), listener.port()),
            Some(types::ProtocolEnum::Http) => (1, listener.port() != Some(80), listener.port()),
            Some(_) | None => (2, true, listener.port()),
        };
        listeners.retain(|listener| rank(listener).0 < 2);
        listeners.sort_by_key(rank);
        let found = listeners.into_iter().next();
        found.ok_or_else(|| trouble(doing, ErrorKind::NotFound, "it has no HTTPS or HTTP listener"))
    }

    async fn load_balancer(&self, arn: &str) -> Result<types::LoadBalancer, WorldError> {
        let doing = format!("reading load balancer {arn}");
        self.bucket.take().await;
        let answer = self.client.describe_load_balancers().load_balancer_arns(arn).send().await;
        let answer = answer.map_err(|error| world_error(&doing, &error))?;
        let found = answer.load_balancers().first().cloned();
        found.ok_or_else(|| trouble(doing, ErrorKind::NotFound, "there is none with this ARN"))
    }
}
