# shellcheck shell=sh
# Changes the node according to the manifest. If a step fails, it undoes the steps before it.
# It does not need the connection, which may have broken, and writes its result to the file
# "result".
trap '' HUP INT TERM PIPE
D=$R/var/lib/nnf-deploy stage=$D/stage new=.nnf-deploy-new old=.nnf-deploy-old retired=.retired-by-nnf-deploy
: >"$stage/undo"
: >"$stage/answer"
run=$(cat "$stage/run")
started=$(date +%s)

one_line() { printf %s "$1" | tr '\n\t' '  ' | cut -c1-400; }
report() { printf 'status\t%s\n' "$(one_line "$1")" >>"$stage/answer"; }
note() { printf 'note\t%s\n' "$(one_line "$1")" >>"$stage/answer"; }

# finish STATE CAUSE HINT: writes the result.
finish() {
  { printf 'result\t%s\t%s\t%s\t%s\n' "$run" "$1" "$(one_line "$2")" "$3"; cat "$stage/answer"; } >"$D/result.new"
  sync "$D/result.new" 2>/dev/null
  mv -f "$D/result.new" "$D/result"
}

# undo: reverts the completed steps in reverse order, and lists failures in $bad.
undo() {
  bad=
  sed -n '1!G;h;$p' "$stage/undo" >"$stage/undo.now" || bad=" $stage/undo"
  while IFS=' ' read -r how path; do
    case $how in
    restore)
      # shellcheck disable=SC3013  # POSIX.1-2024 has -ef, and so have all shells of nodes
      if [ "$R$path$old" -ef "$R$path" ]; then # it was not replaced; mv refuses this
        rm -f "$R$path$old" || bad="$bad $path"
      else
        mv -f "$R$path$old" "$R$path" || bad="$bad $path"
      fi
      ;;
    delete) rm -f "$R$path" || bad="$bad $path" ;;
    unretire) mv -f "$R$path$retired" "$R$path" || bad="$bad $path" ;;
    lost) note "the new version of package $path stays: nnf-deploy has no copy of the previous one, which it did not install" ;;
    disable | stop) systemctl "$how" "$path" 9>&- || bad="$bad $path" ;;
    enable | start) { systemctl daemon-reload && systemctl "$how" "$path" 9>&-; } || bad="$bad $path" ;;
    erase) erase "$path" || bad="$bad package:$path" ;;
    package) rpm -U --oldpackage --replacepkgs "$D/packages/$path.rpm" 9>&- || bad="$bad package:$path" ;;
    esac
  done <"$stage/undo.now"
  : >"$stage/undo"
  unstage "$new" # so that the directories made for them are empty
  if [ -f "$stage/made" ]; then
    sort -r "$stage/made" | while IFS= read -r path; do rmdir "$R$path" 2>/dev/null; done
  fi
  systemctl daemon-reload
}

# backup PATH: backs up the file, so that undo can restore it.
backup() {
  if [ -L "$R$1" ] || [ -e "$R$1" ]; then
    rm -f "$R$1$old"
    ln -T "$R$1" "$R$1$old" 2>/dev/null || cp -pP --remove-destination "$R$1" "$R$1$old" || return 1
    echo "restore $1" >>"$stage/undo"
  else
    echo "delete $1" >>"$stage/undo"
  fi
}

# clear_pending: removes the daemons of this run from the pending ones. Other daemons of an
# interrupted run stay pending.
clear_pending() {
  grep -vxF -f "$stage/daemons" "$D/pending" >"$D/pending.new"
  if [ -s "$D/pending.new" ]; then mv -f "$D/pending.new" "$D/pending"; else rm -f "$D/pending" "$D/pending.new"; fi
}

# unstage SUFFIX: removes the files with this suffix that are beside those of the manifest.
unstage() {
  while IFS=' ' read -r verb _ _ _ path _; do
    case $verb in
    file | binary) rm -f "$R$path$1" ;;
    esac
  done <"$stage/manifest"
}

clean() {
  unstage "$old"
  unstage "$new"
  while IFS=' ' read -r _ path _; do rm -f "$R/$path$old"; done <"$stage/moved"
  rm -rf "$stage"
}

# fail_step STEP CAUSE [HINT]: handles a failed step. It restores the previous state, and
# restarts the daemons that this run has restarted, if they ran before.
fail_step() {
  undo
  if [ -f "$stage/restarted" ]; then
    while read -r unit; do
      grep -qx "$unit" "$stage/ran" 2>/dev/null && { ready "$unit" 120 || bad="$bad $unit"; }
    done <"$stage/restarted"
  fi
  if grep -qx forget "$stage/manifest"; then
    clear_pending
    finish partly "$1: $2" "${3-}"
    clean
    exit 0
  fi
  # If something could not be restored, the daemons stay pending for the next run.
  if [ -z "$bad" ]; then
    clear_pending
    finish old "$1: $2" "${3-}"
  else
    finish mixed "$1: $2; could not restore$bad" 'fix the cause, then run the command again'
  fi
  clean
  exit 0
}

