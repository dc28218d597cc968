//! A plan in the making: what was seen, sorted by server, and what has been decided so far.

use crate::model::balancer::{
    BalancerMemory, BalancerOp, Owner, Rule, RuleAction, TargetGroup, TargetGroupFixed,
};
use crate::model::id::{RuleArn, ServerId};
use crate::model::time::Timestamp;
use crate::plan::balancer::groups::Group;
use crate::plan::balancer::{Input, Note, NoteKind, Outcome, Step, naming};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
pub(super) struct Draft<'a> {
    pub(super) input: &'a Input<'a>,
    /// Our rules by the server in their tag, lowest priority first.
    pub(super) rules: BTreeMap<&'a str, Vec<&'a Rule>>,
    /// Our groups for this listener by the server in their tag.
    pub(super) groups: BTreeMap<&'a str, Vec<&'a TargetGroup>>,
    /// Our shared groups for this listener.
    pub(super) shared_groups: Vec<&'a TargetGroup>,
    /// Rules of others, lowest priority first.
    pub(super) foreign: Vec<&'a Rule>,
    /// By target group ARN, whose rules forward to it: the server for ours, `None` for others'.
    pub(super) forwards: BTreeMap<&'a str, Vec<Option<&'a str>>>,
    /// Every seen group by name, ours or in the way.
    pub(super) by_name: BTreeMap<&'a str, &'a TargetGroup>,
    /// This host in target groups.
    pub(super) target_id: Option<String>,
    /// Group names the wanted servers live in.
    pub(super) homes: BTreeMap<ServerId, String>,
    /// The shared group, once this plan has looked after it.
    pub(super) shared: Option<(Group<'a>, Vec<usize>)>,
    /// Priorities that are taken, by anybody or by this plan.
    pub(super) priorities: BTreeSet<u32>,
    /// Target groups that the load balancer will use after this plan.
    pub(super) groups_used: usize,
    /// Priority moves asked for.
    pub(super) moves: Vec<(RuleArn, u32)>,
    /// Rules to delete because another one of ours does the same: server, rule, step to wait for.
    pub(super) duplicates: Vec<(ServerId, RuleArn, Option<usize>)>,
    pub(super) memory: BalancerMemory,
    pub(super) steps: Vec<Step>,
    pub(super) read_next: BTreeSet<ServerId>,
    notes: BTreeMap<ServerId, Vec<Note>>,
    general: Vec<Note>,
    next_look: Option<Timestamp>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(input: &'a Input<'a>) -> Self {
        let mut draft = Self {
            input,
            rules: BTreeMap::new(),
            groups: BTreeMap::new(),
            shared_groups: Vec::new(),
            foreign: input.view.rules.iter().filter(|rule| rule.owner == Owner::Foreign).collect(),
            forwards: BTreeMap::new(),
            by_name: BTreeMap::new(),
            target_id: input.view.target_id.known().or(input.memory.target_id.as_ref()).cloned(),
            homes: BTreeMap::new(),
            shared: None,
            priorities: input.view.rules.iter().map(|rule| rule.priority).collect(),
            groups_used: input.view.target_groups_in_use,
            moves: Vec::new(),
            duplicates: Vec::new(),
            memory: input.memory.clone(),
            steps: Vec::new(),
            read_next: BTreeSet::new(),
            notes: BTreeMap::new(),
            general: Vec::new(),
            next_look: None,
        };
        draft.memory.target_id.clone_from(&draft.target_id);
        draft.sort_view();
        draft.groups_used += draft.unattached();
        draft
    }

    fn sort_view(&mut self) {
        let view = self.input.view;
        for rule in &view.rules {
            let server = match &rule.owner {
                Owner::Ours { server, .. } => server.as_deref(),
                Owner::Foreign => None,
            };
            if let Some(server) = server {
                self.rules.entry(server).or_default().push(rule);
            }
            if let RuleAction::Forward(arn) = &rule.action {
                self.forwards.entry(arn.as_str()).or_default().push(server);
            }
        }
        for rules in self.rules.values_mut() {
            rules.sort_by(|a, b| (a.priority, &a.arn).cmp(&(b.priority, &b.arn)));
        }
        let (stack, listener) = (self.input.stack, view.listener.arn.as_str());
        for group in &view.target_groups {
            self.by_name.insert(&group.name, group);
            match &group.owner {
                Owner::Ours { server: Some(server), .. }
                    if naming::made_for(group, stack, listener, Some(server)) =>
                {
                    self.groups.entry(server).or_default().push(group);
                }
                Owner::Ours { server: None, .. } if naming::made_for(group, stack, listener, None) => {
                    self.shared_groups.push(group);
                }
                Owner::Ours { .. } | Owner::Foreign => {}
            }
        }
    }

    /// Groups of ours that the load balancer does not use yet, and will once they have a rule.
    fn unattached(&self) -> usize {
        let load_balancer = &self.input.view.listener.load_balancer_arn;
        let ours = self.groups.values().flatten().chain(&self.shared_groups);
        ours.filter(|group| !group.load_balancers.contains(load_balancer)).count()
    }

    /// What every group of ours has from the settings.
    pub(super) fn fixed(&self, port: u16) -> TargetGroupFixed {
        TargetGroupFixed {
            protocol: "HTTP".to_owned(),
            port,
            vpc_id: self.input.view.listener.vpc_id.clone(),
            target_type: self.input.policy.target_type.clone(),
        }
    }

    /// Our rule for `server` that counts: the one with the lowest priority number.
    pub(super) fn rule_of(&self, server: &str) -> Option<&'a Rule> {
        self.rules.get(server).and_then(|rules| rules.first().copied())
    }

    /// Whether a rule of anybody forwards to `group`, but for those of the server `except`.
    pub(super) fn is_forwarded_to(&self, group: &TargetGroup, except: Option<&str>) -> bool {
        let by = self.forwards.get(group.arn.as_str()).into_iter().flatten();
        by.into_iter().any(|of| except.is_none() || *of != except)
    }

    /// Adds a step and says its index.
    pub(super) fn step(
        &mut self,
        server: Option<&ServerId>,
        op: BalancerOp,
        why: impl Into<String>,
        after: Vec<usize>,
    ) -> usize {
        let why = why.into();
        if let Some(server) = server {
            self.note(server, NoteKind::Changed, why.clone(), None);
        }
        self.steps.push(Step { server: server.cloned(), op, why, after });
        self.steps.len() - 1
    }

    pub(super) fn note(
        &mut self,
        server: &ServerId,
        kind: NoteKind,
        text: String,
        code: Option<&'static str>,
    ) {
        let (notes, note) = (self.notes.entry(server.clone()).or_default(), Note { kind, text, code });
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    pub(super) fn say(&mut self, kind: NoteKind, text: String, code: Option<&'static str>) {
        self.general.push(Note { kind, text, code });
    }

    /// A wait ends at `at`.
    pub(super) fn look_at(&mut self, at: Timestamp) {
        self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
    }

    /// `server`'s targets were not read and are needed.
    pub(super) fn must_read(&mut self, server: &ServerId) {
        self.read_next.insert(server.clone());
        self.look_at(self.input.now);
    }

    pub(super) fn finish(self) -> Outcome {
        Outcome {
            steps: self.steps,
            memory: self.memory,
            notes: self.notes,
            general: self.general,
            next_look: self.next_look,
            read_next: self.read_next,
        }
    }
}
