#!/usr/bin/env bash
# The installation of setup.sh: below DESTDIR for real, and on the system with stand-ins for systemd,
# package managers and Docker. tests/package does it in a Debian of its own.
# Ends with `N passed, N failed`.
# shellcheck disable=SC2016 # bodies of stand-ins are expanded where they run

# shellcheck source=tests/setup/harness.sh
source "$(dirname "${BASH_SOURCE[0]}")/harness.sh"
TOOLS+=(basename find install od stat)

# The binary: what installing asks of it.
binary_stand_in() {
  cat >"$CASE/program" <<PROGRAM
#!/bin/bash
echo "program \$*" >>"$CASE/calls"
while [[ \$1 = --config || \$1 = --settings ]]; do shift 2; done
case \$1 in
  --version) echo 'mcp-orchestrator 0.1.0' ;;
  man) echo page >"\$2/mcp-orchestrator.1" && echo page >"\$2/mcp-orchestrator-run.1" ;;
  completions) echo "words for \$2" ;;
  schema) echo '{}' ;;
  validate) [ ! -e "$CASE/invalid" ] ;;
esac
PROGRAM
  chmod +x "$CASE/program"
}

# Below DESTDIR everything is real.
staged_system() {
  bare_system
  binary_stand_in
  DEST="$CASE/a tree"
  ENVIRONMENT=DESTDIR=$DEST
}

# On the system itself, users and configuration are not the test's to make.
live_system() {
  bare_system
  binary_stand_in
  ENVIRONMENT=
  cat >>"$CASE/probes" <<PROBES
systemd_runs() { true; }
units_of() { echo "$CASE/units"; }
conf_dirs_of() { echo "$CASE/conf"; }
configure_system() { have 'user, directories, configuration and password'; }
PROBES
  stand_in systemctl <<SYSTEMCTL
cd "$CASE"
[ "\$1" = -q ] && shift
case \$1 in
  is-enabled) [ -e "enabled-\$2" ] ;;
  is-active) [ -e "active-\$2" ] ;;
  enable) shift; [ "\$1" = -q ] && shift; touch "enabled-\${!#}" ;;
  start | restart) [ ! -e broken ] && touch "active-\$2" ;;
  disable) rm -f enabled-* active-* ;;
esac
SYSTEMCTL
  stand_in journalctl <<<'echo "the daemon says why"'
}

install_staged() { run install --binary "$CASE/program" "$@"; }
install_live() { run install --binary "$CASE/program" --prefix "$CASE/prefix" "$@"; }
tree() { (cd "$DEST" && find . -printf '%m %p %l\n' | sort && find . -type f -exec sha256sum {} + | sort -k2); }
mode_is() { [ "$(stat -c %a "$DEST$2")" = "$1" ] || fail "mode of $2: $(stat -c %a "$DEST$2")"; }

PASSWORD=/etc/credstore/mcp-orchestrator.dashboard-password

# ---- below DESTDIR ---------------------------------------------------------------------------------

case_install_puts_everything_in_its_place() {
  staged_system
  install_staged
  exits 0
  for file in bin/mcp-orchestrator lib/systemd/system/mcp-orchestrator.service lib/sysusers.d/mcp-orchestrator.conf \
    lib/tmpfiles.d/mcp-orchestrator.conf share/man/man1/mcp-orchestrator.1 share/bash-completion/completions/mcp-orchestrator; do
    [ -s "$DEST/usr/local/$file" ] || fail "missing: $file"
  done
  mode_is 755 /usr/local/bin/mcp-orchestrator
  mode_is 2770 /etc/mcp-orchestrator
  mode_is 660 /etc/mcp-orchestrator/mcp.config.json
  mode_is 640 /etc/mcp-orchestrator/settings.conf
  mode_is 600 $PASSWORD
  grep -qxE '[A-Za-z0-9]{24}' "$DEST$PASSWORD" || fail 'no good password'
  says_not "$(cat "$DEST$PASSWORD")"
  cmp -s "$DEST/etc/mcp-orchestrator/mcp.config.json" "$HERE/../../etc/mcp-orchestrator/mcp.config.json" || fail 'not the shipped file'
  grep -q '^ExecStart=/usr/local/bin/mcp-orchestrator run' "$DEST/usr/local/lib/systemd/system/mcp-orchestrator.service" || fail 'ExecStart'
  [ "$(wc -L <<<"$OUT")" -le 100 ] || fail 'wide lines'
}

case_install_is_the_default_command() {
  staged_system
  run --binary "$CASE/program" --dry-run
  exits 0
  says 'would  install /usr/local/bin/mcp-orchestrator'
}

