//! Completions as shells get them: the program's words, and the names of servers.

use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mcp-orchestrator");
const CONFIG: &str = r#"{"orchestrator": {"sections": {"office": {}, "Data Tools": {}}}, "mcpServers": {
    "time": {"command": "docker", "args": ["run", "-i", "mcp/time"]},
    "timer": {"command": "docker", "args": ["run", "-i", "mcp/timer"], "env": {"KEY": "${NOT_SET}"}},
    "search": {"url": "https://example.com/mcp", "headers": {"Authorization": "Bearer ${file:/nowhere}"}}
}}"#;

/// A directory with a configuration, and no daemon.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a directory");
    std::fs::write(home.path().join("mcp.config.json"), CONFIG).expect("a file");
    home
}

fn dressed(home: &tempfile::TempDir, mut command: Command) -> String {
    let path = std::path::Path::new(PROGRAM).parent().expect("a directory").display();
    let output = command
        .env_clear()
        .env("PATH", format!("{path}:/usr/bin:/bin"))
        .env("HOME", home.path())
        .env("XDG_STATE_HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "shells show what stands there");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn bash_completes_commands_flags_and_servers() {
    let home = home();
    let completed = |words: &[&str]| {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "source <(mcp-orchestrator completions bash)\nCOMP_WORDS=(mcp-orchestrator {})\nCOMP_CWORD={}\nCOMP_TYPE=9\n_clap_complete_mcp_orchestrator mcp-orchestrator '{}' x 2>/dev/null\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            quoted.join(" "),
            words.len(),
            words.last().unwrap_or(&"")
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &script]);
        let mut found: Vec<String> = dressed(&home, bash).lines().map(str::to_owned).collect();
        found.sort();
        found
    };
    assert_eq!(completed(&["start-server", "ti"]), ["time", "timer"]);
    assert_eq!(completed(&["stop-server", "time", "sea"]), ["search"], "also further ones");
    assert_eq!(completed(&["health", "--server", "s"]), ["search"]);
    assert_eq!(completed(&["--config", "mcp.config.json", "why", "timer"]), ["timer"]);
    assert_eq!(
        completed(&["--config", "missing.json", "why", "t"]),
        [""],
        "an unreadable file completes nothing"
    );
    for words in [["remove-server", "ti"], ["set-server", "ti"], ["prepare", "ti"], ["pause", "ti"]] {
        assert_eq!(completed(&words), ["time", "timer"], "{words:?}");
    }
    assert_eq!(completed(&["stop-server", "--section", "d"]), ["data-tools"]);
    assert_eq!(completed(&["pause", "--section", ""]), ["data-tools", "office"]);
    assert_eq!(completed(&["aud"]), ["audit"]);
    assert_eq!(completed(&["list-servers", "--status", "conv"]), ["converged"]);
    assert!(completed(&["logs", "--"]).contains(&"--follow".to_owned()));
}

#[test]
fn zsh_and_fish_get_candidates_with_the_same_words() {
    let home = home();
    let asked = |shell: &str| {
        let mut program = Command::new("env");
        program.arg(format!("COMPLETE={shell}")).args(["_CLAP_COMPLETE_INDEX=2", PROGRAM, "--"]);
        program.args(["mcp-orchestrator", "start-server", "ti"]);
        dressed(&home, program)
    };
    for shell in ["zsh", "fish"] {
        let found = asked(shell);
        assert!(
            found.contains("time") && found.contains("timer") && !found.contains("search"),
            "{shell}: {found}"
        );
        let mut script = Command::new(PROGRAM);
        script.args(["completions", shell]);
        assert!(dressed(&home, script).contains("COMPLETE"), "{shell}");
    }
}