property() { systemctl show --property="$2" "$1" | sed -n "s/^$2=//p"; }

# enters PACKAGE FILE: backs up what a package replaces that was not installed before, such as programs
# that were installed without a package. rpm itself keeps configuration files and ghosts.
enters() {
  rpm -qp --qf '[%{FILEMODES:perms} %{FILEFLAGS:fflags}| %{FILENAMES}\n]' "$2" >"$stage/files" 2>/dev/null 9>&- || return 1
  while IFS=' ' read -r mode flags path; do
    case $mode/$flags in
    d*) [ -d "$R$path" ] || echo "$path" >>"$stage/made" ;;
    */*g*) ;;
    */*c*)
      for path in "$path" "$path.rpmnew"; do
        if [ ! -e "$R$path" ] && [ ! -L "$R$path" ]; then echo "delete $path" >>"$stage/undo"; fi
      done
      ;;
    *)
      backup "$path" || return 1
      echo "moved $path" >>"$stage/moved"
      ;;
    esac
  done <"$stage/files"
  echo "erase $1" >>"$stage/undo"
}

# erase PACKAGE: removes the package from the database of rpm, after enters. The files follow.
erase() {
  for unit in "$1.timer" "$1.socket" "$1.service"; do
    grep -qx "$unit" "$stage/enabled" 2>/dev/null || systemctl disable "$unit" >/dev/null 2>&1 9>&-
    grep -qx "$unit" "$stage/ran" 2>/dev/null || systemctl stop "$unit" >/dev/null 2>&1 9>&-
  done
  rpm -q "$1" >/dev/null 2>&1 9>&- || return 0
  rpm -e --justdb --noscripts --nodeps "$1" 9>&-
}

# installed: the installed versions of the packages of the manifest.
installed() {
  # shellcheck disable=SC1083  # rpm's braces
  while IFS=' ' read -r what _ name; do
    [ "$what" != package ] || rpm -q --qf '%{NAME}\t%{NEVRA}\t%{SHA256HEADER}\n' "$name" 2>&1 9>&-
  done <"$stage/manifest"
}

# packages: installs all packages of the manifest in one transaction.
packages() {
  # The positional parameters are the list of packages.
  set --
  before=$(installed)
  while IFS=' ' read -r what member name; do
    [ "$what" = package ] || continue
    set -- "$@" "$stage/$member"
    if [ -f "$D/packages/$name.rpm" ]; then
      echo "package $name" >>"$stage/undo"
    elif rpm -q "$name" >/dev/null 2>&1; then
      echo "lost $name" >>"$stage/undo"
    else
      output=$(enters "$name" "$stage/$member" 2>&1) || fail_step 'rpm' "cannot back up what $name replaces: $output" 'check whether the file system is full or read-only'
    fi
  done <"$stage/manifest"
  [ $# -gt 0 ] || return 0
  output=$(rpm -U --oldpackage --replacepkgs "$@" 2>&1 9>&-) && return 0
  code=$?
  # dnf gets missing dependencies from the repositories of the node.
  case $output in
  *'ailed dependencies'*) if command -v dnf >/dev/null; then output=$(dnf -y -q install "$@" 2>&1 9>&-) && return 0; code=$?; fi ;;
  esac
  if [ "$code" -ge 128 ]; then # a killed rpm leaves its temporary files
    for file; do
      rpm -qp --qf '[%{FILENAMES}\n]' "$file" 2>/dev/null 9>&- |
        while IFS= read -r path; do rm -f "$R$path;"[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]; done
    done
  fi
  # If rpm was not killed and no package has changed, there is nothing to undo.
  if [ "$code" -lt 128 ] && [ "$(installed)" = "$before" ]; then : >"$stage/undo"; fi
  output=${output:-"exit code $code"}
  fail_step 'rpm' "$(printf '%s\n' "$output" | grep -v '^warning' | tail -n 5)" 'fix what rpm reports, then run the command again'
}

# others PATH: whether the file or link itself belongs to another user than root.
others() { [ "$(stat -c %u "$1")" != "$(id -u)" ]; }

# place MODE OWNER PATH: replaces the file with one rename. Until the directory was protected, other
# users may have replaced the staged file.
place() {
  if [ -L "$R$3$new" ] || [ ! -f "$R$3$new" ] || others "$R$3$new"; then
    echo 'another user has replaced the new file'
    return 1
  fi
  chown -h "$2" "$R$3$new" && chmod "$1" "$R$3$new" && backup "$3" && mv -fT "$R$3$new" "$R$3"
}

