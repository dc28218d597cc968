//! Which image a new container is made from: pinned at first start, fetched when missing, newer
//! only when asked (`pull = always`).

use crate::model::id::{ImageId, ServerId};
use crate::model::memory::Pin;
use crate::model::observed::{Container, Image, Question, Seen};
use crate::model::op::{EngineOp, Op};
use crate::model::server::{ContainerDecl, PullPolicy, Server};
use crate::plan::draft::Draft;

/// An image to create from.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// Its id.
    pub(crate) id: ImageId,
    /// What the label says: the digest where there is one.
    pub(crate) digest: String,
    /// Ports it exposes.
    pub(crate) exposed: Vec<u16>,
}

/// Under which id a server's image is pinned: its instances are made from one image. What is fetched anew for
/// every container is fetched for each of them.
fn pinned(server: &Server) -> ServerId {
    if server.pull == PullPolicy::Always { server.id.clone() } else { server.id.server() }
}

/// The image for a server's next container; `None` when the row says what it waits for.
pub(crate) fn choose(draft: &mut Draft<'_>, server: &Server, decl: &ContainerDecl) -> Option<Chosen> {
    let reference = &decl.spec.image;
    let pin = draft.memory.pins.get(&pinned(server)).filter(|pin| pin.reference == *reference).cloned();
    if server.pull == PullPolicy::Always && pin.as_ref().is_none_or(|pin| pin.pulled.is_none()) {
        pull(draft, &server.id, reference, decl, "pull = always");
        return None;
    }
    let Some(pin) = pin.filter(|_| server.pull != PullPolicy::Always) else {
        return first(draft, server, decl);
    };
    if let Some(image) = look(draft, &server.id, &pin.image)? {
        return Some(chosen(&image));
    }
    match pin.digest {
        Some(digest) if server.pull != PullPolicy::Never => {
            pull(draft, &server.id, &digest, decl, "the pinned image is no longer on the engine");
            None
        }
        Some(digest) => {
            draft.block(
                &server.id,
                "MCPO-P021",
                format!("image {digest} is not on the engine and pull = never"),
            );
            None
        }
        None => {
            let text = format!(
                "the image pinned for {reference} is gone and has no digest to fetch it by: taking {reference} as it is now"
            );
            draft.note(&server.id, text);
            first(draft, server, decl)
        }
    }
}

/// The image that a container was made from, whatever its reference means by now.
pub(crate) fn same(
    draft: &mut Draft<'_>,
    server: &Server,
    decl: &ContainerDecl,
    container: &Container,
) -> Option<Chosen> {
    let (id, image) = (&server.id, &container.image);
    if let Some(image) = look(draft, id, image.as_str())? {
        return Some(chosen(&image));
    }
    let pin = draft.memory.pins.get(&pinned(server)).filter(|pin| pin.image == image.as_str()).cloned();
    match pin.and_then(|pin| pin.digest) {
        Some(digest) if server.pull != PullPolicy::Never => {
            pull(draft, id, &digest, decl, "the image it was made from is no longer on the engine");
        }
        _ => {
            draft.note(id, "it cannot be made anew: the image it was made from is no longer on the engine");
            crate::plan::recovery::give_up_anew(draft, id);
        }
    }
    None
}

/// Takes the reference as it is now, and pins what it is.
fn first(draft: &mut Draft<'_>, server: &Server, decl: &ContainerDecl) -> Option<Chosen> {
    let reference = &decl.spec.image;
    if let Some(image) = look(draft, &server.id, reference)? {
        let key = pinned(server);
        let pulled = draft.memory.pins.get(&key).and_then(|pin| pin.pulled);
        let pin = Pin {
            reference: reference.clone(),
            image: image.id.0.clone(),
            digest: image.digest.clone(),
            pulled,
        };
        draft.memory.pins.insert(key, pin);
        return Some(chosen(&image));
    }
    if server.pull == PullPolicy::Never {
        draft.block(
            &server.id,
            "MCPO-P021",
            format!("image {reference} is not on the engine and pull = never"),
        );
    } else {
        pull(draft, &server.id, reference, decl, "the image is not on the engine");
    }
    None
}

/// Looks an image up: `Some(None)` is "not there", `None` is "not known yet".
#[expect(clippy::option_option, reason = "unknown and absent are two things")]
fn look(draft: &mut Draft<'_>, id: &ServerId, reference: &str) -> Option<Option<Image>> {
    match draft.input.observed.images.get(reference) {
        None => {
            draft.ask(Question::Image(reference.to_owned()));
            draft.wait(id, format!("a look at image {reference}"), None);
            None
        }
        Some(Seen::Unknown(why)) => {
            draft.wait(id, format!("image {reference}: {why}"), None);
            None
        }
        Some(Seen::Known(image)) => Some(image.clone()),
    }
}

/// Plans to fetch an image once, however many servers want it.
fn pull(draft: &mut Draft<'_>, id: &ServerId, reference: &str, decl: &ContainerDecl, why: &str) {
    let op =
        Op::Engine(EngineOp::Pull { reference: reference.to_owned(), platform: decl.spec.platform.clone() });
    if crate::plan::steady::held_back(draft, id, decl) {
        return;
    }
    draft.wait(id, format!("image {reference} ({why}); what it exposes is unknown until then"), None);
    let fetched_by_another = draft.input.observed.busy.iter().any(|busy| {
        let kind = draft.input.desired.servers.get(busy).map(|server| &server.kind);
        matches!(kind, Some(crate::model::server::ServerKind::Container(other)) if other.spec.image == decl.spec.image)
    });
    if fetched_by_another {
        return;
    }
    if draft.planned(&op).is_none() {
        draft.act(Some(id), op, why, &[]);
    }
}

fn chosen(image: &Image) -> Chosen {
    Chosen {
        id: image.id.clone(),
        digest: image.digest.clone().unwrap_or_else(|| image.id.0.clone()),
        exposed: image.exposed.clone(),
    }
}
