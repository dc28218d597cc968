//! Projects that are no MCP servers, made from a seed: more than two hundred that differ in more than
//! their name.
//!
//! Where the shapes come from: manifests as `npm init`, `create-next-app`, Poetry, Hatch and uv write
//! them; settings as VS Code, Zed, Codex and Gemini write them for people without servers; agents and
//! other clients as the quick starts of the MCP SDKs show them, which depend on the same libraries as
//! servers do; and things of the same name: Minecraft's Mod Coder Pack, Microchip's MCP23017 and
//! MCP3008, Istio's Mesh Configuration Protocol, control panels. Numbers, names and versions vary.

use super::Tree;

/// How many are made; some come out alike.
pub(crate) const COUNT: u64 = 330;

/// Numbers from a seed (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("small") % sides
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.roll(words.len())]
    }

    fn version(&mut self) -> String {
        format!("{}.{}.{}", self.roll(5), self.roll(20), self.roll(9))
    }
}

/// What a project may be called; some sound like servers.
const NAMES: &[&str] = &[
    "acme-shop",
    "mcp-agent",
    "sensor-hub",
    "mcp-panel",
    "chat_client",
    "mcp-server-tests",
    "blog",
    "mcp",
    "gpio-tools",
    "my-mcp-server",
    "minecraft-mcp-server",
    "trading_bot",
    "llm-router",
    "mcp-inspector-ui",
];
/// Python packages.
const PYTHON: &[&str] =
    &["requests", "pydantic>=2", "httpx[http2]", "click~=8.1", "numpy", "fastapi", "rich", "openai"];
/// JavaScript packages.
const NODE: &[&str] = &["express", "zod", "react", "next", "commander", "ws", "openai", "@ai-sdk/openai"];

