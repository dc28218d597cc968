//! The codes outside the configuration: titles, causes and remedies, in one table with those of
//! [`crate::config::codes`].
//!
//! The code itself stands where the problem arises; this says the same of it everywhere: in
//! `docs/reference`, and wherever a code is to be explained. Must never give a code to another
//! problem. `tests/it/reference.rs` holds it against the codes in use.

mod limits;
mod recovery;

use crate::config::codes::{CodeDoc, code_docs};

const fn doc(code: &'static str, title: &'static str, cause: &'static str, remedy: &'static str) -> CodeDoc {
    CodeDoc { code, title, cause, remedy }
}

/// In order, each once.
const DOCS: &[CodeDoc] = &[
    doc(
        "MCPO-A001",
        "this host's target id is not known",
        "Instance metadata did not answer and `target_id` is empty.",
        "Allow IMDSv2 on the instance, or set `[aws] target_id`. Until then the last known id serves, or nothing is registered.",
    ),
    doc(
        "MCPO-A002",
        "target group name is taken",
        "A target group that is not ours has the name this server needs.",
        "Rename or delete that target group. It is never changed from here.",
    ),
    doc(
        "MCPO-A003",
        "no priority is free",
        "All rule priorities between `rule_priority_start` and `rule_priority_end` are in use on the listener.",
        "Widen the range in settings.conf. Other servers are not affected.",
    ),
    doc(
        "MCPO-A004",
        "target group quota is used up",
        "The load balancer has as many target groups as it may have.",
        "Set `[gateway] port`, so that new edge servers share one target group, or use a second load balancer.",
    ),
    doc(
        "MCPO-A005",
        "hosts differ",
        "Live hosts of this stack want different things of an object they share.",
        "Give all hosts the same entry. The shared object stays as it is until they agree.",
    ),
    doc(
        "MCPO-A006",
        "rule is behind a foreign one",
        "A rule of others has a lower priority number and catches this server's requests.",
        "Change that rule, or move our priorities before it with `rule_priority_start`.",
    ),
    doc(
        "MCPO-A007",
        "tags were removed",
        "An object looks like ours but lacks our tags. It is not adopted.",
        "Put the tags back, or delete the object.",
    ),
    doc(
        "MCPO-A008",
        "health check can hardly fail",
        "A direct server has no health path of its own, so that nearly every answer counts as healthy.",
        "Set `orchestrator.health.path`.",
    ),
    doc(
        "MCPO-A009",
        "all targets are unhealthy",
        "Every target of the server fails its health check. The load balancer then forwards to all of them.",
        "Look at the server's log, and from the target at its health path.",
    ),
    doc(
        "MCPO-A010",
        "object is left alone",
        "An object carries this stack's tags but cannot be placed, for example on another listener.",
        "Delete it by hand if nobody needs it.",
    ),
    doc(
        "MCPO-E001",
        "the file was changed meanwhile",
        "A change of mcp.config.json or settings.conf was made for another version (`If-Match`) than is there now. Nothing was written.",
        "Read the file again (`GET /api/v1/panel`, `GET /api/v1/settings`), make the change anew, and send the new `ETag`.",
    ),
    doc(
        "MCPO-E002",
        "say which version is meant",
        "`If-Match` is missing: a whole text replaces one version of the file, or somebody else changed the file and the daemon has not taken that into account yet.",
        "Send the `ETag` of `GET /api/v1/panel` or `/api/v1/settings` as `If-Match`; `*` overwrites whatever is there.",
    ),
    doc(
        "MCPO-E003",
        "the file cannot be written",
        "mcp.config.json or settings.conf, or its directory, is read-only for the daemon, or the file is mounted on its own and cannot be replaced.",
        "Let the user of the daemon write the file and its directory; in a container mount the directory, not the file.",
    ),
    doc(
        "MCPO-E004",
        "the file would have an error",
        "A change would bring an error into mcp.config.json or settings.conf that it does not have. Nothing was written; `problems` names each place in the new text.",
        "Correct the change. `?dry_run=true` shows what would be.",
    ),
    doc(
        "MCPO-E005",
        "not over the network",
        "A change over HTTP sets `allow`, the command of a process, a host path or `${file:}`, or changes what runs in an entry that has one; or it sets a path, a secret, a socket, an address that is listened on, or who may come in. That is as much as having the host.",
        "Edit the file, use the control socket (`mcp-orchestrator set-server`), or set `[dashboard] full_control`.",
    ),
    doc(
        "MCPO-E006",
        "the name is taken",
        "A server or section of this name is there already, or the name means more than one.",
        "Take another name, or change the one that is there.",
    ),
    doc(
        "MCPO-E007",
        "the section has servers",
        "A section that goes still has servers.",
        "Ask with `?servers=move` (and `&to=SECTION`) or `?servers=delete`.",
    ),
    doc(
        "MCPO-E008",
        "the file cannot be changed from here",
        "The file is YAML, or cannot be read as JSON with comments.",
        "Edit the file itself; it is read again at once. A broken text can be replaced by a whole one (`PUT /api/v1/panel`).",
    ),
    doc(
        "MCPO-E009",
        "too much would be removed",
        "A change takes more than half of at least four servers out of the file, or all of them. Nothing was written.",
        "Ask again with `allow_mass_delete=true`, if that is meant.",
    ),
    doc(
        "MCPO-E010",
        "the change makes no sense",
        "The body is no entry, or a placeholder in it stands for nothing, or a section is missing that the file's form needs.",
        "See the detail, and `/docs`.",
    ),
    doc(
        "MCPO-E011",
        "the file does not decide it",
        "A change of settings.conf names a setting that an environment variable or a flag of the command line decides: the file would say one thing and another would be in force.",
        "Change the variable where the service gets it (`systemctl cat mcp-orchestrator`), or take it away there.",
    ),
    doc(
        "MCPO-G001",
        "not a name of this host",
        "The Host header is missing, or names neither loopback, nor the address connected to, nor a configured name.",
        "Add the name to `[gateway] allowed_origins`.",
    ),
    doc(
        "MCPO-G002",
        "not from this site",
        "A browser sent the request for a page of another site.",
        "If the site is yours, add it to `[gateway] allowed_origins`.",
    ),
    doc(
        "MCPO-G003",
        "not from here",
        "Without tokens the main listener serves MCP to direct clients on this host alone.",
        "Set `[gateway] auth = bearer` and `tokens_file`, or use the server's own port.",
    ),
    doc(
        "MCPO-G004",
        "a token is needed",
        "The request has no token, or one that does not count: it is not in the tokens file, or not one that the issuer signed for this host, or its time is over.",
        "Send `Authorization: Bearer TOKEN`, or with `auth = bearer` Basic with name and token. The detail says what is wrong with a signed token; `WWW-Authenticate` leads to the issuer.",
    ),
    doc(
        "MCPO-G005",
        "not granted",
        "The token is good, but what stands behind it in the tokens file, or its scopes, do not cover this server; or it lacks a scope of `[jwt] required_scopes`.",
        "Use another token, or add the server or its section to this one's line or scopes.",
    ),
    doc(
        "MCPO-G010",
        "the path is not usable",
        "Its escapes are broken, are not UTF-8, or hide a separator; or it has a step up.",
        "Send the path as the server's URL has it.",
    ),
    doc(
        "MCPO-G011",
        "the body is not complete",
        "The body broke off, or did not arrive in time.",
        "Send it again; look at the network if it happens often.",
    ),
    doc(
        "MCPO-G012",
        "the body is too large",
        "The body is larger than requests may be.",
        "Send large data by reference.",
    ),
    doc(
        "MCPO-G020",
        "no MCP connection",
        "The server runs, but its MCP connection cannot be opened.",
        "Look at `logs NAME`: it must answer `initialize` or `server/discover` on its standard output.",
    ),
    doc(
        "MCPO-G021",
        "the server does not answer",
        "A probe found that the server gives no answer to MCP.",
        "See `why NAME` and `logs NAME`; the probe succeeds by itself once it answers.",
    ),
    doc(
        "MCPO-G022",
        "nothing is here",
        "The path belongs to no MCP server.",
        "MCP servers are at `/mcp/{id}`; see `list-servers`.",
    ),
    doc(
        "MCPO-G023",
        "a listener's port is taken",
        "Something else listens on the port of the main listener, of `[gateway] port` or of `[metrics] port`.",
        "End it, or set another `[dashboard] port`. The daemon tries again by itself; servers' own ports are not affected.",
    ),
    doc(
        "MCPO-G024",
        "not ready yet",
        "The daemon has not done its first pass, or no configuration could be used since it started.",
        "Wait for the first pass; see `status` for what is wrong with the file.",
    ),
    doc(
        "MCPO-G025",
        "the certificate cannot be used",
        "A file that `[tls]` names is not PEM, or certificate and key do not belong together. The start fails; a running daemon keeps the certificate it has.",
        "Mend the file named: `cert_file` has the host's own certificate first and then the chain, `key_file` its private key without a passphrase. It is looked at again by itself.",
    ),
    doc(
        "MCPO-G026",
        "private key is open to others",
        "Everybody on this host can read the file of `[tls] key_file`.",
        "Take the permission away (`chmod o-r FILE`) and, if others use this host, renew the certificate with another key.",
    ),
    doc(
        "MCPO-G060",
        "the tool failed",
        "The tool itself answered that it failed; its words are the message.",
        "Read the message: the tool may say what it wants instead.",
    ),
    doc(
        "MCPO-G061",
        "the tool asks for input",
        "The tool asks its caller for something before it goes on, which an HTTP caller cannot give.",
        "Call the tool with a client that speaks MCP, at `/mcp/{id}`.",
    ),
    doc(
        "MCPO-G062",
        "the server is not available",
        "The server of the tool is stopped, is starting, or did not start; the message says which.",
        "Come again after `Retry-After`; without it, see `why NAME`.",
    ),
    doc(
        "MCPO-G063",
        "the tool did not answer in time",
        "Nothing came from the server for as long as `timeout` of the entry says; the server was told to stop.",
        "Raise `timeout` or `tools.timeouts` of the entry, or ask with `Accept: text/event-stream`, where each sign of progress counts.",
    ),
    doc(
        "MCPO-G064",
        "the server went away during the call",
        "The server ended, or its connection broke, before it answered. Whether the tool did its work is not known.",
        "See `logs NAME`. The call is tried again only with `retry` and where the tool says that it may be repeated.",
    ),
    doc(
        "MCPO-G065",
        "the server has too much to do",
        "Too many requests wait for this server.",
        "Come again after `Retry-After`.",
    ),
    doc(
        "MCPO-G066",
        "the server's answer cannot be used",
        "The answer was longer than a message or `maxResponseBytes` of the entry may be, or was none.",
        "Have the tool give large results by reference, as a resource, or raise the limit.",
    ),
    doc(
        "MCPO-G085",
        "names of tools",
        "A server has two tools of one name, or one whose name Claude, LiteLLM or Bedrock do not take.",
        "Give the tool another name with `orchestrator.tools.rename`, or leave it out with `tools.deny`. At `/mcp` names that are too long are cut.",
    ),
    doc(
        "MCPO-H001",
        "the daemon is stopping",
        "The loop has ended; no request is taken.",
        "Ask again once the daemon is up.",
    ),
    doc("MCPO-H002", "no such server", "No server has this id or name.", "See `list-servers`."),
    doc(
        "MCPO-H003",
        "not done",
        "The loop took the request and could not do it; the detail says why.",
        "See `why NAME`.",
    ),
    doc(
        "MCPO-H004",
        "the server does not run",
        "A tool can be called only of a running server.",
        "See `why NAME`, then `start-server NAME`.",
    ),
    doc(
        "MCPO-H005",
        "not a log level",
        "The word is no level, or the filter expression cannot be read. The level stays as it is.",
        "Use DEBUG, INFO, WARNING, ERROR, or an expression such as `info,access=debug`.",
    ),
    doc(
        "MCPO-H006",
        "the call failed",
        "The server did not answer the call, or answered with an error.",
        "See the detail, and `logs NAME`.",
    ),
    doc(
        "MCPO-H007",
        "no such task",
        "No task has this id, or it is so old that it was forgotten.",
        "`GET /api/v1/tasks` lists those that are known.",
    ),
    doc(
        "MCPO-H010",
        "a password is needed",
        "The request has no credentials, or wrong ones.",
        "Sign in with the user and password of `[dashboard]`; `hash-password` makes a new hash.",
    ),
    doc(
        "MCPO-H011",
        "too many wrong passwords",
        "This address gave wrong passwords several times in a row; for a while none of its requests is looked at.",
        "Wait as long as `Retry-After` says. If it was not you, see `audit` for the address.",
    ),
    doc(
        "MCPO-H012",
        "a page of another site sent the request",
        "A browser said that the request comes from elsewhere, or a write lacks the header `X-MCP-Orchestrator`.",
        "Use the dashboard itself. Behind a proxy, keep the `Host` that the browser sent.",
    ),
    doc(
        "MCPO-H013",
        "the body is not JSON",
        "A write has a body of a kind that forms send.",
        "Send `Content-Type: application/json`.",
    ),
    doc(
        "MCPO-H014",
        "the log cannot be read",
        "The engine keeps the output of this container and did not give it: its log driver keeps nothing that can be read, or the engine does not answer.",
        "Use the log driver `json-file`, `local` or `journald` for it, or look where its driver sends the output.",
    ),
    doc(
        "MCPO-H050",
        "the search takes long",
        "A search for servers that was asked for has not ended within a minute; it goes on.",
        "Ask for its result later, or name fewer directories in `[discovery] paths`.",
    ),
    doc(
        "MCPO-H400",
        "the request cannot be read",
        "Its query or its body is not what the route takes.",
        "See `/docs`.",
    ),
    doc("MCPO-H404", "nothing is here", "No route has this path.", "See `/docs`."),
    doc(
        "MCPO-H405",
        "not with this method",
        "The path is served, but not with this method.",
        "See `Allow` in the answer.",
    ),
    doc(
        "MCPO-H429",
        "too much at once",
        "As many tasks or event streams are open as may be.",
        "Wait until one ends.",
    ),
    doc(
        "MCPO-P001",
        "container without a readable server label",
        "It has our mark, but its server label is no id. It is left alone.",
        "Remove it by hand if nobody needs it.",
    ),
    doc(
        "MCPO-P002",
        "configuration cannot be used",
        "The file cannot be read as a configuration. The last good one stays in force and nothing is removed.",
        "Mend the file; `validate` names every problem. The daemon goes on by itself.",
    ),
    doc(
        "MCPO-P003",
        "entry without a usable name",
        "An entry has a name that gives no id. It is not served, and what it ran before cannot be told from what was removed, so that nothing is removed meanwhile; all other servers are served.",
        "Give the entry a valid name; `validate` names the place.",
    ),
    doc(
        "MCPO-P004",
        "removal is held back",
        "The file lost more than half of at least four servers, or all of them.",
        "If that is meant: `--allow-mass-delete`, or `[service] allow_mass_delete = true`.",
    ),
    doc(
        "MCPO-P010",
        "host port belongs to another server",
        "Two servers want one host port.",
        "Choose another port, or leave it to the range.",
    ),
    doc(
        "MCPO-P011",
        "no free port",
        "Every port of the range is leased or in use. Only newcomers are affected.",
        "Widen the range in settings.conf.",
    ),
    doc(
        "MCPO-P012",
        "host port is taken by another process",
        "Something else on this host listens on the port.",
        "End that process. A port from the range moves by itself after a short wait; a port written in the entry does not.",
    ),
    doc(
        "MCPO-P021",
        "image is not on the engine",
        "`pull = never` and the image is not there.",
        "Pull or load the image, or change `pull`.",
    ),
    doc(
        "MCPO-P030",
        "container name is taken",
        "A container that is not ours has the name this server needs. It is never touched.",
        "Rename or remove it, or set `[service] name_prefix`.",
    ),
    doc(
        "MCPO-P031",
        "no port is named",
        "The server speaks HTTP, but neither its line nor its image names a port.",
        "Set `orchestrator.containerPort`.",
    ),
    doc(
        "MCPO-P032",
        "several ports are exposed",
        "The image exposes several ports and none is said to speak MCP.",
        "Set `orchestrator.containerPort`.",
    ),
    doc(
        "MCPO-P033",
        "direct route for a stdio server",
        "A stdio server has no port of its own.",
        "Use `edge` or `auto`.",
    ),
    doc(
        "MCPO-P034",
        "entry has a problem",
        "The entry is broken. What it runs stays as it is, and no other server is affected.",
        "Run `validate`.",
    ),
    doc(
        "MCPO-P040",
        "next try after a failure",
        "An action failed. The pause doubles with every failure in a row.",
        "See the text of the reason; `sync` and `restart-server` try at once.",
    ),
    doc(
        "MCPO-P041",
        "gave up",
        "The server ended as often in a row as `restart.maxAttempts` allows, or it runs and did not answer after restarts and new containers. What runs stays as it is; its health goes on being asked, and one that answers again is well.",
        "Mend the cause, then `restart-server NAME`.",
    ),
    doc(
        "MCPO-P042",
        "waits before a restart",
        "The server ended. The first restart has no delay, the next ones do, and each one doubles it up to `restart.maxDelay`. It is told also of a server that is up again.",
        "See its log for why it ends.",
    ),
    doc(
        "MCPO-P043",
        "the server does not answer MCP",
        "Its process ended or did not start, it could not be reached, or it runs and answers no questions any more. One that did not start is tried again after a while that grows with every failure; one that does not answer is restarted, then its container is made anew from the same image, then it is given up. Requests that find no connection get 503 until then.",
        "`logs NAME` shows what it printed; look at the command, the image or the URL. `why NAME` names the next try.",
    ),
    doc(
        "MCPO-P050",
        "roll-out is stopped",
        "Several replacements failed, so the others are not begun.",
        "Mend what the failed ones have in common.",
    ),
    doc(
        "MCPO-P051",
        "replacement failed",
        "The new container did not come up. The old one stays or comes back.",
        "See the text of the reason; the next try is named.",
    ),
    doc(
        "MCPO-P060",
        "load balancer cannot be read",
        "AWS did not answer, so nothing of the load balancer is changed.",
        "Check credentials, region and network; it is asked again by itself.",
    ),
    doc(
        "MCPO-P061",
        "quota of the load balancer",
        "AWS refused to make a target group or rule because a quota is used up. The container runs; only its route is missing. Other servers are not affected.",
        "Ask AWS for a higher quota, or remove rules and target groups that nobody needs. It is tried again by itself.",
    ),
    doc(
        "MCPO-P070",
        "a pass found a fault of its own",
        "A plan broke an invariant and was refused. What runs stays as it is.",
        "This is a bug: report it with the log line.",
    ),
    doc(
        "MCPO-R001",
        "settings wait for a restart",
        "settings.conf has new values for settings that are only read at the start. The old values stay in force, and everything else of the file is applied.",
        "`systemctl restart mcp-orchestrator` when it suits; containers go on running. Or take the change back.",
    ),
    doc(
        "MCPO-R002",
        "settings refused",
        "The newest settings.conf, or the tokens or the certificate that it names, cannot be used. All settings in force stay as they are, and so does everything that runs.",
        "Mend the place named; `mcp-orchestrator validate` shows all of them. The daemon goes on by itself once the file is good.",
    ),
    doc(
        "MCPO-S001",
        "state was lost",
        "The state file could not be trusted. It was moved aside and a new one made from the containers' labels.",
        "Nothing needs doing. The old file is kept beside the new one.",
    ),
    doc(
        "MCPO-S002",
        "state cannot be saved",
        "The state file cannot be written: the disk is full, or read-only. Servers go on; what was learned since is lost if the daemon ends before it can be saved.",
        "Make room on the disk of the state directory. It is saved again by itself, with the next pass.",
    ),
    doc(
        "MCPO-W001",
        "not found",
        "The thing asked for is not there.",
        "It is looked for again in the next pass.",
    ),
    doc(
        "MCPO-W002",
        "conflict",
        "A name, port or priority is taken, or the state of the thing does not allow the change.",
        "See the cause.",
    ),
    doc(
        "MCPO-W003",
        "refused as wrong",
        "The other side refused the request itself.",
        "See the cause: it is its own words.",
    ),
    doc(
        "MCPO-W004",
        "denied",
        "Credentials are missing, wrong or not enough.",
        "Check access to the Docker socket, the registry's password, or the IAM policy.",
    ),
    doc("MCPO-W005", "throttled", "Too many requests.", "It is tried again later."),
    doc(
        "MCPO-W006",
        "quota",
        "A quota of the other side is used up.",
        "Ask for more, or remove what is not needed.",
    ),
    doc("MCPO-W007", "unreachable", "Nobody answers.", "Check that the engine runs, or the network to AWS."),
    doc("MCPO-W008", "timed out", "There was no answer within the time allowed.", "It is tried again later."),
    doc("MCPO-W009", "failed", "The other side failed.", "See the cause: it is its own words."),
];

fn each() -> impl Iterator<Item = &'static CodeDoc> {
    code_docs().iter().chain(DOCS).chain(limits::DOCS).chain(recovery::DOCS)
}

/// Every code of this program, in order.
#[must_use]
pub fn all() -> Vec<CodeDoc> {
    let mut all: Vec<CodeDoc> = each().copied().collect();
    all.sort_by_key(|doc| doc.code);
    all
}

/// What `code` means.
#[must_use]
pub fn explain(code: &str) -> Option<CodeDoc> {
    each().find(|doc| doc.code == code).copied()
}

#[cfg(test)]
mod tests {
    use super::{all, explain};

    #[test]
    fn every_code_is_there_once() {
        assert!(all().windows(2).all(|pair| pair[0].code < pair[1].code));
        assert_eq!(explain("MCPO-W007").map(|doc| doc.title), Some("unreachable"));
        assert_eq!(explain("MCPO-C001").map(|doc| doc.title), Some("file is not text"));
        assert_eq!(explain("MCPO-X000"), None);
    }
}
