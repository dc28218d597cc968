//! Names to ids: as they are, else slugged, else an error; never two servers with one id.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::codes;
use crate::config::error::Sink;
use crate::config::raw::RawServer;
use crate::model::id::{IdError, SectionId, ServerId};

/// Other entries named in one problem.
const OTHERS_MAX: usize = 3;

/// What became of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// The server's id.
    Id(ServerId),
    /// The id is claimed by more than one entry.
    Collides(ServerId),
    /// The name gives none.
    None,
}

/// The id of a section: the slug of its name. Unlike a server it may be named like a route.
///
/// # Errors
/// When nothing usable is left of the name.
pub(crate) fn section_id(name: &str) -> Result<SectionId, IdError> {
    // With a letter in front nothing is reserved.
    let slug: String = ServerId::slug(&format!("s-{name}"))?.into();
    let id = slug.strip_prefix("s-").unwrap_or_default().trim_start_matches(['-', '_']);
    if id.is_empty() { Err(IdError::Empty) } else { Ok(SectionId(id.to_owned())) }
}

/// The ids of all servers, in their order; problems go to `sink`.
pub(crate) fn assign(servers: &[RawServer], sink: &mut Sink<'_>) -> Vec<Named> {
    let mut named: Vec<Named> = servers.iter().map(|server| base(server, sink)).collect();
    for group in groups(&named) {
        if group.len() < 2 || !in_distinct_sections(servers, &group) {
            continue;
        }
        for index in group {
            let Some(server) = servers.get(index) else {
                continue;
            };
            if let (Some(section), Some(slot)) = (&server.section, named.get_mut(index))
                && let Ok(id) = ServerId::slug(&format!("{section}-{}", server.name))
            {
                *slot = Named::Id(id);
            }
        }
    }
    for group in groups(&named) {
        if group.len() < 2 {
            continue;
        }
        for index in &group {
            if let (Some(server), Some(slot)) = (servers.get(*index), named.get_mut(*index)) {
                report_collision(server, &group, servers, slot, sink);
            }
        }
    }
    named
}

fn base(server: &RawServer, sink: &mut Sink<'_>) -> Named {
    let name = server.name.as_str();
    let id = match ServerId::new(name) {
        Err(IdError::Reserved) => Err(IdError::Reserved),
        Err(_) => ServerId::slug(name),
        good => good,
    };
    match id {
        Ok(id) => Named::Id(id),
        Err(why) => {
            let code = if why == IdError::Reserved { codes::NAME_RESERVED } else { codes::NAME_NO_ID };
            let mark = sink.mark();
            sink.error(code, server.name_at, format!("server name '{name}' {why}"));
            sink.hint("give the server another name");
            for problem in sink.since(mark) {
                problem.server = Some(name.to_owned());
            }
            Named::None
        }
    }
}

/// Indexes of servers by equal id.
fn groups(named: &[Named]) -> Vec<Vec<usize>> {
    let mut by_id: BTreeMap<&ServerId, Vec<usize>> = BTreeMap::new();
    for (index, name) in named.iter().enumerate() {
        if let Named::Id(id) = name {
            by_id.entry(id).or_default().push(index);
        }
    }
    by_id.into_values().collect()
}

fn in_distinct_sections(servers: &[RawServer], group: &[usize]) -> bool {
    let mut seen = BTreeSet::new();
    group.iter().filter_map(|index| servers.get(*index)).all(|server| seen.insert(&server.section))
}

fn report_collision(
    server: &RawServer,
    group: &[usize],
    servers: &[RawServer],
    slot: &mut Named,
    sink: &mut Sink<'_>,
) {
    let Named::Id(id) = slot.clone() else {
        return;
    };
    let others: Vec<&RawServer> = group
        .iter()
        .filter_map(|index| servers.get(*index))
        .filter(|other| other.name_at != server.name_at)
        .take(OTHERS_MAX)
        .collect();
    let same = others.iter().any(|other| other.name == server.name);
    let lines: Vec<String> = others
        .iter()
        .map(|other| format!("'{}' in line {}", other.name, sink.place(other.name_at).line))
        .collect();
    let code = if same { codes::DUPLICATE_KEY } else { codes::NAME_COLLISION };
    let mark = sink.mark();
    let message = format!("id '{id}' is also that of {}", lines.join(", "));
    sink.error(code, server.name_at, message);
    sink.hint("rename one of them");
    for problem in sink.since(mark) {
        problem.server = Some(server.name.clone());
    }
    *slot = Named::Collides(id);
}

#[cfg(test)]
mod tests {
    use super::section_id;

    #[test]
    fn sections_may_be_named_like_routes() {
        let names =
            [("docs", Some("docs")), (" Data  Tools_", Some("data-tools")), ("***", None), ("__", None)];
        for (name, id) in names {
            assert_eq!(section_id(name).ok().map(|id| id.0), id.map(str::to_owned), "{name}");
        }
    }
}
