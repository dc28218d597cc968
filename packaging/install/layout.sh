# shellcheck shell=bash disable=SC2154 # setup.sh and packaging/build.sh source this and have the rest
# Which file goes where, once for setup.sh and for all packages.

# generate BINARY PREFIX OUT: what is made from the binary and for the prefix.
generate() {
  local binary=$1 prefix=$2 out=$3 unit
  mkdir -p "$out/man" "$out/completions" "$out/units"
  "$binary" man "$out/man" >/dev/null
  "$binary" completions bash >"$out/completions/mcp-orchestrator"
  "$binary" completions zsh >"$out/completions/_mcp-orchestrator"
  "$binary" completions fish >"$out/completions/mcp-orchestrator.fish"
  "$binary" schema >"$out/mcp.config.schema.json"
  for unit in "$HERE"/systemd/*.service "$HERE"/systemd/*.socket; do
    [ ! -e "$unit" ] || sed -e "s,/usr/bin/mcp-orchestrator,$prefix/bin/mcp-orchestrator,g" \
      -e "s,/usr/share/doc,$prefix/share/doc,g" "$unit" >"$out/units/${unit##*/}"
  done
}

# Where systemd looks for units of this prefix.
units_of() {
  case $1 in
    /usr | /usr/local) echo "$1/lib/systemd/system" ;;
    *) echo /etc/systemd/system ;;
  esac
}

# The same for sysusers.d, tmpfiles.d and the like.
conf_dirs_of() {
  case $1 in
    /usr | /usr/local) echo "$1/lib" ;;
    *) echo /etc ;;
  esac
}

# Debian's zsh looks for those of packages in a place of its own.
zsh_dir_of() { if [ "$1" = /usr ] && [ "${PACKAGE_KIND:-deb}" = deb ]; then echo /usr/share/zsh/vendor-completions; else echo "$1/share/zsh/site-functions"; fi; }

# each MODE DIRECTORY FILE...: lines of the layout for those files that exist.
each() {
  local mode=$1 dir=$2 file
  shift 2
  for file in "$@"; do
    [ ! -f "$file" ] || printf '%s\t%s\t%s/%s\n' "$mode" "$file" "$dir" "${file##*/}"
  done
}

# layout BINARY PREFIX GENERATED: a line for each file: mode, source, target.
layout() {
  local binary=$1 prefix=$2 made=$3 share=$2/share/mcp-orchestrator doc=$2/share/doc/mcp-orchestrator conf
  conf=$(conf_dirs_of "$prefix")
  printf '0755\t%s\t%s\n' "$binary" "$prefix/bin/mcp-orchestrator"
  each 0755 "$prefix/lib/mcp-orchestrator" "$HERE/packaging/install/configure" "$HERE/packaging/install/example-image"
  each 0644 "$(units_of "$prefix")" "$made"/units/*
  each 0644 "$conf/sysusers.d" "$HERE"/systemd/sysusers.d/*.conf
  each 0644 "$conf/tmpfiles.d" "$HERE"/systemd/tmpfiles.d/*.conf
  each 0644 "$prefix/lib/systemd/catalog" "$HERE/packaging/mcp-orchestrator.catalog"
  each 0644 "$share/systemd" "$HERE"/systemd/by-version/*.conf
  each 0644 "$share" "$HERE/etc/mcp-orchestrator/mcp.config.json" "$HERE/etc/mcp-orchestrator/settings.conf" \
    "$HERE/packaging/iam-policy.json" "$made/mcp.config.schema.json"
  each 0644 "$prefix/share/man/man1" "$made"/man/*
  each 0644 "$prefix/share/bash-completion/completions" "$made/completions/mcp-orchestrator"
  each 0644 "$(zsh_dir_of "$prefix")" "$made/completions/_mcp-orchestrator"
  each 0644 "$prefix/share/fish/vendor_completions.d" "$made/completions/mcp-orchestrator.fish"
  each 0644 "$doc" "$HERE/README.md" "$HERE/SECURITY.md" "$HERE/docs/operations.md"
  each 0644 "$doc/reference" "$HERE"/docs/reference/*.md
  each 0644 "$doc/reference/codes" "$HERE"/docs/reference/codes/*.md
  each 0644 "$doc/examples/systemd" "$HERE"/systemd/examples/*.conf
  each 0644 "$doc/examples" "$HERE"/packaging/alloy/*.alloy
  each 0644 "$doc/examples/grafana" "$HERE"/packaging/grafana/*.json
  each 0644 "$doc/examples/prometheus" "$HERE"/packaging/prometheus/*.yml
}