case_dry_run_of_an_install() {
  staged_system
  install_staged --dry-run
  exits 0
  # How many units and pages there are is no business of this test.
  OUT=$(sed -E "s,([(])[0-9]+ files,\1N files," <<<"$OUT")
  same_as dry-run-install.txt
  [ ! -e "$DEST" ] || fail 'something was made'
}

case_second_run_changes_nothing_and_says_so() {
  staged_system
  install_staged
  tree >"$CASE/first"
  install_staged
  exits 0
  says 'nothing was changed'
  diff "$CASE/first" <(tree) >&2 || fail 'the tree changed'
  says_not '  do  '
}

case_upgrade_keeps_what_is_the_users() {
  staged_system
  install_staged
  echo '// mine' >>"$DEST/etc/mcp-orchestrator/mcp.config.json"
  echo '# mine' >>"$DEST/etc/mcp-orchestrator/settings.conf"
  (cd "$DEST/etc" && find . -type f -exec sha256sum {} +) >"$CASE/mine"
  echo /usr/local/share/man/man1/mcp-orchestrator-old.1 >>"$DEST/usr/local/share/mcp-orchestrator/installed-files"
  touch "$DEST/usr/local/share/man/man1/mcp-orchestrator-old.1"
  echo '# newer' >>"$CASE/program"
  install_staged
  exits 0
  says 'do  install /usr/local/bin/mcp-orchestrator'
  tail -n 1 "$DEST/usr/local/bin/mcp-orchestrator" | grep -q newer || fail 'the program is the old one'
  [ ! -e "$DEST/usr/local/share/man/man1/mcp-orchestrator-old.1" ] || fail 'a file of the old version is left'
  (cd "$DEST/etc" && sha256sum --quiet -c "$CASE/mine") >&2 || fail 'a file of the user changed'
}

case_removed_configuration_does_not_come_back() {
  staged_system
  install_staged
  rm "$DEST/etc/mcp-orchestrator/mcp.config.json"
  touch "$DEST/var/lib/mcp-orchestrator/state.db"
  install_staged
  [ ! -e "$DEST/etc/mcp-orchestrator/mcp.config.json" ] || fail 'it came back'
}

case_encrypted_password_needs_no_other() {
  staged_system
  mkdir -p "$DEST/etc/credstore.encrypted"
  touch "$DEST/etc/credstore.encrypted/mcp-orchestrator.dashboard-password"
  install_staged
  exits 0
  [ ! -e "$DEST$PASSWORD" ] || fail 'a second password was made'
}

case_uninstall_keeps_and_purge_removes() {
  staged_system
  install_staged
  touch "$DEST/var/lib/mcp-orchestrator/state.db"
  run --uninstall --dry-run
  exits 0
  [ -e "$DEST/usr/local/bin/mcp-orchestrator" ] || fail 'a dry run removed the program'
  run --uninstall
  exits 0
  says 'kept: /etc/mcp-orchestrator'
  [ -z "$(find "$DEST/usr" -type f)" ] || fail "left: $(find "$DEST/usr" -type f)"
  [ -e "$DEST/etc/mcp-orchestrator/settings.conf" ] || fail 'settings are gone'
  [ -e "$DEST/var/lib/mcp-orchestrator/state.db" ] || fail 'state is gone'
  [ -e "$DEST$PASSWORD" ] || fail 'the password is gone'
  run --uninstall --purge
  exits 0
  [ -z "$(find "$DEST" -type f)" ] || fail "left: $(find "$DEST" -type f)"
  [ -z "$(find "$DEST" -name '*mcp-orchestrator*')" ] || fail 'directories are left'
  run --uninstall --purge
  exits 0
  says 'nothing was changed'
}

case_another_prefix_is_found_by_systemd() {
  staged_system
  install_staged --prefix /opt/mcpo
  exits 0
  grep -q '^ExecStart=/opt/mcpo/bin/mcp-orchestrator run' "$DEST/etc/systemd/system/mcp-orchestrator.service" || fail 'no unit'
  [ -e "$DEST/etc/sysusers.d/mcp-orchestrator.conf" ] || fail 'no sysusers.d'
}

case_check_names_what_is_missing() {
  staged_system
  run --check && exits 1 && says 'run ./setup.sh install'
  install_staged
  run --check && exits 0 && says_not miss
  rm "$DEST/usr/local/share/man/man1/mcp-orchestrator.1"
  chmod 0644 "$DEST$PASSWORD"
  touch "$CASE/invalid"
  run --check
  exits 1
  says 'miss  all'
  says "miss  the dashboard's password, mode 0600"
  says 'miss  both configuration files are good'
}

# ---- words -----------------------------------------------------------------------------------------

case_bad_words_are_usage_errors() {
  staged_system
  run --prefix && exits 2 && says 'an option lacks its value'
  run --prefix usr && exits 2 && says "not 'usr'"
  run --purge && exits 2 && says '--purge goes with --uninstall'
  run install --frobnicate && exits 2 && says "unknown word '--frobnicate'"
  ENVIRONMENT=DESTDIR=relative
  run install && exits 2 && says 'DESTDIR needs an absolute path'
}