type Shape = (&'static str, fn(&mut Dice, &str) -> Vec<(String, String, bool)>);

const SHAPES: &[Shape] = &[
    ("a Python program", python_program),
    ("a Python program for Microchip's MCP chips", python_chips),
    ("a Python agent that uses MCP servers", python_agent),
    ("a Python agent whose sources are elsewhere", python_bare),
    ("a Poetry client with a test server beside it", poetry_client),
    ("a web application", web_application),
    ("a JavaScript program", node_program),
    ("a JavaScript client of MCP servers", node_client),
    ("a program tested against MCP", node_dev_dependency),
    ("a workspace of packages", workspace),
    ("Mod Coder Pack", minecraft),
    ("a list of web servers", web_servers),
    ("a list of language servers", language_servers),
    ("VS Code without servers", vs_code),
    ("VS Code with settings of like names", vs_code_names),
    ("Zed without servers", zed),
    ("Codex without servers", codex),
    ("Gemini without servers", gemini),
    ("Istio's mesh configuration", mesh),
    ("a control panel's YAML", panel),
    ("scripts that flash chips", chip_scripts),
    ("files that are templates or broken", broken),
];

/// A project, and what it is.
pub(crate) fn project(seed: u64) -> (&'static str, Tree) {
    let shapes = u64::try_from(SHAPES.len()).expect("few");
    let (what, make) = SHAPES[usize::try_from(seed % shapes).expect("few")];
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let name = dice.pick(NAMES);
    let files = make(&mut dice, name);
    let tree = files
        .into_iter()
        .map(|(path, text, executable)| (format!("/home/ann/{name}/{path}"), (text.into_bytes(), executable)))
        .collect();
    (what, tree)
}

fn file(path: &str, text: impl Into<String>) -> (String, String, bool) {
    (path.to_owned(), text.into(), false)
}

fn pyproject(dice: &mut Dice, name: &str, needs: &[&str], target: &str) -> String {
    let mut all: Vec<String> = needs.iter().map(|need| format!("\"{need}\"")).collect();
    for _ in 0..dice.roll(4) {
        all.insert(dice.roll(all.len() + 1), format!("\"{}\"", dice.pick(PYTHON)));
    }
    format!(
        "[build-system]\nrequires = [\"hatchling\"]\nbuild-backend = \"hatchling.build\"\n\n[project]\nname = \"{name}\"\nversion = \"{}\"\ndependencies = [{}]\n\n[project.scripts]\n{name} = \"{target}\"\n",
        dice.version(),
        all.join(", ")
    )
}

fn module(name: &str) -> String {
    name.replace('-', "_")
}

fn python_program(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let module = module(name);
    let manifest = pyproject(dice, name, &["requests"], &format!("{module}.cli:main"));
    vec![
        file("pyproject.toml", manifest),
        file(&format!("src/{module}/cli.py"), "import requests\n\n\ndef main():\n    print('mcp')\n"),
    ]
}

fn python_chips(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let chip = dice.pick(&[
        "adafruit-circuitpython-mcp230xx",
        "adafruit-circuitpython-mcp3xxx",
        "mcp3008",
        "mcp2515",
        "pymcprotocol",
    ]);
    let module = module(name);
    let manifest = pyproject(dice, name, &[chip], &format!("{module}.main:run"));
    vec![
        file("pyproject.toml", manifest),
        file(
            &format!("{module}/main.py"),
            "from adafruit_mcp230xx.mcp23017 import MCP23017\n\n\ndef run():\n    mcp = MCP23017(None)\n    mcp.get_pin(0)\n",
        ),
    ]
}

fn python_agent(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let sdk = dice.pick(&["mcp", "mcp[cli]>=1.2", "fastmcp>=2", "mcp==1.26.0"]);
    let module = module(name);
    let manifest = pyproject(dice, name, &[sdk], &format!("{module}.agent:main"));
    let source = dice.pick(&[
        "from mcp import ClientSession, StdioServerParameters\nfrom mcp.client.stdio import stdio_client\n",
        "from fastmcp import Client\n\n\nasync def main():\n    async with Client('server.py') as client:\n        pass\n",
        "from mcp.client.streamable_http import streamablehttp_client\n",
    ]);
    vec![file("pyproject.toml", manifest), file(&format!("src/{module}/agent.py"), source)]
}

fn python_bare(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let module = module(name);
    let manifest = pyproject(dice, name, &["fastmcp"], &format!("{module}:main"));
    vec![file("pyproject.toml", manifest)]
}

fn poetry_client(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let module = module(name);
    let manifest = format!(
        "[tool.poetry]\nname = \"{name}\"\nversion = \"{}\"\n\n[tool.poetry.dependencies]\npython = \"^3.11\"\nmcp = \"^1.{}\"\n\n[tool.poetry.scripts]\n{name} = \"{module}.main:main\"\n",
        dice.version(),
        dice.roll(20)
    );
    vec![
        file("pyproject.toml", manifest),
        file(
            &format!("{module}/main.py"),
            "from mcp import ClientSession\nfrom mcp.client.stdio import stdio_client\nfrom .fake import server\n",
        ),
        // What the client starts to test itself.
        file(
            &format!("{module}/fake.py"),
            "from mcp.server.fastmcp import FastMCP\nserver = FastMCP('fake')\n",
        ),
        file("tests/server.py", "from mcp.server.fastmcp import FastMCP\n"),
    ]
}

fn package(dice: &mut Dice, name: &str, needs: &[&str], more: &str) -> String {
    let mut all: Vec<String> =
        needs.iter().map(|need| format!("\"{need}\": \"^{}\"", dice.version())).collect();
    for _ in 0..dice.roll(5) {
        let (need, version) = (dice.pick(NODE), dice.version());
        let line = format!("\"{need}\": \"^{version}\"");
        if !all.iter().any(|known| known.starts_with(&format!("\"{need}\""))) {
            all.push(line);
        }
    }
    format!(
        "{{\n  \"name\": \"{name}\",\n  \"version\": \"{}\",\n{more}  \"dependencies\": {{ {} }}\n}}\n",
        dice.version(),
        all.join(", ")
    )
}

fn web_application(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let scripts =
        "  \"scripts\": { \"dev\": \"next dev\", \"build\": \"next build\", \"start\": \"next start\" },\n";
    vec![
        file("package.json", package(dice, name, &["next", "react"], scripts)),
        file("src/index.ts", "export {};\n"),
    ]
}

fn node_program(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let bin = format!("  \"bin\": {{ \"{name}\": \"./bin/cli.js\" }},\n");
    vec![
        file("package.json", package(dice, name, &["commander"], &bin)),
        file("bin/cli.js", "#!/usr/bin/env node\nrequire('commander');\n"),
    ]
}

fn node_client(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let bin = format!(
        "  \"bin\": \"./dist/index.js\",\n  \"scripts\": {{ \"start\": \"node dist/index.js\" }},\n  \"keywords\": [\"mcp\", \"{name}\"],\n"
    );
    let source = dice.pick(&[
        "import { Client } from \"@modelcontextprotocol/sdk/client/index.js\";\nimport { StdioClientTransport } from \"@modelcontextprotocol/sdk/client/stdio.js\";\n",
        "import { Client } from '@modelcontextprotocol/sdk/client/index.js';\nimport { log } from './log.js';\n",
    ]);
    vec![
        file("package.json", package(dice, name, &["@modelcontextprotocol/sdk"], &bin)),
        file("src/index.ts", source),
        file("src/log.ts", "export const log = console.error;\n"),
    ]
}

fn node_dev_dependency(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let more = format!(
        "  \"bin\": {{ \"{name}\": \"./dist/index.js\" }},\n  \"devDependencies\": {{ \"@modelcontextprotocol/sdk\": \"^{}\" }},\n",
        dice.version()
    );
    vec![
        file("package.json", package(dice, name, &["express"], &more)),
        file("test/server.ts", "import { McpServer } from \"@modelcontextprotocol/sdk/server/mcp.js\";\n"),
    ]
}

fn workspace(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let more = "  \"private\": true,\n  \"workspaces\": [\"packages/*\"],\n  \"scripts\": { \"start\": \"turbo run start\", \"mcp\": \"echo mcp\" },\n";
    vec![
        file("package.json", package(dice, name, &["@modelcontextprotocol/sdk"], more)),
        file("packages/web/package.json", package(dice, "web", &["react"], "")),
    ]
}

fn minecraft(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let version = format!("1.{}.{}", dice.roll(20), dice.roll(9));
    vec![
        file(
            "conf/mcp.json",
            format!(
                "{{\"mcp_version\": \"{version}\", \"side\": \"joined\", \"servers\": \"minecraft_server.{version}.jar\"}}\n"
            ),
        ),
        file(
            "mcp_config.json",
            format!(
                "{{\"version\": \"{version}\", \"server\": {{\"command\": \"java -jar server.jar\"}}, \"mappings\": \"snapshot_2018\"}}\n"
            ),
        ),
        file("scripts/mcp/decompile.sh", "#!/bin/sh\nexec java -jar mcp.jar --server minecraft_server.jar\n"),
    ]
}

fn web_servers(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let port = 8000 + dice.roll(1000);
    let text = format!(
        "{{\"servers\": {{\"edge\": {{\"host\": \"10.0.0.{}\", \"port\": {port}}}, \"api\": {{\"command\": \"gunicorn\", \"args\": [\"app:app\"]}}, \"shop\": {{\"url\": \"https://shop.example/\", \"type\": \"http\"}}}}}}\n",
        dice.roll(250)
    );
    vec![file("deploy/mcp.json", text)]
}

fn language_servers(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let server = dice.pick(&["rust-analyzer", "pyright-langserver", "gopls", "clangd"]);
    let text = format!(
        "{{\"servers\": {{\"{server}\": {{\"command\": \"{server}\", \"args\": [\"--log=error\"], \"filetypes\": [\"x\"]}}}}}}\n"
    );
    vec![file("editor/mcp.json", text.clone()), file("mcp.json", text)]
}

fn vs_code(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let text = format!(
        "{{\n  // team settings\n  \"editor.tabSize\": {},\n  \"files.exclude\": {{ \"**/.git\": true }},\n  \"python.defaultInterpreterPath\": \".venv/bin/python\",\n}}\n",
        2 + dice.roll(6)
    );
    vec![
        file(".vscode/settings.json", text),
        file(".vscode/mcp.json", "{\n  \"inputs\": [],\n  \"servers\": {}\n}\n"),
    ]
}

fn vs_code_names(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let text = format!(
        "{{\"mcp\": {{\"enabled\": true, \"discovery\": {{\"claude\": {}}}}}, \"servers\": [\"a\", \"b\"], \"chat.mcp.autostart\": \"never\", \"mcp.servers\": \"none\"}}\n",
        dice.roll(2) == 0
    );
    vec![file(".vscode/settings.json", text)]
}

fn zed(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let text = format!(
        "// see the docs\n{{\"buffer_font_size\": {}, \"lsp\": {{\"rust-analyzer\": {{\"binary\": {{\"path\": \"/usr/bin/rust-analyzer\"}}}}}}, \"context_servers\": {{\"some-extension\": {{\"source\": \"extension\", \"settings\": {{}}}}}}}}\n",
        12 + dice.roll(6)
    );
    vec![file(".zed/settings.json", text)]
}

fn codex(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let text = format!(
        "model = \"gpt-{}\"\napproval_policy = \"on-request\"\n\n[history]\npersistence = \"none\"\n\n[mcp_servers]\n",
        dice.roll(6)
    );
    vec![file(".codex/config.toml", text)]
}

fn gemini(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let text = format!(
        "{{\"theme\": \"{}\", \"mcpServerCommand\": \"\", \"allowMCPServers\": []}}\n",
        dice.pick(&["Default", "GitHub"])
    );
    vec![file(".gemini/settings.json", text)]
}

fn mesh(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let text = format!(
        "# Mesh Configuration Protocol\nconfigSources:\n- address: istio-galley.istio-system.svc:{}\n  tlsSettings:\n    mode: ISTIO_MUTUAL\nservers:\n- name: galley\n  host: galley.svc\n  port: {}\n",
        9000 + dice.roll(900),
        9000 + dice.roll(900)
    );
    vec![file("istio/mcp-config.yaml", text)]
}

fn panel(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let text = format!(
        "# master control panel\npanel:\n  title: MCP\nservers:\n  web:\n    url: https://10.1.0.{}/admin\n  batch:\n    command: /opt/mcp/bin/batch\n    args: [--daemon]\n",
        dice.roll(250)
    );
    vec![file("mcp-config.yml", text)]
}

fn chip_scripts(dice: &mut Dice, _name: &str) -> Vec<(String, String, bool)> {
    let chip = dice.pick(&["mcp23017", "mcp3008", "mcp4725", "mcp2515"]);
    vec![
        (
            "scripts/mcp/flash.sh".to_owned(),
            format!("#!/bin/sh\nset -e\ni2cset -y 1 0x20 0x00 # {chip}\n"),
            true,
        ),
        (
            "scripts/mcp/read.py".to_owned(),
            format!("#!/usr/bin/env python3\nimport board\nprint('{chip} server')\n"),
            true,
        ),
        ("scripts/mcp/README.md".to_owned(), "from mcp.server import nothing\n".to_owned(), false),
    ]
}

fn broken(dice: &mut Dice, name: &str) -> Vec<(String, String, bool)> {
    let half = "{\"name\": \"{{ cookiecutter.name }}\", \"dependencies\": {\"@modelcontextprotocol/sdk\": ";
    let end = dice.roll(half.len() - 1) + 1;
    vec![
        file("template/package.json", &half[..end]),
        file(
            "template/pyproject.toml",
            format!("[project]\nname = {{{{ {name} }}}}\ndependencies = [\"mcp\"]\n[project.scripts]\n"),
        ),
        file(".mcp.json", "{}\n"),
        file("old/.mcp.json", "[]\n"),
        file(
            "odd/.mcp.json",
            "{\"mcpServers\": {\"a\": {}, \"b\": null, \"c\": {\"command\": \"\"}, \"d\": {\"command\": [\"x\"]}}}\n",
        ),
    ]
}
