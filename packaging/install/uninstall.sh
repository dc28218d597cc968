# shellcheck shell=bash disable=SC2154 # setup.sh sources this and has the rest
# Taking an installation away again, and looking whether one is whole.

readonly DROPIN=10-systemd-254.conf

# ---- uninstall ---------------------------------------------------------------------------------------

stop_service() {
  here_root || return 0
  systemd_runs || return 0
  if systemctl -q is-active "$SERVICE" || systemctl -q is-enabled "$SERVICE" 2>/dev/null; then
    act "stop $SERVICE; its containers go on running" as_root systemctl -q disable --now "$SERVICE"
  fi
  while read -r unit; do
    case $unit in
      */$SERVICE) ;;
      *.service | *.socket)
        unit=${unit##*/}
        if systemctl -q is-active "$unit" || systemctl -q is-enabled "$unit" 2>/dev/null; then
          act "stop $unit" as_root systemctl -q disable --now "$unit"
        fi
        ;;
    esac
  done <"$(manifest)"
}

# Directories that are the program's own, deepest first.
remove_directories() {
  local dir
  while read -r dir; do
    case $dir in
      */mcp-orchestrator | */mcp-orchestrator/*) as_root rmdir --ignore-fail-on-non-empty "$DESTDIR$dir" 2>/dev/null || true ;;
    esac
  done < <(printf '%s\n' "$PREFIX/share/mcp-orchestrator" "$PREFIX/share/doc/mcp-orchestrator" "$PREFIX/share/doc/mcp-orchestrator/examples" |
    cat - <(sed 's,/[^/]*$,,' "$WORK_DIR/manifest") | sort -ru)
}

remove_files() {
  local file units count
  units=$(units_of "$PREFIX")
  if [ ! -e "$(manifest)" ]; then
    have "nothing installed below $DESTDIR$PREFIX"
    return
  fi
  cp "$(manifest)" "$WORK_DIR/manifest"
  stop_service
  count=$(wc -l <"$WORK_DIR/manifest")
  act "remove $count files below $PREFIX" true
  [ "$DRY_RUN" = no ] || return 0
  while read -r file; do
    [[ $file != /* ]] || as_root rm -f -- "$DESTDIR$file"
  done <"$WORK_DIR/manifest"
  as_root rm -f -- "$DESTDIR$units/$SERVICE.d/$DROPIN" "$(manifest)"
  as_root rmdir --ignore-fail-on-non-empty "$DESTDIR$units/$SERVICE.d" 2>/dev/null || true
  remove_directories
  here_root && systemd_runs || return 0
  as_root systemctl daemon-reload
  as_root journalctl --update-catalog 2>/dev/null || true
}

# Containers hold the work of others as well as ours: they are named, not removed.
say_containers() {
  local count
  here_root || return 0
  count=$(as_docker timeout 20 docker ps -q --filter label=managed-by=mcp-orchestrator --filter label=io.mcp-orchestrator.stack=default 2>/dev/null | grep -c . || true)
  [ "${count:-0}" = 0 ] || note "$count containers of the stack default are still there; this removes them:
        docker rm -f \$(docker ps -aq --filter label=io.mcp-orchestrator.stack=default)"
}

kept_paths() {
  local path
  for path in "$ETC_DIR" /var/lib/mcp-orchestrator /var/lib/mcp-orchestrator-runner; do
    [ ! -e "$DESTDIR$path" ] || echo "$path"
  done
  for path in credstore credstore.encrypted; do
    as_root find "$DESTDIR/etc/$path" -maxdepth 1 -name 'mcp-orchestrator.*' -printf "/etc/$path/%f\n" 2>/dev/null || true
  done
}

remove_user_files() {
  local path
  while read -r path; do
    act "remove $path" as_root rm -rf --one-file-system -- "$DESTDIR$path"
  done < <(kept_paths)
  [ "$DRY_RUN" = no ] || return 0
  for path in /etc/credstore /etc/credstore.encrypted; do
    of_a_package "$path" || as_root rmdir --ignore-fail-on-non-empty "$DESTDIR$path" 2>/dev/null || true
  done
}

# Newer versions of systemd bring such directories along.
of_a_package() {
  here_root || return 1
  if has dpkg-query && dpkg-query -S "$1" >/dev/null 2>&1; then return; fi
  has rpm && rpm -qf "$1" >/dev/null 2>&1
}

uninstall_program() {
  refuse_beside_package
  become_root
  choose_docker_access
  remove_files
  say_containers
  if [ "$PURGE" = yes ]; then
    remove_user_files
    here_root && note "the users and groups stay: files elsewhere may be theirs"
  else
    kept_paths | while read -r path; do have "kept: $path (--purge removes it)"; done
  fi
  [ "$CHANGES" != 0 ] || have "everything; nothing was changed"
}

# ---- check -------------------------------------------------------------------------------------------

PROBLEMS=0

# expect WHAT REMEDY COMMAND...: a line for each.
expect() {
  local what=$1 remedy=$2
  shift 2
  if "$@" >/dev/null 2>&1; then
    have "$what"
  else
    PROBLEMS=$((PROBLEMS + 1))
    printf '%s  miss%s  %s\n        remedy: %s\n' "$RED" "$RESET" "$what" "$remedy"
  fi
}

files_there() {
  local file
  while read -r file; do [ -e "$DESTDIR$file" ] || return 1; done <"$(manifest)"
}
mode_is() { [ "$(as_root stat -c %a "$DESTDIR$2")" = "$1" ]; }
password_there() {
  local dir
  for dir in /etc/credstore /etc/credstore.encrypted; do
    if as_root test -s "$DESTDIR$dir/mcp-orchestrator.dashboard-password"; then
      mode_is 600 "$dir/mcp-orchestrator.dashboard-password"
      return
    fi
  done
  return 1
}
config_good() { as_root "$DESTDIR$PREFIX/bin/mcp-orchestrator" --config "$DESTDIR$ETC_DIR/mcp.config.json" --settings "$DESTDIR$ETC_DIR/settings.conf" validate; }

check_program() {
  local again="run $PROGRAM install again"
  # shellcheck disable=SC2034 # setup.sh's functions use it
  here_root || SUDO=()
  expect "installed below $DESTDIR$PREFIX" "run $PROGRAM install" test -s "$(manifest)"
  [ $PROBLEMS = 0 ] || exit 1
  expect "all $(wc -l <"$(manifest)") files" "$again" files_there
  expect "$ETC_DIR, mode 2770" "$again" mode_is 2770 "$ETC_DIR"
  expect "the dashboard's password, mode 0600" "$again" password_there
  expect "both configuration files are good" "mcp-orchestrator validate names every problem" config_good
  if here_root; then
    expect "user mcp-orchestrator" "$again" getent passwd mcp-orchestrator
    expect "a Docker engine answers" "install or start Docker ($PROGRAM install --with-docker)" engine_version
    if systemd_runs; then
      expect "$SERVICE starts at boot" "systemctl enable $SERVICE" systemctl -q is-enabled "$SERVICE"
      expect "$SERVICE runs" "systemctl start $SERVICE; journalctl -u $SERVICE" systemctl -q is-active "$SERVICE"
    else
      note "no systemd runs here: nothing is started at boot"
    fi
  fi
  [ $PROBLEMS = 0 ] || exit 1
}