# unstore PATH USER: removes the file. If USER is not empty, the directory must belong to this user:
# PATH is what a process of the user reports, and may lead anywhere.
unstore() {
  [ -n "$2" ] || { rm -f "$R$1"; return; }
  [ -d "$R${1%/*}" ] || return 0
  cd "$R${1%/*}" || return 1
  if [ ! -e "./${1##*/}" ] && [ ! -L "./${1##*/}" ]; then return 0; fi
  if [ "$(stat -c %U .)" != "$2" ]; then
    echo "its directory does not belong to $2"
    return 1
  fi
  rm -f "./${1##*/}"
}

# ready UNIT SECONDS: restarts the unit and waits until it is ready. After three automatic
# restarts by systemd it has failed. The time that the old process needs to exit is not
# included, because it may wait for a hook.
ready() {
  before=$(property "$1" InvocationID) first='' counted=0
  systemctl --no-block restart "$1" 9>&- || return 1
  while [ "$counted" -lt $(($2 * 5)) ]; do
    state=$(property "$1" ActiveState)
    if [ "$(property "$1" InvocationID)" != "$before" ]; then
      restarts=$(property "$1" NRestarts)
      first=${first:-${restarts:-0}}
      case $state in
      active) return 0 ;;
      failed) return 1 ;;
      esac
      [ $((${restarts:-0} - first)) -lt 3 ] || return 1
    fi
    [ "$state" = deactivating ] || counted=$((counted + 1))
    sleep 0.2
  done
  return 1
}

: >"$stage/moved"
unready='' hint=''
{ cat "$D/pending" "$stage/daemons" 2>/dev/null | sort -u >"$D/pending.new" && mv -f "$D/pending.new" "$D/pending"; } || fail_step 'prepare' 'cannot write to /var/lib/nnf-deploy' 'check whether the file system is full'
while read -r bin; do
  for unit in "$bin.service" "$bin.socket" "$bin.timer"; do
    if [ "$(property "$unit" ActiveState)" = active ]; then echo "$unit" >>"$stage/ran"; fi
    if [ "$(property "$unit" UnitFileState)" = enabled ]; then echo "$unit" >>"$stage/enabled"; fi
  done
done <"$stage/daemons"

