//! Sessions that stand on a connection of their own, or below another session.
//!
//! Must never hand what a server says to one client to another.

use crate::gateway::Ask;
use crate::gateway::flow::negotiated;
use crate::gateway::hub::Entry;
use crate::gateway::legacy::{ask_client, empty_object, legacy_version};
use crate::gateway::places::Down;
use crate::gateway::sessions::{Backing, NewSession, Session};
use crate::gateway::slot::Unavailable;
use crate::gateway::slot::own::{self as slot_own, Dedicated};
use crate::gateway::streams::Keep;
use crate::mcp::build;
use crate::mcp::wire::{Era, member};
use crate::model::server::Sharing;
use crate::upstream::leg::Greeting;
use serde_json::value::RawValue;
use std::sync::Arc;

/// A session below that of a client with all servers: with the client's own capabilities.
pub(crate) async fn open_below(ask: &Ask<'_>, above: &Session) -> Result<Arc<Session>, Unavailable> {
    let client = above.client.as_ref().map_or(r#"{"name":"unknown","version":"unknown"}"#, |info| info.get());
    let text = format!(
        r#"{{"protocolVersion":"{}","capabilities":{},"clientInfo":{client}}}"#,
        above.version,
        above.capabilities.get()
    );
    let params = RawValue::from_string(text).unwrap_or_default();
    let (at, greeting) = greeted(ask, &params).await?;
    let ask = &Ask { entry: at.as_ref().unwrap_or(ask.entry), ..*ask };
    if wants_its_own(ask, &greeting, &params)
        && let Some(own) = own_connection(ask, &params).await?
    {
        return Ok(own.session);
    }
    let new = NewSession {
        server: ask.entry.slot.id.clone(),
        version: negotiated(Some(above.version), legacy_version(&greeting)),
        principal: Arc::clone(ask.principal),
        backing: Backing::Shared,
        capabilities: above.capabilities.clone(),
        client: above.client.clone(),
    };
    let opened = ask.gateway.sessions.open(new);
    let (_, session) = opened.ok_or_else(|| Unavailable::Later("too many sessions are open".to_owned()))?;
    session.forget_at_the_end();
    ask.entry.metrics.sessions_opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Ok(session)
}

/// What the server says of itself, and the instance for the session where there are several. While it
/// rests, what is kept of it, unless the client will have an instance of its own.
pub(super) async fn greeted(
    ask: &Ask<'_>,
    params: &RawValue,
) -> Result<(Option<Arc<Entry>>, Greeting), Unavailable> {
    let known = ask.entry.resting();
    if let Some(known) = known.filter(|known| !wants_its_own(ask, &known.greeting, params)) {
        return Ok((ask.entry.least(), known.greeting.clone()));
    }
    let (at, live) = ask.entry.anywhere(Some((ask.gateway, ask.origin)), 0).await?;
    Ok((at, live.leg.greeting().clone()))
}

/// Whether a client must not share: the server could ask it something.
pub(super) fn wants_its_own(ask: &Ask<'_>, greeting: &Greeting, params: &RawValue) -> bool {
    let Some(place) = ask.entry.slot.place() else { return false };
    match place.sharing {
        Sharing::Shared => false,
        Sharing::Isolated => true,
        Sharing::Auto => {
            let declared = member(params, "capabilities");
            let any = ["sampling", "elicitation", "roots"]
                .iter()
                .any(|name| declared.is_some_and(|all| member(all, name).is_some()));
            any && greeting.era == Era::Legacy
        }
    }
}

/// A session on a connection of its own.
pub(super) struct Own {
    /// What its client knows it by.
    pub(super) id: String,
    pub(super) session: Arc<Session>,
    /// The server's answer to `initialize`.
    pub(super) result: Box<RawValue>,
}

/// A session on a connection of its own; `None` when this server can have only one instance and
/// sharing it is allowed.
pub(super) async fn own_connection(ask: &Ask<'_>, params: &RawValue) -> Result<Option<Own>, Unavailable> {
    let later = Unavailable::Later;
    let at = ask.entry.for_own();
    let ask = &Ask { entry: &at, ..*ask };
    let Some(place) = ask.entry.slot.place() else { return Ok(None) };
    if let Some(Down::Stopped(why) | Down::Coming(why) | Down::Asleep(why) | Down::Failed(why, _)) =
        &place.down
    {
        return Err(later(why.clone()));
    }
    let Some(permit) = ask.entry.own_connections() else {
        return Err(later("too many clients have an instance of their own".to_owned()));
    };
    let carrying = ask.origin.place(&place);
    let at = carrying.as_ref().unwrap_or(&place);
    let opened = Dedicated::open(&ask.entry.slot, &ask.gateway.shared, at, params.to_owned()).await;
    let mut dedicated = match opened {
        Ok(dedicated) => dedicated,
        Err(why) if place.sharing == Sharing::Auto && slot_own::only_one(&why) => {
            tracing::debug!(MCP_SERVER = %ask.entry.slot.id, "clients share the one instance: {why}");
            return Ok(None);
        }
        Err(why) => return Err(later(why.to_string())),
    };
    let greeting = dedicated.leg.greeting().clone();
    let result = greeting.server.map_or_else(empty_object, |server| server.raw);
    let keeper = dedicated.take_keeper();
    let new = NewSession {
        server: ask.entry.slot.id.clone(),
        version: negotiated(Some(&greeting.version), &greeting.version),
        principal: Arc::clone(ask.principal),
        backing: Backing::Dedicated(
            dedicated.leg.clone(),
            keeper.as_ref().and_then(|keeper| keeper.container()),
        ),
        capabilities: member(params, "capabilities").map_or_else(empty_object, ToOwned::to_owned),
        client: member(params, "clientInfo").map(ToOwned::to_owned),
    };
    let Some((session_id, session)) = ask.gateway.sessions.open(new) else {
        slot_own::end(dedicated.leg, keeper).await;
        return Err(later("too many sessions are open".to_owned()));
    };
    ask.entry.metrics.sessions_opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let (gateway, opened) = (Arc::clone(ask.gateway), Arc::clone(&session));
    tokio::spawn(async move {
        look_after(&session, &mut dedicated).await;
        gateway.end_session(&session.hash);
        slot_own::end(dedicated.leg, keeper).await;
        // It counts until it is gone: whoever stops waits for that.
        drop(permit);
    });
    Ok(Some(Own { id: session_id, session: opened, result }))
}

/// Hands what a server says outside of calls to its one client, until either is gone.
async fn look_after(session: &Arc<Session>, dedicated: &mut Dedicated) {
    use crate::upstream::table::FromServer;
    loop {
        tokio::select! {
            () = session.over() => return,
            _ = dedicated.leg.closed() => return,
            said = dedicated.said.recv() => match said {
                None => return,
                Some(FromServer::Notice(notice)) => {
                    let keep = if notice.method == "notifications/message" { Keep::May } else { Keep::Must };
                    session.outside().push(&build::notification(&notice.method, notice.params.as_deref()), keep);
                }
                Some(FromServer::Refused(_)) => {}
                Some(FromServer::Request(request)) => {
                    let text = crate::gateway::flow::request_text(&request);
                    ask_client(session, &dedicated.leg, &request.id, &text, session.outside());
                }
            },
        }
    }
}
