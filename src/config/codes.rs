//! The codes of all problems: one per kind, fixed for ever, each with its page.
//!
//! `docs/reference` is generated from [`code_docs`]; a code is never given to another kind.

/// One code as the reference describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeDoc {
    /// `MCPO-C0xx`.
    pub code: &'static str,
    /// The kind of problem in a few words.
    pub title: &'static str,
    /// How it comes about.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $title:literal, $cause:literal, $remedy:literal;)*) => {
        $($(#[$doc])* #[doc = $title] pub const $name: &str = $code;)*

        const DOCS: &[CodeDoc] = &[
            $(CodeDoc { code: $code, title: $title, cause: $cause, remedy: $remedy },)*
        ];
    };
}

codes! {
    NOT_TEXT = "MCPO-C001", "file is not text",
        "The file is not UTF-8 or larger than 4 MiB.",
        "Save it as UTF-8.";
    JSON_SYNTAX = "MCPO-C002", "JSON cannot be read",
        "The text is not JSON (comments and trailing commas are fine). Until it is, the last good configuration stays in force.",
        "Mend the place named; `mcp-orchestrator validate` checks the file without touching anything.";
    YAML_SYNTAX = "MCPO-C003", "YAML cannot be read",
        "The text is not YAML, or has two equal keys in one map. Until it is mended, the last good configuration stays in force.",
        "Mend the place named.";
    DUPLICATE_KEY = "MCPO-C004", "key is there twice",
        "An object has two members of one name; readers disagree about which one counts.",
        "Remove one of them.";
    FILE_SHAPE = "MCPO-C005", "file has another shape",
        "The top of the file, or its map of servers, is not an object.",
        "Start from `{\"mcpServers\": {}}`.";
    NO_SERVERS = "MCPO-C006", "file has no map of servers",
        "There is text, but neither `mcpServers` nor `servers` nor `sections`. It is not taken for an empty configuration, because that would remove everything.",
        "Name the map `mcpServers`; an empty one is `{\"mcpServers\": {}}`.";
    UNREADABLE = "MCPO-C007", "file cannot be read",
        "The file does not exist or its permissions forbid reading.",
        "Check path and permissions; `sudo -u mcp-orchestrator cat FILE` shows what the service sees.";
    TOO_MANY = "MCPO-C008", "too many servers",
        "The file has more entries than one daemon handles.",
        "Split the file over several stacks.";
    INI_SYNTAX = "MCPO-C010", "settings line cannot be read",
        "A line is neither a section, nor `key = value`, nor a comment.",
        "Write `key = value`, comments with `#` or `;`.";
    UNKNOWN_SECTION = "MCPO-C011", "unknown section of the settings",
        "No section has that name.",
        "See the reference of settings for all sections.";
    UNKNOWN_SETTING = "MCPO-C012", "unknown setting",
        "The section has no such key.",
        "See the reference of settings for all keys.";
    DUPLICATE_SETTING = "MCPO-C013", "setting is there twice",
        "One key, or one section, is there twice.",
        "Remove one of them.";
    INVALID_SETTING = "MCPO-C014", "setting has an invalid value",
        "The value is not of the setting's type or outside its range.",
        "See the reference of settings for type and range.";
    SETTINGS_CONFLICT = "MCPO-C015", "settings contradict each other",
        "Two settings are each valid but not together.",
        "Change one of those named; docs/reference/settings.md says what each takes.";
    UNKNOWN_ENVIRONMENT = "MCPO-C016", "unknown environment variable",
        "A variable has the prefix MCP_ORCHESTRATOR__ but names no setting.",
        "Write MCP_ORCHESTRATOR__SECTION__KEY, or unset it.";
    NAME_NO_ID = "MCPO-C020", "name gives no server id",
        "Nothing usable as an id is left of the server's name.",
        "Give it a name with letters or digits a-z, 0-9.";
    NAME_RESERVED = "MCPO-C021", "server name is reserved",
        "The name is a path of this program.",
        "Give the server another name.";
    NAME_COLLISION = "MCPO-C022", "two servers have one id",
        "Two names become the same id (lower case, other characters to '-').",
        "Rename one of them.";
    NO_KIND = "MCPO-C023", "entry says neither command nor url",
        "An entry needs `command` (container or process) or `url` (remote).",
        "Add the one that is meant.";
    TWO_KINDS = "MCPO-C024", "entry says both command and url",
        "An entry is started here or reached elsewhere, not both.",
        "Remove one of the two.";
    UNKNOWN_KEY = "MCPO-C025", "unknown key",
        "A block that is ours alone has a key that is not known.",
        "Take the key offered, or remove it.";
    PERHAPS_TYPO = "MCPO-C026", "key looks like a typing error",
        "An unknown key of an entry is kept for other clients, but it resembles a known one.",
        "Take the key offered if that was meant.";
    INVALID_VALUE = "MCPO-C027", "value is of another type or out of range",
        "The key is known, its value is not what it takes.",
        "See docs/reference/mcp-config.md for what each key takes.";
    SECTION = "MCPO-C028", "section is unknown, unnamed or there twice",
        "An entry names a section that is not declared, or a section cannot be told from another.",
        "Declare it under `orchestrator.sections`, once.";
    SAID_TWICE = "MCPO-C029", "said twice",
        "The docker line and the orchestrator block both say it; the line holds.",
        "Remove one of the two.";
    UNSET_VARIABLE = "MCPO-C030", "variable is not set",
        "`${NAME}` names a variable that the service's environment does not have.",
        "Set it (for the service: a drop-in with Environment= or EnvironmentFile=), or write `${NAME:-default}`.";
    SECRET_UNAVAILABLE = "MCPO-C031", "secret cannot be read",
        "A file, credential or parameter named by a reference could not be read.",
        "Check that it exists and that the service may read it.";
    REFERENCE_SYNTAX = "MCPO-C032", "reference cannot be understood",
        "`${…}` is not closed, empty or of a kind that does not exist.",
        "Write ${VAR}, ${env:VAR}, ${file:/path}, ${credential:NAME}, ${secretsmanager:ID#key}, ${ssm:NAME} or $$ for a dollar sign.";
    INPUT_UNSUPPORTED = "MCPO-C033", "value would have to be asked for",
        "`${input:…}` and editor variables are asked for or filled in by an editor; a service has nobody to ask.",
        "Use ${VAR}, ${file:/path} or ${credential:NAME}.";
    SECRET_SHOWN = "MCPO-C034", "secret stands where it is shown",
        "A reference to a secret stands where its value becomes visible: in an image, a label, a mount, a program's name. Plans, `docker inspect` and logs show those. For `${credential:…}` and `${secretsmanager:…}` this is an error; `${file:…}` and `${ssm:…}` may stand for plain values, and are warned of.",
        "Put it into `env`, a header, or an argument of the program itself.";
    RUN_LINE = "MCPO-C040", "docker run line is wrong",
        "A flag or its value is not what the docker command line client takes, or cannot be used here.",
        "Change the argument named.";
    NOT_ALLOWED = "MCPO-C041", "dangerous ask without consent",
        "The container reaches beyond itself (privileges, host namespaces, the Docker socket, devices, system directories).",
        "Add the word named to the entry's `orchestrator.allow`, if it is meant.";
    PORT_CONFLICT = "MCPO-C042", "two servers want one host port",
        "Two entries publish on the same fixed host port.",
        "Change one of them, or leave the host port out (`-p 8080` instead of `-p 8000:8080`).";
    WHICH_PORT = "MCPO-C043", "unclear which port speaks MCP",
        "The line publishes several ports, or a range, and nothing says which one is the MCP endpoint.",
        "Set `orchestrator.containerPort`.";
    NO_EFFECT = "MCPO-C044", "key has no effect here",
        "The key is known but does nothing for a server of this kind.",
        "Remove it.";
    UNKNOWN_ALLOW = "MCPO-C045", "unknown word in allow",
        "`allow` takes a fixed list of words.",
        "Take the word offered.";
    NOT_YET = "MCPO-C046", "key has no effect yet",
        "The key is known and its value is good, but this version does nothing with it. At present there is no such key.",
        "Leave it for a later version, or remove it; do not rely on it.";
    ONE_ONLY = "MCPO-C047", "there can be one instance only",
        "The entry asks for several instances (`replicas`), and for something that only one can have: a fixed host port, a network address, or clients that come in without the gateway.",
        "Remove what only one can have, or set `replicas` to 1.";
    LINE_AS_COMMAND = "MCPO-C048", "command is a whole line",
        "`command` has white space in it. It is the name or path of one program; no shell takes it apart, so that a whole command line is looked for as a program and not found.",
        "Write the first word into `command` and the others into `args`.";
    INVALID_URL = "MCPO-C050", "URL cannot be used",
        "The URL has no host or another scheme than http, https, ws, wss or tcp.",
        "Write for example https://host/mcp.";
    INVALID_HEADER = "MCPO-C051", "header cannot be sent",
        "A header's name or value has characters that HTTP does not allow.",
        "Correct it; a line break at the end of a secret file is removed by itself.";
    PATH_CONFLICT = "MCPO-C052", "path in the tool proxy is taken",
        "The `openapiPath` of an entry is another server's too, lies within one, or begins with a server's id or name or with a page of the tool proxy.",
        "Choose another path.";
    OTHER_FORMAT = "MCPO-C060", "key of another format is not supported",
        "The YAML or panel document has a block that has no meaning here.",
        "Set the corresponding setting in settings.conf, if there is one.";
}

/// Every code with title, cause and remedy, in order.
#[must_use]
pub const fn code_docs() -> &'static [CodeDoc] {
    DOCS
}

/// What to do about a problem of a code, as a hint is written: lower case, no final stop.
#[must_use]
pub fn remedy(code: &str) -> Option<String> {
    let remedy = DOCS.iter().find(|doc| doc.code == code)?.remedy;
    let mut letters = remedy.chars();
    let first = letters.next()?.to_lowercase();
    Some(first.chain(letters).collect::<String>().trim_end_matches('.').to_owned())
}

/// The reference page of all codes, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from("# Problems of the configuration\n");
    for CodeDoc { code, title, cause, remedy } in DOCS {
        out.push_str(&format!("\n## {code}: {title}\n\n{cause}\n\n{remedy}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::code_docs;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(code_docs().windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}