case_a_program_that_does_not_run_is_refused() {
  staged_system
  run install --binary "$CASE/nothing" && exits 1 && says 'is no program'
  echo 'exit 1' | cat - >"$CASE/program"
  install_staged
  exits 1
  says 'does not run here'
  [ ! -e "$DEST" ] || fail 'something was installed'
}

# ---- on the system ---------------------------------------------------------------------------------

case_the_service_is_started_once() {
  live_system
  install_live
  exits 0
  called '^systemctl -q enable mcp-orchestrator.service'
  called '^systemctl start mcp-orchestrator.service'
  install_live
  exits 0
  says 'nothing was changed'
  called_times 1 '^systemctl start'
  not_called '^systemctl restart'
}

# Sockets stay open over a restart, not over stop and start.
case_an_upgrade_restarts_and_does_not_stop() {
  live_system
  install_live
  echo '# newer' >>"$CASE/program"
  install_live
  exits 0
  called_times 1 '^systemctl restart mcp-orchestrator.service'
  not_called '^systemctl stop'
}

case_no_start_starts_nothing() {
  live_system
  install_live --no-start
  exits 0
  says 'systemctl start mcp-orchestrator.service'
  not_called '^systemctl start'
}

case_a_service_that_does_not_start_shows_why() {
  live_system
  touch "$CASE/broken"
  install_live
  exits 1
  says 'the daemon says why'
  says 'does not start'
}

case_without_systemd_it_says_how_to_run() {
  live_system
  echo 'systemd_runs() { false; }' >>"$CASE/probes"
  install_live
  exits 0
  says 'run it in the foreground'
  says "$CASE/prefix/bin/mcp-orchestrator run"
  not_called '^systemctl .*start'
}

case_beside_a_package_it_refuses() {
  live_system
  stand_in dpkg-query <<<'echo "installed 0.1.0-1"'
  install_live
  exits 1
  says 'the package mcp-orchestrator 0.1.0-1 is installed'
  [ ! -e "$CASE/prefix" ] || fail 'something was installed'
}

case_without_root_and_sudo_nothing_is_done() {
  live_system
  echo 'is_root() { false; }' >>"$CASE/probes"
  install_live
  exits 1
  says 'root is needed'
  [ ! -e "$CASE/prefix" ] || fail 'something was installed'
}

case_sudo_does_what_needs_root() {
  live_system
  echo 'is_root() { false; }' >>"$CASE/probes"
  stand_in sudo <<<'[ "$1" = -n ] && shift; exec "$@"'
  install_live
  exits 0
  called '^sudo -n systemctl start'
  called '^sudo -n install -m 0755'
}

# ---- Docker ------------------------------------------------------------------------------------------

case_missing_docker_is_offered() {
  live_system
  install_live
  exits 0
  says 'no Docker here'
  says 'install docker.io from Debian'
  not_called 'apt-get install'
}

case_docker_comes_from_debian_when_asked() {
  live_system
  install_live --with-docker
  exits 0
  called 'apt-get install .*docker.io'
  called '^systemctl enable -q --now docker'
}

case_the_examples_image_is_made_with_the_first_configuration() {
  live_system
  echo 'configure_system() { echo "copy mcp.config.json to /etc/mcp-orchestrator" >"$WORK_DIR/configured"; }' >>"$CASE/probes"
  stand_in ldd <<<true
  stand_in docker <<<'case "$1 $2" in "version "*) echo 28.0 ;; "image inspect") exit 1 ;; "import "*) cat >/dev/null ;; esac'
  install_live
  exits 0
  says 'make the image mcp/example:latest'
  called '^docker import .*mcp/example:latest'
  echo 'configure_system() { :; }' >>"$CASE/probes"
  install_live
  called_times 1 '^docker import'
}

dnf_system() {
  live_system
  rm "$CASE/bin/apt-get"
  stand_in dnf <<<true
  printf '%s\n' "$@" >"$CASE/os-release"
}

case_docker_comes_from_amazon_linux_when_asked() {
  dnf_system ID=amzn 'ID_LIKE="fedora"' 'PRETTY_NAME="Amazon Linux 2023"'
  install_live --with-docker
  exits 0
  called '^dnf install -y -q .*docker'
}

case_rhel_has_no_docker_and_says_so() {
  dnf_system ID=rocky 'ID_LIKE="rhel centos fedora"' 'PRETTY_NAME="Rocky Linux 9"'
  install_live
  exits 0
  says 'https://docs.docker.com/engine/install/'
  install_live --with-docker
  exits 1
  says 'Rocky Linux 9 has no Docker of its own'
}

run_cases
