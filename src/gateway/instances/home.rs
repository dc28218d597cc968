//! At which instance a session is.
//!
//! ```text
//! it answers                              there, however much it has to do
//! it was not up since we started          there, for a while: sessions outlive this process
//! it has no connection, hangs, or its     at another one that answers, from then on; none does: there,
//! circuit is open                         as with one instance
//! it was removed                          at another one at once
//! ```
//! To its client a move is what another connection is to the client of a server with one instance: lists
//! may have changed, and what was subscribed to is subscribed to there. Sessions with a connection of
//! their own stay with it.
//!
//! Must never move what is under way: its answer, its progress and its cancelling belong to the
//! connection it began on.

use crate::gateway::hub::Entry;
use crate::gateway::instances::{Found, Tried};
use crate::gateway::sessions::{Backing, Session};
use crate::gateway::slot::Unavailable;
use crate::gateway::streams::Keep;
use crate::gateway::traffic::Pass;
use crate::gateway::{Ask, Gateway, lock};
use crate::mcp::build;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A session waits this long for its instance to come back after our start while another one answers.
const HOME_WITHIN: Duration = Duration::from_secs(5);

/// The instance of a session, which is another one from now on where the one it was at does not answer;
/// `None` where there is this one alone.
pub(crate) fn home(ask: &Ask<'_>, session: &Arc<Session>) -> Option<Arc<Entry>> {
    let (entry, replica) = (ask.entry, session.replica());
    if entry.is_one() && replica == entry.replica {
        return None;
    }
    let own = entry.group.member(replica);
    if matches!(session.backing, Backing::Dedicated(..)) {
        return own;
    }
    if own.as_ref().is_some_and(|own| own.is_serving() || own.slot.is_awaited()) {
        return own;
    }
    let best = entry.by_load(0).into_iter().next();
    match best.filter(|best| own.is_none() || best.is_serving()) {
        Some(best) => {
            move_to(ask.gateway, session, &best);
            Some(best)
        }
        None => own,
    }
}

/// The connection for a request in a session that shares it; waits for one that is coming.
///
/// # Errors
/// Why there is none at any instance.
pub(crate) async fn reach(
    ask: &Ask<'_>,
    session: &Arc<Session>,
    pass: Option<&mut Box<Pass>>,
) -> Result<Found, Unavailable> {
    if ask.entry.is_one() {
        return Ok((None, ask.entry.reach(ask.gateway, ask.origin).await?));
    }
    Box::pin(reach_of_several(ask, session, pass)).await
}

async fn reach_of_several(
    ask: &Ask<'_>,
    session: &Arc<Session>,
    pass: Option<&mut Box<Pass>>,
) -> Result<Found, Unavailable> {
    let home = pass.as_ref().map_or(ask.entry, |pass| pass.entry());
    let home = Arc::clone(home);
    if home.carries(ask.origin) {
        let live = home.reach(ask.gateway, ask.origin).await?;
        return Ok((Some(home), live));
    }
    if let Some(live) = home.slot.live() {
        home.group.touch.used();
        // The circuit of its own may have been open.
        move_to(ask.gateway, session, &home);
        return Ok((Some(home), live));
    }
    if home.slot.is_awaited()
        && let Ok(Ok(live)) = tokio::time::timeout(HOME_WITHIN, home.slot.ready()).await
    {
        return Ok((Some(home), live));
    }
    let (found, live) = home.anywhere(None, 0).await?;
    let found = found.unwrap_or(home);
    move_to(ask.gateway, session, &found);
    if let Some(pass) = pass {
        pass.goes_to(&found, false);
    }
    Ok((Some(found), live))
}

/// The connection for a request of which nothing was sent, in a session or none.
///
/// # Errors
/// Why there is none.
pub(crate) async fn reach_again(
    entry: &Arc<Entry>,
    session: Option<&Arc<Session>>,
    tried: Tried,
) -> Result<Found, Unavailable> {
    let own = session.filter(|_| !entry.is_one()).and_then(|session| entry.group.member(session.replica()));
    if let Some(own) = own.filter(|own| own.bit() & tried == 0)
        && let Some(live) = own.slot.live()
    {
        return Ok((Some(own), live));
    }
    let (found, live) = entry.anywhere(None, tried).await?;
    if let (Some(session), Some(found), Some(gateway)) = (session, &found, entry.group.gateway.upgrade()) {
        move_to(&gateway, session, found);
    }
    Ok((found, live))
}

/// The session is at this instance from now on.
pub(crate) fn move_to(gateway: &Arc<Gateway>, session: &Arc<Session>, to: &Arc<Entry>) {
    let before = session.move_to(to.replica);
    if before == to.replica {
        return;
    }
    gateway.keep_session(session);
    let uris: Vec<String> = session.subscriptions().into_iter().collect();
    if let Some(from) = to.group.member(before) {
        from.unsubscribe(gateway, &uris);
    }
    // One that is not up yet tells all its sessions when it is.
    let Some(live) = to.slot.live() else { return };
    to.subscribe(gateway, &live, &uris);
    if let Some(stream) = session.listening() {
        for method in Entry::what_may_have_changed(&live) {
            stream.push(&build::notification(&method, None), Keep::Must);
        }
    }
}

/// An instance that is no more: who is there goes to another one, or ends where there is none.
pub(crate) fn leave(gateway: &Arc<Gateway>, entry: &Arc<Entry>) {
    entry.left.store(true, Relaxed);
    let heir = entry.by_load(entry.bit()).into_iter().next();
    for session in gateway.sessions.of(&entry.slot.id) {
        match (&session.backing, &heir) {
            (Backing::Shared, Some(heir)) => move_to(gateway, &session, heir),
            (Backing::Shared | Backing::Dedicated(..), _) => gateway.end_session(&session.hash),
        }
    }
    let Some(heir) = heir else { return };
    let mut uris = Vec::new();
    let mut told = Vec::new();
    let live = heir.slot.live();
    for listener in lock(&entry.group.listeners).iter_mut().filter(|one| one.replica == entry.replica) {
        listener.replica = heir.replica;
        if let Some(live) = &live {
            uris.extend(listener.filter.uris.iter().cloned());
            listener.generation = live.generation;
            told.push((listener.id.clone(), listener.filter.clone(), Arc::clone(&listener.stream)));
        }
    }
    let Some(live) = live else { return };
    heir.subscribe(gateway, &live, &uris);
    for method in Entry::what_may_have_changed(&live) {
        for (id, _, stream) in told.iter().filter(|(_, filter, _)| filter.admits(&method, None)) {
            stream.push(&crate::mcp::listen::tagged(&method, None, id), Keep::Must);
        }
    }
}