packages
while IFS=' ' read -r what a b c d <&4; do
  case $what in
  file | binary)
    output=$(place "$b" "$c" "$d" 2>&1) || fail_step "$d" "$output"
    ;;
  directory | newdirectory) # MODE OWNER PATH: newdirectory does not change an existing directory
    if [ "$what" = newdirectory ] && ! grep -qx "$c" "$stage/made" 2>/dev/null; then continue; fi
    if [ -L "$R$c" ] && others "$R$c"; then fail_step "$c" 'it is a symbolic link of another user' 'find out what created it, then remove it'; fi
    [ -d "$R$c" ] || echo "$c" >>"$stage/made"
    output=$({ mkdir -p "$R$c" && chown "$b" "$R$c" && chmod "$a" "$R$c"; } 2>&1) || fail_step "$c" "$output"
    ;;
  retire) # PATH
    output=$(mv -fT "$R$a" "$R$a$retired" 2>&1) || fail_step "$a" "$output"
    echo "unretire $a" >>"$stage/undo"
    ;;
  remove) # PATH
    if [ -e "$R$a" ] || [ -L "$R$a" ]; then
      output=$(backup "$a" 2>&1 && rm -f "$R$a" 2>&1) || fail_step "$a" "$output"
      echo "moved $a" >>"$stage/moved"
    fi
    ;;
  drop) # PATH: removes the file without backup
    output=$(rm -f "$R$a" 2>&1) || fail_step "$a" "$output"
    ;;
  unstore) # PATH [USER]: drop in a directory of another user, who must not be able to stop the run
    output=$(unstore "$a" "$b" 2>&1) || note "$a stays: $output"
    ;;
  rmdir) rmdir "$R$a" 2>/dev/null ;;
  unit) # PROGRAM: replaces its own units by running "PROGRAM install"
    for path in "/etc/systemd/system/$a.service" "/etc/systemd/system/$a.socket"; do
      output=$(backup "$path" 2>&1 && rm -f "$R$path" 2>&1) || fail_step "$path" "$output"
      echo "moved $path" >>"$stage/moved"
    done
    output=$("$R/usr/bin/$a" install 2>&1 9>&-) || fail_step "$a install" "$output"
    ;;
  deregister) # PROGRAM: stops it and removes its own units by running "PROGRAM remove"
    if [ -x "$R/usr/bin/$a" ]; then output=$("$R/usr/bin/$a" remove 2>&1 9>&-) || note "$a remove: $output"; fi
    ;;
  erase) # PACKAGE
    output=$(rpm -e "$a" 2>&1 9>&-) || fail_step "rpm -e $a" "$output"
    ;;
  discard) # PROGRAM: removes the copy of its package; it is not pending after this run
    rm -f "$D/packages/$a.rpm"
    echo "$a" >>"$stage/daemons"
    ;;
  renews) # PROGRAM: the installed version can renew its token
    timeout 60 "$R/usr/bin/$a" status -o json 2>/dev/null 9>&- | grep -q '^ *"renewal": {' ||
      fail_step "$a" 'this version cannot renew a token of its own account' 'install the current version'
    ;;
  reload) output=$(systemctl daemon-reload 2>&1) || fail_step 'systemctl daemon-reload' "$output" ;;
  enable)
    output=$(systemctl reenable "$a" 2>&1) || fail_step "systemctl enable $a" "$output"
    ;;
  enable-now) # UNIT
    if [ "$(property "$a" LoadState)" = not-found ]; then
      note "$a does not exist in the installed version"
      continue
    fi
    [ "$(property "$a" UnitFileState)" = enabled ] || echo "disable $a" >>"$stage/undo"
    [ "$(property "$a" ActiveState)" = active ] || echo "stop $a" >>"$stage/undo"
    output=$({ systemctl reenable "$a" && systemctl start "$a"; } 2>&1 9>&-) || fail_step "systemctl enable --now $a" "$output"
    ;;
  disable-now) # UNIT
    [ "$(property "$a" UnitFileState)" != enabled ] || echo "enable $a" >>"$stage/undo"
    [ "$(property "$a" ActiveState)" != active ] || echo "start $a" >>"$stage/undo"
    # systemctl refuses to disable a unit whose file has been deleted.
    output=$({ timeout 660 systemctl stop "$a" && { systemctl disable "$a" || { systemctl daemon-reload && [ "$(property "$a" LoadState)" = not-found ]; }; }; } 2>&1 9>&-) || fail_step "systemctl disable --now $a" "$output"
    ;;
  stop) # UNIT
    output=$(timeout 660 systemctl stop "$a" 2>&1 9>&-) || fail_step "systemctl stop $a" "$output"
    ;;
  start)
    output=$(systemctl start "$a" 2>&1 9>&-) || fail_step "systemctl start $a" "$output" "see journalctl -u $a on the node"
    ;;
  ready) # UNIT SECONDS [CLIENT]
    echo "$a" >>"$stage/restarted"
    restarted=$(date +%s)
    if ! ready "$a" "$b"; then
      status=$(property "$a" StatusText)
      why="$a is not ready after $(($(date +%s) - restarted)) s${status:+: $status}"
      # Leave out warnings of an old systemd about unknown directives: they would hide the cause.
      journalctl -u "$a" -n 100 --no-pager -o cat --since "@$started" 2>/dev/null |
        grep -v ': Unknown key ' | tail -n 12 | cut -c1-400 | tr '\t' ' ' | sed 's/^/journal	/' >>"$stage/answer"
      if grep -qx "$a" "$stage/ran" 2>/dev/null; then
        fail_step 'start' "$why" "see journalctl -u $a on the node"
      fi
      # The old version did not run either, or there was none: do not restore it. The next run
      # retries.
      unready=${unready:-$why} hint=${hint:-"see journalctl -u $a on the node; fix the cause, then run the command again"}
      continue
    fi
    status=$(property "$a" StatusText)
    if [ -n "$status" ]; then report "$a: $status"; fi
    # Call the client as users do. A failure is only a note, because the site may use another
    # socket.
    if [ -n "$c" ] && [ -x "$R/usr/bin/$c" ]; then
      output=$(timeout 20 "$R/usr/bin/$c" version 2>&1 9>&-) || note "${a%.service} runs, but $c gets no answer from it: $output"
    fi
    ;;
  forget) # removes the state directory when the result is confirmed, unless it has packages of other daemons
    rmdir "$D/packages" 2>/dev/null
    [ -e "$D/packages" ] || { printf '%s\n' "$run" >"$D/forget.new" && mv -f "$D/forget.new" "$D/forget"; }
    ;;
  esac
done 4<"$stage/manifest"

# Keep the installed packages, so that the next run can restore them.
if grep -q '^package ' "$stage/manifest"; then
  mkdir -p "$D/packages"
  while IFS=' ' read -r what member name; do
    [ "$what" = package ] && mv -f "$stage/$member" "$D/packages/$name.rpm"
  done <"$stage/manifest"
fi
clear_pending
if [ -n "$unready" ]; then finish unready "$unready" "$hint"; else finish ok '' ''; fi
clean
